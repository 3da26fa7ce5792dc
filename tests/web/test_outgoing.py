"""What the hub says of a request of its own that did not get through."""

import asyncio
import socket
import struct
from pathlib import Path

import pytest
from running import hub_app

from hub.outward.outgoing import Unreached

pytestmark = pytest.mark.once


async def said(tmp_path: Path, url: str) -> str:
    async with hub_app(tmp_path) as hub:
        with pytest.raises(Unreached) as caught:
            await hub.hub.outward.post(url, b"{}", {}, 5.0)
    return str(caught.value)


async def test_a_closed_port(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert await said(tmp_path, f"http://127.0.0.1:{port}/") == (
            f"nothing takes it at 127.0.0.1:{port} (Connection refused)"
        )


async def test_a_name_that_there_is_not(tmp_path: Path) -> None:
    assert await said(tmp_path, "http://nobody.invalid/") == "nobody knows the name nobody.invalid"


@pytest.mark.parametrize("resets", [False, True])
async def test_one_that_hangs_up(resets: bool, tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if resets:
            now = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await said(tmp_path, f"http://127.0.0.1:{port}/") == "it closed the connection without an answer"


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", b"SSH-2.0-x\r\n"]
)
async def test_one_that_speaks_no_http_is_told_in_one_line(garbage: bytes, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(garbage)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await said(tmp_path, f"http://127.0.0.1:{port}/") == "what it answered is no HTTP"
