"""GET /events: the same stream as Server-Sent Events (HTML standard, section 9.2)."""

import asyncio

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from ..errors import HubError
from ..stream.subscriber import Subscriber
from ..wire.names import EVERYTHING, Cursor
from . import api
from .keys import HUB
from .ws.connection import admit, said_goodbye

LOOK = 1.0  # seconds between two looks whether the client is still there


def setup(app: web.Application) -> None:
    app.router.add_get("/events", events, name="events", allow_head=False)


class EventStream(Subscriber):
    """A subscriber behind an aiohttp response that has been prepared: the socket itself takes the writes."""

    sse = True

    def __init__(self, request: web.Request, writer: AbstractStreamWriter | None) -> None:
        if request.transport is None or writer is None:
            raise ConnectionResetError("The client has gone.")
        super().__init__(request.transport.write)
        self._protocol, self._writer = request.protocol, writer

    def end(self) -> None:
        """Cut the client off."""
        if self._protocol.transport is not None:
            self._protocol.transport.abort()

    def full(self) -> bool:
        return self._protocol.writing_paused

    def turn_away(self) -> None:
        self.end()

    async def room(self) -> None:
        """Shielded: aiohttp has one waiter for all, and who is cancelled while it waits would cancel it for others."""
        await asyncio.shield(asyncio.ensure_future(self._writer.drain()))


async def events(request: web.Request) -> web.StreamResponse:
    """Stream until the client goes; `Last-Event-ID` (what a browser sends when it comes back) wins over `?after=`."""
    hub = request.app[HUB]
    patterns, after = api.stream_query(request)
    if last := request.headers.get("Last-Event-ID"):
        after = Cursor.parse(last)
    admit(hub, after)
    if request.version < HttpVersion11:
        raise HubError("invalid_message", "This stream needs HTTP/1.1.", status=505)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
    writer = await response.prepare(request)
    await response.write(b": hub\n\n")
    client, subscriber = api.client_of(request, "sse"), EventStream(request, writer)
    client.subscriber = subscriber
    hub.clients.add(client)
    hub.metrics.connected("sse")
    reason = "lost"
    try:
        hub.broadcaster.join(subscriber, patterns or EVERYTHING, after)
        reason = await _keep(request, response, subscriber)
    finally:
        hub.broadcaster.leave(subscriber)
        hub.clients.discard(client)
        hub.metrics.disconnected(reason)
    return response


async def _keep(request: web.Request, response: web.StreamResponse, subscriber: EventStream) -> str:
    """A comment line once a heartbeat, until the client or the hub goes; returns why it ended."""
    heartbeat = request.app[HUB].config.heartbeat
    stopping, waited = said_goodbye(request.app), 0.0
    while (transport := request.transport) is not None and not transport.is_closing():
        if await _is_set(stopping, min(LOOK, heartbeat)):
            return "shutdown"
        waited += min(LOOK, heartbeat)
        if waited >= heartbeat:
            waited = 0.0
            try:
                await response.write(b":\n\n")
                async with asyncio.timeout(heartbeat / 2):  # no room for that long: it has stopped reading, or is gone
                    await subscriber.room()
            except TimeoutError:
                transport.abort()
                return "heartbeat"
    return "closed"


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
