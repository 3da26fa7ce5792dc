"""Answers that nobody reads, over real sockets: they are bounded, and none is lost."""

import asyncio
import contextlib
import itertools
import json
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from running import HubInside, Raw, hub_app, open_streams, talk, until

from hub.commands.clients import Client
from hub.commands.load import UNREAD, Load
from hub.commands.session import Session
from hub.stream.passes import REST
from hub.web.api import LOADS
from hub.web.ws.connection import Connection

TEXT = 0x1
CALLS = 60
PAGE = 400_000  # bytes of one answer


async def filled(hub: HubInside) -> None:
    """A history of which a page is as large as above."""
    await hub.publish(4, pad="x" * (PAGE // 4))


def history(id: str) -> bytes:
    return json.dumps({"type": "command", "id": id, "payload": {"command": "hub:history", "args": {}}}).encode()


def loads(hub: HubInside) -> list[Load]:
    return [client.load for client in hub.hub.clients] + list(hub.app[LOADS].values())


def left(hub: HubInside) -> int:
    """Bytes that are left over in the transports, or on their way to there."""
    server = hub.runner.server
    assert server is not None
    transports = [stream.transport for stream in open_streams(hub)]
    transports += [found.transport for found in server.connections if found.transport]
    sizes = [transport.get_write_buffer_size() for transport in transports]
    return sum(sizes) + sum(load.unread for load in loads(hub))


def narrow(hub: HubInside) -> None:
    """Let the kernel take little of an answer."""
    for address in hub.runner.sites:
        for listener in cast(asyncio.Server, cast(Any, address)._server).sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def at_rest(hub: HubInside) -> int:
    """Return how many bytes are left over when the hub does nothing more by itself."""
    before, same = -1, 0
    while same < 40:
        await asyncio.sleep(0.005)
        now = left(hub)
        before, same = now, same + 1 if now == before and now > 0 else 0
    return before


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_websocket(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:

        async def room(client: Client) -> None:
            """Whoever asks is let in."""

        monkeypatch.setattr(Client, "room", room)
    async with hub_app(tmp_path, rate=0) as hub, Raw(hub.port, buffer=4096) as raw:
        await filled(hub)
        await raw.upgrade("?topics=none:*")
        await raw.write(b"".join(Raw.packed(TEXT, history(str(n))) for n in range(CALLS)))
        size = await at_rest(hub)
        assert size > 12 * UNREAD if weakened else size < 2 * UNREAD
        async with talk(hub.url) as neighbour:
            assert (await neighbour.call("hub:ping"))["pong"]
        answers = [json.loads(frame[1]) for _ in range(CALLS) if (frame := await raw.frame())]
        assert [answer["id"] for answer in answers] == [str(n) for n in range(CALLS)]
        assert all(len(answer["payload"]["events"]) == 4 for answer in answers)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("line", ["POST /api/commands/hub:history", "GET /api/events"])
async def test_plain_http(line: str, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many connections of one account asks once, and reads nothing until the hub is at rest."""
    if weakened:
        monkeypatch.setattr("hub.commands.load.UNREAD", 10**9)
    async with hub_app(tmp_path, rate=0) as hub:
        narrow(hub)
        await filled(hub)
        raws = [Raw(hub.port, buffer=4096) for _ in range(CALLS)]
        for raw in raws:
            await raw.__aenter__()
            head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nContent-Type: application/json\r\n"
            await raw.write(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        size = await at_rest(hub)
        assert size > 12 * UNREAD if weakened else size < 4 * UNREAD
        for raw in raws:
            got = b""
            while data := await raw.read():
                got += data
            assert len(json.loads(got.partition(b"\r\n\r\n")[2])["events"]) == 4
            await raw.__aexit__()
        await until(lambda: not hub.app[LOADS])


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_over_http_is_not_kept_for_ever(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not take it in the time of a call is cut off, and others of its account are called for again."""
    if weakened:
        monkeypatch.setattr("hub.web.api.TAKEN_SECONDS", 10**6)
    else:
        monkeypatch.setattr("hub.web.api.TAKEN_SECONDS", 0.5)
    async with hub_app(tmp_path) as hub:
        narrow(hub)
        await filled(hub)
        raw = await Raw(hub.port, buffer=4096).__aenter__()
        head = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: close\r\n\r\n"
        await raw.write(head.encode())
        if weakened:
            await at_rest(hub)
        else:
            await until(lambda: hub.app[LOADS])
            await until(lambda: not hub.app[LOADS])
        got = b""
        while data := await raw.read():
            got += data
        head, _, body = got.decode().partition("\r\n\r\n")
        assert (f"Content-Length: {len(body)}\r\n" in head) is weakened
        await raw.__aexit__()


@pytest.mark.parametrize("weakened", [False, True])
async def test_large_frames_are_taken_one_in_a_pass(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come at once: 40 frames of 60 KiB hold up nobody for longer than one of them."""
    if weakened:
        monkeypatch.setattr("hub.web.ws.fair.FAIR", 10**9)
    clock, taken = [0], list[int]()
    monkeypatch.setattr(Session, "receive", lambda session, text: taken.append(clock[0]))
    async with hub_app(tmp_path) as hub, Raw(hub.port) as raw:
        await raw.upgrade("?topics=none:*")
        [stream] = open_streams(hub)
        stream.transport.pause_reading()  # until all is here
        writing = asyncio.create_task(raw.write(Raw.packed(TEXT, b"x" * 60_000) * 40))
        await asyncio.sleep(0)
        stream.transport.resume_reading()
        while len(taken) < 40:
            clock[0] += 1
            await asyncio.sleep(0)
        await writing
        most = max(map(taken.count, taken))
        assert most > 2 if weakened else most <= 2


@pytest.mark.parametrize("weakened", [False, True])
async def test_large_frames_of_many_clients_are_taken_in_turns_and_small_ones_wait_for_none(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.web.ws.fair.FAIR", 10**9)
    clock, large, small = [0], list[int](), list[int]()
    monkeypatch.setattr(
        Session, "receive", lambda session, text: (large if len(text) > 1000 else small).append(clock[0])
    )
    async with hub_app(tmp_path) as hub, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Raw(hub.port)) for _ in range(21)]
        for client in clients:
            await client.upgrade("?topics=none:*")
        *heavy, neighbour = open_streams(hub)
        assert isinstance(neighbour, Connection)
        for stream in heavy:
            assert isinstance(stream, Connection)
            stream.data_received(Raw.packed(TEXT, b"x" * 60_000))
        neighbour.data_received(Raw.packed(TEXT, b"{}"))
        assert len(small) == 1
        assert len(large) == (20 if weakened else 2)
        while len(large) < 20:
            clock[0] += 1
            await asyncio.sleep(0)
        times = sorted(set(large))
        assert weakened or all(later - earlier >= REST for earlier, later in itertools.pairwise(times))
        assert max(map(large.count, large)) == (20 if weakened else 2)
