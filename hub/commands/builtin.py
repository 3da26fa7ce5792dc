"""The commands that every hub has, and the worked example of a command: its args, its effect, its handler.

The docstring of a handler is what `hub:commands` shows.
"""

from typing import TYPE_CHECKING, Any

from marshmallow import Schema, fields, validate

from ..errors import CommandError, HubError
from ..stream.subscriber import Subscriber
from ..wire.messages import MAX_TTL, CursorField, IdField, NameField, NumberField, PatternsField
from ..wire.names import EVERYTHING, MAX_PATTERNS, Cursor, Patterns
from ..wire.strictjson import LARGEST_EVENT
from ..wire.validation import ListField
from . import listing
from .asked import Asked, person
from .call import Call
from .clients import Client
from .providers import MAX_PROVIDED, provided
from .questions import LONGEST
from .registry import EFFECTS, Registry

if TYPE_CHECKING:
    from ..hub import Hub

PROTOCOL = 1
MAX_SUMMARY = 1000  # characters

_limit = validate.Range(min=1, max=1000)


def register(commands: Registry) -> None:
    """Give the registry the hub's own commands."""
    topics, after = PatternsField(), CursorField()
    limit = fields.Integer(strict=True, load_default=100, validate=_limit)
    before = fields.Integer(strict=True, validate=validate.Range(min=1))
    ttl = NumberField(validate=validate.Range(min=0, max=MAX_TTL, min_inclusive=False))
    data = fields.Raw(required=True, allow_none=True)
    offer: dict[str, fields.Field[Any]] = {
        "name": NameField(required=True),
        "summary": fields.String(load_default="", validate=validate.Length(max=MAX_SUMMARY)),
        "args": fields.Dict(),
        "effect": fields.String(load_default="write", validate=validate.OneOf(EFFECTS)),
    }
    length = validate.Length(max=MAX_PROVIDED)
    offers = fields.List(fields.Nested(Schema.from_dict(offer, name="Offer")), required=True, validate=length)
    record = {"event": NameField(required=True), "data": data, "id": IdField(), "ttl": ttl}
    commands.add("hub:info", info, {}, effect="read")
    commands.add("hub:ping", ping, effect="read")
    commands.add(
        "hub:subscribe",
        subscribe,
        {"topics": PatternsField(required=True), "after": after},
        effect="read",
        turns="client",
    )
    commands.add(
        "hub:unsubscribe", unsubscribe, {"topics": PatternsField(required=True)}, effect="read", turns="client"
    )
    commands.add("hub:publish", publish, record, audited=False)
    commands.add("hub:history", history, {"topics": topics, "after": after, "limit": limit}, effect="read", turns="hub")
    commands.add("hub:state", state, {"topics": topics, "after": after}, effect="read", turns="hub")
    commands.add("hub:commands", list_commands, {"name": NameField()}, effect="read", turns="hub")
    commands.add("hub:clients", clients, {"after": IdField()}, effect="read", turns="hub")
    commands.add("hub:stats", stats, {}, effect="read", turns="hub")
    commands.add("hub:provide", provide, {"commands": offers}, effect="write", repeats=False)  # for each connection
    commands.add("hub:ask", ask, _question(), limit=LONGEST + 60, repeats=False)
    commands.add("hub:answer", answer, {"question": IdField(required=True), "answer": fields.String(required=True)})
    commands.add("hub:questions", questions, {}, effect="read", turns="client")
    commands.add("hub:cancel", cancel, {"id": fields.String(required=True)}, effect="read")
    commands.add("audit:tail", audit_tail, {"limit": limit, "before": before}, effect="read", turns="client")
    commands.add("audit:verify", audit_verify, {}, effect="read")


def _question() -> dict[str, fields.Field[Any]]:
    texts = ListField(fields.String(validate=validate.Length(1, 200)), validate=validate.Length(1, 16), required=True)
    return {
        "question": fields.String(required=True, validate=validate.Length(1, 4000)),
        "options": texts,
        "default": fields.String(allow_none=True),
        "timeout": NumberField(load_default=600.0, validate=validate.Range(min=1, max=LONGEST)),
        "details": fields.Raw(allow_none=True),
        "while": fields.String(validate=validate.OneOf(["connected"])),
    }


async def info(call: Call) -> Any:
    """Say which hub this is, who it takes you for, and what its limits are."""
    config = call.hub.config
    limits = ("max_frame", "max_body", "max_batch", "max_calls", "call_timeout", "rate", "max_clients")
    return {
        "version": call.hub.version,
        "protocol": PROTOCOL,
        "client": call.client.id,
        "trust": call.trust,
        "cursor": str(call.hub.cursor),
        "heartbeat": config.heartbeat,
        "limits": {name: getattr(config, name) for name in limits},
    }


async def ping(call: Call) -> Any:
    """Answer at once, with the args that came."""
    return {"pong": True, "args": call.args}


# ---- the caller's stream


async def subscribe(call: Call) -> Any:
    """Add patterns to what you get; with `after`, get everything behind that cursor again.

    The first call replaces the `*` of a client that named no topics. `cursor` is the position behind which the
    stream goes on: everything that matches and lies behind it comes.
    """
    subscriber = _subscriber(call)
    known = () if subscriber.implied else subscriber.patterns.texts
    patterns = Patterns((*known, *call.args["topics"]))
    if len(patterns.texts) > MAX_PATTERNS:
        raise HubError("invalid_args", f"A client can have {MAX_PATTERNS} patterns at most.")
    broadcaster, after = call.hub.broadcaster, call.args.get("after")
    cursor = broadcaster.join(subscriber, patterns, after) if after else broadcaster.narrow(subscriber, patterns)
    subscriber.implied = False
    return {"topics": patterns.texts, "cursor": str(cursor)}


