"""Strict JSON: what is refused, what is read, and that what was written reads back the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import strict_json

from hub.errors import HubError
from hub.wire import strictjson
from hub.wire.strictjson import dumpb, loads, plain


def test_what_is_written_is_the_same_with_and_without_the_encoder_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    slow = strictjson.encoder(strictjson._ENCODER)
    values: tuple[Any, ...] = (None, True, 1.5, 10**30, 'ä\u2028"\\\n\x00', [], {"a": [{"b": ()}]})
    for value in values:
        assert slow(value) == strictjson._encode(value)
    with pytest.raises(ValueError, match="JSON compliant"):
        strictjson._encode([float("nan")])


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
            patch.setattr(strictjson, "orjson", None)
            assert loads(dumpb(value)) == value

    @given(st.integers(0, 40), st.integers(0, 40))
    def test_depth_counts_the_whole_text(self, arrays: int, objects: int) -> None:
        text = "[" * arrays + '{"[":' * objects + "0" + "}" * objects + "]" * arrays
        if arrays + objects > 32:
            with pytest.raises(HubError, match="deeper"):
                loads(text)
        else:
            loads(text)

    @given(st.text('[]{}a"'))
    def test_strings_are_taken_out_alike_with_and_without_escapes(self, text: str) -> None:
        closed = text + '"' * (text.count('"') % 2)
        assert strictjson._depth(closed) == strictjson._depth(closed + '"\\\\"')

    def test_without_the_depth_check_the_parser_would_recurse(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(strictjson, "MAX_DEPTH", 10**9)
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
