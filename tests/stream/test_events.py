"""Event types: the six known ones, an application's own, and the bytes of an event."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields, validate

from hub.errors import HubError
from hub.stream.events import Draft, Event
from hub.stream.eventtypes import KNOWN, EventTypes
from hub.wire.names import Cursor
from hub.wire.quick import quick
from hub.wire.strictjson import dumpb
from hub.wire.validation import bounded

ANY = st.none() | st.booleans() | st.integers() | st.text() | st.floats() | st.lists(st.integers())
GOOD: dict[str, list[dict[str, Any]]] = {
    "agent:status_change": [{"id": "a", "status": "idle"}, {"id": "a", "status": "error", "pid": 3, "mood": "fine"}],
    "task:progress": [{"id": "b"}, {"id": "b", "progress": None}, {"id": "b", "progress": 99.5, "status": "running"}],
    "governance:vote_cast": [{"vote_id": "v", "votes": {"a": "approve"}, "threshold": "majority", "eligible": 3}],
    "security:threat_detected": [{"type": "t", "severity": "low", "risk_score": 0.5, "details": [1]}],
    "audit:new_event": [{"action": "x", "actor": {"id": 1}}],
    "agent:tool_call": [
        {"agent": "a", "tool": "Bash", "phase": "denied"},
        {"agent": "a", "tool": "Bash", "phase": "finished", "call": "7", "duration_ms": 12.5, "task": "t", "mine": 1},
    ],
    "alert:status": [
        {"id": "a", "status": "firing", "severity": "page", "labels": {"host": "x"}},
        {"id": "a", "status": "resolved", "title": None},
    ],
    "memory:stats_update": [{"total_entries": 0, "by_type": {"fact": 3}}],
}
BAD: list[tuple[str, Any, str]] = [
    ("agent:status_change", {"id": "a"}, "status"),
    ("agent:status_change", {"id": "", "status": "idle"}, "id"),
    ("agent:status_change", {"id": "a", "status": "asleep"}, "status"),
    ("agent:status_change", {"id": "a", "status": "idle", "tasks_failed": -1}, "tasks_failed"),
    ("agent:status_change", {"id": "a", "status": "idle", "tasks_failed": "3"}, "tasks_failed"),
    ("task:progress", {}, "id"),
    ("task:progress", {"id": 5}, "id"),
    ("task:progress", {"id": "b", "progress": 101}, "progress"),
    ("task:progress", {"id": "b", "progress": -0.1}, "progress"),
    ("task:progress", {"id": "b", "progress": "40"}, "progress"),
    ("task:progress", {"id": "b", "progress": True}, "progress"),
    ("task:progress", {"id": "b", "status": "done"}, "status"),
    ("task:progress", [], "data"),
    ("task:progress", "text", "data"),
    ("task:progress", None, "data"),
    ("governance:vote_cast", {"vote_id": "v", "votes": {"a": "maybe"}}, "votes"),
    ("governance:vote_cast", {"vote_id": "v", "option": "yes"}, "option"),
    ("security:threat_detected", {"type": "t"}, "severity"),
    ("security:threat_detected", {"type": "t", "severity": "low", "risk_score": 1.5}, "risk_score"),
    ("security:threat_detected", {"type": "t", "severity": "low", "mitigated": "yes"}, "mitigated"),
    ("audit:new_event", {}, "action"),
    ("agent:tool_call", {"agent": "a", "tool": "Bash"}, "phase"),
    ("agent:tool_call", {"agent": "a", "tool": "", "phase": "started"}, "tool"),
    ("agent:tool_call", {"agent": "a", "tool": "Bash", "phase": "started", "duration_ms": "1"}, "duration_ms"),
    ("alert:status", {"status": "firing"}, "id"),
    ("alert:status", {"id": "a", "status": "open"}, "status"),
    ("alert:status", {"id": "a", "status": "firing", "labels": []}, "labels"),
    ("memory:stats_update", {"total_entries": 1.5}, "total_entries"),
    ("memory:stats_update", {"total_entries": 1, "by_type": {"fact": 3, "rule": -1}}, "by_type"),
    ("memory:stats_update", {"total_entries": 1, "by_type": {"fact": True}}, "by_type"),
    ("memory:stats_update", {"total_entries": 1, "by_type": {"fact": "3"}}, "by_type"),
    ("memory:stats_update", {"total_entries": 1, "by_type": [3]}, "by_type"),
    ("memory:stats_update", {"total_entries": 1, "by_type": None}, "by_type"),
]


@pytest.mark.parametrize("name", KNOWN)
def test_known_types_take_what_fits(name: str) -> None:
    for data in GOOD[name]:
        EventTypes().check(name, data)


@pytest.mark.parametrize(("name", "data", "path"), BAD, ids=str)
def test_known_types_refuse_what_does_not(name: str, data: Any, path: str) -> None:
    with pytest.raises(HubError) as refused:
        EventTypes().check(name, data)
    assert refused.value.code == "invalid_message"
    assert path in json.dumps(refused.value.details)


@given(st.dictionaries(st.sampled_from(["a", "b", "total_entries"]), ANY | st.dictionaries(st.text(), ANY)))
@pytest.mark.parametrize("allow_none", [False, True])
def test_the_quick_look_takes_only_what_the_schema_takes(allow_none: bool, data: dict[str, Any]) -> None:
    least = validate.Range(min=0)
    counts = fields.Dict(values=fields.Integer(strict=True, validate=least, allow_none=allow_none))
    schema = Schema.from_dict({"a": counts, "b": fields.Integer(validate=least), "total_entries": fields.Dict()})()
    fits = quick(schema)
    assert fits is not None
    assert not fits(data) or not schema.validate(data)


def test_counts_and_texts_by_name_need_no_second_look() -> None:
    """They are counted among the looks that marshmallow takes at a value."""
    looked = []

    class Count(fields.Integer):
        def deserialize(self, value: Any, *args: Any, **more: Any) -> Any:
            looked.append(value)
            return super().deserialize(value, *args, **more)

    for type in (fields.Integer, Count):
        fits = quick(bounded(Schema.from_dict({"a": fields.Dict(values=type(strict=True))})()))
        assert fits is not None
        assert fits({"a": {"x": 1}})
    assert looked == [1], "a class of an application's own decides by itself"


def test_keys() -> None:
    types = EventTypes()
    assert types.check("task:progress", {"id": "b"}) == "b"
    assert types.check("governance:vote_cast", {"vote_id": "v"}) == "v"
    assert types.check("memory:stats_update", {"total_entries": 1}) == "memory"
    assert types.check("security:threat_detected", {"type": "t", "severity": "low"}) is None
    assert types.check("any:thing", [1]) is None


def test_an_applications_own_type() -> None:
    types = EventTypes()
    types.add("orders:cancelled", {"order": fields.Integer(strict=True, required=True)}, key="order")
    assert types.check("orders:cancelled", {"order": 7, "by": "me"}) == "7"
    with pytest.raises(HubError, match="order"):
        types.check("orders:cancelled", {"order": "seven"})


def test_a_key_without_a_schema() -> None:
    types = EventTypes()
    types.add("door:moved", key="door")
    assert types.check("door:moved", {"door": "front"}) == "front"
    bad: list[Any] = [{}, [], {"door": None}, {"door": True}, {"door": [1]}]
    for data in bad:
        with pytest.raises(HubError) as refused:
            types.check("door:moved", data)
        assert refused.value.code == "invalid_message"


@pytest.mark.parametrize("name", ["bad", "hub:mine", "a b:c"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        EventTypes().add(name)


@pytest.mark.parametrize("size", [0, 20, 126, 300, 70_000])
def test_the_bytes_of_an_event(size: int) -> None:
    data = {"text": "ä" * size, "n": [1, {"x": None}]}
    event = Event(Draft("a:b", 'quote"d', dumpb(data), given=True), Cursor("e", 7), "2026-01-01T00:00:00.000Z", 1.0)
    envelope = json.loads(event.json)
    assert envelope == {
        "type": "event",
        "id": 'quote"d',
        "timestamp": "2026-01-01T00:00:00.000Z",
        "cursor": "e:7",
        "payload": {"event": "a:b", "data": data},
    }
    assert event.data == data
    assert event.frame.endswith(event.json)
    assert event.sse == b"id: e:7\nevent: a:b\ndata: " + event.json + b"\n\n"
