"""The events on disk, in one SQLite file: written, read, and let go. All SQL about them, and no event loop."""

import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...wire.names import Cursor
from ...wire.strictjson import LARGEST_FRAME
from ...wire.timestamps import now
from ..events import Draft, Event, Withheld
from .answers import TABLE as CALLS
from .broker import Kept, Limits, Past, Receipt
from .epochs import Epochs
from .lastvalues import COLUMNS, TABLE, LastValues
from .layout import bring_up_to_date, is_up_to_date, refuse_newer
from .retention import Retention
from .storefile import BUSY, PAGE, PATIENCE, advice, is_full, is_held

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS given ON events (id) WHERE given
"""  # `given` marks an id that the publisher chose
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

Row = tuple[int, str, str, bool | None, str | None, float | None, str, int, bytes]  # COLUMNS


class Database(Retention):
    """The kept events and the numbers about them, which change only after a commit.

    `epochs` says what the numbers are of. `failure`: why nothing can be written, since the start. Every method raises
    DatabaseError if the disk or the file does not do its part; nothing has changed then.
    """

    def __init__(self, path: Path, limits: Limits, state: Limits, *, full: bool) -> None:
        super().__init__(path, limits, state)
        self.head, self._full = 0, full
        self.epochs = Epochs(path.parent)
        self.failure: Exception | None = None
        self._new = True  # nothing was ever kept here

    # ---- life

    def open(self) -> list[Kept]:
        """Find or create the file; the last value of every key. A disk that is full is no reason not to start: what is
        there can be read, and `reopen` tries again. Raises UsageError, one sentence, if the file cannot be used."""
        try:
            self._new = not self._make_private()
            self._open()
            self._sql.execute(f"PRAGMA busy_timeout = {BUSY * 1000:.0f}")
            return [Kept(self._event(row), stale) for row, stale in self._last_values.rows(self._sql)]
        except Exception as error:
            self._drop()
            if isinstance(error, UsageError):
                raise
            sentence = f"The events in {self.path} cannot be used ({error}); {advice(error)}."
            raise UsageError(sentence) from None

    def _open(self) -> None:
        try:
            self._connect(PATIENCE)
            self._find()
            self._begin(self.head)
        except (OSError, sqlite3.OperationalError) as error:
            readable = is_full(error) if self._new else self.epochs.epoch
            if is_held(error) or not readable:
                raise
            self.failure = error
            if self._new:
                self._begin_with_nothing()

    def _begin_with_nothing(self) -> None:
        """There is no room for a file: nothing is kept, and can be read."""
        self._drop()
        self._connect_to_nothing()
        self._create()
        self.epochs.judge({}, 0, self.path)

    def reopen(self, head: int) -> None:
        """Begin anew with a file that has failed. What lies behind `head` was refused and must not come back from the
        journal, although some of it may have been committed. Raises OSError if another file is in its place."""
        self._must_be_in_place()
        self._drop()
        self._make_private()
        self._connect(BUSY)
        self._create()
        self._sql.execute("DELETE FROM events WHERE seq > ?", (head,))
        self._find_room()
        self._begin(head)
        self._load(self._noted())
        if self.head != head:  # their numbers must not be given again
            raise sqlite3.DatabaseError(f"the events {self.head + 1} to {head} are gone: restart the hub")

    def _find(self) -> None:
        """What is there, and which epoch it is of."""
        refuse_newer(self._sql, self.path)
        meta = self._noted()
        self._new = not meta
        self._create()
        if meta:
            if not meta["clean"] and (found := self._one("PRAGMA quick_check(1)")) != "ok":
                raise sqlite3.DatabaseError(str(found).splitlines()[-1])  # the first says which database
            self._load(meta)
        self.epochs.judge(meta, self.head, self.path)

    def _create(self) -> None:
        for statement in (*SCHEMA.split(";"), TABLE, CALLS):
            self._sql.execute(statement)
        if not is_up_to_date(self._sql):
            with self._transaction():
                bring_up_to_date(self._sql)

    def _begin(self, head: int) -> None:
        """Leave word of this life, durably, before its first event: after this, "clean" must not come back."""
        self._set_sync(True)
        self._note(clean=0, full=int(self._full), **self.epochs.facts(self.path))
        self._set_sync(False)
        self.epochs.open(head)
        self._hold_journal()

    def _load(self, meta: Mapping[str, Any]) -> None:
        trimmed = int(meta.get("trimmed", 0))
        rows = self._sql.execute("SELECT seq, size FROM events ORDER BY seq").fetchall()
        self.tail = rows[0][0] if rows else trimmed + 1
        self.head = rows[-1][0] if rows else trimmed
        if self.head - self.tail + 1 != len(rows):
            raise sqlite3.DatabaseError("numbers are missing among the events")
        self._sizes = deque(size for _, size in rows)
        self.bytes = sum(self._sizes)
        self._last_values = LastValues(self._last_values.limits, max(self._last_values.gone, int(meta.get("gone", 0))))
        self._last_values.load(self._sql, LARGEST_FRAME)
        self._calls.load(self._sql)

    def close(self) -> None:
        """Leave word that nothing is missing."""
        try:
            self._must_be_in_place()
            self._set_sync(True)
            self._note(clean=1, gone=self._last_values.gone)
        finally:
            self._drop()

    def _drop(self) -> None:
        super()._drop()
        self.epochs.close()

    # ---- writing

    def write(self, drafts: Sequence[Draft]) -> tuple[list[Event], list[Receipt]]:
        """Number and commit the drafts in one transaction; the new events, and a receipt for each draft. `settle` them.

        Does not wait for the disk: some 16 µs for one event, 3 µs for each in a batch. See `sync`.
        """
        timestamp, accepted = now(), time.monotonic()
        ids = [draft.id for draft in drafts if draft.given]
        known = self._known(ids) if ids else {}
        events, rows, receipts = [], [], []
        seq, filled = self.head, 0
        for draft in drafts:
            first = known.get(draft.id) if draft.given else None
            if first is None:
                seq += 1
                event = Event(draft, Cursor(self.epochs.epoch, seq), timestamp, accepted)
                if draft.given:
                    known[draft.id] = seq
                given, size = draft.given or None, event.size
                rows.append((seq, draft.name, draft.id, given, draft.key, draft.ttl, timestamp, size, draft.body))
                events.append(event)
                filled += size
            receipts.append(Receipt(first or seq, first is not None))
        if rows:
            self._insert(rows)
            self.head = seq
            self.unsaved += 1 + filled // PAGE
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

    def settle(self, events: Sequence[Event]) -> None:
        """Count these events, which `write` has committed, among what is kept: nothing takes them back any more, and
        from here on they may be seen. Those that may still be refused make no older ones go, and are no last values."""
        self.epochs.note(events[-1].seq)
        for event in events:
            self._sizes.append(event.size)
            self.bytes += event.size
            if event.key is not None:
                self._last_values.set(event.name, event.key, event.seq, event.size)
            elif event.name == "hub:stale":
                self._last_values.end(event.seq, event.data)

    # ---- calls that may be repeated

    def recall(self, place: bytes) -> Past | None:
        return self._calls.recall(self._sql, place)

    def told(self, place: bytes) -> bytes | None:
        return self._calls.told(self._sql, place)

    def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        """Commit this; waits for the disk no more than `write` does."""
        with self._transaction():
            numbers = self._calls.put(self._sql, place, what, answer)
        self._calls.numbers = numbers
        self.unsaved += 2 + len(answer or b"") // PAGE

    # ---- reading

    def read(self, after: int, until: int, limit: int, size: int | None) -> list[Event]:
        """The oldest events behind `after`, up to `until`, at most `limit`, and no more once they fill `size` bytes."""
        query = f"SELECT {COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        events, filled = [], 0
        with contextlib.closing(self._sql.execute(query, (after, until, limit))) as rows:
            for row in rows:
                events.append(self._event(row))
                filled += events[-1].size
                if size is not None and filled >= size:
                    break
        return events

    def names(self, after: int, until: int, limit: int) -> list[tuple[int, str]]:
        """Number and name of the oldest events behind `after`, up to `until`, at most `limit`."""
        query = "SELECT seq, name FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        return self._sql.execute(query, (after, until, limit)).fetchall()

    def _event(self, row: Sequence[Any]) -> Event:
        """When it was accepted is put on the monotonic clock of now, so that leases run on."""
        seq, name, id, given, key, ttl, timestamp, size, body = row
        age = max(0.0, time.time() - datetime.fromisoformat(timestamp).timestamp())
        draft = Draft(name, id, body, key, ttl, bool(given))
        kind = Event if size <= LARGEST_FRAME else Withheld
        return kind(draft, Cursor(self.epochs.epoch, seq), timestamp, time.monotonic() - age)
