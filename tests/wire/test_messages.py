"""What crosses the wire: time stamps, frames in and out, and the schemas as JSON Schema."""

import json
import re
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, post_load, validate
from values import strict_json

from hub.errors import CODES, HubError
from hub.wire import framing, messages
from hub.wire.jsonschema import json_schema
from hub.wire.messages import Answer, BadFrame, CursorField, FlagField, NameField, PatternsField, load_command
from hub.wire.strictjson import dumpb


def test_now_is_rfc_3339_with_milliseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", messages.now())


def frame(**fields: Any) -> str:
    base = {"type": "command", "id": "1", "payload": {"command": "hub:ping"}}
    return json.dumps({k: v for k, v in {**base, **fields}.items() if v is not ...})


class TestFrames:
    def test_a_command(self) -> None:
        assert load_command(frame()) == ("1", "hub:ping", {}, None, None)
        with_args = frame(payload={"command": "a:b", "args": {"x": [1]}}, timestamp="2026-01-01T12:00:00.5+02:00")
        assert load_command(with_args) == ("1", "a:b", {"x": [1]}, None, None)

    def test_what_may_stand_beside_the_args(self) -> None:
        payload = {"command": "a:b", "confirm": "value", "idempotency_key": "k" * 128}
        assert load_command(frame(payload=payload)) == ("1", "a:b", {}, "value", "k" * 128)

    @pytest.mark.parametrize("type", ["event", "response", "error"])
    def test_answers_to_nothing(self, type: str) -> None:
        with pytest.raises(BadFrame) as refused:
            load_command(json.dumps({"type": type, "id": "7", "payload": {}}))
        assert (refused.value.code, refused.value.id) == ("unexpected_type", "7")
        with pytest.raises(BadFrame) as refused:
            load_command(json.dumps({"type": type, "id": "", "payload": {}}))
        assert refused.value.id is None
        nameless = Answer("error", None, None, "An answer has the id of its call, a text.")
        assert refused.value.answer == (None if type == "event" else nameless)

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"type": "what"}, "type"),
            ({"type": ...}, "type"),
            ({"type": 5}, "type"),
            ({"id": ...}, "id"),
            ({"id": ""}, "id"),
            ({"id": 5}, "id"),
            ({"id": "x" * 129}, "id"),
            ({"id": "a\nb"}, "id"),
            ({"timestamp": "yesterday"}, "timestamp"),
            ({"timestamp": "2026-01-01T12:00:00"}, "timestamp"),
            ({"timestamp": "2026-13-01T12:00:00Z"}, "timestamp"),
            ({"timestamp": 5}, "timestamp"),
            ({"payload": ...}, "payload"),
            ({"payload": []}, "payload"),
            ({"payload": {"command": "ping"}}, "command"),
            ({"payload": {"command": "a:b", "args": []}}, "args"),
            ({"payload": {"command": "a:b", "args": None}}, "args"),
            ({"payload": {"command": "a:b", "role": "admin"}}, "role"),
            ({"payload": {"command": "a:b", "confirm": None}}, "confirm"),
            ({"payload": {"command": "a:b", "confirm": 1}}, "confirm"),
            *(
                ({"payload": {"command": "a:b", "idempotency_key": key}}, "idempotency_key")
                for key in ("", "k" * 129, "a\nb", "\x7f", 5, None)
            ),
            ({"trust": "ROOT"}, "trust"),
        ],
        ids=str,
    )
    def test_bad_envelopes(self, fields: dict[str, Any], path: str) -> None:
        with pytest.raises(BadFrame) as refused:
            load_command(frame(**fields))
        assert refused.value.code == "invalid_message"
        assert path in json.dumps(refused.value.details)
        assert refused.value.id == (None if "id" in fields else "1")

    @pytest.mark.parametrize("text", ["[]", "5", '"x"', "null", "{", "[{}]"])
    def test_no_object(self, text: str) -> None:
        with pytest.raises(BadFrame) as refused:
            load_command(text)
        assert (refused.value.code, refused.value.id) == ("invalid_json", None)

    @given(st.text() | st.binary())
    def test_anything_else_is_refused_and_nothing_else_is_raised(self, text: str | bytes) -> None:
        with pytest.raises(BadFrame):
            load_command(text)

    @given(strict_json)
    def test_any_json_is_refused_or_a_command(self, value: Any) -> None:
        with pytest.raises(BadFrame):
            load_command(dumpb({"type": "command", "payload": value}))

    @given(st.integers(0, 70_000))
    def test_the_length_of_a_websocket_frame(self, size: int) -> None:
        frame = framing.websocket_frame(b"x" * size)
        short = frame[1]
        head = 2 if short < 126 else 4 if short == 126 else 10
        assert frame[0] == 0x81
        assert (short if head == 2 else int.from_bytes(frame[2:head])) == size == len(frame) - head

    def test_error_objects(self) -> None:
        error = HubError("rate_limited", "Wait.", retry_after=0.5)
        sent = json.loads(messages.failure(None, error))
        assert sent["id"] is None
        assert sent["payload"] == {"error": "Wait.", "code": "rate_limited", "retryable": True, "retry_after": 0.5}

    def test_every_code_of_the_protocol_is_there(self) -> None:
        codes = """invalid_json invalid_message unexpected_type duplicate_id unknown_command invalid_args
            confirmation_required reserved_event too_large rate_limited busy forbidden timeout cancelled
            command_failed provider_gone already_provided unknown_cursor audit_unavailable broker_unavailable
            shutting_down internal"""
        assert set(CODES) == set(codes.split())


