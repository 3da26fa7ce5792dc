"""What crosses the wire: frames in and out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import strict_json

from hub.errors import CODES, HubError
from hub.wire import framing, messages
from hub.wire.messages import Answer, BadFrame, load_command
from hub.wire.strictjson import dumpb


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
