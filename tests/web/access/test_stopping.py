"""What is under way when the hub stops: taken if it comes whole in time, else refused as what comes too late; never
left without an answer, and never called broken."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, until

from hub import Hub
from hub.client.discovery import verifying
from hub.commands.call import Call
from hub.config import Config
from hub.stream.passes import LARGE
from hub.web import program, streams
from hub.web.access import guard, reader
from hub.web.access.guard import Guard
from hub.web.tls import server_context

STOPPING = {"code": "shutting_down", "retryable": True, "retry_after": 1}


class Client:
    """Somebody who sends in parts, and reads one answer after the other."""

    def __init__(self, hub: HubInside, reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        self.hub, self.reading, self.writing = hub, reading, writing

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writing.write(part)
        await self.writing.drain()

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON; status 0 if the connection ends without."""
        try:
            head = (await self.reading.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, None
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reading.readexactly(int(headers["Content-Length"]))
        return int(head[0].split()[1]), headers, body if body == b"OK" else json.loads(body)

    async def ends(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return await self.reading.read() == b""
        return True


@contextlib.asynccontextmanager
async def client(hub: HubInside, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    reading, writing = await asyncio.open_connection("127.0.0.1", hub.port, ssl=tls)
    try:
        yield Client(hub, reading, writing)
    finally:
        writing.close()


def head(hub: HubInside, size: int, path: str = "/api/events") -> bytes:
    length = f"Content-Length: {size}" if size >= 0 else "Transfer-Encoding: chunked"
    kind = "Content-Type: application/json"
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n{kind}\r\n{length}\r\n\r\n".encode()


def event(size: int = 0) -> bytes:
    return json.dumps({"event": "a:b", "data": "x " * (size // 2)}).encode()


async def here(hub: HubInside, count: int = 1) -> None:
    """What was sent has been read by the hub."""
    await until(lambda: sum(r.is_under_way() for r in readers(hub)) == count, "that it has come")


def readers(hub: HubInside) -> list[reader._Reader]:
    assert hub.runner.server is not None
    return reader._readers(hub.runner.server)


def stop(hub: HubInside) -> "asyncio.Task[None]":
    assert hub.runner.server is not None
    return asyncio.create_task(program.end_connections(hub.app, hub.runner.server))


async def stops(hub: HubInside) -> "asyncio.Task[None]":
    """Begin to stop, and return when the calls and the streams have ended."""
    stopping = stop(hub)
    await until(lambda: hub.hub.commands.stopping, "that it stops")
    for _ in range(20):
        await asyncio.sleep(0)
    return stopping


def soon(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1) -> None:
    monkeypatch.setattr(streams, "LINGER", seconds)


async def _nobody_waits(*_: object) -> None:
    """In place of `answer_all`."""


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("first", [0, 1, 40])
@pytest.mark.parametrize("size", [40, 60_000, 900_000])
async def test_a_body_that_comes_while_the_hub_stops_is_taken(
    size: int, first: int, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(program, "answer_all", _nobody_waits)
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        body = event(size)
        await sender.send(head(hub, len(body)), body[:first])
        await here(hub)
        stopping = await stops(hub)
        if weakened:
            await stopping
        else:
            await sender.send(body[first:])
        status, headers, answer = await sender.answer()
        if weakened:  # aiohttp reads nothing more from here on
            assert (status, answer["code"]) == (503, "shutting_down")
            return
        assert (status, answer["accepted"], headers["Connection"]) == (200, 1, "close")
        assert await sender.ends()
        await stopping
        assert hub.hub.cursor.seq == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/hooks/claude-code", 200), ("/ping/job", 200), ("/api/commands/hub:publish", 503)]
)
async def test_wherever_it_was_sent(path: str, status: int, tmp_path: Path) -> None:
    """A call is refused as every other that comes now."""
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        body = event(100_000)
        await sender.send(head(hub, len(body), path), body[:50])
        await here(hub)
        stopping = await stops(hub)
        await sender.send(body[50:])
        found, headers, answer = await sender.answer()
        assert found == status
        assert status == 200 or (answer["code"], headers["Retry-After"]) == ("shutting_down", "1")
        await stopping


async def test_in_chunks_it_is_taken_too(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        body = event(60_000)
        await sender.send(head(hub, -1), b"%x\r\n" % len(body), body[:30])
        await here(hub)
        stopping = await stops(hub)
        await sender.send(body[30:], b"\r\n0\r\n\r\n")
        assert (await sender.answer())[0] == 200
        await stopping


async def test_over_tls_it_is_taken_too(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    context, own = server_context(Config(tls_cert=cert, tls_key=key)), verifying(cert)
    async with hub_app(tmp_path, tls=context) as hub, client(hub, own) as sender:
        body = event(60_000)
        await sender.send(head(hub, len(body)), body[:30])
        await here(hub)
        stopping = await stops(hub)
        await sender.send(body[30:])
        assert (await sender.answer())[0] == 200
        await stopping


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("path", "size", "first"),
    [("/api/events", 40, 0), ("/api/events", 900_000, 700_000), ("/hooks/github", 400_000, 9), ("/ping/job", 40, 9)],
)
async def test_who_never_goes_on_is_told_that_the_hub_stops(
    path: str, size: int, first: int, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        body = event(size)
        await sender.send(head(hub, len(body), path), body[:first])
        await here(hub)
        if weakened:
            monkeypatch.setattr(
                Guard, "closing", property(lambda self: False, lambda self, closing: None), raising=False
            )
        stopping = await stops(hub)
        status, headers, answer = await sender.answer()
        if weakened:
            assert status == 0
        else:
            assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
            assert {key: answer[key] for key in STOPPING} == STOPPING
        assert await sender.ends()
        await stopping
        assert hub.hub.cursor.seq == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_half_a_head_is_read_on(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        whole = head(hub, len(event())) + event()
        await sender.send(whole)  # the one before is over and done with
        assert (await sender.answer())[0] == 200
        await sender.send(whole[:40])
        await here(hub)
        if weakened:
            monkeypatch.setattr(reader._Reader, "_begun", property(lambda self: False, lambda self, begun: None))
        stopping = await stops(hub)
        with contextlib.suppress(ConnectionError):
            await sender.send(whole[40:])
        assert (await sender.answer())[0] == (0 if weakened else 200)
        await stopping


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_head_that_does_not_come_whole_is_answered(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    if weakened:
        monkeypatch.setattr(reader._Reader, "refuse", lambda self: setattr(self, "refused", 1.0))
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        await sender.send(head(hub, 40)[:40])
        await here(hub)
        stopping = await stops(hub)
        status, headers, answer = await sender.answer()
        assert status == (0 if weakened else 503)
        assert weakened or {key: answer[key] for key in STOPPING} == STOPPING
        assert weakened or headers["Retry-After"] == "1"
        await stopping
        assert hub.counted("hub_connections_refused_total", "malformed") == 0
        assert hub.counted("hub_connections_refused_total", "shutting_down") == (not weakened)


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_has_come_behind_a_request_is_answered_behind_it(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(guard, "is_last", lambda protocol: True)
    go_on = asyncio.Event()

    def slow(hub: Hub) -> None:
        @hub.command("work:slow")
        async def work(call: Call) -> None:
            await go_on.wait()

    async with hub_app(tmp_path, prepare=slow) as hub, client(hub) as sender:
        second = head(hub, len(event())) + event()
        await sender.send(head(hub, 2, "/api/commands/work:slow"), b"{}", second, second[:-1])
        await until(lambda: len(hub.hub.commands.running) == 1, "that it runs")
        stopping = await stops(hub)
        go_on.set()
        assert (await sender.answer())[0] == 200
        status, headers, _ = await sender.answer()
        assert (status, "Connection" in headers) == ((0, False) if weakened else (200, False))
        if not weakened:
            await sender.send(second[-1:])  # what is whole now is the last
            status, headers, _ = await sender.answer()
            assert (status, headers["Connection"]) == (200, "close")
        assert await sender.ends()
        await stopping
        assert hub.hub.cursor.seq == (0 if weakened else 2)


async def test_what_waits_for_its_turn_is_refused_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with hub_app(tmp_path, stop_timeout=0.3) as hub, client(hub) as first, client(hub) as second:
        hub.hub.bus.heavy._left, hub.hub.bus.heavy._resting = 0, 1  # somebody has it, and keeps it
        body = event(2 * LARGE)
        for sender in (first, second):
            await sender.send(head(hub, len(body)), body)
        await until(lambda: len(hub.hub.bus.heavy._waiting) == 2, "both of them")
        await (await stops(hub))
        for sender in (first, second):
            status, _, answer = await sender.answer()
            assert (status, answer["code"]) == (503, "shutting_down")


async def test_an_answer_that_is_not_taken_holds_nothing_up_and_is_not_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch)
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        await hub.publish(40, pad="x" * 100_000)
        transport: Any = sender.writing.transport
        transport.pause_reading()
        asked = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode()
        for _ in range(20):
            await sender.send(asked)
        await until(lambda: any(r._is_answering() for r in readers(hub)), "an answer that is not taken")
        await (await stops(hub))
        transport.resume_reading()
        assert b"shutting_down" not in await sender.reading.read()


async def test_what_would_not_be_read_any_more_is_not_called_broken(tmp_path: Path) -> None:
    """aiohttp reads nothing more of a connection that it is about to close, and what is weighed there is nothing."""
    async with hub_app(tmp_path) as hub, client(hub) as sender:
        await sender.send(head(hub, 200_000))
        await here(hub)
        (connection,) = readers(hub)
        connection._force_close = True
        for _ in range(10):
            connection.data_received(b"x" * 20_000)
        assert (connection.padded, connection._wire) == (False, 0)
        connection._force_close = False
        await sender.send(event().ljust(200_000))
        assert (await sender.answer())[0] == 200
