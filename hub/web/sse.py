"""GET /events: the same stream as Server-Sent Events (HTML standard, section 9.2)."""

from aiohttp import HttpVersion11, hdrs, web

from ..errors import HubError
from ..wire.framing import SSE
from ..wire.names import EVERYTHING
from ..wire.vocabulary import Disconnection
from . import answers, streams
from .keys import HUB

COMMENT = SSE.joined([b":\n\n"])
LAST_CHUNK = b"0\r\n\r\n"  # RFC 9112, section 7.1


def setup(app: web.Application) -> None:
    app.router.add_get("/events", events, name="events", allow_head=False)


async def events(request: web.Request) -> web.StreamResponse:
    """Stream until the client goes; `Last-Event-ID` (what a browser sends when it comes back) wins over `?after=`."""
    hub = request.app[HUB]
    last = answers.header(request, "Last-Event-ID", "invalid_args", 400)  # as for a second `?after=`
    patterns, after = answers.stream_query(request, last or "")
    await streams.admit(request.app, after)
    if request.version < HttpVersion11:
        raise HubError("invalid_message", "This stream needs HTTP/1.1.", status=505)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
    await response.prepare(request)
    await response.write(b": hub\n\n")
    transport, _ = streams.take_over(request)
    stream = EventStream(hub, answers.client_of(request, "sse"), transport, SSE)
    stream.enter(request, patterns or EVERYTHING, after)
    return response  # aiohttp finds its connection gone, and writes nothing more


class EventStream(streams.Stream):
    """The body of a chunked response. What the client sends behind its request is read and forgotten."""

    __slots__ = ()

    def sign(self) -> bytes:
        return COMMENT

    def answered(self) -> bool:
        """Nothing tells that it is there but that it reads."""
        return not self.paused

    def close(self, code: int, reason: str, why: Disconnection) -> None:
        """End the body when the hub stops. There is no code to say: any other end cuts it off, so that it shows."""
        if why != "shutdown":
            self.cut(why)
        elif not self.ending:
            self.end(why)
            self.last_words(LAST_CHUNK)
            self.transport.close()
