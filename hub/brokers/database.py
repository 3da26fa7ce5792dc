"""The events on disk: one SQLite file, written by one thread. All SQL is here, and nothing that waits for the loop."""

import contextlib
import json
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
from ..events import Draft, Event
from ..messages import stamp
from ..patterns import Cursor
from ..private import Unsafe, open_private
from . import Kept, Limits, Receipt

DatabaseError = sqlite3.Error

BOOT = Path("/proc/sys/kernel/random/boot_id")
PATIENCE = 1.0  # seconds to wait for another program that holds the file, `sqlite3` in a terminal for instance
STEP = 1000  # events, or pages of the file, that are removed in one go
SPARE = 256  # free pages that are left for the next events
WAL_BYTES = 4 * 1024 * 1024

# `given` marks an id that the publisher chose. `state` has the last value of a key once its event has been trimmed.
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS given ON events (id) WHERE given;
CREATE TABLE IF NOT EXISTS state (seq INTEGER NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT NOT NULL, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL,
    stale INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, key));
"""
COLUMNS = "seq, name, id, given, key, ttl, timestamp, size, body"
ROWS = (256, 16, 1)  # of one INSERT. Each step of a statement hands Python's lock over, so few large ones are cheap
INSERTS = {n: f"INSERT INTO events ({COLUMNS}) VALUES {', '.join(['(?,?,?,?,?,?,?,?,?)'] * n)}" for n in ROWS}

Place = tuple[str, str]  # name and key


class Waiting(NamedTuple):
    """Drafts of one append; `accepted` on the monotonic clock."""

    drafts: Sequence[Draft]
    timestamp: str
    accepted: float


class Database:
    """The kept events and the numbers about them, which change only after a commit. For one thread at a time.

    Every method raises DatabaseError if the disk or the file does not do its part; nothing has changed then.
    """

    def __init__(self, path: Path, limits: Limits, state_items: int, *, full: bool) -> None:
        self.path, self.limits, self._items, self._full = path, limits, state_items, full
        self.epoch, self.head, self.tail, self.bytes = "", 0, 1, 0
        self._sql: sqlite3.Connection = None  # type: ignore[assignment]  # from `open` on
        self._sizes: deque[int] = deque()  # of the kept events
        self._live: dict[Place, int] = {}  # the newest event of each key, if it is kept; in their order
        self._saved: dict[Place, int] = {}  # the same, if it is not any more: those that have a row in `state`
        self._dead: list[tuple[str, str, int]] = []  # rows of `state` that something newer has taken the place of
        self._stale: deque[tuple[int, str, str]] = deque()  # the kept events hub:stale, and what they are about

    # ---- life

    def open(self) -> list[Kept]:
        """Find or create the file; the last value of every key. Raises UsageError, one sentence, if that cannot be."""
        try:
            for suffix in ("", "-wal", "-shm"):  # SQLite would write through a link that somebody has planted
                if not suffix or os.path.lexists(f"{self.path}{suffix}"):
                    os.close(open_private(Path(f"{self.path}{suffix}")))
            self._connect()
            self._begin()
            return self.last_values()
        except (sqlite3.Error, OSError, Unsafe) as error:
            held = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY
            self._drop()
            hint = "end the program that holds it" if held else "move it away, or keep events in memory (--ephemeral)"
            raise UsageError(f"The events in {self.path} cannot be used ({error}); {hint}.") from None

    def _drop(self) -> None:
        if self._sql is not None:
            with contextlib.suppress(sqlite3.Error):
                self._sql.close()

    def _connect(self) -> None:
        self._sql = connect(self.path)
        self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        self._set_sync(self._full)

    def _set_sync(self, full: bool) -> None:
        self._sql.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    def reconnect(self) -> None:
        """Begin anew with the file after it has failed. What was refused must not come back from its journal."""
        self._drop()
        self._connect()
        self._sql.execute("DELETE FROM events WHERE seq > ?", (self.head,))
        self._sql.execute("UPDATE meta SET value = value WHERE name = 'clean'")

    def _begin(self) -> None:
        for statement in SCHEMA.split(";"):
            self._sql.execute(statement)
        meta = dict(self._sql.execute("SELECT name, value FROM meta"))
        boot = BOOT.read_text().strip()
        if meta and not meta["clean"] and (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(str(found).splitlines()[0])
        # Not closed, and the machine has been started since: the last commits may be gone, and their numbers with
        # them. What is left goes on under a new epoch, so that no cursor can mean two events.
        lost = meta and not meta["clean"] and meta["boot"] != boot and not meta["full"]
        self.epoch = os.urandom(4).hex() if lost or not meta else str(meta["epoch"])
        self._load(int(meta.get("trimmed", 0)))
        self._set_sync(True)  # before the first event: after this, "clean" must not come back
        self._note(epoch=self.epoch, boot=boot, clean=0, full=int(self._full))
        self._set_sync(self._full)

    def _load(self, trimmed: int) -> None:
        rows = self._sql.execute("SELECT seq, size FROM events ORDER BY seq").fetchall()
        self.tail = rows[0][0] if rows else trimmed + 1
        self.head = rows[-1][0] if rows else trimmed
        if self.head - self.tail + 1 != len(rows):
            raise sqlite3.DatabaseError("numbers are missing among the events")
        self._sizes.extend(size for _, size in rows)
        self.bytes = sum(self._sizes)
        stale = self._sql.execute("SELECT seq, body FROM events WHERE name = 'hub:stale' ORDER BY seq")
        self._stale.extend((seq, *_place(body)) for seq, body in stale)
        places = "SELECT name, key, max(seq) AS last FROM events WHERE key IS NOT NULL GROUP BY name, key ORDER BY last"
        self._live = {(name, key): seq for name, key, seq in self._sql.execute(places)}
        for name, key, seq in self._sql.execute("SELECT name, key, seq FROM state ORDER BY seq").fetchall():
            if (name, key) in self._live:
                self._dead.append((name, key, seq))
            else:
                self._saved[name, key] = seq
        self._cap()

    def _note(self, **values: Any) -> None:
        row = ", ".join("(?, ?)" for _ in values)
        flat = [part for pair in values.items() for part in pair]
        self._sql.execute(f"INSERT OR REPLACE INTO meta VALUES {row}", flat)

    def _one(self, query: str, *values: Any) -> Any:
        row = self._sql.execute(query, values).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Leave word that nothing is missing."""
        self._set_sync(True)
        self._note(clean=1)
        self._sql.close()

    # ---- writing

    def write(self, group: Sequence[Waiting]) -> tuple[list[Event], list[list[Receipt]]]:
        """Number and commit what waits, in one transaction; the new events, and the receipts of each append."""
        events: list[Event] = []
        given = []
        known = self._known(group)
        receipts = []
        for waiting in group:
            mine = []
            for draft in waiting.drafts:
                first = known.get(draft.id) if draft.given else None
                if first is None:
                    cursor = Cursor(self.epoch, self.head + len(events) + 1)
                    events.append(Event(draft, cursor, waiting.timestamp, waiting.accepted))
                    given.append(draft)
                    if draft.given:
                        known[draft.id] = cursor.seq
                mine.append(Receipt(first or cursor.seq, first is not None))
            receipts.append(mine)
        if events:
            self._insert(events, given)
            self._advance(events, given)
        return events, receipts

    def _known(self, group: Sequence[Waiting]) -> dict[str, int]:
        """Which of the ids that publishers chose are taken, and by which number."""
        ids = [draft.id for waiting in group for draft in waiting.drafts if draft.given]
        known: dict[str, int] = {}
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            query = f"SELECT id, seq FROM events WHERE given AND id IN ({','.join('?' * len(some))})"
            known.update(self._sql.execute(query, some))
        return known

    def _insert(self, events: Sequence[Event], drafts: Sequence[Draft]) -> None:
        rows = [
            (e.seq, d.name, d.id, 1 if d.given else None, d.key, d.ttl, e.timestamp, len(e), d.body)
            for e, d in zip(events, drafts, strict=True)
        ]
        with self._transaction(len(rows) not in ROWS):
            start = 0
            while start < len(rows):
                count = next(n for n in ROWS if n <= len(rows) - start)
                self._sql.execute(INSERTS[count], [v for row in rows[start : start + count] for v in row])
                start += count

    @contextlib.contextmanager
    def _transaction(self, needed: bool = True) -> Iterator[None]:
        """All or nothing; one statement alone is that by itself."""
        if not needed:
            yield
            return
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
            raise

    def _advance(self, events: Sequence[Event], drafts: Sequence[Draft]) -> None:
        self.head = events[-1].seq
        for event, draft in zip(events, drafts, strict=True):
            size = len(event)
            self._sizes.append(size)
            self.bytes += size
            if draft.key is not None:
                place = (draft.name, draft.key)
                self._live.pop(place, None)
                self._live[place] = event.seq
                if (old := self._saved.pop(place, None)) is not None:
                    self._dead.append((*place, old))
            elif draft.name == "hub:stale":
                self._stale.append((event.seq, *_place(draft.body)))
        self._cap()

    def _cap(self) -> None:
        """As many last values as the hub shows; the one longest unchanged goes first."""
        while len(self._live) + len(self._saved) > self._items:
            if self._saved:
                place = next(iter(self._saved))
                self._dead.append((*place, self._saved.pop(place)))
            else:
                del self._live[next(iter(self._live))]

    # ---- retention

    def trim(self, slack: int = 0) -> bool:
        """Take away what is over the limits, once it is more than `slack` events; whether there is more to do."""
        over, size = 0, self.bytes
        excess = len(self._sizes) - self.limits.events
        for length in self._sizes:
            if over >= STEP or (over >= excess and size <= self.limits.bytes):
                break
            over, size = over + 1, size - length
        if over > slack:
            self._forget(self.tail + over - 1)
        return over >= STEP

    def expire(self) -> bool:
        """Take away what is too old; whether there is more to do. An event that seems younger stops it."""
        oldest = "SELECT seq, timestamp FROM events ORDER BY seq LIMIT ?"
        young = self._one(f"SELECT min(seq) FROM ({oldest}) WHERE timestamp >= ?", STEP, self._limit())
        last = self.head if young is None and len(self._sizes) <= STEP else (young or self.tail + STEP) - 1
        if last >= self.tail:
            self._forget(last)
        return young is None and bool(self._sizes)

    def _limit(self) -> str:
        return stamp(max(0.0, time.time() - self.limits.seconds)) if self.limits.seconds else ""

    def _forget(self, last: int) -> None:
        """Remove the events up to `last`; the last value of a key moves to a table of its own first."""
        moved, dead = [], list(self._dead)
        for place, seq in self._live.items():
            if seq > last:
                break
            moved.append((place, seq))
        with self._transaction():
            for name, key, seq in dead:
                self._sql.execute("DELETE FROM state WHERE name = ? AND key = ? AND seq = ?", (name, key, seq))
            copy = f"INSERT OR REPLACE INTO state ({COLUMNS}) SELECT {COLUMNS} FROM events WHERE seq = ?"
            self._sql.executemany(copy, [(seq,) for _, seq in moved])
            ended = [(name, key, seq) for seq, name, key in self._stale if seq <= last]
            self._sql.executemany("UPDATE state SET stale = 1 WHERE name = ? AND key = ? AND seq < ?", ended)
            self._sql.execute("DELETE FROM events WHERE seq <= ?", (last,))
            self._note(trimmed=last)
        for place, seq in moved:
            self._saved[place] = self._live.pop(place, seq)
        del self._dead[: len(dead)]
        while self._stale and self._stale[0][0] <= last:
            self._stale.popleft()
        for _ in range(last - self.tail + 1):
            self.bytes -= self._sizes.popleft()
        self.tail = last + 1

    def shrink(self) -> bool:
        """Give free pages back, so that the file gets smaller; whether there is more to do."""
        free = self._one("PRAGMA freelist_count")
        if free <= SPARE:
            return False
        self._sql.executescript(f"PRAGMA incremental_vacuum({STEP})")  # `execute` takes one step on Python 3.11: a page
        if free > SPARE + STEP:
            return True
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return False

    # ---- last values

    def last_values(self) -> list[Kept]:
        """The last value of every key, longest unchanged first."""
        ended = {(name, key): seq for seq, name, key in self._stale}
        rows = []
        for seq in self._live.values():
            query = f"SELECT {COLUMNS}, 0 FROM events WHERE seq = ?"
            rows.append(self._sql.execute(query, (seq,)).fetchone())
        for (name, key), seq in self._saved.items():
            query = f"SELECT {COLUMNS}, stale FROM state WHERE name = ? AND key = ? AND seq = ?"
            rows.append(self._sql.execute(query, (name, key, seq)).fetchone())
        rows.sort(key=lambda row: row[0])
        events = [(revived(row, self.epoch), row) for row in rows]
        return [Kept(e, bool(row[-1]) or ended.get((e.name, row[4]), 0) > e.seq) for e, row in events]


class Reader:
    """A second connection, for reading while the other writes. For one thread at a time."""

    def __init__(self, path: Path, epoch: str) -> None:
        self._sql, self._epoch = connect(path), epoch

    def read(self, after: int, until: int, limit: int) -> list[Event]:
        query = f"SELECT {COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return [revived(row, self._epoch) for row in self._sql.execute(query, (after, until, limit)).fetchall()]

    def close(self) -> None:
        self._sql.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection without transactions of its own making, to be handed from thread to thread."""
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


def revived(row: Sequence[Any], epoch: str) -> Event:
    """The event of a row. When it was accepted is put on the monotonic clock of now, so that leases run on."""
    seq, name, id, given, key, ttl, timestamp, _, body = row[:9]
    age = max(0.0, time.time() - datetime.fromisoformat(timestamp).timestamp())
    draft = Draft(name, id, body, key, ttl, bool(given))
    return Event(draft, Cursor(epoch, seq), timestamp, time.monotonic() - age)


def _place(body: bytes) -> Place:
    data = json.loads(body)
    return data["event"], data["key"]
