"""SIGTERM while application code does not let go: callers are answered, the chain is closed, the process ends."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from logs import everything
from running import Raw, Talk, hub_app, hub_process, open_streams, run_hub, talk, until

from hub.web import streams

WORK = '''
import asyncio
import threading
import time

def setup(hub):
    object.__setattr__(hub.config, "stop_timeout", 0.2)

    @hub.command("work:stubborn")
    async def stubborn(call):
        """Swallow every cancellation."""
        await hub.publish("work:running", 1)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    @hub.command("work:thread")
    async def thread(call):
        """Wait in a thread, which nobody can end."""
        await hub.publish("work:running", 1)
        await asyncio.to_thread(threading.Event().wait)

    @hub.command("work:block")
    async def block(call):
        """Block the event loop."""
        open("blocked", "w").close()
        time.sleep(60)
'''
LIFE = """
import asyncio

def setup(hub):
    async def stubborn(*args):
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    hub.spawn(stubborn)
    hub.on("a:x")(stubborn)
    hub.on_stop.append(stubborn)
"""
# Modules that take a protection out of the hub that loads them.
NOBODY_GIVEN_UP = """
def setup(hub):
    from hub.commands import supervised
    supervised.GRACE = 3600.0
"""
NOBODY_WATCHES = """
def setup(hub):
    from hub.web.shutdown import Ending
    Ending._watch = lambda self: None
"""

GOES_ON = """
def setup(hub):
    from hub.web.access.guard import Guard
    Guard.closing = property(lambda self: False, lambda self, closing: None)
"""
IDLE_STAYS = """
def setup(hub):
    from hub.web import program
    program.take_nothing_new = lambda server: None
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("running.PATIENCE", 10.0)
    modules = {"work": WORK, "life": LIFE, "nobody_given_up": NOBODY_GIVEN_UP, "nobody_watches": NOBODY_WATCHES}
    modules |= {"goes_on": GOES_ON, "idle_stays": IDLE_STAYS}
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)


async def begun(client: Talk, command: str, times: int = 1) -> list[str]:
    ids = [await client.begin(command) for _ in range(times)]
    for _ in ids:
        assert await client.name() == "work:running"
    return ids


async def blocked(client: Talk, tmp_path: Path) -> None:
    await client.begin("work:block")
    await until((tmp_path / "blocked").exists, "that it blocks")


def outcomes(state_dir: Path) -> list[str]:
    return [r["details"]["outcome"] for r in everything(state_dir) if r["action"] == "command.finished"]


async def chain_is_closed(state_dir: Path, tmp_path: Path) -> None:
    assert (await run_hub(tmp_path, "audit", "verify", str(state_dir)))[0] == 0
    assert everything(state_dir)[-1]["action"] == "hub.stopped"


@pytest.mark.parametrize("command", ["work:stubborn", "work:thread"])
async def test_a_call_that_does_not_let_go_is_answered_and_does_not_hold_up_the_end(
    command: str, tmp_path: Path
) -> None:
    async with hub_process(tmp_path, "--load", "work") as hub, talk(hub.url) as client:
        over_http = asyncio.create_task(hub.http.post(f"{hub.url}api/commands/{command}", json={}))
        assert await client.name() == "work:running"
        ids = await begun(client, command, 40)  # more than there are threads
        hub.signal()
        assert await client.end() == 1001
        assert {client.answers[id]["payload"]["code"] for id in ids} == {"shutting_down"}
        assert (await (await over_http).json())["code"] == "shutting_down"
        assert await hub.ended() == 0
    await chain_is_closed(hub.state_dir, tmp_path)
    assert outcomes(hub.state_dir) == ["shutting_down"] * 41


async def test_weakened_without_giving_up_nobody_is_answered(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "work", "--load", "nobody_given_up") as hub, talk(hub.url) as client:
        await begun(client, "work:stubborn")
        hub.signal()
        await client.end()
        assert client.answers == {}
        assert await hub.ended() == 0  # the watch remains
    assert outcomes(hub.state_dir) == []


@pytest.mark.parametrize("what", ["a call", "background work"])
async def test_weakened_without_the_watch_the_process_stays_until_a_second_signal(what: str, tmp_path: Path) -> None:
    flags = ("--load", "work", "--load", "nobody_watches", *(("--load", "life") if what != "a call" else ()))
    async with hub_process(tmp_path, *flags, status=128 + signal.SIGTERM) as hub, talk(hub.url) as client:
        if what == "a call":
            await begun(client, "work:thread")
        hub.signal()
        await until(lambda: everything(hub.state_dir)[-1]["action"] == "hub.stopped", "that it has stopped")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hub.process.wait(), 1.5)
        hub.signal()


