"""With `--sync full` nothing goes on before the disk has it, and nothing that the disk has lost."""

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from running import until
from stores import Disk, draft, kept_in, passes, store

from hub.errors import HubError
from hub.stream.brokers import database
from hub.stream.brokers.broker import Limits, unavailable
from hub.stream.brokers.rounds import Rounds
from hub.stream.brokers.sqlite import SqliteBroker
from hub.stream.events import Event
from hub.wire.names import Cursor


async def test_with_sync_full_nothing_goes_on_before_the_disk_has_it(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, full=True) as it:
        disk.go.clear()
        waiting = [asyncio.create_task(it.put(draft(f"{i}", given=True))) for i in range(3)]
        await passes()
        again = asyncio.create_task(it.put(draft("0", given=True)))  # known, but not on the disk yet
        more = [asyncio.create_task(it.put(draft(f"more {i}"))) for i in range(20)]
        await passes()
        assert not any(task.done() for task in (*waiting, again, *more))
        assert (it.pumped, await it.ids(), it.broker.head) == ([], [], 0)
        disk.go.set()
        assert [await task for task in waiting] == [[1], [2], [3]]
        assert await again == [1]
        assert [await task for task in more] == [[n] for n in range(4, 24)]
        assert disk.rounds <= 3  # not one for each
        assert [event.seq for event in it.pumped] == list(range(1, 24))


async def test_a_known_event_is_answered_when_the_disk_has_the_first(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, Limits(1, 2**20, 86400.0), full=True) as it:
        disk.go.clear()
        first = asyncio.create_task(it.put(draft("a", given=True), draft("b")))
        await until(lambda: disk.rounds == 1, "the first round")
        again = asyncio.create_task(it.put(draft("a", given=True)))
        await passes()
        assert not again.done()
        assert it.broker._database.tidy(it.broker.head) is False  # nothing goes that nobody has seen
        disk.go.set()
        assert (await first, await again) == ([1, 2], [1])
        assert len(it.batches) == 1


async def test_a_publisher_of_a_round_that_fails_may_have_gone(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with store(tmp_path, full=True) as it:
        disk.fails = True
        disk.go.clear()
        gone = asyncio.create_task(it.put(draft("a")))
        await passes()
        gone.cancel()
        await passes()
        disk.go.set()
        await until(lambda: it.broker.problem, "the failure")
        assert "events cannot be kept" in caplog.text
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [1]


async def test_without_sync_nothing_waits_for_the_disk(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        assert disk.rounds == 0


async def test_weakened_without_its_sync_events_would_go_on_too_early(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.Database, "sync", lambda self: None)
    disk.fails = True
    async with store(tmp_path, full=True) as it:
        assert await it.put(draft("a")) == [1]


async def test_what_did_not_reach_the_disk_is_refused_and_taken_back(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, full=True) as it:
        await it.put(draft("kept", key="k"))
        disk.fails = True
        disk.go.clear()
        refused = [asyncio.create_task(it.put(draft(f"{i}", given=True, key="k"))) for i in range(3)]
        await passes()
        refused += [asyncio.create_task(it.put(draft(f"late {i}"))) for i in range(3)]
        await passes()
        disk.go.set()
        errors = await asyncio.gather(*refused, return_exceptions=True)
        assert [(type(e), getattr(e, "code", "")) for e in errors] == [(HubError, "broker_unavailable")] * 6
        assert "Input/output error" in str(it.broker.problem)
        with pytest.raises(HubError):
            await it.put(draft("at once"))
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("0", given=True)) == [2]  # as if it had never come
        assert await it.ids() == ["kept", "0"]
    async with store(tmp_path) as two:
        assert await two.ids() == ["kept", "0"]
        assert [(k.event.key, k.event.id) for k in await two.broker.last_values()] == [("k", "kept")]


async def test_weakened_what_was_refused_would_come_back(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.Database, "reopen", lambda self, head: None)
    async with store(tmp_path, full=True) as it:
        disk.fails = True
        with pytest.raises(HubError):
            await it.put(draft("refused"))
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
    assert kept_in(tmp_path) == {1: "refused"}


# ---- a store that fails under a round


class Turns:
    """Rounds whose disk answers when it is told to, and what they have handed on."""

    def __init__(self) -> None:
        self.handed_on: list[int] = []
        self.answers: list[asyncio.Future[None]] = []
        self.rounds = Rounds(self.sync, self.hand_on, lambda error: unavailable(f"{error}"))

    async def sync(self) -> None:
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]

    async def hand_on(self, events: Sequence[Event]) -> None:
        self.handed_on += [event.seq for event in events]

    def join(self, seq: int) -> "asyncio.Task[None]":
        event = Event(draft("x"), Cursor("e", seq), "t", 0.0)
        return asyncio.create_task(self.rounds.join([event]))


