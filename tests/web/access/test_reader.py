"""What is no request: refused and counted, and nothing of it in the log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.test_utils import make_mocked_request
from doors import bearer, guard_of, raw
from running import HubInside, Raw, hub_app, until

from hub.errors import HubError
from hub.web.access import guard, reader
from hub.web.access.reader import MAX_LINE

MARK = "a-strangers-words-and-a-session-cookie"
UNREADABLE = {
    "not HTTP": (MARK, 400),
    "not HTTP at all": ("\x16\x03\x01\x02\x00" + MARK, 400),
    "a header without a colon": (f"GET / HTTP/1.1\r\nHost: HOST\r\n{MARK}", 400),
    "a control character": (f"GET / HTTP/1.1\r\nHost: HOST\r\nX: {MARK}\x00", 400),
    "no length": (f"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: {MARK}", 400),
    "a version": (f"GET /{MARK} HTTP/9.9\r\nHost: HOST", 400),
    "a long header": (f"GET / HTTP/1.1\r\nHost: HOST\r\nCookie: {MARK}{'x' * MAX_LINE}", 431),
    "a long name": (f"GET / HTTP/1.1\r\nHost: HOST\r\n{MARK}{'x' * MAX_LINE}: 1", 431),
    "a long target": (f"GET /{MARK}{'x' * MAX_LINE} HTTP/1.1\r\nHost: HOST", 431),
    "many headers": ("GET / HTTP/1.1\r\nHost: HOST\r\n" + "\r\n".join(f"X{n}: {MARK}" for n in range(200)), 431),
}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, deadline=1.0) as inside:
        yield inside


async def said(hub: HubInside, text: str) -> tuple[int, str]:
    """Send this as it is; the status, and all that came back."""
    async with Raw(hub.port) as client:
        await client.write(text.replace("HOST", f"127.0.0.1:{hub.port}").encode() + b"\r\n\r\n")
        answer = b""
        while data := await client.read():
            answer += data
    return int(answer.split()[1]), answer.decode()


@pytest.mark.parametrize(("text", "status"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_what_is_no_request_is_one_refusal(
    hub: HubInside, caplog: pytest.LogCaptureFixture, text: str, status: int
) -> None:
    with caplog.at_level(logging.DEBUG):
        found, answer = await said(hub, text)
    head, _, body = answer.partition("\r\n\r\n")
    assert found == status
    assert json.loads(body).keys() == {"error", "code", "retryable"}
    assert "\r\nX-Content-Type-Options: nosniff" in head
    assert hub.counted("hub_connections_refused_total", "malformed") == 1
    logged = [record for record in caplog.records if record.name.startswith(("hub", "aio"))]
    assert [record.message for record in logged] == ["refused a request from 127.0.0.1: malformed"]
    assert logged[0].exc_info is None
    assert MARK not in answer + caplog.text
    assert (await hub.get("healthz")).status == 200


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_flood_of_it_does_not_fill_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(guard, "read_by", lambda server, unreadable: None)
    now = 1000.0
    monkeypatch.setattr("hub.stderr.time.monotonic", lambda: now)
    async with hub_app(tmp_path, deadline=1.0) as hub:
        with caplog.at_level(logging.INFO):
            for _ in range(100):
                await said(hub, f"GET / HTTP/1.1\r\nHost: HOST\r\n{MARK}")
            now += 1.0
            await said(hub, MARK)
        assert hub.counted("hub_connections_refused_total", "malformed") == (0 if weakened else 101)
    lines = [record.getMessage() for record in caplog.records if "request from" in record.getMessage()]
    assert (MARK in caplog.text) is weakened
    once = "refused a request from 127.0.0.1: malformed"
    assert weakened or lines == [once, f"{once} (99 more since the last such line)"]
    assert ("Traceback" in caplog.text) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_lines_of_32_kib_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:  # as aiohttp has it
        monkeypatch.setattr(reader, "MAX_LINE", 8190)
    async with hub_app(tmp_path, auth="token") as hub:
        cookie = "Cookie: " + "x" * (MAX_LINE - 20)
        status, _ = await raw(hub.port, cookie, *(f"{name}: {value}" for name, value in bearer(hub).items()))
    assert status == (431 if weakened else 200)


async def test_what_comes_behind_a_request_is_judged_by_itself(hub: HubInside) -> None:
    async with Raw(hub.port) as client:
        await client.write(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n".encode())
        assert (await client.read()).startswith(b"HTTP/1.1 200 ")
        await client.write(f"{MARK}\r\n\r\n".encode())
        assert (await client.read()).split()[1] == b"400"
        while await client.read():
            pass


@pytest.mark.parametrize("chunk", ["zz\r\nx\r\n", "1\r\nxx\r\n", "-1\r\n", "1;" + "x" * 70_000 + "\r\n"])
async def test_a_body_that_is_none_is_400(hub: HubInside, caplog: pytest.LogCaptureFixture, chunk: str) -> None:
    head = "POST /api/events HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    status, answer = await said(hub, f"{head}\r\n\r\n{chunk}")
    assert (status, "Traceback" in caplog.text) == (400, False)
    assert json.loads(answer.rpartition("\r\n\r\n")[2])["code"] == "invalid_message"


async def test_a_bug_of_the_hub_is_logged_all_the_same(hub: HubInside, caplog: pytest.LogCaptureFixture) -> None:
    """Only what the other side got wrong stays out of the log."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug of the guard")

    guard_of(hub).checks["host"] = broken
    answer = await hub.get("healthz")
    await asyncio.sleep(0)
    assert (answer.status, "a bug of the guard" in caplog.text) == (500, True)
    assert "a bug of the guard" not in answer.text


class Nowhere(asyncio.Transport):
    def close(self) -> None:
        """There is nothing to be closed."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def test_also_on_a_connection_that_is_lost_meanwhile() -> None:
    """aiohttp takes its server away from a connection that is lost; an attacker saw what became of that."""
    told: list[str] = []

    def unreadable(error: HubError, address: str) -> web.Response:
        told.append(error.code)
        return web.Response(status=error.status)

    async def nothing(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    server = web.Server(nothing)
    reader.read_by(server, unreadable)
    connection = server()
    connection.connection_made(Nowhere())
    connection.connection_lost(None)
    response = connection.handle_error(make_mocked_request("GET", "/"), 400, BadHttpMessage("no"))
    assert (response.status, told) == (400, ["invalid_message"])


def is_idle(connection: web.RequestHandler) -> bool:
    return isinstance(connection, reader._Reader) and connection.is_idle()


async def test_at_the_end_what_is_idle_is_closed_and_what_is_under_way_is_answered(tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state") as hub,
        Raw(hub.port) as idle,
        Raw(hub.port) as half,
        Raw(hub.port) as stream,
    ):
        server, body = hub.runner.server, b'{"event":"a:b","data":1}'
        assert server is not None
        head = b"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n" % hub.port
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        await stream.upgrade("?topics=a:c")
        for client in (idle, half):
            await client.write(request)
            assert b" 200 " in await client.read()
        await half.write(request[:-1])
        await until(lambda: sum(map(is_idle, server.connections)) == 1, "that half of a request is here")
        reader.take_nothing_new(server)
        assert await idle.read() == b""
        await half.write(request[-1:])
        assert b" 200 " in await half.read()
        await hub.hub.publish("a:c", 1)
        assert b'"event":"a:c"' in ((await stream.frame()) or (0, b""))[1]
