"""The frame around an event for Server-Sent Events: one line of data, for every reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.wire import framing
from hub.wire.framing import sse_frame
from hub.wire.names import Cursor
from hub.wire.strictjson import dumpb

ENDS = "\u2028\u2029\x85"


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_what_some_readers_take_for_the_end_of_a_line_is_escaped(
    monkeypatch: pytest.MonkeyPatch, end: str, weakened: bool
) -> None:
    """Python's `splitlines` for instance, with which clients in use read a stream."""
    if weakened:
        monkeypatch.setattr(framing, "_LINE_ENDS", ())
    frame = sse_frame(dumpb({"text": f"one{end}two"}), "a:b", Cursor("e", 1)).decode()
    assert (len(frame.splitlines()) > 4) is weakened


@given(st.dictionaries(st.text(), st.text() | st.text(f"{ENDS}\\\"'u")))
def test_an_escaped_event_is_the_same_event(data: dict[str, str]) -> None:
    frame = sse_frame(dumpb(data), "a:b", None).decode()
    event, line, *rest = frame.split("\n")
    assert (event, rest) == ("event: a:b", ["", ""])
    assert json.loads(line.removeprefix("data: ")) == data
    assert not set(ENDS) & set(line)