async def under_way(turns: Turns) -> "list[asyncio.Task[None]]":
    """One round is at the disk, one waits for its turn; and the store fails."""
    tasks = [turns.join(1)]
    await passes()
    tasks.append(turns.join(2))
    await passes()
    turns.rounds.end()
    tasks.append(turns.join(1))  # by then the store has been opened anew, and the number is free again
    for _ in range(3):
        await passes()
        if turns.answers and not turns.answers[-1].done():
            turns.answers[-1].set_result(None)
    return tasks


async def test_a_round_ends_with_the_store_that_it_was_begun_in() -> None:
    turns = Turns()
    tasks = await under_way(turns)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [HubError, HubError, type(None)]
    assert turns.handed_on == [1]
    await turns.rounds.drain()


async def test_weakened_without_a_generation_what_was_taken_back_would_be_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Rounds, "_check", lambda self, generation: None)
    turns = Turns()
    assert await asyncio.gather(*await under_way(turns)) == [None] * 3
    assert turns.handed_on == [1, 2, 1]


async def test_what_the_disk_has_lost_is_told_once_and_meant_for_everybody(tmp_path: Path, disk: Disk) -> None:
    """It is the checkpoint that hears of it: who publishes meanwhile must not be told that the event is kept."""
    async with store(tmp_path, full=True) as it:
        await it.put(draft("kept"))
        disk.go.clear()
        disk.bad = {2}
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(lambda: disk.rounds == 2, "the checkpoint's question")
        publish = asyncio.create_task(it.put(draft("lost")))
        await passes()
        disk.go.set()
        with pytest.raises(HubError):
            await publish
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("next")) == [2]
        assert [event.id for event in it.pumped] == ["kept", "next"]


async def test_the_disk_is_asked_through_one_descriptor(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when there is none left to get: one that is opened later might not hear of a failure before it."""
    async with store(tmp_path, full=True) as it:
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", none_left)
            assert await it.put(draft("a")) == [1]
            assert await it.put(draft("b")) == [2]
        assert len(disk.descriptors) == 1


def none_left(*args: Any, **kwargs: Any) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


async def test_a_refused_event_is_no_last_value_and_makes_no_other_go(tmp_path: Path, disk: Disk) -> None:
    limits = Limits(2, 2**20, 86400.0)
    async with store(tmp_path, limits, full=True) as it:
        await it.put(draft("old", key="k"), draft("b"))
        disk.go.clear()
        first = asyncio.create_task(it.put(draft("c")))
        await until(lambda: disk.rounds == 2, "the round")
        refused = asyncio.create_task(it.put(draft("new", key="k")))
        await passes()
        disk.bad = {3}
        disk.go.set()
        assert await first == [3]  # "old" goes, and is saved although a newer one is on its way
        with pytest.raises(HubError):
            await refused
        await until(lambda: it.broker.problem is None, "recovery")
    async with store(tmp_path, limits) as it:
        assert [kept.event.id for kept in await it.broker.last_values()] == ["old"]


@pytest.mark.parametrize("weakened", [False, True])
async def test_nothing_is_trimmed_while_a_thread_may_be_at_the_file(
    tmp_path: Path, disk: Disk, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(self: SqliteBroker, steps: int) -> None:
        self._database.trim(self.head, lazily=True)
        self._count()

    if weakened:
        monkeypatch.setattr(SqliteBroker, "_trim", careless)
    async with store(tmp_path, Limits(1, 2**20, 86400.0), full=True) as it:
        beside, go, database = list[bool](), threading.Event(), it.broker._database
        checkpoint, trim = database.checkpoint, database.trim

        def watched(until: int, *, lazily: bool = False) -> bool:
            beside.append(lazily and it.broker._file.locked())
            more: bool = trim(until, lazily=lazily)
            return more

        monkeypatch.setattr(database, "checkpoint", lambda: (go.wait(30), checkpoint()))
        monkeypatch.setattr(database, "trim", watched)
        disk.go.clear()
        database.unsaved = 10**6
        it.broker._care.soon()
        await until(lambda: disk.rounds == 1, "the round before the checkpoint")
        publish = asyncio.create_task(it.put(draft("a"), draft("b")))
        await passes()
        disk.ready = lambda: bool(
            disk.rounds == 1 or it.broker._file.locked()
        )  # the next one ends beside the checkpoint
        disk.go.set()
        assert await publish == [1, 2]
        assert it.broker._file.locked()
        go.set()
        await until(lambda: it.broker.tail == 2, "the trimming")
    assert (True in beside) is weakened