async def test_background_work_and_listeners_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "work", "--load", "life") as hub, talk(hub.url) as client:
        await client.call("hub:publish", event="a:x", data=1)
        hub.signal()
        assert await client.end() == 1001
        assert await hub.ended() == 0
    await chain_is_closed(hub.state_dir, tmp_path)


async def test_code_that_blocks_the_event_loop_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "work") as hub, talk(hub.url) as client:
        await blocked(client, tmp_path)
        hub.signal()
        assert await hub.ended() == 0
    await chain_is_closed(hub.state_dir, tmp_path)
    assert everything(hub.state_dir)[-1]["details"]["forced"] is True


async def test_who_does_not_answer_and_who_sends_half_a_request_are_not_waited_for_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has used up of the time, the next does not get."""
    monkeypatch.setattr(streams, "LINGER", 0.2)
    async with hub_app(tmp_path / "state") as hub:
        assert 0.0 < await streams.goodbye(hub.app) <= 0.2
        async with Raw(hub.port) as silent:
            await silent.upgrade()
            (stream,) = open_streams(hub)
            stuck = asyncio.create_task(asyncio.Event().wait())
            monkeypatch.setattr(type(stream), "answering", lambda self: [stuck])
            assert await streams.goodbye(hub.app) == 0.0
            stuck.cancel()


async def test_stuck_clients_do_not_keep_a_hub_from_a_clean_end(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, Raw(hub.port) as silent, Raw(hub.port) as half:
        await silent.upgrade()
        await half.write(
            b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{" % hub.port
        )
        hub.signal()
        assert await hub.ended() == 0
    await chain_is_closed(hub.state_dir, tmp_path)
    assert "forced" not in everything(hub.state_dir)[-1]["details"]


async def test_a_second_signal_ends_a_blocked_hub_at_once(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--load", "work", status=128 + signal.SIGTERM) as hub, talk(hub.url) as client:
        await blocked(client, tmp_path)
        ended = asyncio.create_task(hub.ended())
        while not ended.done():  # two that come at the same time are one
            with contextlib.suppress(ProcessLookupError):
                os.kill(hub.process.pid, signal.SIGTERM)
            await asyncio.sleep(0.01)
    assert everything(hub.state_dir)[-1]["action"] == "command.called"  # nobody had the time to say goodbye


def publishing(port: int) -> bytes:
    body = b'{"event":"a:b","data":1}'
    head = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n" % port
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_that_stops_takes_nothing_new_from_who_is_connected(weakened: bool, tmp_path: Path) -> None:
    """A client that does not answer its close keeps the hub for some seconds."""
    flags = ("--load", "goes_on", "--load", "idle_stays") if weakened else ()
    async with hub_process(tmp_path, *flags) as hub, Raw(hub.port) as silent, Raw(hub.port) as busy:
        await silent.upgrade("?topics=no:such")
        await busy.write(publishing(hub.port))
        assert b" 200 " in await busy.read()
        hub.signal()
        await silent.frame()  # it is stopping now
        answers: list[bytes] = []
        while len(answers) < 100:
            with contextlib.suppress(ConnectionError):
                await busy.write(publishing(hub.port))
            if not (answer := await busy.read()):
                break
            answers.append(answer)
        assert len(answers) == (100 if weakened else 0)
        assert await hub.ended() == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_running_is_answered_and_closes_its_connection(weakened: bool, tmp_path: Path) -> None:
    flags = ("--load", "work", *(("--load", "goes_on") if weakened else ()))
    async with hub_process(tmp_path, *flags) as hub, talk(hub.url) as client, Raw(hub.port) as raw:
        await raw.write(publishing(hub.port).replace(b"/api/events", b"/api/commands/work:stubborn"))
        assert await client.name() == "work:running"
        hub.signal()
        answer = await raw.read()
        assert b" 503 " in answer
        assert (b"\r\nConnection: close\r\n" in answer) is not weakened
        assert await hub.ended() == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_connection_on_which_nothing_is_asked_is_closed_before_the_hub_has_ended(
    weakened: bool, tmp_path: Path
) -> None:
    """So that nobody sends what is not read any more."""
    flags = ("--load", "idle_stays") if weakened else ()
    async with hub_process(tmp_path, *flags) as hub, Raw(hub.port) as silent, Raw(hub.port) as idle:
        await silent.upgrade("?topics=no:such")
        await idle.write(publishing(hub.port))
        assert b" 200 " in await idle.read()
        hub.signal()
        closing = asyncio.create_task(idle.read())
        await silent.frame()  # its close, which it does not answer
        await asyncio.wait({closing}, timeout=0.5)
        assert closing.done() is not weakened
        assert await closing == b""
        assert await hub.ended() == 0
