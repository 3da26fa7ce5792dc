"""Whoever is behind reads together with all who are: reads of the store, writes and bytes are counted here."""

import asyncio
from collections.abc import Sequence

import pytest
from stores import passes
from wires import Wire

from hub.errors import HubError
from hub.stream import catchup, pages
from hub.stream import passes as module
from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.catchup import CatchUp
from hub.stream.events import Draft, Event
from hub.stream.pages import Page, Pages
from hub.stream.passes import Passes
from hub.stream.subscriber import Subscriber
from hub.stream.window import Window
from hub.wire.framing import SSE, WEBSOCKET
from hub.wire.names import EVERYTHING, Cursor, Patterns

EVENTS = 10 * pages.PAGE
WINDOW = 10


class Store(MemoryBroker):
    """Counts what is read from it."""

    def __init__(self, size: int = 64 * 2**20) -> None:
        super().__init__(100_000, size)
        self.reads: list[int] = []
        self.away = False

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        self.reads.append(after)
        if self.away:
            raise HubError("broker_unavailable", "It is away.")
        return await super().read(after, limit, size)


class Stream:
    """A store with many events, of which the window holds a few."""

    def __init__(self) -> None:
        self.store = Store()
        self.broadcaster = Broadcaster(Window(WINDOW, 16 * 2**20), self.store)

    async def publish(self, count: int, name: str = "a:x", size: int = 0) -> None:
        await self.store.append([Draft(name, "id", b'"%b"' % (b"x" * size)) for _ in range(count)])

    async def pump(self, batch: list[Event]) -> None:
        self.broadcaster.deliver(batch)

    def join(self, after: int, *patterns: str) -> Wire:
        wire = Wire()
        self.broadcaster.join(
            wire.subscriber, Patterns(patterns) if patterns else EVERYTHING, Cursor(self.store.epoch, after)
        )
        return wire

    async def level(self) -> None:
        """Nobody is behind any more."""
        while self.broadcaster.lagging:
            await asyncio.sleep(0)


