"""Event types: their names, schemas and keys; the six that every hub knows; and an event itself."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from ..errors import HubError
from ..wire.framing import envelope, last_value, notice, sse_frame, websocket_frame
from ..wire.messages import FlagField, NumberField, now, quick
from ..wire.names import Cursor, is_name
from ..wire.strictjson import dumps
from ..wire.validation import bounded, invalid

Key = str | Callable[[Mapping[str, Any]], str]


@dataclass(slots=True)
class Draft:
    """An event that has been checked and redacted and waits for its number. `body` is the JSON of its data."""

    name: str
    id: str
    body: bytes
    key: str | None = None
    ttl: float | None = None
    given: bool = False  # the publisher chose the id, so it must not be accepted twice


class Event:
    """An accepted event. Its bytes are made once, as a WebSocket frame; everything else is cut out of that.

    `seq` counts from 1 in its epoch; `size` is that of its frame, in bytes. `timestamp` is when the hub accepted it,
    `accepted` the same on the monotonic clock in seconds. `data` is parsed anew at each access, so that no listener can
    change what others see.
    """

    withheld = False
    __slots__ = (
        "_body",
        "_text",
        "accepted",
        "cursor",
        "frame",
        "id",
        "key",
        "name",
        "seq",
        "size",
        "timestamp",
        "ttl",
    )

    def __init__(self, draft: Draft, cursor: Cursor, timestamp: str, accepted: float) -> None:
        id = dumps(draft.id) if draft.given else f'"{draft.id}"'
        text = envelope(id, timestamp, cursor, draft.name, draft.body)
        self.seq, self.cursor, self.name, self.id = cursor.seq, cursor, draft.name, draft.id
        self.timestamp, self.accepted = timestamp, accepted
        self.key, self.ttl = draft.key, draft.ttl
        self.frame = websocket_frame(text)
        self.size = len(self.frame)
        self._text = self.size - len(text)
        self._body = self.size - len(draft.body) - 2

    @property
    def json(self) -> bytes:
        """The whole envelope."""
        return self.frame[self._text :]

    @property
    def sse(self) -> bytes:
        """The event as a Server-Sent Event."""
        return sse_frame(self.json, self.name, self.cursor)

    @property
    def body(self) -> bytes:
        """The JSON of its data."""
        return self.frame[self._body : -2]

    @property
    def data(self) -> Any:
        return json.loads(self.body)

    def item(self, stale: bool) -> bytes:
        """The JSON of the last value of a key, as hub:state shows it."""
        return last_value(self.name, self.key or "", self.timestamp, self.body, stale)

    def __repr__(self) -> str:
        return f"<Event {self.cursor} {self.name}>"


class Withheld(Event):
    """An event of an older version, which took larger ones than can be sent: clients would close the connection, again
    at each resume. Where it would stand they are told of a gap, and the stream goes on."""

    withheld = True
    __slots__ = ("_whole",)

    def __init__(self, draft: Draft, cursor: Cursor, timestamp: str, accepted: float) -> None:
        super().__init__(draft, cursor, timestamp, accepted)
        before, after = (str(Cursor(cursor.epoch, cursor.seq + step)) for step in (1, -1))
        text = notice("hub:gap", {"after": after, "before": before, "count": 1, "reason": "expired"})
        self._whole, self.frame = self.frame, websocket_frame(text)
        self._text = len(self.frame) - len(text)

    @property
    def body(self) -> bytes:
        return self._whole[self._body : -2]

    @property
    def sse(self) -> bytes:
        return sse_frame(self.json, "hub:gap", None)


def weight(draft: Draft, cursor: Cursor) -> int:
    """How many bytes the envelope will have, or the last value, if that is larger: a key stands there once more."""
    event = Event(draft, cursor, now(), 0.0)
    return max(len(event.json), len(event.item(False)) if event.key is not None else 0)


class EventType:
    """What is known of one event name. `key` names the field (or finds the text) that tells its states apart."""

    def __init__(self, name: str, schema: Schema | None, key: Key | None = None, summary: str = "") -> None:
        self.name, self.schema, self.key, self.summary = name, schema, key, summary
        self._fits = quick(schema) if schema else None

    def check(self, data: Any) -> str | None:
        """The key of this data, or None. Raises HubError `invalid_message` with field paths."""
        if self.schema is not None and not (self._fits and self._fits(data)):
            errors = self.schema.validate(data)
            if errors:
                raise invalid(
                    "invalid_message", f"The data of {self.name} does not fit", ValidationError({"data": errors})
                )
        return self.key_of(data)

    def key_of(self, data: Any) -> str | None:
        """The key of data whose fields have been checked, or None. Raises HubError `invalid_message`."""
        if self.key is None:
            return None
        key = self.key(data) if callable(self.key) else data.get(self.key) if isinstance(data, dict) else None
        if not isinstance(key, str | int) or isinstance(key, bool):
            sentence = f"The data of {self.name} needs a text or a whole number as {self.key!r}: its key."
            raise HubError("invalid_message", sentence, {"data": {str(self.key): ["Missing or not a key."]}})
        return str(key)


class EventTypes:
    """The event types of one hub, by name."""

    def __init__(self) -> None:
        self._types: dict[str, EventType] = {}
        for name, (schema, key) in KNOWN.items():
            self.add(name, schema, key)

    def add(
        self, name: str, schema: type[Schema] | Mapping[str, fields.Field[Any]] | None = None, key: Key | None = None
    ) -> EventType:
        """Register a type. Unknown fields are kept, wrong known ones refused. Raises ValueError for a bad name."""
        if not is_name(name) or name.startswith("hub:"):
            raise ValueError(f"{name!r} cannot name an event type: it must be domain:action, and not of the hub's own.")
        if isinstance(schema, Mapping):
            schema = Schema.from_dict(dict(schema))
        loaded = bounded(schema(unknown=INCLUDE)) if schema else None
        self._types[name] = EventType(name, loaded, key, (schema.__doc__ or "").strip() if schema else "")
        return self._types[name]

    def check(self, name: str, data: Any) -> str | None:
        """The key of this data if the type has keys. Raises HubError `invalid_message`."""
        type = self._types.get(name)
        return type.check(data) if type else None

    def key(self, name: str, data: Any) -> str | None:
        """The key of data that has been checked, and cleaned since. Raises HubError `invalid_message`."""
        type = self._types.get(name)
        return type.key_of(data) if type else None

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Any:
        return iter(self._types.values())


def _text(**kwargs: Any) -> fields.String:
    return fields.String(allow_none=True, **kwargs)


def _key(**kwargs: Any) -> fields.String:
    return fields.String(required=True, validate=validate.Length(min=1), **kwargs)


def _one_of(*choices: str, **kwargs: Any) -> fields.String:
    return fields.String(validate=validate.OneOf(choices), **kwargs)


def _count(**kwargs: Any) -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=0), **kwargs)


def _number(least: float, most: float | None = None, **kwargs: Any) -> fields.Float:
    return NumberField(validate=validate.Range(min=least, max=most), **kwargs)


_VOTES = ("approve", "reject", "abstain")


class AgentStatusChange(Schema):
    """An agent changed what it is doing."""

    id = _key()
    status = _one_of("starting", "active", "idle", "stopped", "error", required=True)
    type = _text()
    task = _text()
    reason = _text()
    last_active = _text()
    tasks_completed = _count()
    tasks_in_progress = _count()
    tasks_failed = _count()
    error_count = _count()
    parent = _text()
    host = _text()
    pid = _count(allow_none=True)


class TaskProgress(Schema):
    """A task moved on."""

    id = _key()
    name = _text()
    status = _one_of("queued", "running", "waiting_approval", "succeeded", "failed", "cancelled")
    progress = _number(0, 100, allow_none=True)
    message = _text()
    agent = _text()
    started_at = _text()
    ended_at = _text()
    duration_ms = _number(0, allow_none=True)
    error = _text()


class VoteCast(Schema):
    """A vote was cast, or a ballot changed its state."""

    vote_id = _key()
    topic = _text()
    agent = _text()
    option = _one_of(*_VOTES)
    threshold = _one_of("majority", "supermajority", "unanimous")
    eligible = _count(allow_none=True)
    deadline = _text()
    status = _one_of("open", "passed", "failed", "expired", "vetoed")
    votes = fields.Dict(values=_one_of(*_VOTES))
    reasoning = _text()


class ThreatDetected(Schema):
    """Something looks like an attack."""

    type = _key()
    severity = _one_of("low", "medium", "high", "critical", required=True)
    source = _text()
    risk_score = _number(0, 1, allow_none=True)
    mitigated = FlagField()
    details = fields.Raw(allow_none=True)


class AuditNewEvent(Schema):
    """An application wrote to an audit log of its own."""

    action = _key()
    actor = fields.Raw(allow_none=True)
    trust = _text()
    details = fields.Raw(allow_none=True)
    hash = _text()


class ToolCall(Schema):
    """An agent used one of its tools."""

    agent = _key()
    tool = _key()
    phase = _one_of("started", "finished", "failed", "denied", required=True)
    call = _text()
    summary = _text()
    duration_ms = _number(0, allow_none=True)
    error = _text()
    task = _text()


class AlertStatus(Schema):
    """An alert of a monitoring system began, or is over."""

    id = _key()
    status = _one_of("firing", "resolved", required=True)
    title = _text()
    severity = _text()
    source = _text()
    description = _text()
    url = _text()
    started_at = _text()
    ended_at = _text()
    labels = fields.Dict()


class MemoryStatsUpdate(Schema):
    """An agent's memory, counted."""

    total_entries = _count(required=True)
    by_partition = fields.Dict(values=_count())
    by_type = fields.Dict(values=_count())
    quarantined = _count()
    verified = _count()
    bytes = _count()


KNOWN: Mapping[str, tuple[type[Schema], Key | None]] = {
    "agent:status_change": (AgentStatusChange, "id"),
    "task:progress": (TaskProgress, "id"),
    "governance:vote_cast": (VoteCast, "vote_id"),
    "security:threat_detected": (ThreatDetected, None),
    "audit:new_event": (AuditNewEvent, None),
    "agent:tool_call": (ToolCall, None),
    "alert:status": (AlertStatus, "id"),
    "memory:stats_update": (MemoryStatsUpdate, lambda data: "memory"),
}
