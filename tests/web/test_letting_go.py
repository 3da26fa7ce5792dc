"""Who has gone leaves nothing behind that only the garbage collector would find: it looks every few minutes."""

import asyncio
import gc
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any

import pytest
from aiohttp import StreamReader
from running import HubInside, Raw, handshake, hub_app, open_streams, until

from hub.commands import session
from hub.commands.call import Call
from hub.web import answers, streams
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
        monkeypatch.setattr(answers, "let_go", lambda error: None)
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


TOO_MUCH = json.dumps({"any": [{"a": 1}] * 130_990}, separators=(",", ":")).encode()  # where it is to go out again
REFUSED = {
    "an event that would go out too large": ("api/events", b'{"event":"a:b","data":%s}' % TOO_MUCH, 413),
    "events that do not fit": ("api/events", b'[{"event":"a:b"},{"event":"no name","data":1}]', 422),
    "an answer that is too large": ("api/commands/test:large", b"{}", 500),
    "args that are too large": ("api/commands/hub:ping", TOO_MUCH, 413),
    "args that do not fit": ("api/commands/hub:state", b'{"no": 1}', 422),
    "no JSON": ("api/events", b'{"event":', 400),
    "no such command": ("api/commands/no:such", b"{}", 404),
    "a command that fails": ("api/commands/test:fails", b"{}", 500),
    "a command that ends itself": ("api/commands/test:exits", b"{}", 500),
}


@pytest.fixture
async def failing(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as inside:

        @inside.hub.command("test:fails")
        async def fails(call: Call) -> None:
            raise KeyError("of the application")

        @inside.hub.command("test:large")
        async def large(call: Call) -> list[str]:
            return ["x" * 1000] * 1100

        @inside.hub.command("test:exits")
        async def exits(call: Call) -> None:
            sys.exit(1)

        yield inside


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_is_left_of_what_was_refused(name: str, failing: HubInside, unreachable: list[object]) -> None:
    """It would hold all that was in hand: of a body of 1 MiB twenty times as much."""
    path, body, status = REFUSED[name]
    await failing.post("api/commands/hub:ping", {})
    for _ in range(VISITS):
        assert (await failing.post(path, body)).status == status
    assert left_errors(unreachable) == []


async def test_nor_where_a_frame_is_refused(failing: HubInside, unreachable: list[object]) -> None:
    async with Raw(failing.port) as raw:
        await raw.upgrade("?topics=none:*")
        for name in ("test:fails", "test:exits", "no:such", "hub:subscribe"):
            frame: dict[str, Any] = {"type": "command", "id": name, "payload": {"command": name, "args": {}}}
            await raw.send(TEXT, json.dumps(frame).encode())
            assert b'"error"' in (await raw.frame() or (0, b""))[1]
        assert left_errors(unreachable) == []


@pytest.mark.parametrize("module", [answers, session])
async def test_weakened_errors_that_know_themselves_stay(
    module: ModuleType, failing: HubInside, unreachable: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "let_go", lambda error: None)
    first = next(iter(REFUSED))
    with pytest.raises(AssertionError, match=r"== \[\]"):
        await (
            test_nor_where_a_frame_is_refused(failing, unreachable)
            if module is session
            else test_nothing_is_left_of_what_was_refused(first, failing, unreachable)
        )


def left_errors(unreachable: list[object]) -> list[object]:
    gc.collect()
    return [found for found in unreachable if isinstance(found, BaseException | FrameType | TracebackType)]
