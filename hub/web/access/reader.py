"""How the hub's own server reads requests: up to which size, and what happens to what is none."""

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from ...errors import HubError
from .peer import endpoint

MAX_LINE = 32 * 1024  # bytes of the first line, and of each header

Unreadable = Callable[[HubError, str], web.Response]


def read_by(server: web.Server, unreadable: Unreadable) -> None:
    """Have a server, before it listens, take lines up to MAX_LINE. What it cannot read is answered with
    `unreadable(error, address)` and stays out of the log, where aiohttp would put it with a traceback."""
    server.__class__ = _Server
    assert isinstance(server, _Server)
    server.unreadable = unreadable


def close_idle(server: web.Server) -> None:
    """Close the connections on which nothing is being asked, of a server that is about to end: what came on them from
    here on would not be read any more, and its sender would wait for an answer."""
    for reader in server.connections:
        if isinstance(reader, _Reader) and reader.is_idle():
            reader.force_close()


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
        return reader


class _Reader(web.RequestHandler):
    """aiohttp's connection, but for its last word on what is no request; and a client that has said all, and so has
    closed its half of the connection, gets its answer."""

    __slots__ = ("half_closed", "unreadable")

    half_closed: bool
    unreadable: Unreadable  # its own: a connection that is lost has no server any more

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
        return self._waiter is not None and not self._messages

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


def _error(error: HttpProcessingError) -> HubError:
    """What to tell whoever sent it, without a word of what that was."""
    if isinstance(error, LineTooLong):
        return HubError("too_large", f"A line of a request can have {MAX_LINE} bytes at most.", status=431)
    if "Too many" in error.message:
        return HubError("too_large", "A request cannot have so many headers.", status=431)
    return HubError("invalid_message", "This is not a request as HTTP writes it.", status=400)
