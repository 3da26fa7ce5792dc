"""The hub over plain HTTP: publish, read, call. Every answer is JSON; every refusal is the error object."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from aiohttp import hdrs, web

from ..commands.call import Call, check_trust
from ..commands.clients import Client
from ..commands.load import Load
from ..commands.ratelimit import Bucket
from ..errors import HubError
from ..hub import Hub
from ..redaction import redact_text
from ..stream.passes import LARGE
from ..wire import cloudevents
from ..wire.ids import is_id, new_id
from ..wire.names import MAX_NAME
from ..wire.strictjson import dumpb, loads
from ..wire.validation import misfit
from .access.peer import Peer
from .answers import JSON, LOOK_SECONDS, NDJSON, answer, body, client_of, content_type, header, left, query, topics
from .keys import HUB, MACHINE, OPEN_ROUTES, PEER, RUNNING

LOADS: "web.AppKey[dict[tuple[str, int | None], Load]]" = web.AppKey("loads", dict)  # of who calls, by address and user


class Read(NamedTuple):
    """A command that a GET calls, and those of its args that the query can have."""

    command: str
    names: tuple[str, ...]


READS: Mapping[str, Read] = {
    "/api/events": Read("hub:history", ("topics", "after", "limit")),
    "/api/state": Read("hub:state", ("topics", "after")),
    "/api/commands": Read("hub:commands", ("name",)),
    "/api/audit": Read("audit:tail", ("limit", "before")),
}

CONFIRM, KEY = "Hub-Confirm", "Idempotency-Key"  # as `payload.confirm` and `payload.idempotency_key` of a frame
WHILE = "Hub-While"  # `connected`: the call is cancelled when the connection of its request ends
TAKEN_SECONDS = 30.0  # in which an answer must have been taken, or its connection is cut
STRANGER_RATE = 20.0  # requests a second for each other account of this machine
ADDRESSES = 1024  # rate limits remembered; there are 16 million loopback addresses


def setup(app: web.Application) -> None:
    """Add the routes of PROTOCOL's section 4 that are not the page's or a stream's."""
    app[LOADS] = {}
    app.router.add_post("/api/events", publish, name="api-publish")  # first: most requests by far are for this
    for path, read in READS.items():
        app.router.add_get(path, _reader(read), name=path[1:].replace("/", "-"))
    app.router.add_post("/api/commands/{name}", command, name="api-command")


# ---- how often


def limit(hub: Hub) -> Callable[[web.Request, Peer], float]:
    """The rate limit of plain HTTP, by the peer's address and user. The routes with a name of their own are free: the
    page, the streams, and what watches the hub, which must get through just when somebody floods it. Not to other
    accounts: they get STRANGER_RATE."""
    buckets: OrderedDict[tuple[str, int | None], Bucket] = OrderedDict()

    def take(request: web.Request, peer: Peer) -> float:
        name = request.match_info.route.name or "api"
        if peer.trust == "NONE" and name in OPEN_ROUTES:
            key, rate, burst = ("", peer.uid), STRANGER_RATE, STRANGER_RATE
        elif name.startswith("api"):
            key, rate, burst = (peer.address, peer.uid), hub.config.rate, None
        else:
            return 0.0
        if key not in buckets or buckets[key].rate != rate:  # the limit has become another one
            buckets[key] = Bucket(rate, burst)
            if len(buckets) > ADDRESSES:
                buckets.popitem(last=False)
        if wait := buckets[key].take():
            hub.metrics.rate_limited()
            if command := _name(request):
                hub.commands.refuse(Client("http", str(peer), peer.uid, peer.trust), None, command, "rate_limited")
        return wait

    return take


# ---- events


async def publish(request: web.Request) -> web.Response:
    """POST /api/events: one event, an array of them, or NDJSON; CloudEvents likewise; all or nothing."""
    hub = request.app[HUB]
    query(request)
    try:
        check_trust(request[PEER].trust, "write", "publishing")
    except HubError as error:
        hub.commands.refuse(client_of(request, "http"), None, "hub:publish", error.code)
        raise
    records, many = await _records(request)
    published = await hub.accept(records, request[PEER].uid, many=many, machine=request.headers.get(MACHINE, ""))
    return answer(
        dumpb(
            {
                "accepted": published.accepted,
                "duplicates": published.duplicates,
                "cursor": str(published.cursor),
                "ids": published.ids,
            }
        )
    )


async def _records(request: web.Request) -> tuple[list[Any], bool]:
    """What is to be published, and whether that came as a list."""
    told = cloudevents.attributes(request.headers.items())
    if told and request.headers.get(hdrs.CONTENT_TYPE) is None and not request.can_read_body:
        return [cloudevents.from_binary(told, None)], False
    kinds = JSON, NDJSON, cloudevents.STRUCTURED, cloudevents.BATCH
    if told and request.content_type not in kinds:
        sentence = "The data of a CloudEvent whose attributes are headers must be JSON: Content-Type: application/json."
        raise HubError("invalid_message", sentence, status=415)
    kind = content_type(request, *kinds)
    hub, text = request.app[HUB], await body(request)
    most = hub.config.max_batch
    value = _lines(text, most) if kind == NDJSON else loads(text)
    if len(text) > LARGE:
        await hub.bus.heavy.turn(begun=True)  # to read it has taken a while already
    if isinstance(value, list) and len(value) > most:
        raise _too_many(most)
    if kind == cloudevents.BATCH:
        return cloudevents.from_batch(value), True
    if kind == cloudevents.STRUCTURED:
        return [cloudevents.from_structured(value)], False
    if told and kind == JSON:
        return [cloudevents.from_binary(told, value)], False
    return (value, True) if isinstance(value, list) else ([value], False)


