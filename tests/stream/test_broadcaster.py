"""Who gets what, and when it is written, over wires without sockets."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from wires import Wire

from hub.errors import HubError
from hub.stream import broadcaster as module
from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.catchup import CatchUp
from hub.stream.events import Draft, Event
from hub.stream.window import Window
from hub.wire.framing import SSE, WEBSOCKET
from hub.wire.names import EVERYTHING, Cursor, Patterns


class Stream:
    """A broker, its pump and a broadcaster; `store` and `window` count events."""

    def __init__(self, store: int, window: int) -> None:
        self.broker = MemoryBroker(store, 16 * 2**20)
        self.broadcaster = Broadcaster(Window(window, 16 * 2**20), self.broker)
        self.gaps: list[tuple[str, int | None]] = []
        self.written: list[tuple[str, int, int, int]] = []
        self.broadcaster.connect(lambda *write: self.written.append(write), lambda *gap: self.gaps.append(gap))

    async def publish(self, *names: str, size: int = 0) -> None:
        """Hand events to the broadcaster in one batch; not flushed yet."""
        await self.broker.append([Draft(name, "id", b'"%b"' % (b"x" * size)) for name in names])

    async def pump(self, batch: list[Event]) -> None:
        self.broadcaster.deliver(batch)

    def join(self, *patterns: str, after: int | None = None) -> Wire:
        wire = Wire()
        cursor = None if after is None else self.cursor(after)
        self.broadcaster.join(wire.subscriber, Patterns(patterns) if patterns else EVERYTHING, cursor)
        return wire

    def cursor(self, seq: int) -> Cursor:
        return Cursor(self.broker.epoch, seq)


@pytest.fixture
async def stream() -> Stream:
    return await opened()


async def opened(store: int = 10_000, window: int = 10_000) -> Stream:
    stream = Stream(store, window)
    await stream.broker.open(stream.pump)
    return stream


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_everyone_gets_what_matches_once_and_in_order(stream: Stream) -> None:
    everything, agents, nothing = stream.join(), stream.join("agent:*"), stream.join("x:y")
    await stream.publish("agent:a", "task:b", "agent:c:d")
    await settle()
    assert everything.events == [1, 2, 3]
    assert agents.events == [1, 3]
    assert nothing.received == []


@pytest.fixture
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only passes of the loop decide when a flush is due, however slow the machine is."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("_still")
async def test_what_comes_closely_leaves_in_one_write(stream: Stream) -> None:
    wire = stream.join()
    for _ in range(8):
        await stream.publish("a:b")
        await asyncio.sleep(0)
    await settle()
    assert wire.events == list(range(1, 9))
    assert wire.writes == 1


@pytest.mark.usefixtures("_still")
async def test_a_storm_is_written_before_it_ends(stream: Stream) -> None:
    wire = stream.join()
    for _ in range(10 * module.MOST_EVENTS):
        await stream.publish("a:b")
        await asyncio.sleep(0)
    assert len(wire.events) >= 9 * module.MOST_EVENTS
    assert wire.writes <= 40


async def test_large_events_do_not_pile_up(stream: Stream) -> None:
    wire = stream.join()
    for _ in range(3):
        await stream.publish("a:b", size=module.MOST_BYTES)
        await asyncio.sleep(0)
    assert wire.writes >= 2


async def test_clients_with_the_same_patterns_share_the_selection(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    original = WEBSOCKET.joined

    def count(frames: Sequence[bytes]) -> bytes:
        joined.append(len(frames))
        return original(frames)

    monkeypatch.setattr(WEBSOCKET, "joined", count)
    wires = [stream.join("a:*") for _ in range(20)]
    await stream.publish("a:b", "c:d")
    await settle()
    assert joined == [1]
    assert all(wire.events == [1] for wire in wires)
    assert stream.written == [("websocket", 1, 20, len(stream.broadcaster.window.between(0, 1)[0].frame))]


async def test_who_joins_gets_nothing_from_before(stream: Stream) -> None:
    first = stream.join()
    await stream.publish("a:b")
    second = stream.join()  # the event is accepted but not flushed yet
    await stream.publish("a:b")
    await settle()
    assert (first.events, second.events) == ([1, 2], [2])


async def test_who_comes_back_misses_nothing(stream: Stream) -> None:
    for _ in range(5):
        await stream.publish("a:b")
    wire = stream.join(after=2)
    assert wire.events == [3, 4, 5]  # in the very step of joining
    await stream.publish("a:b")
    await settle()
    assert wire.events == [3, 4, 5, 6]
    assert wire.gaps == []


async def test_without_the_flush_at_joining_events_would_come_twice(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.join()
    monkeypatch.setattr(stream.broadcaster, "flush", lambda: None)
    await stream.publish("a:b")
    wire = stream.join(after=0)
    monkeypatch.undo()
    stream.broadcaster.flush()
    assert wire.events == [1, 1]


async def test_a_slow_client_is_left_alone_and_led_back(stream: Stream) -> None:
    slow, healthy = stream.join(), stream.join()
    slow.reading = False
    for _ in range(500):
        await stream.publish("a:b", size=1000)
        await settle()
    assert healthy.events == list(range(1, 501))
    assert slow.writes == 1
    assert stream.broadcaster.lagging == 1
    assert stream.broadcaster.lag(slow.subscriber) == 499
    slow.read_on()
    await settle()
    assert slow.events == healthy.events
    assert stream.broadcaster.lagging == 0
    assert slow.writes < 20  # pieces, not events


async def test_who_reads_too_slowly_is_told_what_is_missing() -> None:
    stream = await opened(store=100, window=50)
    slow = stream.join()
    slow.reading = False
    await stream.publish("a:b")
    await settle()
    for _ in range(300):
        await stream.publish("a:b")
        await settle()
    slow.read_on()
    await settle()
    assert slow.gaps == [
        {"after": str(stream.cursor(1)), "before": str(stream.cursor(202)), "count": 200, "reason": "slow"}
    ]
    assert slow.events == [1, *range(202, 302)]
    assert stream.gaps == [("slow", 200)]


async def test_behind_the_window_the_store_answers() -> None:
    stream = await opened(store=10_000, window=10)
    for _ in range(50):
        await stream.publish(*["a:b"] * 50)
    wire = stream.join(after=7)
    assert wire.received == []
    await settle()
    assert wire.events == list(range(8, 2501))
    assert wire.gaps == []


async def test_who_comes_back_too_late_is_told() -> None:
    stream = await opened(store=10, window=5)
    for _ in range(30):
        await stream.publish("a:b")
    wire = stream.join(after=3)
    await settle()
    assert wire.events == list(range(21, 31))
    assert wire.gaps == [
        {"after": str(stream.cursor(3)), "before": str(stream.cursor(21)), "count": 17, "reason": "expired"}
    ]


@pytest.mark.parametrize(("restarted", "weakened"), [(True, False), (False, False), (False, True)])
async def test_who_comes_back_when_nothing_is_kept_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, restarted: bool, weakened: bool
) -> None:
    """The gap reaches up to the next event to come, whatever the window still has, and nobody is behind until then."""
    if weakened:
        monkeypatch.setattr(CatchUp, "_start_of_kept", lambda self, subscriber: subscriber.position)
    stream = await opened(store=0)
    await stream.publish(*["a:b"] * 5)
    if restarted:
        stream.broadcaster = Broadcaster(Window(10, 2**20), stream.broker)
        stream.broadcaster.start_at(5)
    wire = stream.join(after=2)
    await settle()
    gap = {"after": str(stream.cursor(2)), "before": str(stream.cursor(6)), "count": 3, "reason": "expired"}
    assert (wire.gaps, wire.events) == (([], [3, 4, 5]) if weakened else ([gap], []))
    assert stream.broadcaster.lagging == 0
    await stream.publish("a:b")
    stream.broadcaster.flush()
    assert wire.events[-1] == 6


async def test_a_short_retention_takes_nothing_from_who_is_connected() -> None:
    stream = await opened(store=3, window=50)
    slow = stream.join()
    slow.reading = False
    for _ in range(20):
        await stream.publish("a:b")
        await settle()
    slow.read_on()
    await settle()
    assert (slow.events, slow.gaps) == (list(range(1, 21)), [])


async def test_a_cursor_of_another_epoch_gets_a_gap_and_all_that_is_kept(stream: Stream) -> None:
    await stream.publish("a:b", "a:b")
    wire = Wire()
    at = stream.broadcaster.join(wire.subscriber, EVERYTHING, Cursor("other", 77))
    assert wire.gaps == [{"after": "other:77", "before": str(stream.cursor(1)), "count": None, "reason": "epoch"}]
    assert wire.events == [1, 2]
    assert at == stream.cursor(0)


async def test_a_cursor_in_the_future_is_refused(stream: Stream) -> None:
    await stream.publish("a:b")
    with pytest.raises(HubError) as refused:
        stream.join(after=2)
    assert refused.value.code == "unknown_cursor"
    assert stream.join(after=1).received == []


async def test_a_batch_larger_than_the_window() -> None:
    stream = await opened(store=1000, window=5)
    wire = stream.join()
    await stream.publish(*["a:b"] * 40)
    await settle()
    assert wire.events == list(range(1, 41))


async def test_a_mark_tells_who_came_back_and_missed_nothing(stream: Stream) -> None:
    await stream.publish("b:x", "a:x", "a:x")
    level = stream.join("b:*")
    await stream.publish("b:x")
    await settle()
    back, gone, full = (stream.join("b:*", after=1) for _ in range(3))
    late = stream.join("b:*", after=4)
    assert [wire.events for wire in (back, gone, full)] == [[4]] * 3
    idle = stream.join("c:*", after=2)
    stream.broadcaster.leave(gone)
    stream.broadcaster.mark()
    stream.broadcaster.mark()
    assert idle.marks == [str(stream.cursor(4))]  # at the next heartbeat, and once
    assert [wire.marks for wire in (level, back, gone, late)] == [[]] * 4  # an event has told them
    left = stream.join("c:*", after=2)
    stream.broadcaster.leave(left)
    again = stream.join("c:*", after=2)
    await stream.publish("c:x")
    await settle()
    stream.broadcaster.mark()
    assert (left.marks, again.marks, again.events) == ([], [], [5])


async def test_marks_tell_narrowed_clients_where_they_are(stream: Stream) -> None:
    narrow, everything = stream.join("a:*"), stream.join()
    await stream.publish("b:c")
    stream.broadcaster.mark()
    stream.broadcaster.mark()
    assert narrow.marks == [str(stream.cursor(1))]
    await stream.publish("a:b")
    stream.broadcaster.mark()
    assert narrow.marks == [str(stream.cursor(1))]  # the event itself said where it is
    assert everything.marks == []


async def test_changing_patterns_loses_nothing_of_before(stream: Stream) -> None:
    wire = stream.join("a:*")
    await stream.publish("a:b", "c:d")
    stream.broadcaster.narrow(wire.subscriber, Patterns(["c:*"]))
    await stream.publish("a:b", "c:d")
    await settle()
    assert wire.events == [1, 4]


async def test_a_broken_transport_costs_nobody_else_anything(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    broken, healthy = stream.join(), stream.join()

    def fail(data: bytes) -> None:
        raise RuntimeError("no transport")

    broken.subscriber.write = fail
    await stream.publish("a:b")
    await settle()
    await stream.publish("a:b")
    await settle()
    assert healthy.events == [1, 2]
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


async def test_who_has_left_gets_nothing_and_costs_nothing(stream: Stream) -> None:
    slow, gone = stream.join(), stream.join()
    slow.reading = False
    await stream.publish("a:b")
    await settle()
    for wire in (slow, gone):
        stream.broadcaster.leave(wire.subscriber)
        stream.broadcaster.leave(wire.subscriber)
    await stream.publish("a:b")
    slow.read_on()
    await settle()
    assert (gone.events, slow.events) == ([1], [1])
    assert not stream.broadcaster._groups
    assert not [task for task in asyncio.all_tasks() if "_lead" in repr(task)]


async def test_nothing_per_client_on_the_path_of_an_event(stream: Stream) -> None:
    wires = [stream.join() for _ in range(100)]
    before = asyncio.all_tasks()
    await stream.publish("a:b")
    stream.broadcaster.flush()
    assert asyncio.all_tasks() == before
    assert all(wire.writes == 1 for wire in wires)


async def test_server_sent_events_are_one_chunk_a_write(stream: Stream) -> None:
    written: list[bytes] = []

    wire = Wire(SSE)
    wire.write = written.append
    stream.broadcaster.join(wire, EVERYTHING)
    await stream.publish("a:b", "a:b")
    await settle()
    (chunk,) = written
    size, _, rest = chunk.partition(b"\r\n")
    assert rest.endswith(b"\r\n")
    assert int(size, 16) == len(rest) - 2
    assert rest.count(b"\nevent: a:b\n") == 2


@pytest.mark.parametrize(("error", "logged"), [(RuntimeError("a bug"), True), (ConnectionError("gone"), False)])
async def test_one_that_cannot_be_written_to_while_behind_is_left_alone(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await opened(store=100, window=5)
    for _ in range(20):
        await stream.publish("a:b")

    def fails(data: bytes) -> None:
        raise error

    wire = Wire()
    wire.write = fails
    stream.broadcaster.join(wire, EVERYTHING, stream.cursor(0))
    healthy = stream.join(after=0)
    await settle()
    assert stream.broadcaster.lagging == 0
    assert ("cannot be written to" in caplog.text) is logged
    await stream.publish("a:b")
    await settle()
    assert healthy.events == list(range(1, 22))


async def test_who_needs_a_store_that_is_away_comes_back_later(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await opened(store=100, window=5)
    for _ in range(20):
        await stream.publish("a:b")

    async def away(after: int, limit: int, size: int | None = None) -> Any:
        raise HubError("broker_unavailable", "Gone.")

    monkeypatch.setattr(stream.broker, "read", away)
    wire = stream.join(after=0)
    await settle()
    assert (wire.turned_away, wire.received) == (True, [])  # what it asked for is kept: no gap
    level = stream.join()
    await stream.publish("a:b")
    await settle()
    assert level.events == [21]
    assert wire.received == []
    monkeypatch.undo()
    again = stream.join(after=0)
    await settle()
    assert again.events == list(range(1, 22))


def fails(data: bytes) -> None:
    raise RuntimeError("no transport")


@pytest.mark.parametrize("after", [None, 0], ids=["at the head", "from behind"])
async def test_who_cannot_be_written_to_when_it_joins_is_cut_off(stream: Stream, after: int | None) -> None:
    """It would stay connected and get nothing; and an event that is told as missing is told to nobody."""
    await stream.publish("a:b")
    wire = Wire()
    wire.write = fails
    cursor = Cursor("elsewhere", 1) if after is None else stream.cursor(after)
    assert stream.broadcaster.join(wire, EVERYTHING, cursor).seq == 0
    assert (wire.was_cut, wire.ended) == (True, True)
    assert stream.broadcaster.lagging == 0
    assert not stream.broadcaster._groups


async def test_who_cannot_be_marked_is_cut_off(stream: Stream) -> None:
    await stream.publish("b:x")
    idle, other = stream.join("c:*", after=0), stream.join("c:*", after=0)
    idle.write = fails
    stream.broadcaster.mark()
    assert (idle.was_cut, idle.ended) == (True, True)
    assert other.marks == [str(stream.cursor(1))]


async def test_nothing_brings_back_who_has_ended(stream: Stream) -> None:
    wire = stream.join()
    stream.broadcaster.leave(wire)
    with pytest.raises(HubError, match=r"gone") as refused:
        stream.broadcaster.join(wire, EVERYTHING, stream.cursor(0))
    assert refused.value.code == "cancelled"
    with pytest.raises(HubError, match=r"gone"):
        stream.broadcaster.narrow(wire, EVERYTHING)
    await stream.publish("a:b")
    await settle()
    assert wire.received == []


async def test_patterns_can_change_while_one_is_behind(stream: Stream) -> None:
    wire = stream.join("a:*")
    wire.reading = False
    await stream.publish("a:b")
    await settle()
    await stream.publish("a:b", "c:d")
    assert stream.broadcaster.narrow(wire, Patterns(["c:*"])) == stream.cursor(1)
    wire.read_on()
    await settle()
    assert wire.events == [1, 3]


async def test_who_falls_behind_again_at_once_is_led_by_one(stream: Stream) -> None:
    """In the very pass in which it has come level: two that lead would write the same twice."""
    wire = stream.join()
    wire.reading = False
    await stream.publish("a:b")
    await settle()
    await stream.publish("a:b")
    wire.read_on()
    while wire.group is None:
        await asyncio.sleep(0)
    wire.reading = False
    await stream.publish("a:b")
    stream.broadcaster.flush()
    await stream.publish("a:b")
    leaders = [task for task in asyncio.all_tasks() if "_lead" in repr(task) and not task.done()]
    assert len(leaders) <= 2  # one of them ends in its next step
    wire.read_on()
    await settle()
    assert wire.events == [1, 2, 3, 4]


# ---- a stream that has lost its newest events


def lose(stream: Stream, kept: int) -> str:
    """Take all behind this number out of the stream, which goes on in another epoch. Its old one."""
    broker, old = stream.broker, stream.broker.epoch
    for seq in range(kept + 1, broker.head + 1):
        del broker._kept[seq]
    broker.head, broker.epoch, broker.lineage = kept, "ffffffff", {old: kept}
    assert broker._outlet is not None
    broker._outlet._head = kept
    stream.broadcaster.lose(old, kept)
    return old


async def test_who_has_seen_what_is_lost_is_told_and_nobody_else(stream: Stream) -> None:
    await stream.publish(*(["a:x"] * 5))
    live, slow = stream.join(), stream.join(after=0)
    slow.reading = False
    await settle()
    wide = [stream.join(after=seq) for seq in (2, 5)]
    await stream.publish("a:x")  # on its way when it is lost
    old = lose(stream, 5)
    await stream.publish("a:y", "a:z")
    slow.read_on()
    await settle()
    assert [wire.gaps for wire in (live, slow, *wide)] == [[]] * 4
    assert [wire.events for wire in (live, slow, *wide)] == [
        [6, 7],
        [1, 2, 3, 4, 5, 6, 7],
        [3, 4, 5, 6, 7],
        [6, 7],
    ]
    lose(stream, 6)
    await stream.publish("a:z")
    await settle()
    gap = {"after": "ffffffff:7", "before": "ffffffff:7", "count": None, "reason": "epoch"}
    assert [wire.gaps for wire in (live, slow, *wide)] == [[gap]] * 4
    assert {wire.events[-1] for wire in (live, slow, *wide)} == {7}
    assert old != stream.broker.epoch


async def test_one_that_cannot_be_told_of_a_loss_is_cut(
    stream: Stream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stream.publish("a:x", "a:x")
    broken, other = stream.join(), stream.join()
    await settle()

    def write(data: bytes) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(broken, "write", write)
    lose(stream, 1)
    await stream.publish("a:y")
    await settle()
    assert (broken.was_cut, other.events) == (True, [2])


async def test_what_was_being_read_of_a_lost_stream_is_read_again() -> None:
    stream = await opened(window=1)
    await stream.publish(*(["a:x"] * 4))
    await settle()
    read, gate = stream.broker.read, asyncio.Event()

    async def late(*args: Any) -> list[Event]:
        found = await read(*args)
        await gate.wait()
        return found

    stream.broker.read = late  # type: ignore[method-assign, assignment]
    wire = stream.join(after=0)
    await settle()
    lose(stream, 2)
    await stream.publish("b:y", "b:z", "b:z")
    gate.set()
    await settle()
    assert [frame["payload"]["event"] for frame in wire.received] == ["a:x", "a:x", "b:y", "b:z", "b:z"]
