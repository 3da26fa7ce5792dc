"""The journal is brought in, what is too much goes, and a store that has failed comes back."""

import asyncio
import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import until
from stores import PLENTY, STATE, Disk, Store, draft, kept_in, passes, store

from hub.errors import HubError, UsageError
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.care import Care
from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.stream.brokers.storefile import PAGE, StoreFile
from hub.stream.events import Draft


def journal(folder: Path) -> int:
    return (folder / f"{FILE}-wal").stat().st_size


async def test_the_journal_is_brought_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 50)
    async with store(tmp_path) as it:
        for i in range(40):
            await asyncio.gather(*(it.put(draft(f"{i}.{j}")) for j in range(20)), passes())
            await until(lambda: it.broker._database.unsaved < 50, "the checkpoint")
        assert journal(tmp_path) < 4 * 50 * PAGE
        assert [event.seq for event in it.pumped] == list(range(1, 801))
        assert len(await it.ids()) == 800


async def test_weakened_the_journal_would_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 50)
    monkeypatch.setattr(SqliteBroker, "_checkpoint", lambda self: passes())
    async with store(tmp_path) as it:
        for i in range(800):
            await it.put(draft(f"{i}"))
        assert journal(tmp_path) > 4 * 50 * PAGE


async def test_a_journal_that_cannot_be_brought_in_only_grows(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 10)
    disk.fails = True
    async with store(tmp_path) as it:
        for i in range(30):
            await it.put(draft(f"{i}"))
        await until(lambda: "could not be brought into their file" in caplog.text, "the warning")
        assert it.broker.problem is None
        assert await it.put(draft("more")) == [31]