@pytest.fixture
async def stream() -> Stream:
    found = Stream()
    await found.store.open(found.pump)
    await found.publish(EVENTS)
    return found


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody reads for itself."""

    async def read(catchup: CatchUp, subscriber: Subscriber) -> Page | None:
        events = await catchup._broker.read(subscriber.position, pages.PAGE, pages.PIECE)
        return Page(events) if events else None

    monkeypatch.setattr(CatchUp, "_next", read)


@pytest.mark.parametrize("weakened", [False, True])
async def test_those_who_come_back_together_read_the_store_once(
    weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        alone(monkeypatch)
    wires = [stream.join(0) for _ in range(16)]
    await stream.level()
    assert all(wire.events == list(range(1, EVENTS + 1)) for wire in wires)
    assert len(stream.store.reads) == (16 * 10 if weakened else 10)


@pytest.mark.parametrize("weakened", [False, True])
async def test_their_bytes_are_made_once(weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    joined, original = [0], WEBSOCKET.joined

    def count(frames: Sequence[bytes]) -> bytes:
        joined[0] += 1
        return original(frames)

    monkeypatch.setattr(WEBSOCKET, "joined", count)
    if weakened:
        monkeypatch.setattr(pages, "ALIKE", 0)
    wires = [stream.join(0, "a:*") for _ in range(16)]
    await stream.level()
    assert all(wire.events == list(range(1, EVENTS + 1)) for wire in wires)
    assert joined[0] >= 16 * 10 if weakened else joined[0] <= 2 * 10


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_hindmost_comes_up_with_the_others(
    weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They begin at places far from each other, and what is read is not kept for long."""
    monkeypatch.setattr(pages, "MEMORY", 1)
    if weakened:
        monkeypatch.setattr(pages, "LONGEST", 1)
    wires = {after: stream.join(after) for after in range(0, EVENTS, 3 * pages.PAGE)}
    await stream.level()
    assert all(wire.events == list(range(after + 1, EVENTS + 1)) for after, wire in wires.items())
    assert len(stream.store.reads) > 20 if weakened else len(stream.store.reads) < 16


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_waits_for_ever_for_those_who_come_from_behind(
    weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MEMORY", 1)
    if weakened:
        monkeypatch.setattr(pages, "LONGEST", 10**9)
    first, reads = stream.join(EVENTS // 2), stream.store.reads
    await passes(module.REST)
    while len(reads) < 100 and len(first.events) < EVENTS // 4:
        other = stream.join(0)
        known = len(reads)
        while len(reads) == known:
            await asyncio.sleep(0)
        stream.broadcaster.leave(other)
    assert len(reads) == 100 if weakened else len(reads) < 100


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_read_in_a_few_passes(weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        alone(monkeypatch)
    wires = [stream.join(0) for _ in range(16)]
    most = 0
    while stream.broadcaster.lagging:
        before = len(stream.store.reads)
        await passes(module.REST)
        most = max(most, len(stream.store.reads) - before)
    assert all(wire.events == list(range(1, EVENTS + 1)) for wire in wires)
    assert most > 10 if weakened else most <= 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_so_many_writes_in_a_pass(weakened: bool, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:

        async def turn(passes: Passes) -> None:
            await asyncio.sleep(0)

        monkeypatch.setattr(Passes, "turn", turn)
    wires = [stream.join(0) for _ in range(60)]
    most = 0
    while stream.broadcaster.lagging:
        before = sum(wire.writes for wire in wires)
        await asyncio.sleep(0)
        most = max(most, sum(wire.writes for wire in wires) - before)
    assert all(wire.events == list(range(1, EVENTS + 1)) for wire in wires)
    assert most == 60 if weakened else most <= 2 * catchup.WRITES


@pytest.mark.parametrize("weakened", [False, True])
async def test_pages_are_weighed_and_forgotten(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MEMORY", 10**9 if weakened else 2**20)
    stream = Stream()
    await stream.store.open(stream.pump)
    await stream.publish(400, size=20_000)
    wires = [stream.join(0, *names) for names in (["*"], ["a:*"], ["*:x"])]
    kept, most = stream.broadcaster.pages._kept, 0
    while stream.broadcaster.lagging:
        await asyncio.sleep(0)
        most = max(most, sum(page.weight for page in kept.values()))
    assert all(wire.events == list(range(1, 401)) for wire in wires)
    assert most > 2**23 if weakened else most < 2**20 + 8 * pages.PIECE
    assert not kept  # nobody is behind
    assert not stream.broadcaster.pages._places


async def test_from_the_middle_of_a_page(stream: Stream) -> None:
    wires = {after: stream.join(after) for after in (0, 1, 77, pages.PAGE, pages.PAGE + 13, EVENTS - WINDOW, EVENTS)}
    await stream.level()
    for after, wire in wires.items():
        assert wire.events == list(range(after + 1, EVENTS + 1))
        assert wire.gaps == []


async def test_each_gets_what_it_wants_as_it_wants_it(stream: Stream) -> None:
    await stream.publish(300, "b:y")
    narrow, other = stream.join(0, "b:*"), Wire(SSE)
    chunks: list[bytes] = []
    other.write = chunks.append
    stream.broadcaster.join(other.subscriber, Patterns(["b:*"]), Cursor(stream.store.epoch, 0))
    await stream.level()
    assert narrow.events == list(range(EVENTS + 1, EVENTS + 301))
    assert b"".join(chunks).count(b"event: b:y\n") == 300


async def test_what_comes_while_one_is_led_is_no_gap(stream: Stream) -> None:
    wires = [stream.join(0) for _ in range(16)]
    while stream.broadcaster.lagging:
        await asyncio.sleep(0)
        if stream.store.head < EVENTS + 500:
            await stream.publish(1)
    await passes()
    assert all(wire.events == list(range(1, stream.store.head + 1)) for wire in wires)
    assert not any(wire.gaps for wire in wires)


async def test_a_read_that_fails_turns_all_away_who_wait_for_it(stream: Stream) -> None:
    stream.store.away = True
    wires = [stream.join(0), stream.join(0), stream.join(500)]
    gone = stream.join(0)
    stream.broadcaster.leave(gone)
    await stream.level()
    assert [wire.turned_away for wire in wires] == [True, True, True]
    assert (gone.turned_away, sorted(stream.store.reads)) == (False, [0, 500])


async def test_who_has_gone_is_not_read_for(stream: Stream) -> None:
    wires = [stream.join(after) for after in (0, 1000, 2000)]
    await asyncio.sleep(0)
    for wire in wires:
        stream.broadcaster.leave(wire.subscriber)
    await passes(100)
    assert len(stream.store.reads) <= 1


async def test_a_page_behind_which_nothing_is_kept(stream: Stream) -> None:
    found = Pages(Window(WINDOW, 2**20), stream.store)  # one that has seen nothing yet
    found._window.start_at(EVENTS)
    assert found.at_hand(EVENTS) is None
    assert await found.behind(EVENTS) is None
    page = await found.behind(0)
    assert page is not None
    assert (page.first, page.last) == (1, pages.PAGE)


async def test_where_the_store_has_less_than_the_window() -> None:
    """Who is behind both goes on where the window begins: it has more, and what it has is no gap."""
    for kept in (0, 5):
        stream = Stream()
        stream.store.limits = Limits(kept, 2**20)
        await stream.store.open(stream.pump)
        await stream.publish(3 * WINDOW)
        page = await stream.broadcaster.pages.behind(0)
        assert page is not None
        assert (page.first, page.last) == (2 * WINDOW + 1, 3 * WINDOW)


async def test_a_page_behind_what_has_been_trimmed_is_kept_once(stream: Stream) -> None:
    stream.store.limits = Limits(EVENTS // 2, 2**30)
    await stream.publish(1)
    found = [await stream.broadcaster.pages.behind(position) for position in (0, 1)]
    assert [page and page.first for page in found] == [EVENTS // 2 + 2] * 2
    assert len(stream.broadcaster.pages._kept) == len(stream.broadcaster.pages._places) == 1
