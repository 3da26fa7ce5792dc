"""What once went wrong between the parts: each as it was seen on a running hub, on both event loops, and once more with
the mechanism switched off that prevents it."""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from running import HubInside, Raw, handshake, hub_app, talk, until
from test_connections import LOOPS, UNMASKED, loop_factory, not_live
from visitors import CLOSE, TEXT, Complaint, Stranger, Stream, WebSocketVisitor

from hub.stream.broadcaster import Broadcaster
from hub.stream.subscriber import Group, Subscriber
from hub.web import streams
from hub.web.ws.connection import Connection

Case = Callable[[HubInside], Awaitable[None]]
on_both_loops = pytest.mark.parametrize("loop", LOOPS)


def play(loop: str, folder: Path, case: Case) -> None:
    """Run a case against a hub on this event loop."""

    async def run() -> None:
        async with hub_app(folder, rate=0) as hub:
            await case(hub)

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(run())


def subscribe_and(raw: Raw, tail: bytes, **after: str) -> bytes:
    args = {"topics": ["*"], **after}
    text = json.dumps({"type": "command", "id": "1", "payload": {"command": "hub:subscribe", "args": args}})
    return raw.packed(TEXT, text.encode()) + tail


# ---- a dead client comes back, and its descriptor is somebody else's


async def a_dead_client_stays_away(hub: HubInside) -> None:
    """A subscribe and a close in one packet; the call ends when the client has gone, and a stranger gets its number."""
    gone = Raw(hub.port)
    async with gone:
        await gone.upgrade("?topics=x:y")
        goodbye = gone.packed(CLOSE, b"\x03\xe8")
        await gone.write(subscribe_and(gone, goodbye, after=str(hub.hub.cursor)))
        await until(lambda: not hub.hub.clients)
    strangers = [Stranger(hub.port, Stream(), asks=False) for _ in range(8)]
    try:
        for stranger in strangers:
            await stranger.connect()
        await hub.recorded("command.finished")
        await until(lambda: not hub.hub.commands.running)
        assert not_live(hub) == []
        await hub.publish(3)
        await asyncio.sleep(0.02)  # nothing is to come: there is nothing else to wait for
        for stranger in strangers:
            stranger.read()
        assert not_live(hub) == []
    finally:
        for stranger in strangers:
            stranger.socket.close()


@on_both_loops
def test_a_dead_client_stays_away(loop: str, tmp_path: Path) -> None:
    play(loop, tmp_path, a_dead_client_stays_away)


class Number:
    """A descriptor that is kept as a number, whatever becomes of it."""

    def __init__(self, found: socket.socket) -> None:
        self._number = found.fileno()

    def send(self, data: bytes) -> int:
        return os.write(self._number, data)

    def fileno(self) -> int:
        return self._number


@on_both_loops
def test_weakened_the_dead_client_would_be_in_its_group(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broadcaster, "_refuse_ended", staticmethod(lambda subscriber: None))
    with pytest.raises(AssertionError, match=r"has ended|is no client|has no socket"):
        play(loop, tmp_path, a_dead_client_stays_away)


def test_weakened_a_stranger_would_get_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broadcaster, "_refuse_ended", staticmethod(lambda subscriber: None))
    straight = streams._straight
    monkeypatch.setattr(streams, "_straight", lambda transport: Number(straight(transport)))  # type: ignore[arg-type]
    monkeypatch.setattr("test_seams.not_live", lambda hub: [])
    with pytest.raises(Complaint, match="asked for nothing"):
        play("asyncio", tmp_path, a_dead_client_stays_away)


# ---- frames are torn in two


async def answers_and_events_are_whole(hub: HubInside) -> None:
    """Eight answers of a megabyte, read slowly, while events come."""
    stream = Stream()
    visitor = WebSocketVisitor(hub.port, stream, buffer=4096)
    await visitor.connect()
    visitor.upgrade(None, None)
    await until(lambda: len(hub.hub.clients) == 1)
    visitor.joined(None, 0)
    try:
        for seq in range(1, 61):
            stream.names[seq] = "a:x"
        await hub.publish(50, pad="x" * 20_000)
        for _ in range(8):
            visitor.call("hub:history", {"limit": 1000})
        await until(lambda: any(connection.paused for connection in hub.app[streams.STREAMS]))
        for _ in range(10):
            await hub.publish(1)
            await asyncio.sleep(0.002)
            visitor.read(3000)
        async with asyncio.timeout(20):
            while visitor.waits or hub.hub.broadcaster.lagging:
                visitor.read(200_000)
                await asyncio.sleep(0)
        visitor.end(hub.hub.cursor.seq)
    finally:
        visitor.socket.close()


