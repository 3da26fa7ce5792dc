"""GET /ws: a session over a WebSocket, and its place in the stream.

aiohttp reads the request and the guard checks it; with the upgrade the connection is taken out of aiohttp's hands. It
would keep a task, a request and two parsers for each client: an idle one costs a third this way, a command half.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence

from aiohttp import web

from ...commands.clients import Client
from ...commands.session import Session
from ...errors import HubError
from ...hub import Hub
from ...stream.subscriber import Subscriber
from ...wire.framing import websocket_frame
from ...wire.names import EVERYTHING, Cursor
from .. import api
from ..keys import HUB
from .frames import CLOSE, CONTINUATION, PING, PONG, TEXT, Frames, Violation, close_frame, closing, control
from .upgrade import handshake, take_over

log = logging.getLogger("hub")

FAIR = 64  # frames of one client in a row, before everybody else has a turn
UNREAD = 64 * 1024  # bytes beyond one message taken in from a client that has to wait, before it is not read any more
LINGER = 2.0  # seconds for the other side to end a connection that the hub has closed
PINGS = 500  # in one pass of the event loop: clients that came together are due together
STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)


def setup(app: web.Application) -> None:
    app[STOPPING] = asyncio.Event()
    app.router.add_get("/ws", websocket, name="ws", allow_head=False)
    app.cleanup_ctx.append(_heartbeats)


def said_goodbye(app: web.Application) -> asyncio.Event:
    """Set when the hub stops and every stream ends."""
    return app[STOPPING]


async def websocket(request: web.Request) -> web.StreamResponse:
    """Upgrade the request, or refuse it: what can be refused is refused before, with an HTTP status."""
    hub = request.app[HUB]
    patterns, after = api.stream_query(request)
    admit(hub, after)
    response = web.StreamResponse(status=101, headers=handshake(request))
    await response.prepare(request)
    await response.write_eof()
    connection = _kind(request)(hub, api.client_of(request, "websocket"), request)
    hub.clients.add(connection.client)
    hub.metrics.connected("websocket")
    connection.implied = patterns is None
    hub.broadcaster.join(connection, patterns or EVERYTHING, after)
    return response


def admit(hub: Hub, after: Cursor | None) -> None:
    """Refuse before the upgrade what could only be closed behind it. Raises HubError."""
    if hub.commands.stopping:
        hub.metrics.refused("shutting_down")
        raise HubError("shutting_down", "The hub is stopping; come back in a moment.", retry_after=1)
    if len(hub.clients) >= hub.config.max_clients:
        hub.metrics.refused("too_many")
        raise HubError("busy", f"The hub has {len(hub.clients)} clients already.", retry_after=1, status=503)
    if after is not None:
        hub.broadcaster.start(after)


class Connection(asyncio.Protocol, Subscriber):
    """One WebSocket: the protocol of its transport, a subscriber to the stream, and the wire of a session.

    What it writes is written whole and at once. A client that does not read is not written to while its socket is
    full, its frames wait, and when its pong is overdue it is gone.
    """

    __slots__ = (
        "_answers", "_ended", "_frames", "_heard", "_more", "_next_ping", "_paused", "_pinged", "_timer", "_transport",
        "_waiters", "client", "session",
    )  # fmt: skip

    def __init__(self, hub: Hub, client: Client, request: web.Request) -> None:
        self._transport, tail = take_over(request)
        super().__init__(self._transport.write)
        self.client = client
        client.subscriber = self
        self.session = Session(hub, client, self.send, self._flooded)
        self._frames = Frames(hub.config.max_frame)
        self._answers: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = ""  # why, as the metrics say it
        self._paused = self._heard = self._more = False
        self._pinged: float | None = None
        self._next_ping = time.monotonic() + hub.config.heartbeat
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(_least(self._transport))
        if tail:
            self.data_received(tail)

    # ---- from the client

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._ended and self._ended != "shutdown":
            return  # read and forgotten: unread bytes would turn the end into a reset, and lose the close frame
        self._frames.feed(data)
        if not self._more:
            self._take()
        if self._frames.waiting > UNREAD + self.session.hub.config.max_frame:
            self._transport.pause_reading()

    def _take(self) -> None:
        """Handle what has come, some frames at a time, while the client reads its answers."""
        for _ in range(FAIR):
            if self._paused:
                return
            try:
                frame = self._frames.next()
                if frame is None:
                    break
                self._handle(*frame)
            except Violation as violation:
                reasons = {1003: "binary", 1007: "utf8", 1009: "too_large"}
                self.close(violation.code, violation.reason, reasons.get(violation.code, "protocol"))
                return
            except Exception:
                log.exception("the hub failed on a frame of client %s", self.client.id)
                self.close(1011, "The hub failed here; its log says why", "internal")
                return
        else:
            self._more = True
            asyncio.get_running_loop().call_soon(self._go_on)
            return
        if not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    def _go_on(self) -> None:
        self._more = False
        self._take()

    def _handle(self, opcode: int, payload: str | bytes) -> None:
        if opcode == CLOSE:
            assert isinstance(payload, bytes)
            code = closing(payload)
            if not self._ended:
                self.close(code or 1000, "", "closed")
            self._transport.close()
        elif self._ended:
            return
        elif opcode == TEXT:
            self.session.receive(payload)
        elif opcode == PING and self.session.ping():
            assert isinstance(payload, bytes)
            self.write(control(PONG, payload))
        elif (opcode == PONG and self._pinged is None) or (opcode == CONTINUATION and not payload):
            self.session.ping()  # nobody asked for it, and it means nothing: only a flood of it has an effect

    def _flooded(self, code: int, reason: str) -> None:
        self.close(code, reason, "flood")

    # ---- to the client

    def send(self, text: bytes) -> None:
        """Queue one frame; the answers of one pass of the event loop leave in one write."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._answer)
        self._answers.append(websocket_frame(text))

    def _answer(self) -> None:
        data = b"".join(self._answers)
        self._answers.clear()
        if not self._ended and not self._transport.is_closing():  # else nobody is there to be answered
            self.write(data)

    def full(self) -> bool:
        return self._paused

    async def room(self) -> None:
        while self._paused:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    def turn_away(self) -> None:
        self.close(1013, "The store of events is away; come back", "store")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()
        self._take()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # ---- life and end

    def beat(self, now: float, heartbeat: float) -> bool:
        """Ping the client when it is due; whether it was. One whose pong is overdue by half a heartbeat is gone; any
        other byte of it shows as well that it is there."""
        if self._heard:
            self._heard, self._pinged = False, None
        if self._pinged is not None and now - self._pinged >= heartbeat / 2:
            self._ended = self._ended or "heartbeat"
            self._transport.abort()
        elif self._pinged is None and now >= self._next_ping and not self._ended:
            self._pinged, self._next_ping = now, now + heartbeat
            self.write(control(PING))
            return True
        return False

    def close(self, code: int, reason: str, why: str) -> None:
        """Say goodbye, for `why` as the metrics name it; whoever does not answer is cut off after LINGER seconds."""
        if self._ended:
            return
        self._answer()
        self._ended = why
        self.session.closing = True
        self.session.hub.broadcaster.leave(self)
        self.write(close_frame(code, reason))
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
        if why not in ("closed", "shutdown", "store") and self._transport.can_write_eof():
            self._transport.write_eof()

    @property
    def gone(self) -> bool:
        """Whether the connection has ended for good."""
        return self.client not in self.session.hub.clients

    def connection_lost(self, exc: Exception | None) -> None:
        """Its running calls go on to their end: their outcome is in the audit log."""
        hub = self.session.hub
        self._paused, self._ended = False, self._ended or "lost"
        self._wake()
        if self._timer is not None:
            self._timer.cancel()
        hub.broadcaster.leave(self)
        hub.clients.discard(self.client)
        hub.metrics.disconnected(self._ended)


