"""Last values a page at a time: whoever puts the pages together and goes on from the last cursor knows what is true."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hub.stream import state as module
from hub.stream.events import Draft, Event
from hub.stream.state import Page, State
from hub.wire.names import EVERYTHING, Cursor, Patterns
from hub.wire.strictjson import dumpb

KEYS = "abcdefgh"
ROOM = 400  # bytes of a page: some three items
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans(), st.integers(0, 400)), max_size=40)
Change = tuple[str, bool, int]
Seen = dict[str, tuple[int, bool]]  # which event is the last of a key, and whether it has been ended


class Stream:
    """A state, and the events by which it has become what it is."""

    def __init__(self, most: int = 6) -> None:
        self.state, self.events, self.last = State(most, 2**20), list[Event](), dict[str, int]()

    def change(self, change: Change) -> None:
        """Publish this key anew, or end its lease."""
        key, ends, pad = change
        seq = len(self.events) + 1
        if ends and key in self.last:
            draft = Draft("hub:stale", "id", dumpb({"event": "t:x", "key": key, "seq": self.last[key]}))
        else:
            draft, self.last[key] = Draft("t:x", "id", dumpb({"seq": seq, "pad": "x" * pad}), key), seq
        self.events.append(Event(draft, Cursor("e", seq), "now", 0.0))
        self.state.apply(self.events[-1:])

    @property
    def true(self) -> Seen:
        return {item["key"]: (item["data"]["seq"], item["stale"]) for item in self.state.snapshot(EVERYTHING)}

    def followed(self, seen: Seen, after: int) -> Seen:
        """What a client knows that goes on behind `after`."""
        for event in self.events[after:]:
            if event.key is not None:
                seen[event.key] = event.seq, False
            elif seen.get(event.data["key"], (0,))[0] == event.data["seq"]:
                seen[event.data["key"]] = event.data["seq"], True
        return seen


async def read(stream: Stream, changes: Iterator[Change]) -> tuple[Seen, int]:
    """All pages, while the state changes in them and between them; what they say, and where the stream goes on."""
    seen, after, more = Seen(), 0, True
    while more:
        reading = asyncio.create_task(stream.state.page(EVERYTHING, after, ROOM))
        while not reading.done():
            for change in next(zip(changes, strict=False), ()):
                stream.change(change)
            await asyncio.sleep(0)
        items, position, more = reading.result()
        found = [(item["data"]["seq"], item) for item in json.loads(items)]
        assert len(items) <= ROOM or len(found) == 1
        assert len({item["key"] for _, item in found}) == len(found), "a key stands on a page twice"
        assert position > after or not more, "no page would be the last one"
        seen.update({item["key"]: (seq, item["stale"]) for seq, item in found})
        after = position
    return seen, after


async def pages_tell_the_truth(before: list[Change], meanwhile: list[Change]) -> None:
    stream, changes = Stream(), iter(meanwhile)
    for change in before:
        stream.change(change)
    seen, after = await read(stream, changes)
    for change in changes:
        stream.change(change)
    known, true = stream.followed(seen, after), stream.true
    assert {key: known.get(key) for key in true} == true


def one_at_a_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "SLICE", 1)


@given(CHANGES, CHANGES)
def test_pages_and_the_stream_behind_them_have_no_hole(before: list[Change], meanwhile: list[Change]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        one_at_a_time(patch)
        asyncio.run(pages_tell_the_truth(before, meanwhile))


def no_change_of_stale(patch: pytest.MonkeyPatch) -> None:
    """An item that turns stale stays where it was."""

    def end(self: State, changed: int, event: str, key: str, seq: int) -> None:
        if (item := self._items.get((event, key))) is not None and item.event.seq == seq:
            item.stale = True

    patch.setattr(State, "_end", end)


def the_hubs_cursor(patch: pytest.MonkeyPatch) -> None:
    """A page that is not the last has the newest cursor, not that of its last item."""
    real = State._page

    async def page(self: State, *args: Any) -> Page:
        return (await real(self, *args))._replace(position=self.position)

    patch.setattr(State, "_page", page)


def no_look_at_what_changed(patch: pytest.MonkeyPatch) -> None:
    """What changes while a page is put together is not looked at again."""
    real = State._page

    async def page(self: State, patterns: Patterns, after: int, room: int) -> Page:
        behind, asked = self._behind, [True]
        self._behind = lambda after: behind(after) if asked and asked.pop() else []  # type: ignore[method-assign]
        try:
            return await real(self, patterns, after, room)
        finally:
            del self._behind

    patch.setattr(State, "_page", page)


@pytest.mark.parametrize("weaken", [no_change_of_stale, the_hubs_cursor, no_look_at_what_changed])
def test_weakened_pages_would_have_holes(weaken: Callable[[pytest.MonkeyPatch], None]) -> None:
    @settings(max_examples=500, phases=[Phase.generate], database=None, derandomize=True)
    @given(CHANGES, CHANGES)
    def property(before: list[Change], meanwhile: list[Change]) -> None:
        asyncio.run(pages_tell_the_truth(before, meanwhile))

    with pytest.MonkeyPatch.context() as patch:
        one_at_a_time(patch)
        weaken(patch)
        with pytest.raises(AssertionError):
            property()


class Counted(State):
    """How many pages are put together at once."""

    busy = most = 0

    async def _page(self, patterns: Patterns, after: int, room: int) -> Page:
        self.busy += 1
        self.most = max(self.most, self.busy)
        found = await super()._page(patterns, after, room)
        self.busy -= 1
        return found


async def read_by_forty() -> tuple[int, int]:
    """How many of forty pages are put together at once, and how often a neighbour has a turn meanwhile."""
    state, passes, done = Counted(10_000, 2**26), 0, asyncio.Event()
    for number in range(1, 1001):
        state.apply([Event(Draft("t:x", "id", b"1", f"{number}"), Cursor("e", number), "now", 0.0)])

    async def neighbour() -> None:
        nonlocal passes
        while not done.is_set():
            passes += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(neighbour())
    pages = await asyncio.gather(*(state.page(EVERYTHING, after, 2**20) for after in range(40)))
    done.set()
    await beside
    assert [len(json.loads(page.items)) for page in pages] == [1000 - after for after in range(40)]
    return state.most, passes


async def test_a_page_is_put_together_in_turns_with_everybody_else() -> None:
    """And one after the other: forty that are asked for at once take no more of a pass of the loop than one."""
    most, passes = await read_by_forty()
    assert most == 1
    assert passes >= 40 * (960 // module.SLICE)


async def test_weakened_all_would_be_put_together_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "Lock", nullcontext)
    assert (await read_by_forty())[0] == 40


async def test_weakened_others_would_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 10**6)
    assert (await read_by_forty())[1] < 40


async def test_what_is_asked_for_again_is_there() -> None:
    stream = Stream()
    stream.change(("a", False, 0))
    first = await stream.state.page(EVERYTHING, 0, ROOM)
    assert await stream.state.page(Patterns(["*"]), 0, ROOM) is first
    assert (await stream.state.page(Patterns(["no:*"]), 0, ROOM)).items == b"[]"
    stream.change(("b", False, 0))
    assert len(json.loads((await stream.state.page(EVERYTHING, 0, ROOM)).items)) == 2