@on_both_loops
def test_answers_and_events_are_whole(loop: str, tmp_path: Path) -> None:
    play(loop, tmp_path, answers_and_events_are_whole)


def test_weakened_events_would_stand_in_the_middle_of_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subscriber, "pause", lambda subscriber: setattr(subscriber, "paused", True))
    with pytest.raises(Complaint):
        play("asyncio", tmp_path, answers_and_events_are_whole)


# ---- one client that breaks costs others events


async def one_that_breaks_costs_nobody_else_anything(hub: HubInside) -> None:
    """Subscribe and an unmasked frame in one packet, or behind the handshake; others stand behind it in the group."""
    breaking = [Raw(hub.port) for _ in range(4)]
    for raw in breaking:
        await raw.__aenter__()
    try:
        await breaking[0].upgrade()
        async with talk(hub.url) as after:
            for number, raw in enumerate(breaking):
                if number:
                    await raw.write(
                        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: Upgrade\r\n"
                        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                        + subscribe_and(raw, UNMASKED)
                    )
                else:
                    await raw.write(subscribe_and(raw, UNMASKED))
                async with talk(hub.url) as behind:
                    await until(lambda: len(hub.hub.clients) == 2)
                    assert not_live(hub) == []
                    first = hub.hub.cursor.seq + 1
                    await hub.publish(2)
                    assert await behind.numbers(2) == [first, first + 1]
                    assert await after.numbers(2) == [first, first + 1]
                    assert not_live(hub) == []
    finally:
        for raw in breaking:
            raw.socket.close()


@on_both_loops
def test_one_that_breaks_costs_nobody_else_anything(loop: str, tmp_path: Path) -> None:
    play(loop, tmp_path, one_that_breaks_costs_nobody_else_anything)


async def a_flush_passes_nobody_over(hub: HubInside) -> None:
    """The transport of the first in the group breaks in the middle of the flush."""
    async with talk(hub.url) as broken, talk(hub.url) as healthy:
        await broken.call("hub:ping")
        await healthy.call("hub:ping")
        first, second = (client.subscriber for client in hub.hub.clients)
        assert isinstance(first, streams.Stream)
        assert second is not None

        def fails(data: bytes) -> int:
            raise OSError("broken")

        first.straight = Broken(fails)  # type: ignore[assignment]
        first.group._members = None  # type: ignore[union-attr]
        await hub.publish(3)
        assert await healthy.numbers(3) == [1, 2, 3]
        assert await broken.numbers(3) == [1, 2, 3]  # its transport was good: it has been led on


class Broken:
    def __init__(self, send: Callable[[bytes], int]) -> None:
        self.send = send


def test_a_flush_passes_nobody_over(tmp_path: Path) -> None:
    play("asyncio", tmp_path, a_flush_passes_nobody_over)


def test_weakened_those_behind_it_would_get_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Group, data: bytes) -> list[Subscriber]:
        for member in list(self.members):
            assert member.straight
            member.straight.send(data)
        return []

    monkeypatch.setattr(Group, "write", write)
    monkeypatch.setattr("running.PATIENCE", 1.0)
    with pytest.raises((AssertionError, TimeoutError, OSError)):
        play("asyncio", tmp_path, a_flush_passes_nobody_over)


# ---- a client breaks the protocol behind its handshake, and is gone before it can be told


async def a_violation_is_no_failure(hub: HubInside) -> None:
    """An unmasked frame in one packet with the handshake; a reset that comes between the last words and the half-close
    is an error of the socket's there."""
    async with Raw(hub.port) as client:
        await client.write(handshake(hub.port) + UNMASKED)
        await until(lambda: hub.counted("hub_disconnections_total", "protocol"))
        await until(lambda: not hub.app[streams.STREAMS])


def _not_connected(self: asyncio.Transport) -> None:
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


@pytest.mark.parametrize("weakened", [False, True])
def test_a_violation_behind_the_handshake_is_no_failure(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.write_eof", _not_connected)
    if weakened:
        monkeypatch.setattr(Connection, "_half_close", lambda self: self.transport.write_eof())
    play("asyncio", tmp_path, a_violation_is_no_failure)
    assert ("the route /ws failed" in caplog.text) is weakened
