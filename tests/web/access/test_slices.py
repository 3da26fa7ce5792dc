"""A body in chunks: one that is hardly more than their sizes is cut off, an honest one is read as it was sent."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from running import JSON, HubInside, Raw, hub_app

from hub.web.access import reader

EVENT = b'{"event":"a:b","data":1}'
HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(body: bytes, size: int, extension: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


async def sent(client: Raw, hub: HubInside, wire: bytes, path: str = "/api/events") -> tuple[int, str]:
    """Status and body of the answer."""
    sending = asyncio.ensure_future(client.write(HEAD.format(path, hub.port).encode() + wire))
    head, _, body = (await client.read()).partition(b"\r\n\r\n")
    while head and b"}" not in body:
        body += await client.read()
    with contextlib.suppress(ConnectionError):
        await sending
    return int(head.split()[1]), body.decode()


PADDED = {
    "one byte each": chunked(EVENT + b" " * 40_000, 1),
    "four bytes each": chunked(EVENT + b" " * 400_000, 4),
    "long extensions": chunked(EVENT + b" " * 40_000, 10, b";" + b"x" * 20),
    "one long extension": chunked(EVENT, 100, b";" + b"x" * 70_000),
    "zeros before the size": b"0" * 70_000 + chunked(EVENT, 100),
}


@pytest.mark.parametrize("path", ["/api/events", "/api/commands/hub:ping", "/hooks/claude-code"])
@pytest.mark.parametrize("wire", PADDED.values(), ids=PADDED.keys())
async def test_what_is_mostly_sizes_of_chunks_is_cut_off(tmp_path: Path, wire: bytes, path: str) -> None:
    async with hub_app(tmp_path) as hub, Raw(hub.port) as client:
        status, body = await sent(client, hub, wire, path)
        assert (status, json.loads(body)["code"]) == (400, "invalid_message")
        assert hub.counted("hub_connections_refused_total", "malformed") == 1
        while await client.read():
            pass
        assert (await hub.post("api/events", EVENT, JSON)).status == 200


@pytest.mark.parametrize("name", ["one byte each", "one long extension"])
async def test_weakened_all_of_it_is_parsed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SPARE", 10**9)
    async with hub_app(tmp_path) as hub, Raw(hub.port) as client:
        assert (await sent(client, hub, PADDED[name]))[0] == 200


async def test_where_nobody_reads_it_the_answer_is_another_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hub_app(tmp_path) as hub, Raw(hub.port) as client:
        assert (await sent(client, hub, PADDED["one byte each"], "/nothing"))[0] == 404
        while await client.read():
            pass
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("size", [5, 100, 4096, 65_536, 1_000_000])
@pytest.mark.parametrize(("path", "status"), [("/api/events", 200), ("/nothing", 404)])
async def test_honest_chunks_are_taken(tmp_path: Path, size: int, path: str, status: int) -> None:
    """Also where nobody reads them for a while, and one request comes right behind the other."""
    async with hub_app(tmp_path) as hub, Raw(hub.port) as client:
        wire = chunked(EVENT + b" " * min(500_000, 10_000 * size), size)
        for _ in range(2):
            assert (await sent(client, hub, wire, path))[0] == status
        small = chunked(EVENT, 1)
        await client.write((HEAD.format("/api/events", hub.port).encode() + small) * 3)
        answers = b""
        while answers.count(b'"cursor"') < 3:
            answers += await client.read()
        assert hub.hub.cursor.seq == (5 if status == 200 else 3)


async def test_a_large_body_behind_a_large_body(tmp_path: Path) -> None:
    """Everything at once: what is behind a body that waits to be read waits with it."""
    async with hub_app(tmp_path) as hub, Raw(hub.port) as client:
        one = HEAD.format("/api/events", hub.port).encode() + chunked(EVENT + b" " * 300_000, 30_000)
        sending = asyncio.ensure_future(client.write(one * 4))
        answers = b""
        while answers.count(b'"cursor"') < 4:
            answers += await client.read()
        await sending
        assert hub.hub.cursor.seq == 4
