"""A client that somebody else wrote: the `ws` package of Node, which the seed is written for."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE, HubInside, hub_app, hub_process, send_signal, until

PROGRAM = Path(__file__).parent / "foreign" / "client.cjs"
PLACES = ("/usr/share/nodejs", "/usr/lib/nodejs", "/usr/local/lib/node_modules", "/usr/lib/node_modules")


@pytest.fixture(scope="session")
def node() -> str:
    """Node, if it has the `ws` package: from NODE_PATH, from Debian's node-ws, or from a global npm install."""
    program = shutil.which("node") or shutil.which("nodejs")
    if program is None:
        pytest.skip("there is no Node on this machine")
    found = subprocess.run([program, "-e", "require('ws')"], env=environment(), capture_output=True, check=False)
    if found.returncode:
        pytest.skip("Node has no package ws on this machine (Debian: node-ws)")
    return program


def environment() -> dict[str, str]:
    return {**os.environ, "NODE_PATH": ":".join([*os.environ.get("NODE_PATH", "").split(":"), *PLACES])}


class Foreign:
    """The other program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[str] = []

    async def next(self, what: str) -> Any:
        """What it says next about this; what else it says is skipped, but remembered."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            while line := await self.process.stdout.readline():
                told = json.loads(line)
                self.seen.append(told["what"])
                if told["what"] == what:
                    return told["value"]
        raise AssertionError(f"it ended, having seen {self.seen}")

    async def say(self, say: str, send: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"say": say, "send": send}).encode() + b"\n")
        await self.process.stdin.drain()


@asynccontextmanager
async def foreign(node: str, port: int, manner: str = "", path: str = "ws") -> AsyncIterator[Foreign]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(node, str(PROGRAM), f"ws://127.0.0.1:{port}/{path}", manner),
        env=environment(),
        stdin=pipe,
        stdout=pipe,
        limit=2**24,
    )
    try:
        yield Foreign(process)
    finally:
        send_signal(process, signal.SIGKILL)
        await process.communicate()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, heartbeat=0.2) as running:
        yield running


def ping(id: str, **args: Any) -> dict[str, Any]:
    return {"type": "command", "id": id, "payload": {"command": "hub:ping", "args": args}}


async def test_it_connects_gets_events_and_calls(node: str, hub: HubInside) -> None:
    async with foreign(node, hub.port) as client:
        assert await client.next("open") == ""  # it offers permessage-deflate, and the hub takes no extension
        for n in range(3):
            await hub.hub.publish("a:x", {"n": n, "text": "grüße \u2028 😀"})
        events = [await client.next("text") for _ in range(3)]
        assert [e["payload"]["data"] for e in events] == [{"n": n, "text": "grüße \u2028 😀"} for n in range(3)]
        await client.say("text", ping("1", text="grüße 😀"))
        answer = await client.next("text")
        assert (answer["type"], answer["id"]) == ("response", "1")
        assert answer["payload"]["args"] == {"text": "grüße 😀"}
        await client.say("text", "{")
        assert (await client.next("text"))["payload"]["code"] == "invalid_json"


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 200_000])
async def test_it_reads_frames_of_every_length(node: str, hub: HubInside, size: int) -> None:
    async with foreign(node, hub.port) as client:
        await client.next("open")
        await hub.hub.publish("a:x", "x" * 10)
        first = await client.next("text")
        envelope = len(json.dumps(first, separators=(",", ":"))) - 10
        await hub.hub.publish("a:x", "x" * max(1, size - envelope))
        assert set((await client.next("text"))["payload"]["data"]) == {"x"}


async def test_it_is_pinged_and_stays(node: str, hub: HubInside) -> None:
    async with foreign(node, hub.port) as client:
        for _ in range(4):
            await client.next("ping")
        assert hub.clients("websocket") == 1


async def test_it_is_gone_if_it_does_not_pong(node: str, hub: HubInside) -> None:
    async with foreign(node, hub.port, "mute") as client:
        await client.next("ping")
        assert (await client.next("close"))["code"] == 1006
        await until(lambda: hub.counted("hub_disconnections_total", "heartbeat") == 1)


async def test_it_understands_the_close_codes(node: str, hub: HubInside) -> None:
    async with foreign(node, hub.port) as client:
        await client.next("open")
        await client.say("binary", "bytes")
        assert (await client.next("close"))["code"] == 1003
    async with foreign(node, hub.port) as client:
        await client.next("open")
        await client.say("text", "x" * 65537)
        assert (await client.next("close"))["code"] == 1009
    async with foreign(node, hub.port) as client:
        await client.next("open")
        await client.say("close", "bye")
        assert (await client.next("close"))["code"] == 1000


async def test_it_is_refused_before_the_upgrade(node: str, hub: HubInside) -> None:
    async with foreign(node, hub.port, path="ws?after=nonsense") as client:
        assert await client.next("refused") == 400


async def test_it_sees_1001_when_the_hub_stops(node: str, tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub, foreign(node, hub.port) as client:
        await client.next("open")
        hub.signal()
        assert (await client.next("close"))["code"] == 1001
        assert await hub.ended() == 0
