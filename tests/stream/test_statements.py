"""Every statement that writes fails once: nothing that was answered is missing, and nothing hangs."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from running import until
from stores import Store, draft, kept_in, stale, store

from hub.errors import HubError, UsageError
from hub.stream.brokers import database, storefile
from hub.stream.brokers.broker import Limits
from hub.stream.events import Draft

pytestmark = pytest.mark.once


async def play(folder: Path) -> dict[int, str]:
    """A short life with everything in it: single and many, keys, known ids, trimming, a restart; what was answered."""
    answered: dict[int, str] = {}

    async def put(it: Store, *drafts: Draft) -> None:
        with contextlib.suppress(HubError):
            for number, one in zip(await it.put(*drafts), drafts, strict=True):
                assert answered.setdefault(number, one.id) == one.id, "a number given twice"

    told: dict[bytes, bytes] = {}  # to repeated calls

    async def remember(it: Store, place: bytes, answer: bytes) -> None:
        with contextlib.suppress(HubError):
            assert told.get(place) in (None, await it.broker.answers.told(place))
        told.pop(place, None)
        with contextlib.suppress(HubError):
            await it.broker.answers.remember(place, b"", answer)
            told[place] = answer

    for life in range(2):
        async with store(folder, Limits(20, 2**20, 86400.0)) as it:
            for i in range(6):
                await put(it, draft(f"{life}.{i}", given=i % 3 == 0, key=f"{i % 4}"))
                await put(it, draft(f"{life}.{i}", given=True))
                await put(it, *(draft(f"{life}.{i}.{j}") for j in range(3)))
                await put(it, stale("a:x", f"{i % 4}", it.broker.head - 4))
                await remember(it, b"%d" % (i % 3), b"%d.%d" % (life, i))
            await until(lambda it=it: it.broker.problem is None, "recovery")  # type: ignore[misc]
            assert [event.seq for event in it.pumped] == sorted({event.seq for event in it.pumped})
    return answered


async def test_every_statement_of_a_run_failing_once(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite tests itself: whichever write fails, nothing that was answered is missing, and nothing hangs."""
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    counting = Counting(monkeypatch)
    await play(made(memory / "sound"))
    total = counting.seen
    assert total > 100
    for number in range(1, total + 1):
        counting.start(number)
        assert await missing(made(memory / str(number))) == {}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def missing(folder: Path) -> dict[int, str]:
    """What such a life has answered, and does not have."""
    try:
        answered = await play(folder)
    except UsageError:  # it was the start that failed
        return {}
    kept = kept_in(folder)
    tail = min(kept)
    assert sorted(kept) == list(range(tail, tail + len(kept)))
    assert len(kept) >= 20
    return {n: id for n, id in answered.items() if n >= tail and kept.get(n) != id}


async def test_weakened_what_was_not_written_would_be_missing(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = database.Database._insert

    def hopeful(self: database.Database, rows: Any) -> None:
        with contextlib.suppress(sqlite3.Error):
            real(self, rows)

    monkeypatch.setattr(database.Database, "_insert", hopeful)
    counting = Counting(monkeypatch)
    await play(memory)
    for number in range(counting.seen, 0, -1):
        counting.start(number)
        with contextlib.suppress(AssertionError):  # there is a hole among the numbers
            if not await missing(made(memory / str(number))):
                continue
        return
    pytest.fail("nothing was missing")


class Counting:
    """Counts the statements that write, and lets the one with the number `fatal` fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(0)
        counting, plain = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                counting.count(sql)
                return super().execute(sql, *args)

            def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
                counting.count(sql)
                return super().executemany(sql, *args)

        def connect(path: Path, patience: float) -> sqlite3.Connection:
            return plain(path, isolation_level=None, check_same_thread=False, factory=Connection)

        monkeypatch.setattr(storefile, "connect", connect)

    def start(self, fatal: int) -> None:
        self.seen, self.fatal = 0, fatal

    def count(self, sql: str) -> None:
        if sql.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")):
            self.seen += 1
            if self.seen == self.fatal:
                raise sqlite3.OperationalError("disk I/O error")
