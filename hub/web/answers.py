"""From a request to who asks and for what, and from what was raised to an answer. Every refusal is the error object."""

import asyncio
import math
from typing import Any

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from ..commands.clients import Client
from ..commands.runner import internal
from ..errors import Code, HubError, let_go
from ..redaction import redact_text
from ..stream.passes import LARGE
from ..wire import messages
from ..wire.names import MAX_PATTERNS, Cursor, Patterns, pattern_problem
from ..wire.validation import misfit
from ..wire.vocabulary import Transport
from .access.reader import Padded, is_half_closed, stopping
from .keys import COMING, GUARD, HUB, PEER, RUNNING
from .refusalpage import is_wanted, refusal_page

JSON, NDJSON = "application/json", "application/x-ndjson"
SHOWN = 200  # characters of a path
LOOK_SECONDS = 0.2  # between two looks whether a client is still connected
REPEATED = ("topics", "panel")  # what a query may hold more than once
_JSON = CIMultiDict({hdrs.CONTENT_TYPE: JSON})

# ---- from what was raised to an answer


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where what a handler raised becomes an answer. Nothing internal is in it."""
    try:
        return await handler(request)
    except asyncio.CancelledError:
        if not request.app[GUARD].closing:
            raise
        return refusal(stopping(), request)  # it has not come, or is not done, in the time that there is at the end
    except Exception as error:
        answered = _answered(error, request)
        if answered is None:
            raise
        let_go(error)
        return answered


def _answered(error: Exception, request: web.Request) -> web.StreamResponse | None:
    """The answer to what was raised; None for what is one already. Called where it is handled."""
    match error:
        case HubError():
            return refusal(error, request)
        case web.HTTPException():
            if error.status == 404 and (page := _page_of(request)):
                return web.Response(status=308, headers={hdrs.LOCATION: page})
            if error.status < 400:
                return None
            return refusal(_of_http(request, error), request, error.headers.get(hdrs.ALLOW))
        case Padded():
            return refusal(HubError("invalid_message", str(error), status=400), request)
        case HttpProcessingError() | web.RequestPayloadError() | ClientPayloadError():
            return refusal(HubError("invalid_message", "The body is not what HTTP calls one.", status=400), request)
        case ConnectionError():  # the client has gone: this reaches nobody, and is nothing to be logged
            return web.Response(status=400)
    resource = request.match_info.route.resource
    return refusal(internal(f"the route {resource.canonical if resource else 'of nothing'}"), request)


def _page_of(request: web.Request) -> str | None:
    """Where the page of a mounted hub is, relative to this request: of whoever has left out the last slash."""
    page = request.app.router.get("dashboard")
    found = f"{request.path}/"
    return f"{found.split('/')[-2]}/" if page is not None and str(page.url_for()) == found else None


def answer(text: bytes, status: int = 200) -> web.Response:
    """JSON as a response."""
    return web.Response(body=text, status=status, headers=_JSON)


def refusal(error: HubError, request: web.Request | None = None, allow: str | None = None) -> web.Response:
    """The error object as a response; to a browser that wants a page, a page with its sentence."""
    if request is not None and is_wanted(request):
        response = web.Response(text=refusal_page(error, request), status=error.status, content_type="text/html")
    else:
        response = answer(messages.refusal(error), error.status)
    if error.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after))
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if allow:
        response.headers[hdrs.ALLOW] = allow
    return response


def _of_http(request: web.Request, error: web.HTTPException) -> HubError:
    path = redact_text(request.path)[:SHOWN]
    match error.status:
        case 404:
            return HubError("unknown_command", f"There is nothing at {path}.", status=404)
        case 405:
            return HubError("invalid_message", f"{path} does not take this method.", status=405)
        case 413:
            return HubError("too_large", "The body is too large.")
        case status:
            return HubError("invalid_message", f"{error.reason}.", status=status)


# ---- from a request to who asks, and for what


def client_of(request: web.Request, transport: Transport) -> Client:
    """The hub's record of who asks: what the kernel and the guard know, nothing that the request says."""
    peer = request[PEER]
    return Client(transport, str(peer), peer.uid, peer.trust)


def query(request: web.Request, *names: str) -> dict[str, str]:
    """The query, of these names only, each once but for REPEATED. Raises HubError with status 400: a name that nobody
    knows is a mistake, and what it meant would be missing."""
    if "?" not in request.raw_path:
        return {}
    for name in request.query:
        if name not in names:
            known = f"known are {', '.join(names)}" if names else "it takes none"
            raise _unfit(name, f"This address does not know it; {known}.")
        if name not in REPEATED and len(request.query.getall(name)) > 1:
            raise _unfit(name, "Given more than once.")
    return {name: request.query[name] for name in names if name in request.query}


def _unfit(name: str, problem: str) -> HubError:
    name = redact_text(name)[:SHOWN]
    return HubError("invalid_args", f"?{name}=: {problem}", {name: [problem]}, status=400)


def topics(request: web.Request) -> list[str] | None:
    """`?topics=a:*,b:*`, also repeated; None if not there. Raises HubError with status 400."""
    given = request.query.getall("topics", None)
    if given is None:
        return None
    texts = ",".join(given).split(",")
    problems: Any = [f"{MAX_PATTERNS} topics at most."]
    if len(texts) <= MAX_PATTERNS:
        problems = {text: [problem] for text in texts if (problem := pattern_problem(text))}
    if problems:
        raise misfit("invalid_args", "This does not fit", {"topics": problems}, status=400)
    return texts


