"""How the hub's own server reads requests: up to which size, in which slices, what happens to what is none, and to what
is under way when the hub stops."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from ...errors import HubError
from .peer import endpoint

MAX_LINE = 32 * 1024  # bytes of the first line, and of each header
SLICE = 16 * 1024  # bytes that are parsed before it is looked at what has come of them
# A body in chunks takes more on the wire than there is in it: so many times as much, and so many bytes beyond, at most.
# Lines of five bytes, each a chunk of its own, are within that.
SHARE, SPARE = 2, 32 * 1024
LOOK_SECONDS = 0.005  # between two looks whether all is answered
LAST_SECONDS = 0.1  # for the refusals of what is not

Unreadable = Callable[[HubError, str], web.Response]


class Padded(TimeoutError):
    """There is too little in a body for what it takes on the wire. This kind of error alone is passed over by aiohttp
    where it reads what nobody has read."""


def read_by(server: web.Server, unreadable: Unreadable) -> None:
    """Have a server, before it listens, take lines up to MAX_LINE. What it cannot read is answered with
    `unreadable(error, address)` and stays out of the log, where aiohttp would put it with a traceback."""
    server.__class__ = _Server
    assert isinstance(server, _Server)
    server.unreadable = unreadable


def stopping() -> HubError:
    """Make the refusal for what comes, or is not done, while the hub stops."""
    return HubError("shutting_down", "The hub is stopping; come back in a moment.", retry_after=1)


def take_nothing_new(server: web.Server) -> None:
    """Take no more requests, of a server that is about to end, but those that have begun to come: their rest is read.
    The connections on which nothing is asked are closed: what came on them from here on would not be read any more, and
    its sender would wait for an answer."""
    for reader in _readers(server):
        reader.ending = True
        reader.close_if_idle()


async def answer_all(server: web.Server, half: float, whole: float) -> None:
    """Wait until all is answered that was asked of a server which takes nothing new: `half` seconds for clients, which
    have to send the rest of a request or to take their answer, and `whole` seconds for the hub itself. What is not
    answered by then is refused, so that nobody who is there waits for an answer that does not come."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while under_way := [reader for reader in _readers(server) if reader.is_under_way()]:
        for reader in under_way:
            if loop.time() >= begun + (half if reader.waits_for_its_client() else max(half, whole)):
                reader.refuse()
        if all(reader.refused and loop.time() >= reader.refused + LAST_SECONDS for reader in under_way):
            break
        await asyncio.sleep(LOOK_SECONDS)
        for reader in _readers(server):
            reader.close_if_idle()


def _readers(server: web.Server) -> list["_Reader"]:
    return [reader for reader in server.connections if isinstance(reader, _Reader)]


def is_last(protocol: object) -> bool:
    """Whether nothing more will be answered on a connection of a server that takes nothing new."""
    return not (isinstance(protocol, _Reader) and protocol.has_more())


def is_half_closed(protocol: object) -> bool:
    """Whether the client of a connection has said that it sends nothing more: one that was killed looks the same."""
    return getattr(protocol, "half_closed", False)


class _Server(web.Server):
    """aiohttp's, which offers no other way to have its connections read otherwise."""

    unreadable: Unreadable

    def __call__(self) -> web.RequestHandler:
        settings: dict[str, Any] = {**self._kwargs, "max_line_size": MAX_LINE, "max_field_size": MAX_LINE}
        reader = _Reader(self, loop=self._loop, **settings)
        reader.unreadable, reader.half_closed = self.unreadable, False
        reader.padded, reader._rest, reader._body, reader._wire = False, b"", None, 0
        reader.ending, reader.refused, reader._begun = False, 0.0, False
        return reader


