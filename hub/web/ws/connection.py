"""GET /ws: a session over a WebSocket, and its place in the stream."""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from aiohttp import web

from ...commands.clients import Client
from ...commands.session import Session
from ...hub import Hub
from ...wire.framing import WEBSOCKET, websocket_frame
from ...wire.names import EVERYTHING, NOTHING
from ...wire.vocabulary import Disconnection
from .. import answers, streams
from ..keys import HUB
from ..viewers import VIEWERS
from .fair import FRAME, LIGHT, Fair
from .frames import CLOSE, CONTINUATION, PING, PONG, TEXT, Frames, Violation, close_frame, closing, control
from .upgrade import handshake

log = logging.getLogger("hub")

UNREAD = 64 * 1024  # bytes beyond one message taken in from a client that has to wait, before it is not read any more
VIOLATIONS: Mapping[int, Disconnection] = {1003: "binary", 1007: "utf8", 1009: "too_large"}  # else "protocol"
POLITE = ("closed", "shutdown", "store")  # ends after which the client is waited for, to end the connection itself
FRAMES: "web.AppKey[Fair]" = web.AppKey("frames")  # of all clients, in turns


def setup(app: web.Application) -> None:
    app[FRAMES] = Fair()
    app.router.add_get("/ws", websocket, name="ws", allow_head=False)


async def websocket(request: web.Request) -> web.StreamResponse:
    """Upgrade the request, or refuse it: what can be refused is refused before, with an HTTP status."""
    hub = request.app[HUB]
    is_page = answers.is_of_the_page(request)
    patterns, after = (NOTHING, None) if is_page else answers.stream_query(request)
    await streams.admit(request.app, after)
    response = web.StreamResponse(status=101, headers=handshake(request))
    await response.prepare(request)
    await response.write_eof()
    transport, tail = streams.take_over(request)
    connection = Connection(hub, answers.client_of(request, "websocket"), transport, request.app[FRAMES])
    connection.implied, connection.deaf = patterns is None, is_page
    connection.enter(request, EVERYTHING if patterns is None else patterns, after)
    if is_page:
        request.app[VIEWERS].join(connection.client, connection.send)
    if tail:
        connection.data_received(tail)
    return response


class Connection(streams.Stream):
    """One WebSocket: frames in both directions, and the wire of a session."""

    __slots__ = ("_answers", "_fair", "_frames", "_heard", "_more", "session")

    def __init__(self, hub: Hub, client: Client, transport: asyncio.Transport, fair: Fair) -> None:
        super().__init__(hub, client, transport, WEBSOCKET)
        self._fair = fair
        self.session = Session(hub, client, self.send, self._flooded)
        self._frames = Frames(hub.config.max_frame)
        self._answers: list[bytes] | None = None  # most clients are never answered
        self._heard = self._more = False

    # ---- from the client

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.ending and self.ending != "shutdown":
            return  # read and forgotten: unread bytes would turn the end into a reset, and lose the close frame
        self._frames.feed(data)
        if not self._more:
            self._take()
        if self._frames.waiting > UNREAD + self.hub.config.max_frame:
            self.transport.pause_reading()

    def _take(self) -> None:
        """Handle what has come, in turns with everybody else, while the client reads its answers."""
        own = LIGHT
        while (own > 0 and self._frames.waiting <= LIGHT) or self._fair.left > 0:
            if self.paused or self.transport.is_closing():  # or a flood of pings would be answered to nobody
                return
            try:
                frame = self._frames.next()
                if frame is None:
                    break
                cost = FRAME + len(frame[1])
                own -= cost
                self._fair.spend(cost)
                self._handle(*frame)
            except Violation as violation:
                self.close(violation.code, violation.reason, VIOLATIONS.get(violation.code, "protocol"))
                return
            except Exception:
                log.exception(
                    "the hub failed on a frame of client %s, which is a bug of the hub; "
                    "the client was closed (1011) and may come back",
                    self.client.id,
                )
                self.close(1011, "The hub failed here; its log says why", "internal")
                return
        else:
            self._more = True
            self._fair.wait(self._go_on)
            return
        if not self.transport.is_reading() and not self.transport.is_closing():
            self.transport.resume_reading()

    def _go_on(self) -> None:
        self._more = False
        self._take()

    def _handle(self, opcode: int, payload: str | bytes) -> None:
        if opcode == CLOSE:
            assert isinstance(payload, bytes)
            code = closing(payload)
            self.close(code or 1000, "", "closed")
            self.transport.close()
        elif self.ending:
            return
        elif opcode == TEXT:
            self.session.receive(payload)
        elif opcode == PING and self.session.ping():
            assert isinstance(payload, bytes)
            self.write(control(PONG, payload))
        elif (opcode == PONG and self._asked is None) or (opcode == CONTINUATION and not payload):
            self.session.ping()  # nobody asked for it, and it means nothing: only a flood of it has an effect

    def resume_writing(self) -> None:
        """Take frames again, but not in this step: asyncio loses count of a transport that is closed in here."""
        self.resume()
        if not self._more:
            self._more = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _flooded(self, code: int, reason: str) -> None:
        self.close(code, reason, "flood")

    # ---- to the client

    def send(self, text: bytes) -> None:
        """Queue one frame; the answers of one pass of the event loop leave in one write."""
        if self._answers is None:
            self._answers = []
            asyncio.get_running_loop().call_soon(self._answer)
        self._answers.append(websocket_frame(text))

    def _answer(self) -> None:
        answers, self._answers = self._answers, None
        if answers and not self.ending and not self.transport.is_closing():  # else nobody is there to be answered
            self.write(b"".join(answers))

    def answering(self) -> Iterable[asyncio.Task[None]]:
        return [call.task for call in self.client.calls.values() if call.task is not None]

    # ---- life and end

    def sign(self) -> bytes:
        return control(PING)

    def answered(self) -> bool:
        """Not only a pong: any byte of it shows that it is there."""
        heard, self._heard = self._heard, False
        return heard

    def revoke(self, sentence: str) -> None:
        """As every stream, and end the calls that run."""
        for call in list(self.client.calls.values()):
            if not call.cancel("forbidden") and call.command is None and call.task is not None:
                call.task.cancel()  # it is not admitted yet
        super().revoke(sentence)

    def close(self, code: int, reason: str, why: Disconnection) -> None:
        """Say goodbye, for `why` as the metrics name it; whoever does not answer is cut off after LINGER seconds."""
        if self.ending:
            return
        self._answer()
        self.end(why)
        self.last_words(close_frame(code, reason))
        if why not in POLITE:
            self._half_close()

    def _half_close(self) -> None:
        """Say nothing more; asyncio raises here if the client has gone meanwhile (ENOTCONN)."""
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except OSError:
            self.transport.abort()

    def let_go(self) -> None:
        super().let_go()
        del self.session

    def end(self, why: Disconnection) -> None:
        """As every stream, and take no more frames. Running calls go on to their end: it is in the audit log."""
        self.session.closing = True
        super().end(why)
