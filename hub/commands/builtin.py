"""The commands that every hub has, and the worked example of a command: its args, its effect, its handler.

The docstring of a handler is what `hub:commands` shows.
"""

import asyncio
from typing import Any

from marshmallow import Schema, fields, validate

from ..errors import CommandError, HubError
from ..stats import snapshot
from ..stream.subscriber import Subscriber
from ..wire.fieldtypes import CursorField, IdField, NameField, NumberField, PatternsField
from ..wire.names import EVERYTHING, MAX_PATTERNS, Cursor, Patterns
from ..wire.strictjson import LARGEST_EVENT, LARGEST_RESULT
from ..wire.timestamps import MAX_TTL
from ..wire.validation import ListField
from . import listing
from .asked import Asked, person
from .call import Call
from .declared import Declared
from .providers import MAX_PROVIDED, provided
from .questions import LARGEST, LONGEST
from .registry import EFFECTS
from .seen import MAX_KEY, mark

PROTOCOL = 1
MAX_SUMMARY, MAX_OPTION = 1000, 200  # characters
MAX_ANSWER = 10 * MAX_OPTION  # an option with its secrets taken out can be longer than it was
PONG = LARGEST_RESULT - 32  # bytes of args that an answer has room for

own = Declared()
register = own.register


def about(text: str, **more: Any) -> dict[str, Any]:
    """What a field is for, as `hub:commands`, the help of `hub call` and the documents show it."""
    return {"metadata": {"description": text}, **more}


def topics(text: str = "patterns, as task:*; all if left out", **more: Any) -> PatternsField:
    """The field of every command that takes patterns."""
    return PatternsField(**about(text, **more))


def limit(text: str) -> fields.Integer:
    """The field of every command that takes so many at most."""
    return fields.Integer(strict=True, load_default=100, validate=validate.Range(min=1, max=1000), **about(text))


OFFER: dict[str, fields.Field[Any]] = {
    "name": NameField(required=True),
    "summary": fields.String(load_default="", validate=validate.Length(max=MAX_SUMMARY)),
    "args": fields.Dict(**about("JSON Schema, draft 2020-12")),
    "effect": fields.String(load_default="write", validate=validate.OneOf(EFFECTS)),
}
RECORD: dict[str, fields.Field[Any]] = {
    "event": NameField(required=True, **about("its name, domain:action")),
    "data": fields.Raw(required=True, allow_none=True),
    "id": IdField(**about("the hub keeps an id once")),
    "ttl": NumberField(
        validate=validate.Range(min=0, max=MAX_TTL, min_inclusive=False),
        **about("seconds after which its last value is stale"),
    ),
}
QUESTION: dict[str, fields.Field[Any]] = {
    "question": fields.String(required=True, validate=validate.Length(1, 4000)),
    "options": ListField(
        fields.String(validate=validate.Length(1, MAX_OPTION)),
        required=True,
        validate=validate.Length(1, 16),
        metadata={"description": "the answers to choose from", "uniqueItems": True},
    ),
    "default": fields.String(allow_none=True, **about("the option that counts when nobody has answered in time")),
    "timeout": NumberField(load_default=600.0, validate=validate.Range(min=1, max=LONGEST), **about("seconds")),
    "details": fields.Raw(allow_none=True, **about("what else to show")),
    "while": fields.String(
        validate=validate.OneOf(["connected"]), **about("take it back when the connection that asks ends")
    ),
}


@own.command("hub:info", {}, effect="read")
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


@own.command("hub:ping", effect="read", largest=PONG)
async def ping(call: Call) -> Any:
    """Answer at once, with the args that came."""
    return {"pong": True, "args": call.args}


# ---- the caller's stream


@own.command(
    "hub:subscribe",
    {
        "topics": topics("patterns, as task:*", required=True),
        "after": CursorField(**about("get everything behind this cursor again")),
    },
    effect="read",
    turns="client",
)
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
    if after is not None:
        await call.hub.broker.reach(after)
    cursor = broadcaster.join(subscriber, patterns, after) if after else broadcaster.narrow(subscriber, patterns)
    subscriber.implied = False
    return {"topics": patterns.texts, "cursor": str(cursor)}


@own.command(
    "hub:unsubscribe",
    {"topics": topics("patterns, as they were asked for", required=True)},
    effect="read",
    turns="client",
)
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
    if call.client.subscriber.deaf:
        raise CommandError("This connection is a page's, which gets no events; connect to /ws without ?page=1.")
    return call.client.subscriber


# ---- events and what they left behind


@own.command("hub:publish", RECORD, audited=False)
async def publish(call: Call) -> Any:
    """Publish one event, `{event, data, id?, ttl?}`; its cursor comes back when it is kept."""
    published = await call.hub.accept([call.args], call.client.uid)
    return {"id": published.ids[0], "cursor": str(published.cursor)}


@own.command(
    "hub:history",
    {
        "topics": topics(),
        "after": CursorField(**about("a cursor: the oldest behind it, not the newest")),
        "limit": limit("events at most"),
    },
    effect="read",
    turns="hub",
)
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


