"""A client that has said all it has to say, and so has closed its half of the connection, gets its answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asked import event
from running import PATIENCE, Raw, hub_app, hub_process, until

from hub import Hub
from hub.commands.call import Call
from hub.web.access import reader
from hub.web.keys import GUARD


@asynccontextmanager
async def inside(tmp_path: Path) -> AsyncIterator[int]:
    """On asyncio's own loop."""
    async with hub_app(tmp_path, deadline=1.0) as hub:
        yield hub.port


@asynccontextmanager
async def alone(tmp_path: Path) -> AsyncIterator[int]:
    """On uvloop, if there is one."""
    async with hub_process(tmp_path) as hub:
        yield hub.port


HUBS: list[Any] = [inside, alone]


def request(port: int, target: str, body: Any = None) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(text)}", "", ""]).encode() + text


async def said(port: int, *parts: bytes) -> bytes:
    """Send these one after the other, then nothing more; all that comes back."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        streams[1].write(part)
        await streams[1].drain()
        await asyncio.sleep(0)
    streams[1].write_eof()
    answer = await asyncio.wait_for(streams[0].read(), PATIENCE)
    streams[1].close()
    return answer


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_answer_comes(tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(reader._Reader, "eof_received", lambda self: False)
    async with hub_app(tmp_path) as hub:
        answer = await said(hub.port, request(hub.port, "/api/commands/hub:ping", {}))
    assert answer.startswith(b"HTTP/1.1 200 ") is not weakened


@pytest.mark.parametrize("hub", HUBS)
async def test_every_kind_of_answer_comes(hub: Callable[..., Any], tmp_path: Path) -> None:
    async with hub(tmp_path) as port:
        for target, body, status in (
            ("/api/events", event(), 200),
            ("/api/events", {"event": "x"}, 422),
            ("/api/commands/hub:ping", {"a": "x" * 200_000}, 200),
            ("/api/events?limit=1", None, 200),
            ("/healthz", None, 200),
            ("/", None, 200),
            ("/nothing", None, 404),
        ):
            whole = request(port, target, body)
            for parts in ((whole,), (whole[:30], whole[30:])):
                assert (await said(port, *parts)).startswith(b"HTTP/1.1 %d " % status), target
        assert await said(port) == b""
        assert (await said(port, b"nonsense\r\n\r\n")).split()[1] == b"400"


async def test_several_requests_are_all_answered(tmp_path: Path) -> None:
    def slow(hub: Hub) -> None:
        @hub.command("test:wait", effect="read")
        async def wait(call: Call) -> None:
            await release.wait()

    release = asyncio.Event()
    async with hub_app(tmp_path, deadline=1.0, prepare=slow) as hub:
        port = hub.port
        first = request(port, "/api/commands/test:wait", {})
        reading = asyncio.create_task(said(port, first, request(port, "/healthz") * 4))
        await until(lambda: any(one.half_closed for one in hub.app[GUARD].accepted.connections))  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        release.set()
        assert (await reading).count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize("hub", HUBS)
async def test_half_a_request_is_nothing(hub: Callable[..., Any], tmp_path: Path) -> None:
    async with hub(tmp_path) as port:
        whole = request(port, "/api/events", event())
        for part in (whole[:20], whole[:-1]):
            assert not (await said(port, part)).startswith(b"HTTP/1.1 200")
        assert b'"events":[]' in await said(port, request(port, "/api/events"))


@pytest.mark.parametrize("hub", HUBS)
async def test_who_has_closed_its_half_becomes_no_client(hub: Callable[..., Any], tmp_path: Path) -> None:
    """Nobody would hear when it goes."""
    async with hub(tmp_path) as port:
        upgrade = [
            *("GET /ws HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""),
        ]
        for head in ("\r\n".join(upgrade).encode(), request(port, "/events")):
            assert b" 404 " not in await said(port, head)
        text = (await said(port, request(port, "/metrics"))).decode()
        assert [line[-4:] for line in text.splitlines() if line.startswith("hub_clients{")] == [" 0.0"] * 2


async def test_who_leaves_while_its_call_runs_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def slow(hub: Hub) -> None:
        @hub.command("test:wait", effect="read")
        async def wait(call: Call) -> None:
            await release.wait()

    release = asyncio.Event()
    async with hub_app(tmp_path, prepare=slow) as hub, Raw(hub.port) as raw:
        await raw.write(request(hub.port, "/api/commands/test:wait", {}))
        await until(lambda: hub.hub.commands.running)
        raw.socket.shutdown(1)
        await asyncio.sleep(0)
        release.set()
        assert (await raw.read()).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in caplog.text
