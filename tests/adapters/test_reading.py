"""Reading leniently: deep, long, odd and cut off."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import HOOKS, PAYLOADS

from hub.adapters import reading
from hub.adapters.reading import DEEPEST, between, cut, first_line, moment, read, summary


def values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def nested(depth: int, inner: str = "1") -> bytes:
    return f'{{"a": {"[" * depth}{inner}{"]" * depth}, "b": "]]}}}}", "c": [[], {{}}]}}'.encode()


@pytest.mark.parametrize("depth", [0, 1, 60, DEEPEST - 1, DEEPEST, 1000, 100_000])
def test_what_is_deep_is_cut_down(depth: int) -> None:
    found = read(nested(depth))
    assert (found["b"], found["c"]) == ("]]}}", [[], {}])
    level, inner = 0, found["a"]
    while isinstance(inner, list):
        level, inner = level + 1, inner[0]
    assert level == min(depth, DEEPEST - 1)
    assert inner == (1 if depth < DEEPEST else None)


def test_weakened_the_parser_would_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_shallow", lambda text: text)
    with pytest.raises(RecursionError):
        read(nested(200_000))


@given(
    st.recursive(
        st.none() | st.integers(0, 9) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_not_deep_is_read_as_it_is(value: Any) -> None:
    text = json.dumps([value] * (DEEPEST + 1))
    assert read(text.encode()) == json.loads(text)


@pytest.mark.parametrize("name", HOOKS)
def test_cut_at_each_byte_it_is_no_json(name: str) -> None:
    whole = (PAYLOADS / f"{name}.json").read_bytes().strip()
    read(whole)
    for length in range(len(whole)):
        with pytest.raises(json.JSONDecodeError):
            read(whole[:length])


@given(st.binary())
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(json.JSONDecodeError):
        json.dumps(cut(read(data)), allow_nan=False).encode()


def test_oddities() -> None:
    assert read(b'\xef\xbb\xbf{"a": NaN, "a": 1}') == {"a": 1}
    assert read(b'{"a": ' + b"9" * 10_000 + b"}") == {"a": None}
    assert read(b'{"a": "\xff"}') == {"a": "\N{REPLACEMENT CHARACTER}"}
    assert reading.text("\ud83d") == "?"


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_what_is_cut_fits(value: Any) -> None:
    for room in (200, 2048):
        assert len(json.dumps(cut(value, room), ensure_ascii=False, allow_nan=False).encode()) <= room * 2 + 100


def test_what_is_cut_shows() -> None:
    assert cut({"command": "ls"}) == {"command": "ls"}
    assert cut({"command": "x" * 5000})["command"].endswith("…")
    assert str(cut({str(n): "y" * 400 for n in range(40)})).endswith("…")
    assert summary({"command": "a\nb " + "c" * 999}).endswith("…")


def test_lines_and_moments() -> None:
    assert first_line("\n  \n  Make it so \nand more") == "Make it so"
    assert first_line("a\x1b[31mb\tc") == "a [31mb c"
    assert summary({"command": "pytest\n  -q"}) == "pytest -q"
    assert summary({"odd": 1}) == '{"odd":1}'
    assert (summary({}), summary(None), summary(["x"])) == ("", "", '["x"]')
    assert moment(1795600500000) == "2026-11-25T09:55:00.000Z"
    assert moment("2026-11-25T11:35:00+01:00") == "2026-11-25T10:35:00.000Z"
    assert [moment(odd) for odd in ("never", 1e300, None, True, "0001-01-01T00:00:00+14:00")] == [None] * 5
    assert between("2026-11-25T10:00:00Z", "2026-11-25T10:00:02.5Z") == 2500
    assert between("2026-11-25T10:00:00Z", "2026-11-25T09:00:00Z") is None
    assert between("2026-11-25T10:00:00", "2026-11-25T09:00:00Z") is None


def test_a_long_number_is_none_beside_any_others() -> None:
    assert read(b"[12345678901234567890, 123456789012345678, -123456789012345678, 1]") == [
        None,
        123456789012345678,
        None,
        1,
    ]
    assert read(b"[1, -2]") == [1, -2]