class Sample(Schema):
    name = NameField(required=True)
    topics = PatternsField()
    after = CursorField()
    limit = fields.Integer(strict=True, validate=validate.Range(min=1, max=9))
    kind = fields.String(allow_none=True, validate=validate.OneOf(["a", "b"]))
    tags = fields.List(fields.String(validate=validate.Length(min=1)), validate=validate.Length(max=3))
    more = fields.Nested(Schema.from_dict({"on": fields.Boolean(metadata={"description": "whether"})}))
    any = fields.Raw()


def test_json_schema() -> None:
    found = json_schema(Sample())
    assert found["required"] == ["name"]
    assert found["additionalProperties"] is False
    properties = found["properties"]
    assert properties["name"]["pattern"].startswith("^")
    assert properties["limit"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert properties["kind"] == {"type": ["string", "null"], "enum": ["a", "b", None]}
    assert properties["tags"] == {"type": "array", "maxItems": 3, "items": {"type": "string", "minLength": 1}}
    assert properties["more"]["properties"]["on"] == {"type": "boolean", "description": "whether"}
    assert properties["any"] == {}
    assert json_schema(None) == {"type": "object"}


class Colour(Enum):
    RED = 1
    BLUE = 2


def test_further_fields_in_json_schema() -> None:
    class Further(Schema):
        day = fields.Date()
        at = fields.DateTime(allow_none=True)
        colour = fields.Enum(Colour, allow_none=True)
        number = fields.Enum(Colour, by_value=True)
        order = fields.UUID()
        peer = fields.IPv4()
        net = fields.IPInterface()
        pair = fields.Tuple((fields.String(), fields.Integer()))
        sort = fields.String(load_default="tea", metadata={"description": "what", "examples": ["mint"]})

    assert json_schema(Further())["properties"] == {
        "day": {"type": "string"},
        "at": {"type": ["string", "null"]},
        "colour": {"enum": ["RED", "BLUE", None]},
        "number": {},
        "order": {"type": "string"},
        "peer": {"type": "string"},
        "net": {"type": "string"},
        "pair": {"type": "array"},
        "sort": {"type": "string", "default": "tea", "description": "what", "examples": ["mint"]},
    }


def test_what_may_be_null_and_what_may_be_left_out_stand_in_the_json_schema() -> None:
    class Optional(Schema):
        class Meta:
            unknown = "include"

        note = fields.String(allow_none=True)
        share = fields.Float(validate=validate.Range(0, 1, min_inclusive=False, max_inclusive=False))
        counts = fields.Dict(validate=validate.Length(equal=2))

    assert json_schema(Optional()) == {
        "type": "object",
        "properties": {
            "note": {"type": ["string", "null"]},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "counts": {"type": "object", "minProperties": 2, "maxProperties": 2},
        },
    }


@pytest.mark.parametrize("value", ["yes", "true", 1, 0, None, [], {}])
def test_a_flag_is_true_or_false_and_nothing_that_looks_like_it(value: Any) -> None:
    schema = Schema.from_dict({"on": FlagField()})()
    assert [schema.load({"on": flag}) for flag in (True, False)] == [{"on": True}, {"on": False}]
    with pytest.raises(ValidationError):
        schema.load({"on": value})


class Doubled(Schema):
    n = fields.Integer(strict=True)

    @post_load
    def double(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"n": data["n"] * 2}


@pytest.mark.parametrize("value", ["", "a", "ab", "b", 1, None, True, ["a"], b"a"])
def test_a_text_is_taken_as_marshmallow_takes_it(value: Any) -> None:
    kinds: list[fields.String] = [
        fields.String(),
        fields.String(allow_none=True),
        fields.String(validate=[validate.Length(max=1), validate.OneOf(["a", "ab"])]),
    ]
    hooked = fields.String()
    hooked.post_load = [str.upper]
    for field in (*kinds, hooked):
        quick = messages.quick(Schema.from_dict({"t": field})())
        assert quick
        assert quick({"t": value}) is not bool(Schema.from_dict({"t": field})().validate({"t": value}))


def test_there_is_no_quick_check_for_a_schema_with_hooks() -> None:
    """It would take the data as they are, and the hook would not run."""
    assert messages.quick(Doubled()) is None
    fits = messages.quick(Schema.from_dict({"n": fields.Integer(strict=True, required=True)})())
    assert fits
    given: list[Any] = [{"n": 1}, {"n": "x"}, {}, [], {"n": 1, "m": 1}]
    assert [fits(data) for data in given] == [True, *[False] * 4]