class _Reader(web.RequestHandler):
    """aiohttp's connection, but for its last word on what is no request; and a client that has said all, and so has
    closed its half of the connection, gets its answer.

    It is parsed in slices, and a body that is hardly more than the sizes of its chunks is cut off before it has cost
    much: a million chunks of one byte would take seconds.
    """

    __slots__ = ("_begun", "_body", "_rest", "_wire", "ending", "half_closed", "padded", "refused", "unreadable")

    _rest: bytes  # that nobody has parsed yet, as the body before them is not read as fast
    _begun: bool  # some of a request has come, and not all of its head
    _body: StreamReader | None  # that is not whole yet
    _wire: int  # bytes that have been parsed for it
    padded: bool  # nothing more is taken
    ending: bool  # nothing more is taken but the rest of what is under way
    refused: float  # when what was not done in time was, by the loop's clock
    half_closed: bool
    unreadable: Unreadable  # its own: a connection that is lost has no server any more

    def data_received(self, data: bytes) -> None:
        if self._force_close or self._close:  # aiohttp would not parse it, so it is not weighed either
            return
        if self.ending and not (self._begun or self._is_coming()):
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = 0
        while not self.padded:
            piece = data[at : at + SLICE]
            at += SLICE
            before, is_rest = self._request_count, self._is_coming()
            super().data_received(piece)
            self._begun = self._request_count == before and not is_rest and (self._begun or bool(piece))
            self._weigh(len(piece))
            if at >= len(data):
                break
            if self._reading_paused:  # aiohttp comes for more once it has been read
                self._rest = data[at:]
                break

    def _weigh(self, size: int) -> None:
        """Look at what has come of so many bytes that have just been parsed."""
        body = self._messages[-1][1] if self._messages else self._body
        if body is None or body.is_eof():
            self._body = None
        elif body is not self._body:
            self._body, self._wire = body, 0
        else:
            self._wire += size
            if self._wire > SHARE * body.total_bytes + SPARE:
                self._cut(body)

    def _cut(self, body: StreamReader) -> None:
        self.padded, self._rest, self._body = True, b"", None
        sentence = "Most of this body is sizes of chunks: send larger chunks."
        self.unreadable(HubError("invalid_message", sentence, status=400), endpoint(self.peername)[0])
        body.set_exception(Padded(sentence))

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._begun = False
        self._body, self._rest = None, b""  # it knows its connection: only the garbage collector would find the two

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to stay, for what has not been answered."""
        self.half_closed = True
        if self.is_idle() or self._is_tls():
            return False
        self._loop.call_soon(self._end)  # by then the request that has just been taken up is the current one
        return True

    def _is_tls(self) -> bool:
        """TLS is closed in both directions at once: asyncio would log that it does not stay."""
        assert self.transport is not None
        return self.transport.get_extra_info("sslcontext") is not None

    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def close_if_idle(self) -> None:
        """Close it where nothing of a request has come."""
        if self.is_idle() and not self._begun:
            self.force_close()

    def has_more(self) -> bool:
        """Whether there is a request behind the one that is being answered."""
        return bool(self._messages) or self._begun

    def is_under_way(self) -> bool:
        """Whether something is to be answered."""
        return self._request_in_progress or self.has_more()

    def waits_for_its_client(self) -> bool:
        """Whether it waits for the rest of a request, or that an answer is taken."""
        return self._begun or self._is_coming() or self._is_answering()

    def refuse(self) -> None:
        """Refuse what is under way, once, if nothing of its answer is written yet."""
        if self.refused:
            return
        self.refused = self._loop.time()
        if self.is_idle():
            self._messages.append((_ErrInfo(503, _Stopping(), ""), EMPTY_PAYLOAD))
            assert self._waiter is not None
            self._waiter.set_result(None)
        elif self._task_handler is not None and not self._is_answering():
            self._task_handler.cancel()

    def _is_coming(self) -> bool:
        """Whether a body has begun to come, and is not whole yet."""
        body = self._messages[-1][1] if self._messages else self._body
        return body is not None and not body.is_eof()

    def _is_answering(self) -> bool:
        current = self._current_request
        return self._request_in_progress and (current is None or current._payload_writer.output_size > 0)

    def _end(self) -> None:
        """Close behind the last answer (behind those of several requests: when it has been idle for its time), or now,
        if the rest of a request will never come."""
        current = self._current_request
        bodies = [payload for _, payload in self._messages] + ([current.content] if current is not None else [])
        if self.is_idle() or not all(body.is_eof() for body in bodies):
            self.force_close()
        elif len(bodies) <= 1:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        response = self.unreadable(_error(exc), endpoint(self.peername)[0])
        response.force_close()
        return response


class _Stopping(HttpProcessingError):
    """The head of a request has not come whole before the hub has ended."""


def _error(error: HttpProcessingError) -> HubError:
    """What to tell whoever sent it, without a word of what that was."""
    if isinstance(error, _Stopping):
        return stopping()
    if isinstance(error, LineTooLong):
        return HubError("too_large", f"A line of a request can have {MAX_LINE} bytes at most.", status=431)
    if "Too many" in error.message:
        return HubError("too_large", "A request cannot have so many headers.", status=431)
    return HubError("invalid_message", "This is not a request as HTTP writes it.", status=400)
