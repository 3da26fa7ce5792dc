"""How calls that may be repeated have ended: in memory, in a table of the store, or in a server.

A row says that a call is about to run, until one with its answer takes its place. It is found by a digest of who called
with which key, and has another of what was called. What is over the limits goes: first the oldest answers, of which the
rows still say that they have been; then the oldest rows.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .broker import Limits, Past

if TYPE_CHECKING:
    from sqlite3 import Connection

KEPT = Limits(50_000, 64 * 1024 * 1024, 3600.0)  # rows, bytes of answers, seconds
STEP = 256  # rows that are removed in one go because they are too old

TABLE = """
CREATE TABLE IF NOT EXISTS calls (number INTEGER PRIMARY KEY AUTOINCREMENT, place BLOB NOT NULL UNIQUE,
    what BLOB NOT NULL, at REAL NOT NULL, answered INTEGER NOT NULL, size INTEGER NOT NULL, answer BLOB)
"""  # in the order of `number` they go; `size` is 0 where there is no answer, or none any more


def expired(limits: Limits) -> float:
    """What is from before this moment is forgotten: seconds since 1970, because it goes on across a restart."""
    assert limits.seconds is not None
    return time.time() - limits.seconds


class MemoryAnswers:
    """Keeps them for as long as the process lives."""

    def __init__(self, limits: Limits = KEPT) -> None:
        self.limits = limits
        self.bytes = 0
        self._rows: dict[bytes, tuple[float, Past]] = {}  # in the order in which they go
        self._answers: dict[bytes, bytes] = {}

    async def recall(self, place: bytes) -> Past | None:
        at, past = self._rows.get(place, (0.0, None))
        return past if at >= expired(self.limits) else None

    async def told(self, place: bytes) -> bytes | None:
        return self._answers.get(place)

    async def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        self._forget(place)
        self._rows[place] = time.time(), Past(what, answer is not None)
        if answer is not None:
            self._answers[place] = answer
            self.bytes += len(answer)
        while self.bytes > self.limits.bytes:
            self._empty(next(iter(self._answers)))
        oldest = expired(self.limits)
        while len(self._rows) > self.limits.events or next(iter(self._rows.values()))[0] < oldest:
            self._forget(next(iter(self._rows)))

    def _forget(self, place: bytes) -> None:
        self._rows.pop(place, None)
        self._empty(place)

    def _empty(self, place: bytes) -> None:
        self.bytes -= len(self._answers.pop(place, b""))


# ---- in a server

Ask = Callable[..., Awaitable[Any]]


class ServerAnswers:
    """Keeps them where several hubs find them. `ask(function, *args)` calls one of `library.lua`, and says what went
    wrong with that."""

    def __init__(self, ask: Ask, limits: Limits = KEPT) -> None:
        assert limits.seconds is not None
        self._ask, self._limits = ask, limits
        self._milliseconds = round(1000 * limits.seconds)

    async def recall(self, place: bytes) -> Past | None:
        found: bytes | None = await self._ask("hub_recall", place, self._milliseconds)
        return Past(found.split(b" ", 2)[2], found.startswith(b"1")) if found else None

    async def told(self, place: bytes) -> bytes | None:
        found: bytes | None = await self._ask("hub_told", place)
        return found

    async def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        kept = self._limits.events, self._limits.bytes, self._milliseconds
        await self._ask("hub_remember", place, what, "0" if answer is None else "1", answer or b"", *kept)


# ---- in a table


class Numbers(NamedTuple):
    """How many rows there are, the bytes of their answers, and up to which number no row has one."""

    rows: int = 0
    bytes: int = 0
    bare: int = 0


class CallTable:
    """The statements about the table. `numbers` are of what is committed: `put` and `expire`, which belong inside a
    transaction, return those that are true behind it."""

    def __init__(self, limits: Limits = KEPT) -> None:
        self.limits, self.numbers = limits, Numbers()

    def load(self, sql: "Connection") -> None:
        self.numbers = Numbers(*sql.execute("SELECT count(*), coalesce(sum(size), 0) FROM calls").fetchone())

    def recall(self, sql: "Connection", place: bytes) -> Past | None:
        query = "SELECT what, answered FROM calls WHERE place = ? AND at >= ?"
        found = sql.execute(query, (place, expired(self.limits))).fetchone()
        return Past(found[0], bool(found[1])) if found else None

    def told(self, sql: "Connection", place: bytes) -> bytes | None:
        found: tuple[bytes | None] | None = sql.execute("SELECT answer FROM calls WHERE place = ?", (place,)).fetchone()
        return found[0] if found else None

    def put(self, sql: "Connection", place: bytes, what: bytes, answer: bytes | None) -> Numbers:
        """Keep a row, and what is within the limits."""
        before = sql.execute("SELECT size FROM calls WHERE place = ?", (place,)).fetchone()
        size = len(answer or b"")
        insert = "INSERT OR REPLACE INTO calls (place, what, at, answered, size, answer) VALUES (?, ?, ?, ?, ?, ?)"
        sql.execute(insert, (place, what, time.time(), answer is not None, size, answer))
        rows, filled, bare = self.numbers
        now = Numbers(rows + (before is None), filled + size - (before[0] if before else 0), bare)
        if now.bytes > self.limits.bytes:
            now = self._empty(sql, now)
        if now.rows > self.limits.events:
            now = self._delete(sql, self._oldest(sql, now.rows - self.limits.events), now)
        return now

    def is_young(self, sql: "Connection") -> bool:
        """Whether there is nothing to expire."""
        oldest = self._oldest(sql, 1)
        return not oldest or oldest[0][1] >= expired(self.limits)

    def expire(self, sql: "Connection") -> Numbers:
        """Delete some of what is too old, where something is. A row that seems younger stops it."""
        rows, limit = self._oldest(sql, STEP), expired(self.limits)
        young = next((place for place, (_, at, _) in enumerate(rows) if at >= limit), len(rows))
        return self._delete(sql, rows[:young], self.numbers)

    def _empty(self, sql: "Connection", now: Numbers) -> Numbers:
        """Take out the oldest answers that are too much."""
        rows = sql.execute("SELECT number, size FROM calls WHERE number > ? AND size > 0 ORDER BY number", (now.bare,))
        filled, last = now.bytes, now.bare
        while filled > self.limits.bytes:
            last, size = rows.fetchone()
            filled -= size
        rows.close()
        sql.execute("UPDATE calls SET answer = NULL, size = 0 WHERE number > ? AND number <= ?", (now.bare, last))
        return Numbers(now.rows, filled, last)

    @staticmethod
    def _oldest(sql: "Connection", most: int) -> list[tuple[int, float, int]]:
        return sql.execute("SELECT number, at, size FROM calls ORDER BY number LIMIT ?", (most,)).fetchall()

    @staticmethod
    def _delete(sql: "Connection", oldest: list[tuple[int, float, int]], now: Numbers) -> Numbers:
        sql.execute("DELETE FROM calls WHERE number <= ?", (oldest[-1][0],))
        return Numbers(now.rows - len(oldest), now.bytes - sum(size for _, _, size in oldest), now.bare)


class Rows(Protocol):
    """The file that the table is in."""

    def recall(self, place: bytes) -> Past | None: ...
    def told(self, place: bytes) -> bytes | None: ...
    def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None: ...


Guard = Callable[[], AbstractAsyncContextManager[None]]


class DiskAnswers:
    """Keeps them in the table of a store. `readable()` and `writing()` lend the file, and say what went wrong with
    it."""

    def __init__(self, rows: Rows, readable: Guard, writing: Guard) -> None:
        self._rows, self._readable, self._writing = rows, readable, writing

    async def recall(self, place: bytes) -> Past | None:
        async with self._readable():
            return self._rows.recall(place)

    async def told(self, place: bytes) -> bytes | None:
        async with self._readable():
            return self._rows.told(place)

    async def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        async with self._writing():
            self._rows.remember(place, what, answer)
