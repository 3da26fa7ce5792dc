"""SyncHubClient: what HubClient promises, for scripts that wait."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, environment, hub_app, open_streams, until
from scripted import Silent

from hub import Hub, NoHub, Received, SyncHubClient
from hub.client.discovery import Disconnected
from hub.commands.call import Call

RUNNING: list[Call] = []


def prepare(hub: Hub) -> None:
    @hub.command("a:slow")
    async def slow(call: Call) -> Any:
        """Wait."""
        RUNNING.append(call)
        try:
            await asyncio.Event().wait()
        finally:
            RUNNING.remove(call)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare, stop_timeout=0.1) as inside:
        yield inside


async def script(work: Any) -> Any:
    """Run what waits beside the hub that lives in this loop."""
    return await asyncio.to_thread(work)


def threads() -> int:
    return sum(thread.name == "hub-client" for thread in threading.enumerate())


async def test_a_script_publishes_calls_and_follows(hub: HubInside) -> None:
    def work() -> None:
        with SyncHubClient(hub.url, topics=["a:*"]) as client:
            before = client.cursor
            ids = [client.publish("a:b", n)["id"] for n in range(3)]
            items = [item for _, item in zip(ids, client, strict=False)]
            assert all(isinstance(item, Received) for item in items)
            assert [item.envelope["id"] for item in items] == ids
            assert client.cursor == items[-1].envelope["cursor"] != before
            assert client.call("hub:ping", {"n": 1}) == {"pong": True, "args": {"n": 1}}
            assert client.state(["a:*"])["items"] == []
            assert client.ask("Go?", ["yes", "no"], timeout=1, default="no").answer == "no"
            with pytest.raises(TimeoutError, match=r"No event has come in 0\.01 s\."):
                client.receive(0.01)
            client.publish("a:b", 3)
            assert client.receive(10).envelope["payload"]["data"] == 3  # a wait that was given up has taken nothing
        with pytest.raises(RuntimeError, match="outside"):
            client.call("hub:ping")
        assert threads() == 0

    await script(work)
    await until(lambda: not open_streams(hub))


async def test_entered_again_it_goes_on_behind_what_was_handed_over(hub: HubInside) -> None:
    def work() -> None:
        client = SyncHubClient(hub.url)
        with client:
            with pytest.raises(RuntimeError, match="already"):
                client.__enter__()
            for n in range(3):
                client.publish("a:b", n)
            assert client.receive().envelope["payload"]["data"] == 0
            client._coming = client._begin(client._next())
            client._has_ended(client._coming)  # it is there, and was not handed over
            first = client.cursor
        assert client.cursor == first
        with client:
            assert [client.receive().envelope["payload"]["data"] for _ in range(2)] == [1, 2]

    await script(work)


async def test_entering_tells_what_went_wrong_and_leaves_nothing_behind() -> None:
    def work() -> None:
        with pytest.raises(NoHub), SyncHubClient("http://127.0.0.1:1"):
            raise AssertionError("entered")
        assert threads() == 0

    await script(work)


async def test_who_waits_in_another_thread_is_told_when_it_is_left(hub: HubInside) -> None:
    ended: list[Any] = []

    def follow(client: SyncHubClient) -> None:
        ended.append(list(client))

    def wait(client: SyncHubClient) -> None:
        with pytest.raises(Disconnected, match=r"The client was closed\."):
            client.call("a:slow")
        ended.append("told")

    def work() -> None:
        with SyncHubClient(hub.url) as client:
            others = [threading.Thread(target=target, args=[client]) for target in (follow, wait)]
            for other in others:
                other.start()
            while len(open_streams(hub)) < 2:
                client.call("hub:ping")
        for other in others:
            other.join()
        assert sorted(map(str, ended)) == ["[]", "told"]

    await script(work)


INTERRUPTED = """
import os, signal, sys, threading
from hub import SyncHubClient

url, what = sys.argv[1:]
client = SyncHubClient(url)
try:
    if what != "enter":
        client.__enter__()
        print("entered", flush=True)
    {"enter": client.__enter__, "call": lambda: client.call("a:slow"), "iterate": lambda: next(client)}[what]()
except KeyboardInterrupt:
    if what == "iterate":
        client.publish("a:b", "behind")
        print(next(client).data)
    client.__exit__()
    print(threading.active_count())
"""


@pytest.mark.parametrize("what", ["enter", "call", "iterate"])
async def test_ctrl_c_ends_a_wait_and_loses_nothing(hub: HubInside, silent: Silent, what: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", INTERRUPTED, silent.url if what == "enter" else hub.url, what,
        env=environment(), stdout=subprocess.PIPE,
    )  # fmt: skip
    await until({"enter": lambda: silent.connections, "call": lambda: RUNNING,
                 "iterate": lambda: open_streams(hub)}[what])  # fmt: skip
    os.kill(process.pid, signal.SIGINT)
    out, _ = await process.communicate()
    words = out.decode().split()
    assert words == {"enter": ["1"], "call": ["entered", "1"], "iterate": ["entered", "behind", "1"]}[what]
    await until(lambda: not RUNNING and not open_streams(hub))


FORKED = """
import os, sys, warnings
from hub import SyncHubClient

warnings.simplefilter("ignore", DeprecationWarning)
with SyncHubClient(sys.argv[1]) as client:
    pid = os.fork()
    try:
        print(client.call("hub:ping")["pong"], flush=True)
    except RuntimeError as error:
        print(error, flush=True)
        with SyncHubClient(sys.argv[1]) as other:
            print(other.call("hub:ping")["pong"], flush=True)
    if pid:
        os.waitpid(pid, 0)
"""


async def test_a_fork_does_not_take_it_along(hub: HubInside) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKED, hub.url, env=environment(), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    sentence = "A fork does not take this client along; make another one in the child."
    assert sorted(out.decode().splitlines()) == [sentence, "True", "True"]
    assert process.returncode == 0