class Direct(Connection):
    """A connection whose bytes go straight to its socket while nothing is left over, which is nearly always.

    Measured over 500 clients: 7.2 µs a write, 9 through the transport. What the kernel does not take, and every error,
    is the transport's. Not for TLS, where the bytes are not the wire's, nor uvloop, which keeps its sockets to itself.
    """

    __slots__ = ("fd",)

    def __init__(self, hub: Hub, client: Client, request: web.Request) -> None:
        super().__init__(hub, client, request)
        self.fd: int = self._transport.get_extra_info("socket").fileno()

    @classmethod
    def handles(cls, members: Iterable["Direct"]) -> list[tuple[list[int], list["Direct"]]]:
        """One pair: the descriptors, so that the hot loop touches nothing else, and whose they are."""
        directs = list(members)
        return [([direct.fd for direct in directs], directs)]

    @classmethod
    def write_all(cls, handles: Sequence[tuple[list[int], list["Direct"]]], data: bytes) -> tuple[list[int], list[int]]:
        """As in Subscriber. A member of a group has nothing left over, so its bytes cannot overtake others."""
        ((descriptors, directs),) = handles
        write, size, full = os.write, len(data), []
        for place, descriptor in enumerate(descriptors):
            try:
                taken = write(descriptor, data)
            except OSError:
                taken = 0
            if taken != size:
                directs[place].write(data[taken:])
                full.append(place)
        return full, []


def _least(transport: asyncio.Transport) -> int:
    """The write buffer limit with which "paused" means that something is left over. For asyncio's TLS a limit of 0 is
    reached by an empty buffer: every other write would pause the connection, until its next ping or for good."""
    return 1 if transport.get_extra_info("sslcontext") else 0


def _kind(request: web.Request) -> type[Connection]:
    selects = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    plain = request.transport is not None and request.transport.get_extra_info("sslcontext") is None
    return Direct if selects and plain else Connection


def connections(hub: Hub) -> list[Connection]:
    """Every WebSocket that is open."""
    subscribers = [client.subscriber for client in hub.clients]
    return [subscriber for subscriber in subscribers if isinstance(subscriber, Connection)]


async def _heartbeats(app: web.Application) -> AsyncIterator[None]:
    """One task for all clients: it looks often enough that a dead peer is gone within one and a half heartbeats."""
    heartbeat = app[HUB].config.heartbeat
    tick = heartbeat / 50

    async def look() -> None:
        while True:
            await asyncio.sleep(tick)
            now, pings = time.monotonic(), 0
            for connection in connections(app[HUB]):
                pings += connection.beat(now, heartbeat - 2 * tick)
                if pings >= PINGS:
                    pings = 0
                    await asyncio.sleep(0)

    task = asyncio.create_task(look())
    yield
    task.cancel()


async def goodbye(app: web.Application) -> None:
    """Close every connection with 1001: the hub is stopping, come back. Answers on their way go out before."""
    waiting = [task for connection in connections(app[HUB]) for task in connection.session.tasks]
    if waiting:
        await asyncio.wait(waiting, timeout=LINGER)
    app[STOPPING].set()
    for connection in connections(app[HUB]):
        connection.close(1001, "The hub is stopping", "shutdown")
    ends = time.monotonic() + LINGER
    while connections(app[HUB]) and time.monotonic() < ends:
        await asyncio.sleep(0.005)