async def test_a_store_that_stays_away_is_tried_again(
    tmp_path: Path, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    async with store(tmp_path) as it:
        tries: list[int] = []
        real = it.broker._database.reopen

        def reopen(head: int) -> None:
            tries.append(head)
            real(head)

        monkeypatch.setattr(it.broker._database, "reopen", reopen)
        failing("disk I/O error")
        with pytest.raises(HubError):
            await it.put(draft("a"))
        await until(lambda: len(tries) >= 3, "three tries")
        assert caplog.text.count("events cannot be kept") == 1  # told once
        failing("")
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [1]


async def test_trimming_that_fails_costs_no_publisher_its_answer(
    tmp_path: Path, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path, Limits(2, 2**20, 86400.0)) as it:
        await it.put(draft("a"), draft("b"))
        monkeypatch.setattr(it.broker._database, "_forget", lambda last: it.broker._database._sql.execute("BOGUS"))
        assert await it.put(draft("c")) == [3]
        assert "syntax error" in str(it.broker.problem)
        monkeypatch.undo()
        await until(lambda: it.broker.problem is None, "recovery")
        await until(lambda: it.broker.tail == 2, "the trimming")
        assert await it.ids() == ["b", "c"]


async def test_much_at_once_is_trimmed_at_once(tmp_path: Path) -> None:
    async with store(tmp_path, Limits(10, 2**20, 86400.0)) as it:
        await it.put(*(draft(f"{i}") for i in range(3000)))
        assert (it.broker.head, it.broker.tail) == (3000, 2991)


async def test_what_lower_limits_leave_over_goes_in_steps(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}") for i in range(3000)))
    async with store(tmp_path, Limits(10, 2**20, 86400.0)) as it:
        await it.put(draft("more"))
        assert it.broker.tail < 1000  # not all in the step of one publisher
        await until(lambda: it.broker.tail == 2992, "the rest")


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_journal_begins_again_in_the_thread(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes first after a checkpoint waits for the disk: that must not be a publisher, in the loop."""

    def nothing_new(self: StoreFile) -> None:
        self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._sql.execute("UPDATE meta SET value = value WHERE name = 'clean'")

    if weakened:
        monkeypatch.setattr(StoreFile, "checkpoint", nothing_new)
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        before = head_of(journal_of(tmp_path))
        await it.broker._in_thread(it.broker._database.checkpoint)
        begun = head_of(journal_of(tmp_path))
        assert (begun == before) is weakened
        await it.put(draft("b"))
        assert (head_of(journal_of(tmp_path)) != begun) is weakened


def journal_of(folder: Path) -> Path:
    return folder / f"{FILE}-wal"


def head_of(path: Path) -> bytes:
    """The 32 bytes that are new whenever the journal begins again."""
    return path.read_bytes()[:32]


# ---- a file that is not in its place any more


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("hub.stream.brokers.sqlite.LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_file_that_is_moved_away_is_noticed_and_gone_on_with_when_it_is_back(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, away = tmp_path / FILE, tmp_path / "away"
    if weakened:
        monkeypatch.setattr(StoreFile, "look", lambda self: None)
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        os.rename(path, away)
        if weakened:
            assert await it.put(draft("b")) == [2]  # nobody will ever find it
            return
        await until(lambda: it.broker.problem, "the notice")
        with pytest.raises(HubError, match="was moved or replaced while the hub was running: put it back, or restart"):
            await it.put(draft("b"))
        assert await it.ids() == ["a"]  # it can be read all the same
        await passes()
        assert not path.exists()
        os.rename(away, path)
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [2]
    assert caplog.text.count("was moved or replaced") == 1
    assert kept_in(tmp_path) == {1: "a", 2: "b"}


@pytest.mark.usefixtures("_often")
async def test_another_file_in_its_place_is_not_gone_on_with_before_a_restart(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        epoch = it.broker.epoch
    other = (tmp_path / FILE).read_bytes()
    (tmp_path / "old").mkdir()
    async with store(tmp_path) as it:
        await it.put(draft("b"))
        os.rename(tmp_path / FILE, tmp_path / "old" / FILE)
        (tmp_path / FILE).write_bytes(other)
        await until(lambda: it.broker.problem, "the notice")
        with pytest.raises(HubError, match="was moved or replaced"):
            await it.put(draft("c"))
    assert kept_in(tmp_path / "old") == {1: "a", 2: "b"}  # it is whole without its journal
    assert kept_in(tmp_path) == {1: "a"}  # and that spoils no other
    async with store(tmp_path) as it:
        assert it.broker.lineage == {epoch: 1}
        assert await it.put(draft("c")) == [2]


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_file_that_is_written_over_is_left_alone(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has put a copy back under the running hub. It stays what it is: nothing is brought into it."""
    if weakened:
        monkeypatch.setattr(StoreFile, "look", lambda self: None)
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}") for i in range(3)))
    copy = (tmp_path / FILE).read_bytes()
    async with store(tmp_path) as it:
        await it.put(*(Draft("a:x", f"x{i}", b'"%b"' % (b"x" * 9000)) for i in range(300)))
        await it.broker._in_thread(it.broker._database.checkpoint)
        await it.put(*(draft(f"y{i}") for i in range(300)))
        assert it.broker.problem is None
        with (tmp_path / FILE).open("r+b") as file:
            file.truncate(0)
            file.write(copy)
        if weakened:
            assert await it.put(draft("z")) == [604]  # kept in what cannot be read any more
            await it.kill()
            return
        await until(lambda: it.broker.problem, "the notice")
        with pytest.raises(HubError, match="was written over while the hub was running: stop the hub and put it back"):
            await it.put(draft("z"))
    if sys.version_info >= (3, 12):  # before that, SQLite brings the journal in when it is closed
        assert (tmp_path / FILE).read_bytes() == copy
    (tmp_path / FILE).write_bytes(copy)
    async with store(tmp_path) as it:
        assert await it.ids() == ["0", "1", "2"]
        assert list(it.broker.lineage.values()) == [3]


@pytest.mark.usefixtures("_often")
async def test_what_a_failed_checkpoint_has_changed_is_nobody_elses_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(sqlite3.Connection):
        fails = False

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            found = super().execute(sql, *args)
            if Late.fails and sql.startswith("PRAGMA wal_checkpoint"):
                found.close()
                raise sqlite3.OperationalError("disk I/O error")
            return found

    monkeypatch.setattr(
        "hub.stream.brokers.storefile.connect",
        lambda path, patience: sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Late),
    )
    async with store(tmp_path) as it:
        await it.put(*(Draft("a:x", f"x{i}", b'"%b"' % (b"x" * 9000)) for i in range(300)))
        Late.fails = True
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(lambda: "could not be brought into their file" in caplog.text, "the warning")
        Late.fails = False
        looks, look = list[int](), it.broker._database.look

        def looking() -> None:
            look()
            looks.append(1)

        monkeypatch.setattr(it.broker._database, "look", looking)
        await until(lambda: len(looks) > 2, "some looks")
        assert it.broker.problem is None
        assert await it.put(draft("more")) == [301]


