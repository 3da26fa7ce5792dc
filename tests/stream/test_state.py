"""Last values by key, and leases that end."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import HubError
from hub.stream import state as module
from hub.stream.events import Draft, Event
from hub.stream.state import State
from hub.wire.names import EVERYTHING, Cursor, Patterns
from hub.wire.strictjson import dumpb


def event(seq: int, key: str | None, data: Any = None, ttl: float | None = None, name: str = "t:x") -> Event:
    return Event(Draft(name, "id", dumpb(data), key, ttl), Cursor("e", seq), f"at {seq}", 0.0)


CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 300)), max_size=30)


@given(CHANGES, st.integers(1, 5), st.integers(100, 1500))
def test_keeps_the_newest_of_each_key_that_changed_last(changes: list[tuple[str, int]], most: int, size: int) -> None:
    state, model = State(most, size), dict[str, Event]()
    for seq, (key, pad) in enumerate(changes, 1):
        changed = event(seq, key, "x" * pad)
        state.apply([changed])
        model.pop(key, None)
        if changed.size <= size:
            model[key] = changed
        while len(model) > most or sum(event.size for event in model.values()) > size:
            del model[next(iter(model))]
        assert state.position == seq
    assert [(item["key"], item["data"]) for item in state.snapshot(EVERYTHING)] == [
        (key, event.data) for key, event in model.items()
    ]
    assert (len(state), state.bytes) == (len(model), sum(event.size for event in model.values()))


def test_an_item() -> None:
    state = State(10, 2**20)
    state.apply([event(1, "k", {"v": 1}), event(2, None, {"v": 2}), event(3, "k", {"v": 3}, name="other:y")])
    assert state.snapshot(Patterns(["t:*"])) == [
        {"event": "t:x", "key": "k", "timestamp": "at 1", "data": {"v": 1}, "stale": False}
    ]
    assert len(state.snapshot(EVERYTHING)) == 2


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def leases(clock: Clock) -> tuple[State, list[tuple[str, str]], Callable[[float], Any]]:
    state, ended = State(10, 2**20), list[tuple[str, str]]()

    async def on_stale(events: Sequence[Event]) -> None:
        ended.extend((event.name, event.key or "") for event in events)

    state.on_stale = on_stale

    async def pass_time(seconds: float) -> None:
        clock.now += seconds
        await state._expire()

    return state, ended, pass_time


async def test_a_lease_ends_once(leases: Any) -> None:
    state, ended, pass_time = leases
    state.apply([event(1, "k", 1, ttl=10), event(2, "other", 1, ttl=30)])
    await pass_time(9.9)
    assert ended == []
    await pass_time(0.2)
    await pass_time(5)
    assert ended == [("t:x", "k")]
    assert [item["stale"] for item in state.snapshot(EVERYTHING)] == [True, False]


async def test_publishing_again_renews(leases: Any) -> None:
    state, ended, pass_time = leases
    state.apply([event(1, "k", 1, ttl=10)])
    await pass_time(8)
    state.apply([event(2, "k", 2, ttl=10)])
    await pass_time(8)
    assert ended == []
    state.apply([event(3, "k", 3)])  # without a ttl it holds for good
    await pass_time(100)
    assert ended == []
    assert state.snapshot(EVERYTHING)[0]["stale"] is False


async def test_what_was_stale_is_fresh_when_it_comes_back(leases: Any) -> None:
    state, ended, pass_time = leases
    state.apply([event(1, "k", 1, ttl=1)])
    await pass_time(2)
    state.apply([event(2, "k", 2, ttl=1)])
    assert state.snapshot(EVERYTHING)[0]["stale"] is False
    await pass_time(2)
    assert ended == [("t:x", "k")] * 2


def stale(seq: int, ended: int, key: str = "k") -> Event:
    return event(seq, None, {"event": "t:x", "key": key, "seq": ended}, name="hub:stale")


def is_stale(state: State) -> list[bool]:
    return [item["stale"] for item in state.snapshot(EVERYTHING)]


def test_what_ends_a_lease_does_not_end_the_next() -> None:
    """The renewal was on its way when the lease ended, and came in before its end did."""
    state = State(10, 2**20)
    state.apply([event(1, "k", 1, ttl=10), event(2, "k", 2, ttl=10), stale(3, 1), stale(4, 9, "unknown")])
    assert is_stale(state) == [False]
    state.apply([stale(5, 2)])
    assert is_stale(state) == [True]


async def test_an_end_that_has_been_told_is_not_told_again(leases: Any) -> None:
    state, ended, pass_time = leases
    state.apply([event(1, "k", 1, ttl=10), stale(2, 1)])
    await pass_time(20)
    assert ended == []


async def away_for_a_while(leases: Any) -> list[int]:
    """The ends that were announced, of a lease that ended while nothing could be."""
    state, _, pass_time = leases
    told: list[int] = []
    away = True

    async def on_stale(ended: Sequence[Event]) -> None:
        if away:
            raise HubError("broker_unavailable", "The store is away.")
        told.extend(event.seq for event in ended)

    state.on_stale = on_stale
    state.apply([event(1, "k", 1, ttl=1), event(2, "renewed", 1, ttl=1)])
    await pass_time(2)
    await pass_time(2)
    assert is_stale(state) == [True, True]
    state.apply([event(3, "renewed", 2)])
    away = False
    await pass_time(2)
    await pass_time(2)
    return told


async def test_the_end_of_a_lease_is_told_when_the_store_is_back(leases: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert await away_for_a_while(leases) == [1]
    assert caplog.text.count("could not be announced") == 1


async def test_weakened_it_would_never_be_told(leases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = State._announce

    async def announce(self: State, ended: Sequence[Event]) -> bool:
        return await real(self, ended) or True

    monkeypatch.setattr(State, "_announce", announce)
    assert await away_for_a_while(leases) == []


async def test_a_failing_announcement_ends_nothing(leases: Any, caplog: pytest.LogCaptureFixture) -> None:
    state, _, pass_time = leases

    async def fail(events: Sequence[Event]) -> None:
        raise RuntimeError("no")

    state.on_stale = fail
    state.apply([event(1, "k\n", 1, ttl=1)])
    await pass_time(2)
    assert "could not be announced" in caplog.text
    assert "k\\n" in caplog.text
    assert is_stale(state) == [True]


async def test_the_task_wakes_by_itself() -> None:
    state, ended = State(10, 2**20), asyncio.Event()

    async def on_stale(events: Sequence[Event]) -> None:
        ended.set()

    state.on_stale = on_stale
    task = asyncio.create_task(state.run())
    await asyncio.sleep(0)
    state.apply([event(1, "later", 1, ttl=3600)])
    state.apply([event(2, "k", 1, ttl=0.01)])
    await ended.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def end_together(count: int) -> tuple[int, int]:
    """So many leases end at once: how many are told of at a time, at most, and how often others had a turn."""
    state, told, most, passes = State(count, 2**26), 0, 0, 0
    done = asyncio.Event()

    async def on_stale(events: Sequence[Event]) -> None:
        nonlocal told, most
        told, most = told + len(events), max(most, len(events))

    async def neighbour() -> None:
        nonlocal passes
        while not done.is_set():
            passes += 1
            await asyncio.sleep(0)

    state.on_stale = on_stale
    state.apply([event(seq, f"{seq}", 1, ttl=1e-9) for seq in range(1, count + 1)])
    beside = asyncio.create_task(neighbour())
    await state._expire()
    done.set()
    await beside
    assert told == count
    assert len(state._leases) == 0
    return most, passes


async def test_leases_that_end_together_end_in_turns_with_everybody_else() -> None:
    most, passes = await end_together(10_000)
    assert most <= module.ENDS
    assert passes >= 3 * 10_000 // module.ENDS


async def test_weakened_they_would_end_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDS", 10**6)
    assert (await end_together(10_000))[0] == 10_000


def test_a_key_that_is_renewed_has_one_lease() -> None:
    """30,000 publishes of a key with a ttl of 30 days were 32 MiB."""
    state = State(10, 2**20)
    for seq in range(1, 30_001):
        state.apply([event(seq, "k", 1, ttl=30 * 86400.0)])
    assert len(state._leases) == 1
    assert len(state._leases._ends) < 100


async def pushed_out(state: State, pass_time: Callable[[float], Any]) -> None:
    state.apply([event(1, "k", 1, ttl=10), event(2, "renewed", 1, ttl=10), event(3, "over", 1, ttl=10)])
    state.apply([event(seq, f"{seq}", 1) for seq in range(4, 14)])
    assert state.get("t:x", "k") is None
    state.apply([event(14, "renewed", 1), stale(15, 3, "over")])
    await pass_time(9.9)
    assert not state.is_stale("t:x", "k")
    await pass_time(0.2)


async def test_the_lease_of_a_value_that_was_pushed_out_ends_in_time(leases: Any) -> None:
    state, ended, pass_time = leases
    await pushed_out(state, pass_time)
    assert ended == [("t:x", "k")]
    assert state.is_stale("t:x", "k"), "as long as nothing newer comes"
    assert state.is_stale("t:x", "over")
    state.apply([event(16, "k", 1)])
    assert not state.is_stale("t:x", "k")
    assert state.dropped == 5


async def test_weakened_nobody_would_hear_of_it(leases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "_push_out", lambda state, place, item, end: None)
    state, ended, pass_time = leases
    await pushed_out(state, pass_time)
    assert ended == []


def test_what_nobody_will_hear_of_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PUSHED_OUT", 2)
    state = State(1, 2**20)
    state.apply([event(1, "large", "x" * module.SMALL, ttl=10), event(2, "2", 1)])
    assert len(state._leases) == 0
    state.apply([event(seq, f"{seq}", 1, ttl=10) for seq in range(3, 20)])
    assert len(state._leases) == 3
    assert caplog.messages == [
        'there is no room for all last values, and nobody is told if "t:x" "large" does not come; '
        "keep more (--state-items, --state-bytes)"
    ]


def test_what_has_gone_leaves_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUSHED_OUT", 0)
    state = State(2, 2**20)
    state.apply([event(seq, f"{seq}", 1, ttl=10) for seq in range(1, 6)])
    assert len(state._leases) == 2
    state.apply([event(6, "4", 1), stale(7, 5, "5")])
    assert len(state._leases) == 0


async def test_what_is_published_again_while_others_have_their_turn_does_not_end(leases: Any) -> None:
    state, ended, pass_time = leases
    await state._turns.turn()  # somebody has just had one
    state.apply([event(1, "k", 1, ttl=1)])
    passing = asyncio.create_task(pass_time(2))
    await asyncio.sleep(0)
    state.apply([event(2, "k", 2, ttl=10)])
    await passing
    assert ended == []
    assert is_stale(state) == [False]