async def unsubscribe(call: Call) -> Any:
    """Take patterns away from what you get, each written as it was when you asked for it."""
    subscriber = _subscriber(call)
    patterns = Patterns(set(subscriber.patterns.texts) - set(call.args["topics"]))
    subscriber.implied = subscriber.implied and patterns == subscriber.patterns
    call.hub.broadcaster.narrow(subscriber, patterns)
    return {"topics": patterns.texts}


def _subscriber(call: Call) -> Subscriber:
    if call.client.subscriber is None:
        raise CommandError("There is no stream to change here: connect to /ws, or use ?topics= and ?after=.")
    return call.client.subscriber


# ---- events and what they left behind


async def publish(call: Call) -> Any:
    """Publish one event, `{event, data, id?, ttl?}`; its cursor comes back when it is kept."""
    published = await call.hub.bus.publish([call.args])
    return {"id": published.ids[0], "cursor": str(published.cursor)}


async def history(call: Call) -> Any:
    """Read kept events, in order: with `after` the oldest behind it, else the newest.

    An answer ends with what fits. Continue behind `cursor` while there are `more`; `complete` says that nothing asked
    for has been trimmed.
    """
    patterns, limit = _patterns(call), call.args["limit"]
    after: Cursor | None = call.args.get("after")
    if after is None:
        return await listing.newest(call.hub, patterns, limit)
    return await listing.behind(call.hub, after, patterns, limit)


async def state(call: Call) -> Any:
    """Show the last value of every agent, task and other thing with a key, in the order in which they last changed.

    Ask again with `after` = `cursor` while there are `more`; from the last cursor the stream goes on without a hole.
    """
    return await listing.last_values(call.hub, _patterns(call), call.args.get("after"))


def _patterns(call: Call) -> Patterns:
    topics = call.args.get("topics")
    return EVERYTHING if topics is None else Patterns(topics)


# ---- questions to people


async def ask(call: Call) -> Any:
    """Ask a person, and wait for the answer: one of the `options`, or the `default` when `timeout` seconds are over.

    Everybody sees the question; the first answer wins. It outlives your connection, unless you ask it only `while` you
    are "connected": ask again with the same idempotency key and get its answer.
    """
    args = call.args
    asked = Asked(
        args["question"],
        args["options"],
        args.get("default"),
        args["timeout"],
        args.get("details"),
        call.client if "while" in args else None,
        call.idempotency_key,
    )
    return await call.hub.questions.ask(asked, person(call.client), lambda: call.ended == "cancelled")


async def answer(call: Call) -> Any:
    """Answer an open question with one of its options; `accepted` says whether yours is the answer."""
    accepted = await call.hub.questions.answer(call.args["question"], call.args["answer"], person(call.client))
    return {"accepted": accepted}


async def questions(call: Call) -> Any:
    """List the open questions, the oldest first, and no more than fit."""
    return await listing.listed(call.hub.questions.records())


# ---- the hub itself


async def list_commands(call: Call) -> Any:
    """List every command, or one, with its args and what it can do."""
    name = call.args.get("name")
    return [command.describe() for command in provided(call.hub.commands) if name in (None, command.name)]


async def clients(call: Call) -> Any:
    """List who is connected, in the order of their ids: those behind `after`, and no more than fit."""
    after = call.args.get("after", "")
    behind = sorted((client for client in call.hub.clients if client.id > after), key=lambda client: client.id)
    return await listing.listed(_described(call.hub, client) for client in behind)


def _described(hub: "Hub", client: Client) -> dict[str, Any]:
    return {
        "client": client.id,
        "transport": client.transport,
        "peer": client.peer,
        "since": client.since,
        "topics": client.subscriber.patterns.texts if client.subscriber else [],
        "lag": hub.broadcaster.lag(client.subscriber) if client.subscriber else 0,
        "provides": hub.providers.names(client),
    }


async def stats(call: Call) -> Any:
    """Show the hub's counters, as on /metrics, and its retention."""
    return {**call.hub.metrics.snapshot(), "retention": call.hub.retention()}


async def provide(call: Call) -> Any:
    """Serve these commands, beside those that you serve already; all of them or none. An empty list takes all back.

    Calls come as `command` frames; answer each by its id. A `hub:cancel` among them names one that nobody waits for.
    """
    return {"provides": await call.hub.providers.provide(call.client, call.args["commands"])}


async def cancel(call: Call) -> Any:
    """End a running call of your own."""
    other = call.client.calls.get(call.args["id"])
    return {"cancelled": other is not None and other is not call and other.cancel()}


async def audit_tail(call: Call) -> Any:
    """Show the newest records of the audit log, of those before the number `before`, and no more than fit."""
    return await call.hub.audit.tail(call.args["limit"], call.args.get("before"), LARGEST_EVENT)


async def audit_verify(call: Call) -> Any:
    """Check every record of the audit log against its chain."""
    return (await call.hub.audit.verify()).report()
