"""How values are written for people."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.page import formats
from hub.wire.texts import seen


@pytest.mark.parametrize(
    ("format", "value", "shown"),
    [
        ("text", None, ""),
        ("text", True, "yes"),
        ("text", ["a"], ""),
        ("number", 1234567, "1,234,567"),
        ("number", -1234.567, "-1,234.57"),
        ("number", 40.0, "40"),
        ("number", 0.004, "0"),
        ("number", -0.001, "0"),
        ("number", 10**19, "1.000000e+19"),
        ("percent", 99.99, "99 %"),
        ("size", 1023, "1023 B"),
        ("size", 1536, "1.5 KiB"),
        ("size", 3 * 2**30, "3.0 GiB"),
        ("duration", 350, "350 ms"),
        ("duration", 185_000, "3 min 5 s"),
        ("duration", 90_000_000, "1 d 1 h"),
        ("span", 40.9, "40 s"),
        ("span", -3, "0 s"),
        ("span", 3599, "59 min"),
        ("span", 3600, "1 h"),
        ("span", 7500, "2 h 5 min"),
        ("words", "waiting_approval", "waiting approval"),
        ("outline", {"b": [1, 2.5], "a": {"x": None}}, "b: 1, 2.5, a: x:"),
        ("agent", "claude-code:7c1b4a52-0d3e-4f6a-9b1c-2e5d8f0a1b22", "claude-code 7c1b"),
        ("agent", "cursor:conv-5a1d", "cursor conv-5a1d"),
        ("agent", "cursor:conv-5a1d/gen-1", "cursor conv-5a1d/gen-1"),
        ("agent", "robot:arm", "robot:arm"),
        ("agent", "codex:019a2b3c4d5e6f70/helper", "codex 019a/helper"),
        ("agent", "team:long-name-of-an-agent", "team:long-name-of-an-agent"),
        ("agent", "builder", "builder"),
        ("agent", "   ", "␣␣␣"),
        ("agent", "a\u202eb", "a\\u202eb"),
        ("called", " \u2800\u3164", "␣␣␣"),
        ("called", " " * 100, "␣" * formats.MOST_BLANKS),
        ("called", "a b", "a b"),
        ("folder", "/home/me/shop/", "shop"),
        ("folder", "/", "/"),
        ("coded", "or the `default` <b>", "or the <code>default</code> &lt;b&gt;"),
        ("slug", "a b/<c>", "a%20b%2F%3Cc%3E"),
    ],
)
def test_a_value_reads_well(format: str, value: Any, shown: str) -> None:
    assert formats.FILTERS[format](value).rstrip() == shown


@pytest.mark.parametrize(
    ("names", "shown"),
    [(("", " ", "x"), "x"), (("a", "x"), "a"), (("", " "), "␣"), (("",), ""), (("\u3164", "\u2800"), "␣")],
)
def test_something_is_called_by_what_can_be_seen(names: tuple[str, ...], shown: str) -> None:
    assert formats.called(*names) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.2, "0:08"), (468, "7:48"), (7500, "2:05:00"), (90_000, "1 d 1 h")]
)
def test_what_is_left_is_counted_down(seconds: float, shown: str) -> None:
    assert formats.countdown(seconds) == shown


def test_a_moment_says_how_long_ago_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime(2025, 3, 1, 14, 5, 9, tzinfo=UTC)
    monkeypatch.setattr(time, "time", lambda: (then + timedelta(minutes=3)).timestamp())
    written = formats.moment(then.isoformat())
    assert written.endswith(">3 min ago</time>")
    assert then.astimezone().strftime('title="%Y-%m-%d %H:%M:%S"') in written


@pytest.mark.parametrize("value", ["soon", "<b>", "2026-13-45T00:00:00Z", "2026-01-01T00:00:00", None, 7, "9" * 100])
def test_what_is_no_time_stands_there_as_text(value: object) -> None:
    written = formats.moment(value)
    assert "<" not in written
    assert len(written) <= 60


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_an_outline_is_short_whatever_it_is_of(value: Any) -> None:
    assert len(formats.outline(value, 50)) <= 50


def test_no_more_of_a_value_is_looked_at_than_is_shown() -> None:
    looked: list[int] = []

    class Endless(list[Any]):
        def __iter__(self) -> Any:
            for number in range(10**9):
                looked.append(number)
                yield "x" * 10

    formats.outline(Endless(), 100)
    assert len(looked) < 20


@given(st.text(), st.text())
def test_no_two_keys_have_the_same_id(one: str, other: str) -> None:
    assert (formats.slug(one) == formats.slug(other)) is (one == other)
    assert not {" ", "\n", '"'} & {*formats.slug(one)}


def test_what_a_question_asks_cannot_hide() -> None:
    assert formats.unfolded("Bash: echo ok\nrm -rf /", 100) == "Bash: echo ok\nrm -rf /"
    assert formats.unfolded("echo ok" + "\n" * 60 + "rm -rf /", 100) == "echo ok\n⏎ × 60\nrm -rf /"
    assert formats.unfolded("echo ok\n \n\t\n\nrm -rf /", 100) == "echo ok\n⏎ × 4\nrm -rf /"
    assert formats.unfolded("echo ok" + " " * 6000 + "; rm -rf /", 100) == "echo ok ␣ × 6000 ; rm -rf /"
    assert formats.unfolded("x" * 150, 100) == "x" * 100 + " … (50 more characters are not shown)"
    assert formats.unfolded("ls \u202e fr- mr", 100) == "ls \\u202e fr- mr"


def test_what_turns_the_writing_or_cannot_be_seen_is_written_out() -> None:
    assert seen("a\u202eb\u200bc\u2066d\re") == "a\\u202eb\\u200bc\\u2066d\\re"
    assert seen("👩\u200d💻 שלום\n\tx") == "👩\u200d💻 שלום\n\tx"
    assert formats.outline({"input": "\u202ex"}) == "input: \\u202ex"


def test_what_was_drawn_a_while_ago_is_told_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime(2025, 3, 1, 14, 5, 9, tzinfo=UTC)
    moments = [then.isoformat(), (then + timedelta(minutes=10)).isoformat()]

    def drawn() -> str:
        times = [formats.moment(moments[0]), formats.moment(moments[0], "since"), formats.moment(moments[0], "clock")]
        return " ".join((*times, formats.moment(moments[1], "left"), "<p>1 s ago</p>"))

    monkeypatch.setattr(time, "time", lambda: (then + timedelta(seconds=1)).timestamp())
    before = drawn()
    assert ">1 s ago</time>" in before
    monkeypatch.setattr(time, "time", lambda: (then + timedelta(seconds=24)).timestamp())
    assert formats.retimed(before) == drawn() != before
    odd = '<time datetime="soon" data-as="ago" title="">then</time>'
    assert formats.retimed(odd) == odd