@own.command(
    "hub:state",
    {"topics": topics(), "after": CursorField(**about("a cursor: those that have changed behind it"))},
    effect="read",
    turns="hub",
)
async def state(call: Call) -> Any:
    """Show the last value of every agent, task and other thing with a key, in the order in which they last changed.

    Ask again with `after` = `cursor` while there are `more`; from the last cursor the stream goes on without a hole.
    """
    return await listing.last_values(call.hub, _patterns(call), call.args.get("after"))


def _patterns(call: Call) -> Patterns:
    topics = call.args.get("topics")
    return EVERYTHING if topics is None else Patterns(topics)


# ---- questions to people


@own.command("hub:ask", QUESTION, limit=LONGEST + 60, repeats=False, largest=LARGEST)
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
    return await call.hub.questions.ask(asked, person(call.client), lambda: call.ended == "cancelled", call)


@own.command(
    "hub:answer",
    {
        "question": IdField(required=True, **about("its id")),
        "answer": fields.String(required=True, validate=validate.Length(max=MAX_ANSWER), **about("one of its options")),
    },
)
async def answer(call: Call) -> Any:
    """Answer an open question with one of its options; `accepted` says whether yours is the answer."""
    accepted = await call.hub.questions.answer(call.args["question"], call.args["answer"], person(call.client))
    return {"accepted": accepted}


@own.command("hub:questions", {}, effect="read", turns="client")
async def questions(call: Call) -> Any:
    """List the open questions, the oldest first, and no more than fit."""
    return await listing.listed(call.hub.questions.records())


@own.command(
    "hub:seen",
    {
        "event": NameField(required=True, **about("its name, as task:progress")),
        "key": fields.String(
            required=True,
            validate=validate.Length(max=MAX_KEY),
            **about("as hub:state shows it; of what has none, as a threat, its number"),
        ),
    },
)
async def seen(call: Call) -> Any:
    """Note that a person has seen this last value as it is now; a newer one of that key is unseen again."""
    hub, args = call.hub, call.args
    await mark(hub.bus, hub.state, hub.broadcaster.pages.read, args["event"], args["key"], person(call.client).name)
    return {}


# ---- the hub itself


@own.command("hub:commands", {"name": NameField(**about("only this one"))}, effect="read", turns="hub")
async def list_commands(call: Call) -> Any:
    """List every command, or one, with its args and what it can do."""
    name = call.args.get("name")
    return [command.describe() for command in provided(call.hub.commands) if name in (None, command.name)]


@own.command(
    "hub:clients", {"after": IdField(**about("those whose id is behind this one"))}, effect="read", turns="hub"
)
async def clients(call: Call) -> Any:
    """List who is connected, in the order of their ids: those behind `after`, and no more than fit."""
    return await listing.clients(call.hub, call.args.get("after", ""))


@own.command("hub:stats", {}, effect="read", turns="hub")
async def stats(call: Call) -> Any:
    """Show the hub's counters, as on /metrics, and its retention."""
    return {**snapshot(await call.hub.metrics.gather()), "retention": call.hub.retention()}


@own.command(
    "hub:provide",
    {
        "commands": fields.List(
            fields.Nested(Schema.from_dict(OFFER, name="Offer")),
            required=True,
            validate=validate.Length(max=MAX_PROVIDED),
        )
    },
    repeats=False,  # for each connection
)
async def provide(call: Call) -> Any:
    """Serve these commands, beside those that you serve already; all of them or none. An empty list takes all back.

    Calls come as `command` frames; answer each by its id. A `hub:cancel` among them names one that nobody waits for.
    """
    return {"provides": await call.hub.providers.provide(call.client, call.args["commands"])}


@own.command("hub:cancel", {"id": fields.String(required=True, **about("of a running call of yours"))}, effect="read")
async def cancel(call: Call) -> Any:
    """End a running call of your own. Not `cancelled`: it has ended otherwise, and is answered with that."""
    other = call.client.calls.get(call.args["id"])
    if other is None or other is call:
        return {"cancelled": False}
    withdrawn = await call.hub.questions.withdraw(other, person(call.client))
    if withdrawn is not None:
        return {"cancelled": withdrawn}
    if (is_ended := other.cancel()) and other.task is not None:
        await asyncio.wait({other.task})  # its handler may answer all the same
    return {"cancelled": is_ended and other.outcome in (None, "cancelled")}


@own.command(
    "audit:tail",
    {
        "limit": limit("records at most"),
        "before": fields.Integer(strict=True, validate=validate.Range(min=1), **about("a number: those before it")),
    },
    effect="read",
    turns="client",
)
async def audit_tail(call: Call) -> Any:
    """Show the newest records of the audit log, of those before the number `before`, and no more than fit."""
    return await call.hub.audit.tail(call.args["limit"], call.args.get("before"), LARGEST_EVENT)


@own.command("audit:verify", {}, effect="read")
async def audit_verify(call: Call) -> Any:
    """Check every record of the audit log against its chain."""
    return (await call.hub.audit.verify()).report()
