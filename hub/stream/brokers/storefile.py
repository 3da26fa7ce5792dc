"""The SQLite file of the events as a file: for this account alone, its connection, its journal, its place."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...private import open_private

DatabaseError = sqlite3.Error

PATIENCE = 1.0  # seconds that a start waits for another program that holds the file, `sqlite3` for instance
BUSY = 0.02  # the same for a write
PAGE = 4096  # bytes
WAL_PAGES = 2000  # after so many the journal is brought into the file
ROOM = 16 * PAGE  # bytes that must fit before events are taken again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_CHECKPOINT = 1006  # SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE


class StoreFile:
    """One connection to one file, for one thread at a time, but for `sync`, which may run beside everything else. No
    other program can open the file meanwhile.

    `unsaved` counts, roughly, the pages of the journal that are not in the file yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.unsaved = path, 0
        self._sql: sqlite3.Connection = None  # type: ignore[assignment]  # from `_connect` on
        self._file: os.stat_result | None = None  # what is open
        self._journal = -1  # the descriptor that `sync` asks, for as long as the journal is the same file
        self._reader = -1  # of the file; to close it while SQLite has the file would give SQLite's locks away
        self._head = b""  # of the file, which only a checkpoint changes
        self._written_over = False  # by somebody else

    def _make_private(self) -> bool:
        """Find or create the file; whether there was something in it. SQLite would write through a link that somebody
        has planted."""
        for suffix in ("-wal", "-shm", ""):
            if not suffix or os.path.lexists(f"{self.path}{suffix}"):
                os.close(open_private(Path(f"{self.path}{suffix}")))
        return self.path.stat().st_size > 0

    def _connect(self, patience: float) -> None:
        self._sql = connect(self.path, patience)
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")  # a third faster, and nobody writes behind its back
        if not self.path.stat().st_size:  # else it is known, and would be written again: there may be no room
            self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * PAGE}")
        self._sql.execute("PRAGMA wal_autocheckpoint = 0")  # it would wait for the disk; `checkpoint` is for that
        self._set_sync(False)
        self._file, self._reader = os.stat(self.path), os.open(self.path, os.O_RDONLY)
        self._head = self._read_head()

    def _connect_to_nothing(self) -> None:
        """Take memory in the place of a file that cannot be made yet."""
        self._sql, self._file = connect(Path(":memory:"), 0.0), None

    def _set_sync(self, full: bool) -> None:
        self._sql.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")

    def _hold_journal(self) -> None:
        """Linux tells each descriptor once of a write that has failed: one that is opened later may not hear of it."""
        _, _, file = self._sql.execute("PRAGMA database_list").fetchone()
        self._journal = os.open(f"{file}-wal", os.O_RDONLY | os.O_NOFOLLOW)

    def _drop(self) -> None:
        if self._sql is not None:
            with contextlib.suppress(sqlite3.Error):
                self._sql.close()
        for descriptor in {self._journal, self._reader} - {-1}:
            os.close(descriptor)
        self._journal = self._reader = -1

    # ---- statements

    def _note(self, **values: Any) -> None:
        row = ", ".join("(?, ?)" for _ in values)
        flat = [part for pair in values.items() for part in pair]
        self._sql.execute(f"INSERT OR REPLACE INTO meta VALUES {row}", flat)

    def _noted(self) -> dict[str, Any]:
        """What the store says of itself; nothing if it is new."""
        if self._one("SELECT 1 FROM sqlite_master WHERE name = 'meta'"):
            return dict(self._sql.execute("SELECT name, value FROM meta"))
        return {}

    def _one(self, query: str, *values: Any) -> Any:
        row = self._sql.execute(query, values).fetchone()
        return row[0] if row else None

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

    # ---- on to the disk

    def sync(self) -> None:
        """Wait until all that was committed before is on the disk. Raises OSError: it may never get there."""
        os.fdatasync(self._journal)

    def checkpoint(self) -> None:
        """Bring the journal into the file, and begin it again. Waits for the disk, less long right after a `sync`."""
        try:
            self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:  # one that has failed has changed the file, too
            self._head = self._read_head()
        # Whoever writes first begins the journal again and waits for the disk. It has to be a value that changes:
        # SQLite leaves out a write of what is there already.
        self._sql.execute(
            "INSERT INTO meta VALUES ('journals', 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1"
        )
        self.unsaved = 0

    def _find_room(self) -> None:
        """Take room on the disk, and leave it to the next events: in the journal, which begins again. Raises
        DatabaseError if there is none: a write that changes nothing, or a few bytes, would not tell."""
        self._sql.execute("INSERT OR REPLACE INTO meta VALUES ('room', zeroblob(?))", (ROOM,))
        self._sql.execute("DELETE FROM meta WHERE name = 'room'")
        self.checkpoint()

    # ---- its place

    def look(self) -> None:
        """Raise OSError if the file, or its journal, is not in its place any more, or was written over."""
        if not (self._is_in_place() and _is_at(f"{self.path}-wal", os.fstat(self._journal))):
            self._make_whole()
            raise _moved(self.path)
        if self._read_head() != self._head:
            self._let_go()
        self._must_be_in_place()

    def _make_whole(self) -> None:
        """Bring the journal into a file that was moved away, because it does not move along; and empty it, because it
        would spoil what was put in the place of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _let_go(self) -> None:
        """Bring nothing more into a file that has other contents now, and leave it no journal that is not its own."""
        self._written_over = True
        getattr(self._sql, "setconfig", lambda *_: None)(NO_CHECKPOINT, True)  # Python 3.11 has none
        os.rename(f"{self.path}-wal", f"{self.path}-wal.old")

    def _must_be_in_place(self) -> None:
        """Raise OSError if the file that is, or was, open is not the one that everybody finds under its name. Another
        one is not gone on with: its numbers are others."""
        if self._written_over:
            what = f"{self.path} was written over while the hub was running: stop the hub and put it back once more"
            raise OSError(errno.ESTALE, what)
        if not self._is_in_place():
            raise _moved(self.path)

    def _is_in_place(self) -> bool:
        return self._file is None or _is_at(self.path, self._file)

    def _read_head(self) -> bytes:
        return os.pread(self._reader, 100, 0) + os.fstat(self._reader).st_size.to_bytes(8)


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """A connection without transactions of its own making, to be handed from thread to thread."""
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)


def is_full(error: BaseException) -> bool:
    """Whether it says that the disk is full."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or (
        isinstance(error, OSError) and error.errno in NO_ROOM
    )


def is_held(error: BaseException) -> bool:
    """Whether it says that another program has the file."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def advice(error: BaseException) -> str:
    """What to do about a file that cannot be used. Only what is really no store may have to be moved away."""
    if is_held(error):
        return "end the program that holds it"
    if is_full(error):
        return "make room on the disk"
    if isinstance(error, OSError | sqlite3.OperationalError | RuntimeError | MemoryError):
        return "look at the disk and at the rights of the file, or keep events in memory (--ephemeral)"
    return "move it away, or keep events in memory (--ephemeral)"


def _is_at(path: Path | str, facts: os.stat_result) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), facts)
    return False


def _moved(path: Path) -> OSError:
    what = f"{path} was moved or replaced while the hub was running: put it back, or restart the hub"
    return OSError(errno.ESTALE, what)
