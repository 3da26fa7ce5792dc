"""What crosses the wire: strict JSON in, valid JSON out, names, patterns, cursors, envelopes."""

import json
import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields, validate

from hub import messages
from hub.errors import CODES, HubError
from hub.messages import (
    BadFrame,
    Cursor,
    CursorField,
    NameField,
    Patterns,
    PatternsField,
    dumpb,
    json_schema,
    load_command,
    loads,
    pattern_problem,
    plain,
)

strict_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20) + 1, 10**20 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


class TestStrictJSON:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "{bad}",
            "nul",
            '{"a":1,"a":2}',
            '{"a":{"b":1,"b":1}}',
            "NaN",
            '{"a":NaN}',
            '{"a":Infinity}',
            '{"a":-Infinity}',
            '{"a":1e999}',
            '{"a":-1e999}',
            '{"a":' + "1" * 21 + "}",
            '{"a":-' + "9" * 21 + "}",
            '{"a":' + "1" * 5000 + "}",
            '"\\ud800"',
            '{"\\udc00":1}',
            '{"a":"\ud800"}',
            "[" * 33 + "]" * 33,
            "[" * 100_000,
            '{"a":' * 100_000,
            "[" * 100_000 + "]" * 100_000,
            "\ufeff{}",
            '{"a":"\n"}',
            "{} {}",
            "{'a':1}",
            '{"a":01}',
            '{"a":1,}',
            b'{"a":"\xff"}',
            b"\xed\xa0\x80",
        ],
        ids=lambda text: repr(text)[:40],
    )
    def test_refused(self, text: str | bytes) -> None:
        with pytest.raises(HubError) as refused:
            loads(text)
        assert refused.value.code == "invalid_json"
        assert "Traceback" not in refused.value.message

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 32 + "]" * 32,
            '{"a":"' + "[" * 1000 + '"}',
            '{"a":"\\"[[[' + "{" * 1000 + '"}',
            '{"a":99999999999999999999}',
            '"\\ud83d\\ude00"',
            '{"a":1e308}',
            json.dumps([[]] * 5000),
        ],
        ids=lambda text: text[:30],
    )
    def test_accepted(self, text: str) -> None:
        assert loads(text) == json.loads(text)

    @given(strict_json)
    def test_what_was_written_reads_back_the_same(self, value: Any) -> None:
        assert loads(dumpb(value)) == value
        assert json.loads(dumpb(value)) == value

    @given(strict_json)
    def test_both_writers_write_what_parses_to_the_same(self, value: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(messages, "orjson", None)
            assert loads(dumpb(value)) == value

    @given(st.integers(0, 40), st.integers(0, 40))
    def test_depth_counts_the_whole_text(self, arrays: int, objects: int) -> None:
        text = "[" * arrays + '{"[":' * objects + "0" + "}" * objects + "]" * arrays
        if arrays + objects > 32:
            with pytest.raises(HubError, match="deeper"):
                loads(text)
        else:
            loads(text)

    def test_without_the_depth_check_the_parser_would_recurse(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(messages, "MAX_DEPTH", 10**9)
        with pytest.raises((RecursionError, HubError)):
            loads("[" * 100_000)

    def test_plain_parts_the_data_from_the_callers_object(self) -> None:
        data = {"a": [1, (2, 3)]}
        copy = plain(data)
        data["a"].append(4)
        assert copy == {"a": [1, [2, 3]]}

    @pytest.mark.parametrize("data", [float("nan"), object(), {1, 2}, b"x", "\ud800", {"a": float("inf")}])
    def test_plain_refuses_what_is_not_json(self, data: Any) -> None:
        with pytest.raises(HubError) as refused:
            plain(data)
        assert refused.value.code == "invalid_message"

    def test_plain_refuses_what_contains_itself(self) -> None:
        data: list[Any] = []
        data.append(data)
        with pytest.raises(HubError, match="not JSON"):
            plain(data)


class TestNamesAndIds:
    @pytest.mark.parametrize("name", ["a:b", "agent:status_change", "a.b-c_D9:x:y", "a:" + "b" * 126])
    def test_names(self, name: str) -> None:
        assert messages.is_name(name)

    @pytest.mark.parametrize(
        "name", ["", "a", ":", "a:", ":b", "a::b", "a:b ", "a:b\n", "ä:b", "a:*", "a:" + "b" * 127]
    )
    def test_no_names(self, name: str) -> None:
        assert not messages.is_name(name)

    def test_new_ids_are_uuid4(self) -> None:
        for id in [messages.new_id() for _ in range(200)]:
            assert str(uuid.UUID(id)) == id
            assert uuid.UUID(id).version == 4
            assert uuid.UUID(id).variant == uuid.RFC_4122

    def test_now_is_rfc_3339_with_milliseconds(self) -> None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", messages.now())


class TestCursors:
    @given(st.from_regex(r"\A[a-z0-9]{1,12}\Z"), st.integers(0, 10**17))
    def test_round_trip(self, epoch: str, seq: int) -> None:
        assert Cursor.parse(str(Cursor(epoch, seq))) == (epoch, seq)

    @pytest.mark.parametrize(
        "text", ["", "x", "x:", ":1", "x:-1", "x:01", "x:1x", "x:1:2", "x:٣", "x:" + "9" * 30, "x y:1", "x:1\n"]
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(HubError) as refused:
            Cursor.parse(text)
        assert refused.value.code == "unknown_cursor"


def matches(pattern: str, name: str) -> bool:
    """The protocol's words, as plainly as they can be written."""
    if pattern == "*":
        return True
    parts, names = pattern.split(":"), name.split(":")
    if parts[-1] == "*" and len(names) > len(parts):
        names = names[: len(parts)]
    return len(parts) == len(names) and all(p in ("*", n) for p, n in zip(parts, names, strict=True))


class TestPatterns:
    part = st.sampled_from(["a", "b", "agent", "agents", "*", "x.y", "x-y"])
    name = st.lists(part.filter(lambda p: p != "*"), min_size=2, max_size=4).map(":".join)
    pattern = st.just("*") | st.lists(part, min_size=2, max_size=4).map(":".join)

    @given(pattern, name)
    def test_as_the_protocol_says(self, pattern: str, name: str) -> None:
        assert pattern_problem(pattern) is None
        assert Patterns([pattern]).match(name) == matches(pattern, name)

    @given(st.lists(pattern, max_size=4), name)
    def test_a_set_matches_what_any_of_it_matches(self, patterns: list[str], name: str) -> None:
        assert Patterns(patterns).match(name) == any(matches(pattern, name) for pattern in patterns)

    def test_the_examples(self) -> None:
        agents = Patterns(["agent:*"])
        assert agents.match("agent:status_change")
        assert agents.match("agent:a:b")
        assert not agents.match("agents:x")
        assert Patterns(["*:done"]).match("build:done")
        assert not Patterns(["*:done"]).match("a:b:done")
        assert not Patterns(["x.y:*"]).match("xzy:a")

    @pytest.mark.parametrize("text", ["", "a", "a:", ":a", "a::b", "a b:c", "ag*:x", "**", "a:b*", "x" * 200 + ":*"])
    def test_no_patterns(self, text: str) -> None:
        problem = pattern_problem(text)
        assert problem
        assert problem.endswith((".", "domain."))

    def test_a_single_part_gets_a_hint(self) -> None:
        assert "agent:*" in (pattern_problem("agent") or "")

    def test_equal_sets_are_equal(self) -> None:
        assert Patterns(["a:b", "c:d"]) == Patterns(["c:d", "a:b", "a:b"])
        assert len({Patterns(["a:b"]), Patterns(["a:b"])}) == 1

    def test_verdicts_are_bounded(self) -> None:
        patterns = Patterns(["a:*"])
        for i in range(10_000):
            assert patterns.match(f"a:{i}")
        assert len(patterns._verdicts) <= 4096


def frame(**fields: Any) -> str:
    base = {"type": "command", "id": "1", "payload": {"command": "hub:ping"}}
    return json.dumps({k: v for k, v in {**base, **fields}.items() if v is not ...})


class TestFrames:
    def test_a_command(self) -> None:
        assert load_command(frame()) == ("1", "hub:ping", {})
        with_args = frame(payload={"command": "a:b", "args": {"x": [1]}}, timestamp="2026-01-01T12:00:00.5+02:00")
        assert load_command(with_args) == ("1", "a:b", {"x": [1]})

    @pytest.mark.parametrize("type", ["event", "response", "error"])
    def test_answers_to_nothing(self, type: str) -> None:
        with pytest.raises(BadFrame) as refused:
            load_command(json.dumps({"type": type, "id": "7", "payload": {}}))
        assert (refused.value.code, refused.value.id) == ("unexpected_type", "7")

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
        frame = messages.websocket_frame(b"x" * size)
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
            reserved_event too_large rate_limited busy forbidden timeout cancelled command_failed provider_gone
            already_provided unknown_cursor audit_unavailable broker_unavailable shutting_down internal"""
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