def is_of_the_page(request: web.Request) -> bool:
    """Whether the page's own WebSocket is asked for: `?page=1`. Raises HubError with status 400 for another number, and
    if a stream is asked for with it."""
    if "page" not in request.query:
        return False
    if query(request, "page")["page"] != "1":
        raise _unfit("page", "Must be 1.")
    return True


def stream_query(request: web.Request, last: str = "") -> tuple[Patterns | None, Cursor | None]:
    """What a stream is asked for: `?topics=` and `?after=`, in whose place `last` stands if it is given. Raises
    HubError with status 400."""
    given, texts = query(request, "topics", "after"), topics(request)
    asked = last or given.get("after")
    after = Cursor.parse(asked) if asked is not None else None
    return Patterns(texts) if texts is not None else None, after


# The rest of a body will never come. aiohttp keeps the one that it raises in the stream of the request, so until it is
# let go it knows, through its traceback, all that was read of the body, and itself.
NEVER = (ConnectionError, web.RequestPayloadError, ClientPayloadError, Padded)


async def body(request: web.Request, most: int | None = None) -> bytes:
    """The body, whole, within the limit (`most` bytes, else the hub's own) and the deadline; one that is LARGE in its
    turn. Raises HubError: 413, 415, 501, 408 if it does not come, 401 if the token was replaced meanwhile, or `busy`
    where too much of others has come."""
    hub = request.app[HUB]
    most = most or hub.config.max_body
    check_body(request, most)
    if request.content.is_eof():  # it is all here, as nearly every body is: no need to wait or to watch the clock
        return bounded(request.content.read_nowait(), most)
    received = bytearray()
    try:
        with request.app[COMING].one() as hold:
            async with asyncio.timeout(hub.config.deadline):
                async for chunk in request.content.iter_any():
                    hold(len(chunk))
                    received += chunk
                    bounded(received, most)
            if len(received) > LARGE:
                await hub.bus.heavy.turn()
    except Padded:  # its time is not over, though it is a TimeoutError
        raise
    except TimeoutError:
        raise HubError("timeout", f"The body did not arrive within {hub.config.deadline:g} s.", status=408) from None
    check_grant(request)
    return bytes(received)


def check_grant(request: web.Request) -> None:
    """Stops what was replaced while a body was on its way from being good for it. Raises HubError: 401."""
    running = request.get(RUNNING)
    if running is not None and not running.is_good():
        raise HubError("forbidden", f"{running.ended}.", status=401)


def check_body(request: web.Request, most: int) -> None:
    """Raises HubError for a body that need not be read to be refused: 413, 415, 501."""
    headers = request.headers
    if hdrs.CONTENT_ENCODING in headers and set(listed(request, hdrs.CONTENT_ENCODING)) != {"identity"}:
        # Stops a bomb: small here, huge unpacked.
        raise HubError("invalid_message", "Send the body as it is, without a content encoding.", status=415)
    if hdrs.TRANSFER_ENCODING in headers and listed(request, hdrs.TRANSFER_ENCODING) != ["chunked"]:
        # Stops what would be taken as it is, and was written otherwise (RFC 9112, 6.1).
        raise HubError("invalid_message", "The hub undoes no transfer coding but chunked; send without.", status=501)
    if (request.content_length or 0) > most:
        raise HubError("too_large", f"A body can have {most} bytes at most.")


def listed(request: web.Request, name: str) -> list[str]:
    """Return the members of a header that is a list, in lower case: several lines of it are one (RFC 9110, 5.3)."""
    return [part.strip(" \t") for part in ",".join(request.headers.getall(name, ())).lower().split(",")]


def bounded(data: bytes | bytearray, most: int) -> bytes:
    """The same bytes. Raises HubError `too_large` for more than `most`."""
    if len(data) > most:
        raise HubError("too_large", f"A body can have {most} bytes at most.")
    return data  # type: ignore[return-value]


async def left(request: web.Request) -> None:
    """Wait until the connection of a request has ended. aiohttp tells nobody that it has, so this looks.

    A client that has closed its half counts as gone: one that was killed looks the same.
    """
    protocol = request.protocol
    while protocol.transport is not None and not (protocol.transport.is_closing() or is_half_closed(protocol)):
        await asyncio.sleep(LOOK_SECONDS)


def header(request: web.Request, name: str, code: Code = "invalid_message", status: int | None = None) -> str | None:
    """The one value of a header, if it is there. Raises HubError: of two nobody knows which is meant."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise misfit(code, "The headers do not fit", {name: ["Given more than once."]}, status=status)
    return values[0] if values else None


def content_type(request: web.Request, *allowed: str) -> str:
    """Only what a foreign page cannot send without asking first (Fetch standard, CORS-safelisted types)."""
    found = request.content_type if hdrs.CONTENT_TYPE in request.headers else None
    if found not in allowed:
        raise HubError("invalid_message", f"The Content-Type must be {' or '.join(allowed)}.", status=415)
    return found
