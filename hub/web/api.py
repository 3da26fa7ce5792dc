"""The hub over plain HTTP: publish, read, call, measure. Every answer is JSON; every refusal is the error object."""

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client.aiohttp import make_aiohttp_handler

from ..commands.clients import Client
from ..commands.ratelimit import Bucket
from ..commands.registry import Call, check_trust, internal
from ..errors import HubError
from ..hub import Hub
from ..wire.names import MAX_PATTERNS, Cursor, Patterns, new_id, pattern_problem
from ..wire.strictjson import dumpb, loads
from ..wire.vocabulary import Transport
from .access.guard import PEER, Guard
from .access.peer import Peer
from .keys import HUB

GUARD: web.AppKey[Guard] = web.AppKey("guard", Guard)
RUNNING: "web.AppKey[Counter[str]]" = web.AppKey("running", Counter)  # calls over HTTP, by address

JSON, NDJSON = "application/json", "application/x-ndjson"
ADDRESSES = 1024  # rate limits remembered; there are 16 million loopback addresses


def setup(app: web.Application) -> None:
    """Add the routes of PROTOCOL's section 4 that are not the page's or a stream's."""
    app[RUNNING] = Counter()
    app.router.add_post("/api/events", publish, name="api-events")
    app.router.add_get("/api/events", history, name="api-events")
    app.router.add_get("/api/state", state, name="api-state")
    app.router.add_get("/api/commands", commands, name="api-commands")
    app.router.add_post("/api/commands/{name}", command, name="api-command")
    app.router.add_get("/api/audit", audit, name="api-audit")
    app.router.add_get("/metrics", make_aiohttp_handler(app[HUB].metrics.registry), name="metrics")
    app.router.add_get("/healthz", health, name="healthz")
    app.router.add_get("/readyz", ready, name="readyz")


# ---- errors


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where what was raised becomes an answer. Nothing internal is in it."""
    try:
        return await handler(request)
    except HubError as error:
        return refusal(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return refusal(_of_http(request, error), error.headers.get(hdrs.ALLOW))
    except ConnectionError:
        raise
    except Exception:
        return refusal(internal(f"{request.method} {request.path[:200]!r}"))


def refusal(error: HubError, allow: str | None = None) -> web.Response:
    """The error object as a response."""
    response = web.Response(body=dumpb(error.payload()), status=error.status, content_type=JSON)
    if error.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after))
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if allow:
        response.headers[hdrs.ALLOW] = allow
    return response


def _of_http(request: web.Request, error: web.HTTPException) -> HubError:
    match error.status:
        case 404:
            return HubError("unknown_command", f"There is nothing at {request.path[:200]}.", status=404)
        case 405:
            return HubError("invalid_message", f"{request.path[:200]} does not take {request.method}.", status=405)
        case 413:
            return HubError("too_large", "The body is too large.")
        case status:
            return HubError("invalid_message", f"{error.reason}.", status=status)


# ---- who asks, and for what


def client_of(request: web.Request, transport: Transport) -> Client:
    """The hub's record of who asks: what the kernel and the guard know, nothing that the request says."""
    peer: Peer = request[PEER]
    return Client(transport, str(peer), peer.uid, peer.trust)


def limit(hub: Hub) -> Callable[[web.Request, Peer], float]:
    """The rate limit of plain HTTP, by the peer's address and user. The routes with a name of their own are free: the
    page, the streams, and what watches the hub, which must get through just when somebody floods it."""
    buckets: OrderedDict[tuple[str, int | None], Bucket] = OrderedDict()

    def take(request: web.Request, peer: Peer) -> float:
        if not (request.match_info.route.name or "api").startswith("api"):
            return 0.0
        key = peer.address, peer.uid
        if key not in buckets:
            buckets[key] = Bucket(hub.config.rate)
            if len(buckets) > ADDRESSES:
                buckets.popitem(last=False)
        if wait := buckets[key].take():
            hub.metrics.rate_limited()
            if name := request.match_info.get("name"):
                hub.commands.refuse(Client("http", str(peer), peer.uid, peer.trust), None, name, "rate_limited")
        return wait

    return take


def topics(request: web.Request) -> list[str] | None:
    """`?topics=a:*,b:*`, also repeated; None if not there. Raises HubError with status 400."""
    given = request.query.getall("topics", None)
    if given is None:
        return None
    texts = ",".join(given).split(",")
    problems = {text: [problem] for text in texts if (problem := pattern_problem(text))}
    if problems or len(texts) > MAX_PATTERNS:
        sentence = next(iter(problems.values()))[0] if problems else f"{MAX_PATTERNS} topics at most."
        raise HubError("invalid_args", f"topics: {sentence}", {"topics": problems}, status=400)
    return texts


def stream_query(request: web.Request) -> tuple[Patterns | None, Cursor | None]:
    """What a stream is asked for: `?topics=` and `?after=`. Raises HubError with status 400."""
    texts, after = topics(request), request.query.get("after")
    return Patterns(texts) if texts is not None else None, Cursor.parse(after) if after is not None else None