def _too_many(most: int) -> HubError:
    return HubError("too_large", f"One request can have {most} events at most.")


def _lines(text: bytes, most: int) -> list[Any]:
    """The events of NDJSON, counted before the first is parsed: a million lines cost no more than one."""
    lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line and not line.isspace()]
    if len(lines) > most:
        raise _too_many(most)
    records = []
    for number, line in lines:
        try:
            records.append(loads(line))
        except HubError as error:
            raise HubError(error.code, f"Line {number}: {error.message}") from None
    return records


# ---- commands


def _reader(read: Read) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answered(request: web.Request) -> web.StreamResponse:
        return await call(request, read.command, _args(request, *read.names))

    return answered


async def command(request: web.Request) -> web.StreamResponse:
    """POST /api/commands/{name}: the body is the args, the answer the result."""
    query(request)
    content_type(request, JSON)
    args = loads(await body(request) or b"{}")
    if not isinstance(args, dict):
        raise HubError("invalid_args", "The args of a command are one JSON object.")
    return await call(request, _name(request), args, confirm=header(request, CONFIRM), key=_key(request))


def _name(request: web.Request) -> str:
    """The command in the path, as it may be noted: a stranger writes there what he likes. None has a longer name."""
    return redact_text(request.match_info.get("name", ""))[: MAX_NAME + 1]


def _args(request: web.Request, *names: str) -> dict[str, Any]:
    """The query as args; `topics` as a list, `limit` and `before` as numbers if they are."""
    args: dict[str, Any] = dict(query(request, *names))
    if (texts := topics(request)) is not None:
        args["topics"] = texts
    for name in ("limit", "before"):
        text = args.get(name, "")
        if text.isascii() and text.isdigit():
            args[name] = int(text[:18])
    return args


def _key(request: web.Request) -> str | None:
    """The `Idempotency-Key`. Raises HubError for one that no frame could have."""
    key = header(request, KEY)
    if key is not None and not is_id(key):
        raise misfit("invalid_message", "The headers do not fit", {KEY: ["1 to 128 printable characters."]})
    return key


async def call(
    request: web.Request,
    name: str,
    args: dict[str, Any],
    respond: Callable[[bytes], web.Response] = answer,
    *,
    confirm: str | None = None,
    key: str | None = None,
    audited: bool = False,
) -> web.StreamResponse:
    """Call a command for who has sent this request, and answer it with `respond(result)`; `audited`: on record in any
    case. Raises HubError."""
    hub, loads, peer, client = request.app[HUB], request.app[LOADS], request[PEER], client_of(request, "http")
    who = peer.address, peer.uid
    load = client.load = loads.get(who) or Load()
    if load.running >= hub.config.max_calls:
        hub.commands.refuse(client, None, name, "busy")
        raise HubError("busy", f"{load.running} calls are running; wait for one to end.", retry_after=1)
    call = Call(hub, client, new_id(), request.content.total_bytes, confirm, key, audited)
    is_bound = _is_bound(request)
    if (running := request.get(RUNNING)) is not None:
        running.ends_itself = partial(_end, request, call)
    loads[who], load.running = load, load.running + 1
    watch = None
    if is_bound or (name == "hub:ask" and "while" in args):
        watch = asyncio.ensure_future(_leave(request, call, cancels=is_bound))
    try:
        return await _taken(request, load, respond(await hub.commands.call(call, name, args)))
    finally:
        if watch is not None:
            watch.cancel()
        load.running -= 1
        if not load.running:
            del loads[who]


def _end(request: web.Request, call: Call) -> bool:
    """End a call and a question that is bound to it, because whoever calls may not any more. Return whether it ends by
    itself: not while it is not admitted yet. What has run already is not told."""
    call.client.gone = True
    request.app[HUB].questions.withdraw_of(call.client)
    if call.cancel("forbidden"):
        return True
    if call.outcome is not None and request.transport is not None:
        request.transport.abort()
    return call.command is not None


def _is_bound(request: web.Request) -> bool:
    """Whether the call is to end with the connection of its request. Raises HubError for another word than that."""
    given = header(request, WHILE)
    if given not in (None, "connected"):
        raise misfit("invalid_message", "The headers do not fit", {WHILE: ["It can only be: connected."]})
    return given is not None


async def _leave(request: web.Request, call: Call, *, cancels: bool) -> None:
    """End what ends with the connection of a request."""
    await left(request)
    call.client.gone = True
    request.app[HUB].questions.withdraw_of(call.client)
    while cancels and not call.cancel():  # it may not be admitted yet
        await asyncio.sleep(LOOK_SECONDS)


async def _taken(request: web.Request, load: Load, response: web.Response) -> web.StreamResponse:
    """Write an answer, and wait until the client has taken it: so long it weighs. Who does not take it is cut off."""
    transport, size = request.transport, response.content_length or 0
    load.add(size)
    try:
        async with asyncio.timeout(TAKEN_SECONDS):
            await response.prepare(request)
            await response.write_eof()
            if transport is not None:
                transport.set_write_buffer_limits(0)  # and here it is looked at: asyncio's `writelines` forgets to
            await request.writer.drain()
    except TimeoutError:
        if transport is not None:
            transport.abort()
    finally:
        load.take(size)
    return response
