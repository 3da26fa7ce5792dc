"""How calls that may be repeated have ended: kept for an hour, within bounds, over a restart, as safely as events."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import until
from stores import Disk, Failing, Store, passes, store

from hub.errors import HubError
from hub.stream.brokers import answers as module
from hub.stream.brokers.answers import KEPT, CallTable, MemoryAnswers
from hub.stream.brokers.broker import Limits, Past

WHAT = b"w" * 32


class Clock:
    """Stands in for the time, which `remember` and `recall` look at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(module, "time", self)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def limit(it: Store, limits: Limits) -> None:
    it.broker._database._calls.limits = limits


async def seen(answers: Any, places: Any) -> list[Any]:
    """What can be found at each."""
    found = []
    for place in places:
        past = await answers.recall(place)
        found.append((past, await answers.told(place) if past else None))
    return found


async def test_what_is_begun_and_what_is_answered(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        for answers in (it.broker.answers, MemoryAnswers()):
            assert await seen(answers, [b"a"]) == [(None, None)]
            await answers.remember(b"a", WHAT, None)
            assert await seen(answers, [b"a"]) == [(Past(WHAT, False), None)]
            await answers.remember(b"a", WHAT, b"answer")
            assert await seen(answers, [b"a", b"b"]) == [(Past(WHAT, True), b"answer"), (None, None)]


PLACES = [b"a", b"b", b"c", b"d", b"e", b"f"]
STEPS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.none() | st.integers(1, 40), st.integers(0, 20), st.integers(0, 9)),
    max_size=40,
)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS, rows=st.integers(1, 6), size=st.integers(1, 100))
async def test_the_table_keeps_what_memory_keeps(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, rows: int, size: int
) -> None:
    """And is never over its limits; a restart in between (where a step says 0) changes nothing."""
    limits = Limits(rows, size, 60.0)
    with pytest.MonkeyPatch.context() as patch:
        clock, path = Clock(patch), tmp_path_factory.mktemp("model")
        model = MemoryAnswers(limits)
        real = CallTable.__init__
        patch.setattr(CallTable, "__init__", lambda self: real(self, limits))
        async with store(path) as it:
            for place, length, pause, restart in steps:
                clock.now += pause
                answer = None if length is None else place * length
                if restart == 0:
                    await it.broker.close()
                    it = Store(type(it.broker)(path, it.broker.limits, Limits(10, 1000)))
                    await it.broker.open(it.pump)
                for answers in (model, it.broker.answers):
                    await answers.remember(place, WHAT, answer)
                assert await seen(it.broker.answers, PLACES) == await seen(model, PLACES)
                table = it.broker._database
                kept = table._sql.execute("SELECT count(*), coalesce(sum(length(answer)), 0) FROM calls").fetchone()
                assert kept == table._calls.numbers[:2]
                assert kept[0] <= rows
                assert kept[1] <= size
                assert model.bytes == sum(map(len, model._answers.values())) <= size
            await it.broker.close()


@pytest.mark.parametrize("weakened", [None, "_empty", "_delete"])
async def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: str | None) -> None:
    """The newest answers stay, and of more calls that they have been answered."""
    if weakened:
        monkeypatch.setattr(CallTable, weakened, lambda *args: args[-1])
    async with store(tmp_path) as it:
        limit(it, Limits(20, 1000, 3600.0))
        for number in range(50):
            await it.broker.answers.remember(b"%d" % number, WHAT, b"x" * 100)
        rows, size, _ = it.broker._database._calls.numbers
        assert (rows <= 20, size <= 1000) == (weakened != "_delete", weakened != "_empty")
        if not weakened:
            found = await seen(it.broker.answers, [b"29", b"30", b"39", b"40", b"49"])
            known = Past(WHAT, True)
            assert found == [(None, None), *[(known, None)] * 2, *[(known, b"x" * 100)] * 2]


