"""GET /ws: a session over a WebSocket, and its place in the stream."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from ..broadcaster import Subscriber
from ..commands import Client
from ..errors import HubError
from ..hub import Hub
from ..messages import EVERYTHING, Cursor, Patterns, websocket_frame
from ..session import Session
from . import HUB, api

log = logging.getLogger("hub")

CONNECTIONS: "web.AppKey[set[_Connection]]" = web.AppKey("connections", set)
STOPPING: web.AppKey[asyncio.Event] = web.AppKey("stopping", asyncio.Event)


def setup(app: web.Application) -> None:
    app[CONNECTIONS], app[STOPPING] = set(), asyncio.Event()
    app.router.add_get("/ws", websocket, name="ws", allow_head=False)


def said_goodbye(app: web.Application) -> asyncio.Event:
    """Set when the hub stops and every stream ends."""
    return app[STOPPING]


def room(writer: AbstractStreamWriter) -> Callable[[], Awaitable[None]]:
    """Wait until the socket's buffer has room. Shielded: aiohttp has one waiter for all, and whoever is cancelled
    while it waits would cancel that for the others."""

    async def wait() -> None:
        await asyncio.shield(asyncio.ensure_future(writer.drain()))

    return wait


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
    client = api.client_of(request, "websocket")
    connection = _Connection(hub, client, ws, request)
    await connection.open(patterns, after)
    reason = "lost"
    try:
        reason = await connection.listen()
    finally:
        await connection.closed(reason)
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


class _Connection:
    """One WebSocket. Frames leave through the transport, whole, as aiohttp's own do, so the two never mix."""

    def __init__(self, hub: Hub, client: Client, ws: web.WebSocketResponse, request: web.Request) -> None:
        self.hub, self.client, self.ws, self.request = hub, client, ws, request
        self.session = Session(hub, client, self.send, self.close)
        self._answers: list[bytes] = []
        self._closing: set[asyncio.Task[Any]] = set()

    async def open(self, patterns: Patterns | None, after: Cursor | None) -> None:
        writer = await self.ws.prepare(self.request)
        assert writer is not None and self.request.transport is not None
        self._transport, self._room = self.request.transport, room(writer)
        self._protocol = protocol = self.request.protocol
        subscriber = Subscriber(self._transport.write, lambda: protocol.writing_paused, self._room)
        subscriber.implied = patterns is None
        self.client.subscriber = subscriber
        self.hub.clients.add(self.client)
        self.request.app[CONNECTIONS].add(self)
        self.hub.metrics.connected("websocket")
        self.hub.broadcaster.join(subscriber, patterns or EVERYTHING, after)

    async def listen(self) -> str:
        """Take frames until the connection ends; returns why it did."""
        async for message in self.ws:
            if message.type is WSMsgType.TEXT:
                self.session.receive(message.data)
            elif message.type is WSMsgType.PING:
                if self.session.ping():
                    await self.ws.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                await self.ws.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"Text frames only")
                return "binary"
            if self._protocol.writing_paused and not await self._has_room():
                return "heartbeat"
        return self._why()

    async def _has_room(self) -> bool:
        """Who does not read its answers is not heard either, and is gone after the time that a dead peer gets."""
        try:
            async with asyncio.timeout(1.5 * self.hub.config.heartbeat):
                await self._room()
        except TimeoutError:
            return False
        return True

    def _why(self) -> str:
        codes = {1001: "shutdown", 1007: "utf8", 1008: "flood", 1009: "too_large", 1002: "protocol"}
        code = self.ws.close_code
        if code == WSCloseCode.ABNORMAL_CLOSURE:
            return "heartbeat" if isinstance(self.ws.exception(), asyncio.TimeoutError) else "lost"
        return codes.get(code or 0, "closed")

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
        task = asyncio.get_running_loop().create_task(self.ws.close(code=code, message=reason.encode()))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def closed(self, reason: str) -> None:
        """The client is gone. Its running calls go on to their end: their outcome is in the audit log."""
        assert self.client.subscriber is not None
        self.hub.broadcaster.leave(self.client.subscriber)
        self.hub.clients.discard(self.client)
        self.request.app[CONNECTIONS].discard(self)
        if self._protocol.writing_paused:  # it does not read: a polite close would wait for it for ever
            self._transport.abort()
        self.hub.metrics.disconnected(reason)


async def goodbye(app: web.Application) -> None:
    """Close every connection with 1001: the hub is stopping, come back."""
    connections = list(app[CONNECTIONS])
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
