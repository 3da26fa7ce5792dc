"""GET /ws: a session over a WebSocket, and its place in the stream."""

import asyncio
import logging

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from ..broadcaster import Subscriber
from ..errors import HubError
from ..hub import Hub
from ..messages import EVERYTHING, Cursor, websocket_frame
from ..session import Session
from . import HUB, api

log = logging.getLogger("hub")

FAIR = 64  # frames of one client in a row, before everybody else has a turn
STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)


def setup(app: web.Application) -> None:
    app[STOPPING] = asyncio.Event()
    app.router.add_get("/ws", websocket, name="ws", allow_head=False)


def said_goodbye(app: web.Application) -> asyncio.Event:
    """Set when the hub stops and every stream ends."""
    return app[STOPPING]


async def websocket(request: web.Request) -> web.StreamResponse:
    """Speak with one client until it goes. What can be refused is refused before the upgrade."""
    hub = request.app[HUB]
    patterns, after = api.stream_query(request)
    admit(hub, after)
    config = hub.config
    ws = web.WebSocketResponse(
        heartbeat=config.heartbeat, compress=False, autoping=False, max_msg_size=config.max_frame + 1
    )
    if not ws.can_prepare(request):
        raise HubError("invalid_message", "This address speaks WebSocket; open it with a WebSocket client.", status=400)
    writer = await ws.prepare(request)
    ws.headers.clear()  # they have been sent; kept, they would be 1 KiB of every idle client
    connection = _Connection(request, writer, ws)
    reason = "lost"
    hub.clients.add(connection.client)
    hub.metrics.connected("websocket")
    try:
        connection.implied = patterns is None
        hub.broadcaster.join(connection, patterns or EVERYTHING, after)
        reason = await connection.listen()
    finally:  # its running calls go on to their end: their outcome is in the audit log
        hub.broadcaster.leave(connection)
        hub.clients.discard(connection.client)
        connection.abandon()
        hub.metrics.disconnected(reason)
    return ws


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


class Stream(Subscriber):
    """A subscriber behind an aiohttp response that has been prepared: the socket itself takes the writes."""

    __slots__ = ("_protocol", "_transport", "_writer")

    def __init__(self, request: web.Request, writer: AbstractStreamWriter | None) -> None:
        if request.transport is None or writer is None:
            raise ConnectionResetError("The client has gone.")
        super().__init__(request.transport.write)
        self._transport, self._protocol, self._writer = request.transport, request.protocol, writer

    def full(self) -> bool:
        return self._protocol.writing_paused

    async def room(self) -> None:
        """Shielded: aiohttp has one waiter for all, and who is cancelled while it waits would cancel it for others."""
        await asyncio.shield(asyncio.ensure_future(self._writer.drain()))


class _Connection(Stream):
    """One WebSocket. Frames leave through the transport, whole, as aiohttp's own do, so the two never mix."""

    __slots__ = ("_answers", "client", "session", "ws")

    def __init__(self, request: web.Request, writer: AbstractStreamWriter | None, ws: web.WebSocketResponse) -> None:
        super().__init__(request, writer)
        self.client, self.ws = api.client_of(request, "websocket"), ws
        self.client.subscriber = self
        self.session = Session(request.app[HUB], self.client, self.send, self.close)
        self._answers: list[bytes] = []

    async def listen(self) -> str:
        """Take frames until the connection ends; returns why it did."""
        taken = 0
        async for message in self.ws:
            if message.type is WSMsgType.TEXT:
                self.session.receive(message.data)
            elif message.type is WSMsgType.PING:
                if self.session.ping():
                    await self.ws.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                await self.ws.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"Text frames only")
                return "binary"
            elif message.type is WSMsgType.ERROR:
                return _why(message.data)
            if self.full() and not await self._has_room():
                return "heartbeat"
            taken += 1
            if taken % FAIR == 0:
                await asyncio.sleep(0)
        if self.session.closing:
            return "flood"
        return "shutdown" if self.session.hub.commands.stopping else "closed"

    async def _has_room(self) -> bool:
        """Who does not read its answers is not heard either, and is gone after the time that a dead peer gets."""
        try:
            async with asyncio.timeout(1.5 * self.session.hub.config.heartbeat):
                await self.room()
        except TimeoutError:
            return False
        return True

    def send(self, text: bytes) -> None:
        """Queue one frame; the answers of one pass of the event loop leave in one write."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._write)
        self._answers.append(websocket_frame(text))

    def _write(self) -> None:
        data = b"".join(self._answers)
        self._answers.clear()
        if not self.ws.closed and not self._transport.is_closing():  # else nobody is there to be answered
            self._transport.write(data)

    def close(self, code: int, reason: str) -> None:
        """Close from outside of `listen`; which then ends."""
        task = asyncio.create_task(self._say_goodbye(code, reason))
        self.session.tasks[task] = None
        task.add_done_callback(self.session.tasks.pop)

    async def _say_goodbye(self, code: int, reason: str) -> None:
        await self.ws.close(code=code, message=reason.encode())

    def abandon(self) -> None:
        """Drop what a client that does not read has left unread: a polite close would wait for it for ever."""
        if self.full():
            self._transport.abort()


def _why(error: object) -> str:
    """The reason of a connection's end, for the metrics."""
    if isinstance(error, asyncio.TimeoutError):
        return "heartbeat"
    if isinstance(error, WebSocketError):
        return {1007: "utf8", 1009: "too_large"}.get(error.code, "protocol")
    return "lost"


async def goodbye(app: web.Application) -> None:
    """Close every connection with 1001: the hub is stopping, come back."""
    subscribers = [client.subscriber for client in app[HUB].clients]
    connections = [subscriber for subscriber in subscribers if isinstance(subscriber, _Connection)]
    answering = [task for connection in connections for task in connection.session.tasks]
    if answering:
        await asyncio.wait(answering, timeout=2.0)
    await asyncio.sleep(0)  # the last answers are written
    app[STOPPING].set()
    closing = [
        asyncio.create_task(connection.ws.close(code=WSCloseCode.GOING_AWAY, message=b"The hub is stopping"))
        for connection in connections
    ]
    if closing:
        await asyncio.wait(closing, timeout=2.0)
