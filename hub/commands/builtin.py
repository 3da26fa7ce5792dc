"""The commands that every hub has, and the worked example of a command: its args, its effect, its handler.

The docstring of a handler is what `hub:commands` shows.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from marshmallow import fields, validate

from ..errors import CommandError, HubError
from ..stream.brokers.broker import Broker
from ..stream.events import Event
from ..stream.subscriber import Subscriber
from ..wire.messages import MAX_TTL, CursorField, IdField, NameField, NumberField, PatternsField
from ..wire.names import EVERYTHING, MAX_PATTERNS, Cursor, Patterns
from .registry import Call, Registry

PROTOCOL = 1
PAGE_BYTES = 1024 * 1024  # of events in one answer of hub:history
SCAN = 200  # events that it reads at a time

_limit = validate.Range(min=1, max=1000)


def register(commands: Registry) -> None:
    """Give the registry the hub's own commands."""
    topics, after = PatternsField(), CursorField()
    limit = fields.Integer(strict=True, load_default=100, validate=_limit)
    ttl = NumberField(validate=validate.Range(min=0, max=MAX_TTL, min_inclusive=False))
    data = fields.Raw(required=True, allow_none=True)
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
    commands.add("hub:state", state, {"topics": topics}, effect="read", turns="hub")
    commands.add("hub:commands", list_commands, {}, effect="read", turns="hub")
    commands.add("hub:clients", clients, {}, effect="read", turns="hub")
    commands.add("hub:stats", stats, {}, effect="read", turns="hub")
    commands.add("hub:cancel", cancel, {"id": fields.String(required=True)}, effect="read")
    commands.add("audit:tail", audit_tail, {"limit": limit}, effect="read", turns="client")
    commands.add("audit:verify", audit_verify, {}, effect="read")


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

    Continue behind `cursor` while there are `more`; `complete` says that nothing asked for has been trimmed.
    """
    patterns, limit = _patterns(call), call.args["limit"]
    after: Cursor | None = call.args.get("after")
    if after is None:
        return await _newest(call, patterns, limit)
    return await _behind(call, after, patterns, limit)


async def _behind(call: Call, after: Cursor, patterns: Patterns, limit: int) -> dict[str, Any]:
    hub = call.hub
    start, foreign = hub.broadcaster.start(after)
    found: list[Event] = []
    size, position, complete, more = 0, start, not foreign, False
    while not more and position < hub.cursor.seq and (page := await _read(hub.broker, position)):
        if page[0].seq != position + 1:  # what lies between has been trimmed
            if position > start:  # meanwhile: a page ends before a hole, and has none in it
                more = True
                break
            complete = False
        for event in page:
            if patterns.match(event.name):
                more = len(found) == limit or size >= PAGE_BYTES
                if more:
                    break
                found.append(event)
                size += len(event)
            position = event.seq
    if position == start:  # nothing is left behind `after`
        position = max(start, hub.broker.tail - 1)
        complete = complete and position == start
    return _page(hub.broker.epoch, found, position, complete, more)


async def _newest(call: Call, patterns: Patterns, limit: int) -> dict[str, Any]:
    hub = call.hub
    until = head = hub.cursor.seq
    found: list[Event] = []
    size = 0
    while until >= hub.broker.tail and len(found) < limit and size < PAGE_BYTES:
        page = await _read(hub.broker, max(until - SCAN, 0), min(until, SCAN))
        for event in reversed(page):
            if event.seq <= until and patterns.match(event.name) and len(found) < limit and size < PAGE_BYTES:
                found.append(event)
                size += len(event)
        until = min(until, page[0].seq) - 1 if page else 0
    complete = len(found) == limit or hub.broker.tail == 1
    return _page(hub.broker.epoch, found[::-1], head, complete, False)


async def _read(broker: Broker, after: int, limit: int = SCAN) -> list[Event]:
    await asyncio.sleep(0)  # looking through all that is kept keeps nobody else waiting
    return await broker.read(after, limit)


def _page(epoch: str, found: Sequence[Event], position: int, complete: bool, more: bool) -> dict[str, Any]:
    events = [json.loads(event.json) for event in found]
    return {"events": events, "cursor": str(Cursor(epoch, position)), "complete": complete, "more": more}


async def state(call: Call) -> Any:
    """Show the last value of every agent, task and other thing with a key; continuing from `cursor` misses nothing."""
    return call.hub.snapshot(_patterns(call))


def _patterns(call: Call) -> Patterns:
    topics = call.args.get("topics")
    return EVERYTHING if topics is None else Patterns(topics)


# ---- the hub itself


async def list_commands(call: Call) -> Any:
    """List every command with its args and what it can do."""
    return [command.describe() for command in call.hub.commands]


async def clients(call: Call) -> Any:
    """List who is connected."""
    hub = call.hub
    return [
        {
            "client": client.id,
            "transport": client.transport,
            "peer": client.peer,
            "since": client.since,
            "topics": client.subscriber.patterns.texts if client.subscriber else [],
            "lag": hub.broadcaster.lag(client.subscriber) if client.subscriber else 0,
            "provides": [],
        }
        for client in hub.clients
    ]


async def stats(call: Call) -> Any:
    """Show the hub's counters, as on /metrics, and its retention."""
    return {**call.hub.metrics.snapshot(), "retention": call.hub.retention()}


async def cancel(call: Call) -> Any:
    """End a running call of your own."""
    other = call.client.calls.get(call.args["id"])
    return {"cancelled": other is not None and other is not call and other.cancel()}


async def audit_tail(call: Call) -> Any:
    """Show the newest records of the audit log."""
    return await call.hub.audit.tail(call.args["limit"])


async def audit_verify(call: Call) -> Any:
    """Check every record of the audit log against its chain."""
    return (await call.hub.audit.verify()).report()
