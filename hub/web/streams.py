"""What /ws and /events share: one client's connection, out of aiohttp's hands, from its joining to its end.

aiohttp reads the request and the guard checks it; then the connection is taken out of aiohttp's hands. It would keep a
task, a request and two parsers for each client: an idle one costs a third this way, a command half.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from ..commands.clients import Client
from ..errors import HubError
from ..hub import Hub
from ..stream.subscriber import Subscriber
from ..wire.framing import Framing
from ..wire.names import Cursor, Patterns
from ..wire.vocabulary import Disconnection
from .access.reader import is_half_closed, stopping
from .keys import GUARD, HUB, SEEN

if TYPE_CHECKING:
    from socket import socket

    from .access.opened import Grant, Opened

log = logging.getLogger("hub")

LINGER = 2.0  # seconds for the other side to end a connection that the hub has closed
PINGS = 500  # in one pass of the event loop: clients that came together are due together


class Stream(asyncio.Protocol, Subscriber):
    """One client's connection: the protocol of its transport, and a subscriber to the stream.

    What it writes is written whole and at once. A client that does not read is not written to while its socket is
    full. It is a client from `enter` to `end`, whatever ends it; its transport lives LINGER seconds longer at most.
    """

    __slots__ = ("_asked", "_next_sign", "_open", "_revoked_by", "_timer", "client", "ending", "hub", "transport")

    def __init__(self, hub: Hub, client: Client, transport: asyncio.Transport, framing: Framing) -> None:
        super().__init__(transport.write, framing, _straight(transport))
        self.hub, self.client, self.transport = hub, client, transport
        client.subscriber = self
        self.ending: Disconnection | None = None  # why it has ended, as the metrics say it
        self._open: set[Stream] | None = None
        self._revoked_by: tuple[Opened, Grant] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked: float | None = None  # since when a sign of life is waited for
        self._next_sign = time.monotonic() + hub.config.heartbeat
        transport.set_protocol(self)
        self.paused = transport.get_write_buffer_size() > 0  # of an answer before, or of the head of this one
        transport.set_write_buffer_limits(_least(transport))

    def enter(self, request: web.Request, patterns: Patterns, after: Cursor | None) -> None:
        """Become a client, and live in the stream, in one step."""
        self._open = request.app[STREAMS]
        self._open.add(self)
        tokens, grant = request.app[GUARD].tokens, request[SEEN].grant
        if tokens is not None and grant is not None:
            self._revoked_by = tokens.opened, grant
            tokens.opened.add(grant, self)
        self.hub.clients.join(self.client)
        try:
            self.hub.broadcaster.join(self, patterns, after)
        except BaseException:
            self.cut()
            raise

    # ---- the transport's word

    def pause_writing(self) -> None:
        self.pause()

    def resume_writing(self) -> None:
        self.resume()

    def eof_received(self) -> None:
        """It will not say anything more: asyncio closes the transport behind this."""
        self.end("lost")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything, too: what knows each other would stay until the garbage collector looks for cycles,
        which it does every few minutes, and memory would be in pieces behind it (17 objects a client)."""
        self.end("lost")
        self.resume()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open is not None:
            self._open.discard(self)
        if self._revoked_by is not None:
            opened, grant = self._revoked_by
            opened.discard(grant, self)
        self.let_go()

    def let_go(self) -> None:
        """Forget what knows this stream. Nothing comes from its transport any more, and nothing is written to it."""
        self.transport.close()  # asyncio's knows itself until then, if it was cut off (before Python 3.12 for ever)
        del self.client

    # ---- life and end

    def sign(self) -> bytes:
        """Return what the client is asked for a sign of life with."""
        raise NotImplementedError

    def answered(self) -> bool:
        """Whether it has given one since this was asked last."""
        raise NotImplementedError

    def revoke(self, sentence: str) -> None:
        """End: what has let it in is good no more."""
        self.close(1008, sentence, "token")

    def close(self, code: int, reason: str, why: Disconnection) -> None:
        """Say goodbye, for `why` as the metrics name it, and end."""
        raise NotImplementedError

    def answering(self) -> Iterable[asyncio.Task[None]]:
        """Return the calls whose answers are on their way."""
        return ()

    def beat(self, now: float, heartbeat: float) -> bool:
        """Ask the client for a sign of life when it is due; whether it was. One that is silent for half a heartbeat
        behind that is gone."""
        if self.ending:
            return False
        if self._asked is not None and self.answered():
            self._asked = None
        if self._asked is None and now >= self._next_sign:
            self.answered()
            self._asked, self._next_sign = now, now + heartbeat
            self.write(self.sign())
            return True
        if self._asked is not None and now - self._asked >= heartbeat / 2:
            self.cut("heartbeat")
        return False

    def end(self, why: Disconnection) -> None:
        """Be no client any more, from this step on: everything that hangs on it ends."""
        if not self.ending:
            self.ending = why
            self.hub.clients.leave(self.client, why)
            self._timer = asyncio.get_running_loop().call_later(LINGER, self.transport.abort)

    def cut(self, why: Disconnection = "lost") -> None:
        """End, and close the connection without a goodbye."""
        self.end(why)
        self.transport.abort()

    def last_words(self, data: bytes) -> None:
        """Write behind the end; a transport that has broken says why itself."""
        try:
            self.write(data)
        except Exception:
            self.transport.abort()

    def turn_away(self) -> None:
        self.close(1013, "The store of events is away; come back", "store")


