"""What is printed: a line an event, and nothing that drives a terminal."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import HOSTILE

from hub.cli import terminal
from hub.cli.terminal import envelope, has_colour, is_terminal, printable, readable
from hub.client.items import Gap, Received


def event(data: Any, name: str = "a:b") -> Received:
    return Received(name, data, "id1", "2026-01-02T03:04:05.678Z", "e:1", {"payload": {"event": name, "data": data}})


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_utc")
def test_an_event_is_one_line_with_time_name_and_data() -> None:
    assert readable(event({"n": [1, "é"]})) == f'2026-01-02 03:04:05.678  {"a:b":28}  {{"n":[1,"é"]}}'
    long = "a:" + "b" * 40
    assert readable(event(None, long)) == f"2026-01-02 03:04:05.678  {long}  null"


@pytest.mark.usefixtures("_utc")
def test_colours_change_no_text() -> None:
    line = readable(event({"n": 1}), colour=True)
    assert re.sub(r"\x1b\[\d+m", "", line) == readable(event({"n": 1})) != line


@pytest.mark.parametrize(
    ("variables", "on_terminal", "in_pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, True, False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_colour_is_for_terminals_unless_told_otherwise(
    variables: dict[str, str], on_terminal: bool, in_pipe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    terminal_stream, pipe = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal_stream, "isatty", lambda: True)
    assert (has_colour(terminal_stream), has_colour(pipe)) == (on_terminal, in_pipe)


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    assert terminal.local("yester\x1bday") == "yester\\u001bday"


@pytest.mark.parametrize(
    ("count", "reason", "line"),
    [
        (12, "slow", "--- 12 events are missing before e:18: this reader was too slow"),
        (1, "slow", "--- 1 event is missing before e:18: this reader was too slow"),
        (3, "expired", "--- 3 events are missing before e:18: they are no longer kept"),
        (None, "epoch", "--- events are missing before e:18: the hub began a new history"),
    ],
)
def test_a_gap_is_told_in_words(count: int | None, reason: str, line: str) -> None:
    assert readable(Gap("e:5", "e:18", count, reason, {})) == line


def test_for_programs_a_line_is_the_envelope() -> None:
    line = envelope(event({"text": "a\nb\x9b\x7f é"}))
    assert line == '{"payload":{"event":"a:b","data":{"text":"a\\nb\\u009b\\u007f é"}}}'
    assert json.loads(line) == {"payload": {"event": "a:b", "data": {"text": "a\nb\x9b\x7f é"}}}


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_escaping_leaves_a_json_text_the_same_json(value: Any) -> None:
    text = printable(json.dumps(value, ensure_ascii=False))
    assert text.isprintable()
    assert json.loads(text) == value


@pytest.mark.parametrize("weakened", [False, True])
def test_an_event_cannot_drive_the_terminal(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(terminal, "printable", lambda text: text)
    lines = [readable(event(HOSTILE)), readable(Gap(None, "e:1", 1, HOSTILE, {})), envelope(event(HOSTILE))]
    assert [line.isprintable() for line in lines] == [not weakened] * 3


def test_what_is_closed_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not is_terminal(stream)
