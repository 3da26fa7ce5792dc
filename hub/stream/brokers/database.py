"""The events on disk, in one SQLite file. All SQL is here, and nothing of the event loop."""

import contextlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...private import open_private
from ...wire.messages import now, stamp
from ...wire.names import Cursor
from ..events import Draft, Event
from .broker import Kept, Limits, Receipt
from .lastvalues import COLUMNS, TABLE, LastValues

DatabaseError = sqlite3.Error

BOOT = Path("/proc/sys/kernel/random/boot_id")
PATIENCE = 1.0  # seconds that a start waits for another program that holds the file, `sqlite3` for instance
BUSY = 0.02  # the same for a write
STEP = 256  # events, or pages of the file, that are removed in one go
SPARE = 256  # free pages that are left for the next events
PAGE = 4096  # bytes
WAL_PAGES = 2000  # after so many the journal is brought into the file

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS given ON events (id) WHERE given
"""  # `given` marks an id that the publisher chose
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

Row = tuple[int, str, str, bool | None, str | None, float | None, str, int, bytes]  # COLUMNS


class Database:
    """The kept events and the numbers about them, which change only after a commit. For one thread at a time, but for
    `sync`, which may run beside everything else. No other program can open the file meanwhile.

    `unsaved` counts, roughly, the pages of the journal that are not in the file yet; `lost` says that the newest events
    may be gone, and that this is why the epoch is new. Every method raises DatabaseError if the disk or the file does
    not do its part; nothing has changed then.
    """

    def __init__(self, path: Path, limits: Limits, state_items: int, *, full: bool) -> None:
        self.path, self.limits, self._state_items, self._full = path, limits, state_items, full
        self.epoch, self.unsaved, self.lost = "", 0, False
        self._slack = min(STEP, limits.events // 100)
        self._sql: sqlite3.Connection = None  # type: ignore[assignment]  # from `open` on
        self._journal = -1  # the descriptor that `sync` asks, for as long as the journal is the same file
        self._forget_all()

    def _forget_all(self) -> None:
        self.head, self.tail, self.bytes = 0, 1, 0
        self._sizes: deque[int] = deque()  # of the kept events
        self._last_values = LastValues(self._state_items)

    # ---- life

    def open(self) -> list[Kept]:
        """Find or create the file; the last value of every key. Raises UsageError, one sentence, if that cannot be."""
        try:
            for suffix in ("", "-wal", "-shm"):  # SQLite would write through a link that somebody has planted
                if not suffix or os.path.lexists(f"{self.path}{suffix}"):
                    os.close(open_private(Path(f"{self.path}{suffix}")))
            self._connect(PATIENCE)
            self._begin()
            self._hold_journal()
            self._sql.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
            return [Kept(self._event(row), stale) for row, stale in self._last_values.rows(self._sql)]
        except Exception as error:
            held = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY
            self._drop()
            hint = "end the program that holds it" if held else "move it away, or keep events in memory (--ephemeral)"
            raise UsageError(f"The events in {self.path} cannot be used ({error}); {hint}.") from None

    def _drop(self) -> None:
        if self._sql is not None:
            with contextlib.suppress(sqlite3.Error):
                self._sql.close()
        if self._journal != -1:
            os.close(self._journal)
            self._journal = -1

    def _connect(self, patience: float) -> None:
        self._sql = connect(self.path, patience)
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")  # a third faster, and nobody writes behind its back
        self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * PAGE}")
        self._sql.execute("PRAGMA wal_autocheckpoint = 0")  # it would wait for the disk; `checkpoint` is for that
        self._set_sync(False)

    def _hold_journal(self) -> None:
        """Linux tells each descriptor once of a write that has failed: one that is opened later may not hear of it."""
        _, _, file = self._sql.execute("PRAGMA database_list").fetchone()
        self._journal = os.open(f"{file}-wal", os.O_RDONLY | os.O_NOFOLLOW)

    def _set_sync(self, full: bool) -> None:
        self._sql.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    def reopen(self, head: int) -> None:
        """Begin anew with a file that has failed. What lies behind `head` was refused and must not come back from the
        journal, although some of it may have been committed."""
        self._drop()
        self._connect(BUSY)
        self._sql.execute("DELETE FROM events WHERE seq > ?", (head,))
        self._note(clean=0)  # there is room to write again, or this fails
        self._hold_journal()
        self._load(int(self._one("SELECT value FROM meta WHERE name = 'trimmed'") or 0))
        if self.head != head:  # their numbers must not be given again
            raise sqlite3.DatabaseError(f"the events {self.head + 1} to {head} are gone")

    def _begin(self) -> None:
        for statement in (*SCHEMA.split(";"), TABLE):
            self._sql.execute(statement)
        meta = dict(self._sql.execute("SELECT name, value FROM meta"))
        boot = BOOT.read_text().strip()
        if meta and not meta["clean"] and (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(str(found).splitlines()[-1])  # the first says which database
        # Not closed, and the machine has been started since: the last commits may be gone, and their numbers with
        # them. What is left goes on under a new epoch, so that no cursor can mean two events.
        self.lost = bool(meta and not meta["clean"] and meta["boot"] != boot and not meta["full"])
        self.epoch = os.urandom(4).hex() if self.lost or not meta else str(meta["epoch"])
        self._load(int(meta.get("trimmed", 0)))
        self._set_sync(True)  # before the first event: after this, "clean" must not come back
        self._note(epoch=self.epoch, boot=boot, clean=0, full=int(self._full))
        self._set_sync(False)

    def _load(self, trimmed: int) -> None:
        self._forget_all()
        rows = self._sql.execute("SELECT seq, size FROM events ORDER BY seq").fetchall()
        self.tail = rows[0][0] if rows else trimmed + 1
        self.head = rows[-1][0] if rows else trimmed
        if self.head - self.tail + 1 != len(rows):
            raise sqlite3.DatabaseError("numbers are missing among the events")
        self._sizes.extend(size for _, size in rows)
        self.bytes = sum(self._sizes)
        self._last_values.load(self._sql)

    def _note(self, **values: Any) -> None:
        row = ", ".join("(?, ?)" for _ in values)
        flat = [part for pair in values.items() for part in pair]
        self._sql.execute(f"INSERT OR REPLACE INTO meta VALUES {row}", flat)

    def _one(self, query: str, *values: Any) -> Any:
        row = self._sql.execute(query, values).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Leave word that nothing is missing."""
        try:
            self._set_sync(True)
            self._note(clean=1)
        finally:
            self._drop()

    # ---- writing

    def write(self, drafts: Sequence[Draft]) -> tuple[list[Event], list[Receipt]]:
        """Number and commit the drafts in one transaction; the new events, and a receipt for each draft. `settle` them.

        Does not wait for the disk: some 16 µs for one event, 3 µs for each in a batch. See `sync`.
        """
        timestamp, accepted = now(), time.monotonic()
        ids = [draft.id for draft in drafts if draft.given]
        known = self._known(ids) if ids else {}
        events, rows, receipts = [], [], []
        seq = self.head
        for draft in drafts:
            first = known.get(draft.id) if draft.given else None
            if first is None:
                seq += 1
                event = Event(draft, Cursor(self.epoch, seq), timestamp, accepted)
                if draft.given:
                    known[draft.id] = seq
                given, size = draft.given or None, len(event.frame)
                rows.append((seq, draft.name, draft.id, given, draft.key, draft.ttl, timestamp, size, draft.body))
                events.append(event)
            receipts.append(Receipt(first or seq, first is not None))
        if rows:
            self._insert(rows)
            self.head = seq
            self.unsaved += 1 + sum(map(len, events)) // PAGE
        return events, receipts

    def _known(self, ids: Sequence[str]) -> dict[str, int]:
        """Which of the ids that publishers chose are taken, and by which number."""
        known: dict[str, int] = {}
        for start in range(0, len(ids), 500):
            some = ids[start : start + 500]
            query = f"SELECT id, seq FROM events WHERE given AND id IN ({','.join('?' * len(some))})"
            known.update(self._sql.execute(query, some))
        return known

    def _insert(self, rows: Sequence[Row]) -> None:
        if len(rows) == 1:  # one statement is a transaction by itself
            self._sql.execute(INSERT, rows[0])
        else:
            with self._transaction():
                self._sql.executemany(INSERT, rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # it may have been rolled back already
                self._sql.execute("ROLLBACK")
            raise

    def settle(self, events: Sequence[Event]) -> None:
        """Count these events, which `write` has committed, among what is kept: nothing takes them back any more. Those
        that may still be refused make no older ones go, and are no last values."""
        for event in events:
            self._sizes.append(len(event))
            self.bytes += len(event)
            if event.key is not None:
                self._last_values.set(event.name, event.key, event.seq)
            elif event.name == "hub:stale":
                self._last_values.end(event.seq, event.data)

    # ---- reading

    def read(self, after: int, until: int, limit: int, size: int | None) -> list[Event]:
        """The oldest events behind `after`, up to `until`, at most `limit`, and no more once they fill `size` bytes."""
        query = f"SELECT {COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        events, filled = [], 0
        with contextlib.closing(self._sql.execute(query, (after, until, limit))) as rows:
            for row in rows:
                events.append(self._event(row))
                filled += len(events[-1])
                if size is not None and filled >= size:
                    break
        return events

    def _event(self, row: Sequence[Any]) -> Event:
        """When it was accepted is put on the monotonic clock of now, so that leases run on."""
        seq, name, id, given, key, ttl, timestamp, _, body = row
        age = max(0.0, time.time() - datetime.fromisoformat(timestamp).timestamp())
        draft = Draft(name, id, body, key, ttl, bool(given))
        return Event(draft, Cursor(self.epoch, seq), timestamp, time.monotonic() - age)

    # ---- on to the disk

    def sync(self) -> None:
        """Wait until all that was committed before is on the disk. Raises OSError: it may never get there."""
        os.fdatasync(self._journal)

    def checkpoint(self) -> None:
        """Bring the journal into the file, and begin it again. Waits for the disk, less long right after a `sync`."""
        self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        # Whoever writes first begins the journal again and waits for the disk. It has to be a value that changes:
        # SQLite leaves out a write of what is there already.
        self._sql.execute(
            "INSERT INTO meta VALUES ('journals', 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1"
        )
        self.unsaved = 0

    # ---- retention

    def tidy(self, until: int) -> bool:
        """Take away what is over the limits or too old, up to `until`, and make the file smaller, one step of it;
        whether there is more to do."""
        return self.trim(until) or self._expire(until) or self._shrink()

    def trim(self, until: int, *, lazily: bool = False) -> bool:
        """Take away what is over the limits, one step; whether there is more to do.

        `lazily` waits until it is more than a little, so that one transaction does it for many events.
        """
        count, size = len(self._sizes) - self.limits.events, self.bytes - self.limits.bytes
        if count <= (self._slack if lazily else 0) and size <= (self.limits.bytes // 100 if lazily else 0):
            return False
        over = 0
        for length in islice(self._sizes, min(STEP, until - self.tail + 1)):
            if over >= count and size <= 0:
                break
            over, size = over + 1, size - length
        self._forget(self.tail + over - 1)
        return over == STEP

    def _expire(self, until: int) -> bool:
        """Take away what is too old; whether there is more to do. An event that seems younger stops it."""
        last = min(until, self.tail + STEP - 1)
        old = self._one("SELECT timestamp FROM events WHERE seq = ?", self.tail) if self.tail <= last else None
        if old is None or old >= (limit := self._limit()):
            return False
        query = "SELECT min(seq) FROM events WHERE seq BETWEEN ? AND ? AND timestamp >= ?"
        young = self._one(query, self.tail, last, limit)
        self._forget(last if young is None else young - 1)
        return young is None

    def _limit(self) -> str:
        return stamp(max(0.0, time.time() - self.limits.seconds)) if self.limits.seconds else ""

    def _forget(self, last: int) -> None:
        """Remove the events up to `last`."""
        with self._transaction():
            self._last_values.move(self._sql, last)
            self._sql.execute("DELETE FROM events WHERE seq <= ?", (last,))
            self._note(trimmed=last)
        self._last_values.moved(last)
        for _ in range(last - self.tail + 1):
            self.bytes -= self._sizes.popleft()
        self.tail = last + 1

    def _shrink(self) -> bool:
        """Give free pages back, so that the file gets smaller; whether there is more to do."""
        free = self._one("PRAGMA freelist_count")
        if free <= SPARE:
            return False
        self._sql.executescript(f"PRAGMA incremental_vacuum({STEP})")  # `execute` takes one step on Python 3.11: a page
        self.unsaved += STEP
        if free <= SPARE + STEP:
            self.unsaved += WAL_PAGES  # the file gets smaller when the journal has been brought into it
        return bool(free > SPARE + STEP)


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """A connection without transactions of its own making, to be handed from thread to thread."""
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
