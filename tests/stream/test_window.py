"""The ring of newest events keeps exactly the newest that fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.stream.events import Draft, Event
from hub.stream.window import Window
from hub.wire.names import Cursor


def event(seq: int, size: int = 0) -> Event:
    return Event(Draft("a:b", str(seq), b'"%b"' % (b"x" * size)), Cursor("e", seq), "t", 0.0)


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=5), max_size=12),
    st.integers(1, 20),
    st.integers(1, 4000),
)
def test_keeps_the_newest_that_fit(batches: list[list[int]], most: int, most_bytes: int) -> None:
    window, all_events = Window(most, most_bytes), list[Event]()
    for batch in batches:
        events = [event(len(all_events) + i + 1, size) for i, size in enumerate(batch)]
        all_events += events
        window.extend(events)
        kept = list(window.events())
        assert kept == all_events[len(all_events) - len(kept) :]
        assert len(window) == len(kept) <= most
        assert window.bytes == sum(event.size for event in kept) <= most_bytes
        assert (window.tail, window.head) == (len(all_events) - len(kept) + 1, len(all_events))
        if len(kept) < min(most, len(all_events)):
            assert window.bytes + all_events[-len(kept) - 1].size > most_bytes


def test_covers_what_lies_behind_a_position() -> None:
    window = Window(2, 10_000)
    window.extend([event(1), event(2), event(3)])
    assert [window.covers(position) for position in (0, 1, 2, 3)] == [False, True, True, True]
    assert [e.seq for e in window.between(1, 3)] == [2, 3]
    assert window.between(3, 3) == []


def test_begins_behind_what_a_broker_kept() -> None:
    window = Window(10, 10_000)
    window.start_at(41)
    assert window.covers(41)
    assert not window.covers(40)
    window.extend([event(42)])
    assert [e.seq for e in window.events()] == [42]


def test_never_has_a_hole_and_is_never_silent(caplog: pytest.LogCaptureFixture) -> None:
    window = Window(10, 10_000)
    window.extend([event(1), event(2)])
    window.extend([event(2), event(3)])  # some of it again
    assert [e.seq for e in window.events()] == [1, 2, 3]
    window.extend([event(6), event(7)])
    assert "the events 4 to 5 never reached the window" in caplog.text
    assert [e.seq for e in window.events()] == [6, 7]
    assert (window.covers(3), window.covers(5)) == (False, True)  # who is at 3 asks the store
    assert window.bytes == sum(event.size for event in window.events())
    window.extend([event(8)])
    assert (window.tail, window.head) == (6, 8)
