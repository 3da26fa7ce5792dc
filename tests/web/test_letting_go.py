"""Who has gone leaves nothing behind that only the garbage collector would find: it looks every few minutes."""

import asyncio
import gc
import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import StreamReader
from running import Raw, handshake, hub_app, open_streams, until

from hub.web import answers, signed, streams
from hub.web.ws.frames import CLOSE, TEXT

VISITS = 5
# Before Python 3.12 a transport of asyncio's knows itself, closed or not.
LEFT = (streams.Stream, asyncio.Transport) if sys.version_info >= (3, 12) else (streams.Stream,)
COMMANDS = {"hub:ping": {}, "hub:subscribe": {"topics": ["a:*"]}, "hub:provide": {"commands": [{"name": "a:b"}]}}


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the collector finds, when it is asked, in place of what it would take away."""
    gc.collect()
    gc.freeze()  # what all the tests before have left is not looked through again
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def polite(port: int) -> None:
    async with Raw(port) as raw:
        await raw.upgrade()
        await raw.send(CLOSE, b"")
        await raw.close_code()


async def calling(port: int) -> None:
    async with Raw(port) as raw:
        await raw.upgrade("?topics=none:*")
        for name, args in COMMANDS.items():
            command = {"type": "command", "id": name, "payload": {"command": name, "args": args}}
            await raw.send(TEXT, json.dumps(command).encode())
            await raw.frame()


async def reset(port: int) -> None:
    async with Raw(port) as raw:
        await raw.upgrade()
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def violating(port: int) -> None:
    async with Raw(port) as raw:
        await raw.write(handshake(port) + b"\x81\x05never")  # not masked
        while await raw.read():
            pass


async def listening(port: int) -> None:
    async with Raw(port) as raw:
        await raw.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
        await raw.read()


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("visit", [polite, calling, reset, violating, listening])
async def test_nothing_is_left_of_a_client(
    visit: object, weakened: bool, tmp_path: Path, unreachable: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(streams.Stream, "let_go", lambda stream: None)
    async with hub_app(tmp_path) as hub:
        for _ in range(VISITS):
            await visit(hub.port)  # type: ignore[operator]
        await until(lambda: not open_streams(hub), "the end of all connections")
        await asyncio.sleep(0)  # asyncio's own step behind connection_lost
        gc.collect()
        left = [type(found).__name__ for found in unreachable if isinstance(found, LEFT)]
    assert (len(left) >= VISITS) is weakened, left


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("path", ["api/events", "api/commands/hub:ping", "hooks/claude-code", "hooks/github"])
async def test_nothing_is_left_of_a_body_that_never_came_whole(
    path: str, weakened: bool, tmp_path: Path, unreachable: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold what has come of it: a thousand of them as many megabytes."""
    if weakened:
        for module in (answers, signed):
            monkeypatch.setattr(module, "anew", lambda error: error)
    async with hub_app(tmp_path, auth="token" if path == "hooks/github" else "local") as hub:
        hub.hub.github_secret = b"swordfish"
        head = [f"POST /{path} HTTP/1.1", f"Host: 127.0.0.1:{hub.port}", "Content-Type: application/json"]
        head += ["Content-Length: 100000", f"X-Hub-Signature-256: sha256={'0' * 64}"]
        server = hub.runner.server
        assert server is not None
        for _ in range(VISITS):
            async with Raw(hub.port) as raw:
                await raw.write("\r\n".join([*head, "", ""]).encode() + b"x" * 50_000)
                await until(lambda: any(found._current_request for found in server.connections), "the request")
            await until(lambda: not server.connections, "the end of the connection")
        await asyncio.sleep(0)
        gc.collect()
        left = [found for found in unreachable if isinstance(found, StreamReader)]
        assert (len(left) >= VISITS) is weakened, left