STREAMS: web.AppKey[set[Stream]] = web.AppKey("streams", set)


def setup(app: web.Application) -> None:
    app[STREAMS] = set()
    app.cleanup_ctx.append(_heartbeats)


async def admit(app: web.Application, after: Cursor | None) -> None:
    """Refuse before the upgrade what could only be closed behind it. Raises HubError."""
    hub, count = app[HUB], len(app[STREAMS])
    if hub.commands.stopping:
        hub.metrics.refused("shutting_down")
        raise stopping()
    if count >= hub.config.max_clients:
        hub.metrics.refused("too_many")
        raise HubError("busy", f"The hub has {count} clients already.", retry_after=1, status=503)
    if after is not None:
        await hub.broker.reach(after)
        hub.broadcaster.start(after)


def take_over(request: web.Request) -> tuple[asyncio.Transport, bytes]:
    """Part the transport from aiohttp, which then believes that the client has hung up and forgets it.

    Also what the client sent behind its request, too early. Raises ConnectionResetError if it has gone. The two lines
    that are not in aiohttp's documentation are held by `tests/web/ws/test_connection.py`.
    """
    protocol, transport = request.protocol, request.transport
    if transport is not None and is_half_closed(protocol):
        transport.close()  # nobody would hear of its end any more
    if transport is None or transport.is_closing():
        raise ConnectionResetError("The client has gone.")
    tail: bytes = protocol._message_tail
    protocol.transport = None  # or it would be closed
    protocol.connection_lost(None)
    return transport, tail


def _straight(transport: asyncio.Transport) -> "socket | None":
    """Return the socket, if what is written is what goes over the wire: not for TLS, nor for uvloop, which keeps its
    sockets to itself."""
    selects = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    if not selects or transport.get_extra_info("sslcontext") is not None:
        return None
    found: socket = transport.get_extra_info("socket")._sock  # what it gives out can do all but send
    return found


def _least(transport: asyncio.Transport) -> int:
    """Return the write buffer limit with which "paused" means that something is left over. For asyncio's TLS a limit
    of 0 is reached by an empty buffer: every other write would pause the connection, until its next ping or for good.
    """
    return 1 if transport.get_extra_info("sslcontext") else 0


async def _heartbeats(app: web.Application) -> AsyncIterator[None]:
    """One task for all clients: it looks often enough that a dead peer is gone within one and a half heartbeats."""
    streams, heartbeat = app[STREAMS], app[HUB].config.heartbeat
    tick = heartbeat / 50

    async def look() -> None:
        while True:
            await asyncio.sleep(tick)
            now, signs = time.monotonic(), 0
            for stream in list(streams):
                try:
                    signs += stream.beat(now, heartbeat - 2 * tick)
                except Exception:  # its transport has broken; the others are looked after all the same
                    log.exception(
                        "a client cannot be written to, which is a bug of the hub; it was cut off and may come back"
                    )
                    stream.cut()
                if signs >= PINGS:
                    signs = 0
                    await asyncio.sleep(0)

    task = asyncio.create_task(look())
    yield
    task.cancel()


async def goodbye(app: web.Application) -> float:
    """Close every connection with 1001: the hub is stopping, come back. Answers on their way go out before.

    Return the seconds that are left of LINGER for what else there is to wait for: who is stuck gets it once in all.
    """
    streams, ends = app[STREAMS], time.monotonic() + LINGER
    waiting = [task for stream in streams for task in stream.answering()]
    if waiting:
        await asyncio.wait(waiting, timeout=LINGER)
    for stream in list(streams):
        stream.close(1001, "The hub is stopping", "shutdown")
    while streams and time.monotonic() < ends:
        await asyncio.sleep(0.005)
    return max(0.0, ends - time.monotonic())