async def body(request: web.Request) -> bytes:
    """The body, whole, within the limit and the deadline. Raises HubError: 413, 415, or 408 if it does not come."""
    hub = request.app[HUB]
    most = hub.config.max_body
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":  # a bomb: small here, huge unpacked
        raise HubError("invalid_message", "Send the body as it is, without a content encoding.", status=415)
    if (request.content_length or 0) > most:
        raise HubError("too_large", f"A body can have {most} bytes at most.")
    if request.content.is_eof():  # it is all here, as nearly every body is: no need to wait or to watch the clock
        return _bounded(request.content.read_nowait(), most)
    received = bytearray()
    try:
        async with asyncio.timeout(hub.config.deadline):
            async for chunk in request.content.iter_any():
                received += chunk
                _bounded(received, most)
    except TimeoutError:
        raise HubError("timeout", f"The body did not arrive within {hub.config.deadline:g} s.", status=408) from None
    return bytes(received)


def _bounded(data: bytes | bytearray, most: int) -> bytes:
    if len(data) > most:
        raise HubError("too_large", f"A body can have {most} bytes at most.")
    return data  # type: ignore[return-value]


def _content_type(request: web.Request, *allowed: str) -> str:
    """Only what a foreign page cannot send without asking first (Fetch standard, CORS-safelisted types)."""
    if hdrs.CONTENT_TYPE not in request.headers or request.content_type not in allowed:
        raise HubError("invalid_message", f"The Content-Type must be {' or '.join(allowed)}.", status=415)
    return request.content_type


# ---- events


async def publish(request: web.Request) -> web.Response:
    """POST /api/events: one event, an array of them, or NDJSON; all or nothing."""
    hub = request.app[HUB]
    try:
        check_trust(request[PEER].trust, "write", "publishing")
    except HubError as error:
        hub.commands.refuse(client_of(request, "http"), None, "hub:publish", error.code)
        raise
    kind = _content_type(request, JSON, NDJSON)
    value = _lines(await body(request)) if kind == NDJSON else loads(await body(request))
    records = value if isinstance(value, list) else [value]
    if len(records) > hub.config.max_batch:
        raise HubError("too_large", f"One request can have {hub.config.max_batch} events at most.")
    published = await hub.bus.publish(records, many=isinstance(value, list))
    return _json(
        dumpb(
            {
                "accepted": published.accepted,
                "duplicates": published.duplicates,
                "cursor": str(published.cursor),
                "ids": published.ids,
            }
        )
    )


def _lines(text: bytes) -> list[Any]:
    records = []
    for number, line in enumerate(text.split(b"\n"), 1):
        try:
            if line.strip():
                records.append(loads(line))
        except HubError as error:
            raise HubError(error.code, f"Line {number}: {error.message}") from None
    return records


async def history(request: web.Request) -> web.Response:
    """GET /api/events: as hub:history."""
    return await _call(request, "hub:history", _query(request, "after", "limit"))


async def state(request: web.Request) -> web.Response:
    """GET /api/state: as hub:state."""
    return await _call(request, "hub:state", _query(request))


# ---- commands


async def commands(request: web.Request) -> web.Response:
    """GET /api/commands: as hub:commands."""
    return await _call(request, "hub:commands", {})


async def audit(request: web.Request) -> web.Response:
    """GET /api/audit: as audit:tail."""
    return await _call(request, "audit:tail", _query(request, "limit"))


async def command(request: web.Request) -> web.Response:
    """POST /api/commands/{name}: the body is the args, the answer the result."""
    _content_type(request, JSON)
    args = loads(await body(request) or b"{}")
    if not isinstance(args, dict):
        raise HubError("invalid_args", "The args of a command are one JSON object.")
    return await _call(request, request.match_info["name"], args)


def _query(request: web.Request, *names: str) -> dict[str, Any]:
    """The query as args; `topics` as a list, `limit` as a number if it is one."""
    args: dict[str, Any] = {name: request.query[name] for name in names if name in request.query}
    if (texts := topics(request)) is not None:
        args["topics"] = texts
    if str(args.get("limit", "")).isdecimal():
        args["limit"] = int(args["limit"][:9])
    return args


async def _call(request: web.Request, name: str, args: dict[str, Any]) -> web.Response:
    hub, running, address = request.app[HUB], request.app[RUNNING], request[PEER].address
    if running[address] >= hub.config.max_calls:
        hub.commands.refuse(client_of(request, "http"), None, name, "busy")
        raise HubError("busy", f"{running[address]} calls are running; wait for one to end.", retry_after=1)
    running[address] += 1
    try:
        call = Call(hub, client_of(request, "http"), new_id())
        return _json(await hub.commands.call(call, name, args))
    finally:
        running[address] -= 1
        running += Counter()  # drops the addresses that nobody calls from


def _json(text: bytes) -> web.Response:
    return web.Response(body=text, content_type=JSON)


# ---- health


async def health(request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    return _json(dumpb({"status": "ok", "version": request.app[HUB].version}))


async def ready(request: web.Request) -> web.Response:
    """GET /readyz: every part works, or 503 with the reasons."""
    problems = request.app[HUB].problems()
    status = {"status": "unavailable" if problems else "ok", "reasons": problems}
    return web.Response(body=dumpb(status), status=503 if problems else 200, content_type=JSON)