@pytest.mark.usefixtures("_often")
async def test_a_journal_that_is_deleted_costs_nothing(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        journal_of(tmp_path).unlink()
        await until(lambda: it.broker.problem, "the notice")
        await until(lambda: it.broker.problem is None, "recovery")
        assert journal_of(tmp_path).exists()
        assert await it.put(draft("b")) == [2]
    assert kept_in(tmp_path) == {1: "a", 2: "b"}


# ---- whatever goes wrong


ERRORS = [RuntimeError("can't start new thread"), MemoryError(), OSError("x"), sqlite3.OperationalError("x")]


@pytest.mark.parametrize("full", [False, True], ids=["normal", "full"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["write", "settle", "trim", "sync"])
async def test_any_error_at_all_is_one_of_the_store(
    tmp_path: Path, place: str, error: Exception, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    async with store(tmp_path, Limits(1, 2**20, 86400.0), full=full) as it:
        await it.put(draft("a"))
        real, fails = getattr(it.broker._database, place), [error]

        def once(*args: Any, **kwargs: Any) -> Any:
            found = real(*args, **kwargs)
            if fails:
                raise fails.pop()
            return found

        monkeypatch.setattr(it.broker._database, place, once)
        for id in "bcd":
            with contextlib.suppress(HubError):
                await it.put(draft(id))
            await until(lambda: it.broker.problem is None, "recovery")
        assert [event.seq for event in it.pumped] == list(range(1, it.broker.head + 1))
        assert it.pumped[-1].id == "d"


async def test_a_publish_that_cannot_even_queue_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all that came behind it would queue for ever."""

    class Full(list[Any]):
        def append(self, item: Any) -> None:
            raise MemoryError

    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    async with store(tmp_path) as it:
        async with it.broker._file:
            it.broker._queue = Full()
            with pytest.raises(HubError, match="MemoryError"):
                await it.put(draft("a"))
            it.broker._queue = []
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b"), draft("c")) == [1, 2]


async def test_a_store_that_has_lost_events_gives_no_number_again(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"), draft("b"))
        it.broker._database._sql.execute("DELETE FROM events WHERE seq = 2")
        with pytest.raises(sqlite3.DatabaseError, match="the events 2 to 2 are gone"):
            it.broker._database.reopen(2)


async def test_what_the_pump_did_not_take_goes_first_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    async with store(tmp_path) as it:
        it.fails.append(MemoryError())
        with pytest.raises(HubError, match="MemoryError"):
            await it.put(draft("a"))
        assert "MemoryError" in str(it.broker.problem)  # as /readyz says it
        await until(lambda: it.broker.problem is None, "recovery")
        assert [event.id for event in it.pumped] == ["a"]
        assert await it.put(draft("b")) == [2]
        assert [event.id for event in it.pumped] == ["a", "b"]


async def test_no_thread_is_needed_after_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with store(tmp_path, full=True) as it:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await asyncio.gather(*(it.put(draft(f"{i}")) for i in range(3))) == [[1], [2], [3]]
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(lambda: it.broker._database.unsaved < 10, "the checkpoint")
    with pytest.raises(UsageError, match="can't start new thread"):
        async with store(tmp_path):
            pass


async def test_a_store_that_nobody_looks_after_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with store(tmp_path) as it:
        it.broker._care._task.cancel()
        await until(lambda: it.broker.problem, "the word on it")
        assert "nobody looks after the store" in caplog.text
        with pytest.raises(HubError):
            await it.put(draft("a"))


async def test_the_file_is_the_threads_until_it_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a connection at once would end the process."""
    async with store(tmp_path) as it:
        begun, go, real = threading.Event(), threading.Event(), it.broker._database.checkpoint

        def checkpoint() -> None:
            begun.set()
            go.wait(30)
            real()

        monkeypatch.setattr(it.broker._database, "checkpoint", checkpoint)
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(begun.is_set, "the checkpoint")
        it.broker._care._task.cancel()
        await passes()
        assert it.broker._file.locked()
        go.set()
        await until(lambda: it.broker.problem, "the end of the care")
        assert not it.broker._file.locked()


@pytest.mark.parametrize("step", ["sync", "reopen", "close"])
async def test_closing_raises_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("no")

    it = Store(SqliteBroker(tmp_path, PLENTY, STATE, full=True))
    await it.broker.open(it.pump)
    await it.put(draft("a"))
    monkeypatch.setattr(it.broker._database, step, fail)
    it.broker._fail(OSError("x"))
    await it.broker.close()
    assert "could not be closed: no" in caplog.text or step == "sync"
    it.broker._database._drop()


# ---- rest


async def steps_of_a_store_that_fails_again() -> int:
    """Somebody asks for a step a hundred times."""
    steps: list[int] = []

    async def step() -> bool:
        steps.append(1)
        raise OSError("again")

    def fail(error: BaseException) -> None:
        care.rest()

    care = Care(step, fail, 0.001)
    care.begin()
    for _ in range(100):
        care.soon()
        await passes(5)
    await care.end()
    return len(steps)


async def test_what_fails_again_at_once_is_let_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 3600.0)
    assert await steps_of_a_store_that_fails_again() == 1


async def test_weakened_without_a_rest_it_would_go_round_and_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Care, "rest", lambda self: None)
    assert await steps_of_a_store_that_fails_again() > 20


async def test_a_store_that_fails_to_tidy_is_not_opened_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(until: int) -> bool:
        failed.append(until)
        raise sqlite3.OperationalError("disk I/O error")

    failed: list[int] = []
    async with store(tmp_path) as it:
        monkeypatch.setattr(it.broker._database, "tidy", fail)
        it.broker._care.soon()
        await until(lambda: it.broker.problem, "the failure")
        rests = it.broker._care._not_before
        for _ in range(100):
            it.broker._care.soon()
            await passes(3)
        assert (len(failed), it.broker._care._not_before) == (1, rests)
