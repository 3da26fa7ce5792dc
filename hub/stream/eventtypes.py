"""Event types: their names, schemas and keys; and those that every hub knows."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from ..errors import HubError
from ..wire.fieldtypes import FlagField, NumberField
from ..wire.names import is_name
from ..wire.quick import quick
from ..wire.validation import bounded, invalid

LARGEST_PID = 2**31 - 1  # of a process, anywhere

Key = str | Callable[[Mapping[str, Any]], str]


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
        if not isinstance(key, (str, int)) or isinstance(key, bool):
            sentence = f"The data of {self.name} needs a text or a whole number as {self.key!r}: its key."
            raise HubError("invalid_message", sentence, {"data": {str(self.key): ["Missing or not a key."]}})
        return str(key)


class EventTypes:
    """The event types of one hub, by name."""

    def __init__(self) -> None:
        self._types = dict(_known())

    def add(
        self, name: str, schema: type[Schema] | Mapping[str, fields.Field[Any]] | None = None, key: Key | None = None
    ) -> EventType:
        """Register a type. Unknown fields are kept, wrong known ones refused. Raises ValueError for a bad name."""
        if not is_name(name) or name.startswith("hub:"):
            raise ValueError(f"{name!r} cannot name an event type: it must be domain:action, and not of the hub's own.")
        if isinstance(schema, Mapping):
            schema = Schema.from_dict(dict(schema))
        self._types[name] = _made(name, schema, key)
        return self._types[name]

    def check(self, name: str, data: Any) -> str | None:
        """The key of this data if the type has keys. Raises HubError `invalid_message`."""
        type = self._types.get(name)
        return type.check(data) if type else None

    def key(self, name: str, data: Any) -> str | None:
        """The key of data that has been checked, and cleaned since. Raises HubError `invalid_message`."""
        type = self._types.get(name)
        return type.key_of(data) if type else None

    def has_keys(self, name: str) -> bool:
        """Whether events of this name have last values, by a key."""
        return name in self._types and self._types[name].key is not None

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Any:
        return iter(self._types.values())


def _made(name: str, schema: type[Schema] | None, key: Key | None) -> EventType:
    loaded = bounded(schema(unknown=INCLUDE)) if schema else None
    return EventType(name, loaded, key, (schema.__doc__ or "").strip() if schema else "")


@cache
def _known() -> Mapping[str, EventType]:
    """Those of `KNOWN`, for all hubs of this process: nothing of a type ever changes."""
    return {name: _made(name, schema, key) for name, (schema, key) in KNOWN.items()}


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


def _pid() -> fields.Integer:
    return fields.Integer(strict=True, validate=validate.Range(min=1, max=LARGEST_PID), allow_none=True)


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
    pid = _pid()


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
    pid = _pid()


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