async def test_it_is_kept_for_an_hour_and_then_the_room_is_given_back(tmp_path: Path, clock: Clock) -> None:
    assert KEPT.seconds == 3600
    async with store(tmp_path) as it:
        table, memory = it.broker._database._calls, MemoryAnswers()
        for answers in (it.broker.answers, memory):
            for number in range(600):
                await answers.remember(b"%d" % number, WHAT, b"answer")
            clock.now += 3600
            assert await answers.recall(b"0") == Past(WHAT, True)
            clock.now += 1
            assert await answers.recall(b"0") is None
            await answers.remember(b"later", WHAT, b"answer")
            clock.now -= 3601
        clock.now += 3601
        await until(lambda: table.numbers[:2] == (1, 6), "forgetting")
        assert (len(memory._rows), memory.bytes) == (1, 6)
        assert await it.broker.answers.recall(b"later") == Past(WHAT, True)


@pytest.mark.parametrize("killed", [False, True])
async def test_it_is_there_after_a_restart(tmp_path: Path, killed: bool) -> None:
    async with store(tmp_path) as it:
        await it.broker.answers.remember(b"a", WHAT, b"answer")
        await it.broker.answers.remember(b"b", WHAT, None)
        if killed:
            await it.kill()
    async with store(tmp_path) as it:
        assert await seen(it.broker.answers, [b"a", b"b"]) == [(Past(WHAT, True), b"answer"), (Past(WHAT, False), None)]
        assert it.broker._database._calls.numbers[:2] == (2, 6)


async def test_with_sync_full_it_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    async with store(tmp_path, full=True) as it:
        disk.go.clear()
        rounds = disk.rounds
        task = asyncio.create_task(it.broker.answers.remember(b"a", WHAT, None))
        await until(lambda: disk.rounds > rounds)
        await passes()
        assert not task.done()
        disk.go.set()
        await task
    async with store(tmp_path) as it:
        rounds = disk.rounds
        await it.broker.answers.remember(b"b", WHAT, None)
        assert disk.rounds == rounds  # as events: it survives a kill, and waits for no disk


async def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, until the store is back; what was kept before is there all the time."""
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    disk = Disk(monkeypatch)
    async with store(tmp_path, full=True) as it:
        await it.broker.answers.remember(b"a", WHAT, b"answer")
        disk.fails = True
        with pytest.raises(HubError, match="kept") as refused:
            await it.broker.answers.remember(b"b", WHAT, None)
        assert refused.value.code == "broker_unavailable"
        with pytest.raises(HubError, match="kept"):
            await it.broker.answers.remember(b"c", WHAT, None)
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
        assert await seen(it.broker.answers, [b"a", b"c"]) == [(Past(WHAT, True), b"answer"), (None, None)]
        await it.broker.answers.remember(b"b", WHAT, b"again")
        assert (await seen(it.broker.answers, [b"b"]))[0][1] == b"again"


async def test_a_statement_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: real(*args, **more, factory=Failing))
    async with store(tmp_path) as it:
        await it.broker.answers.remember(b"a", WHAT, b"answer")
        numbers = it.broker._database._calls.numbers
        monkeypatch.setattr(Failing, "why", "disk I/O error")
        with pytest.raises(HubError):
            await it.broker.answers.remember(b"a", WHAT, b"a longer one")
        assert it.broker._database._calls.numbers == numbers
        monkeypatch.setattr(Failing, "why", "")
        await until(lambda: it.broker.problem is None, "recovery")
        assert it.broker._database._calls.numbers[:2] == numbers[:2]
        assert await it.broker.answers.told(b"a") == b"answer"
        assert await it.broker.answers.told(b"never") is None


async def test_a_store_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.broker.close()
        with pytest.raises(HubError, match="stopping"):
            await it.broker.answers.remember(b"a", WHAT, None)
        with pytest.raises(HubError):
            await it.broker.answers.recall(b"a")


async def test_the_journal_is_looked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 40)
    async with store(tmp_path) as it:
        for number in range(60):
            await it.broker.answers.remember(b"%d" % number, WHAT, b"x" * 5000)
        await until(lambda: it.broker._database.unsaved < 40, "the checkpoint")
