"""The file of the audit log and its chain, with plain blocking calls: records go in, durable lines come out."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..private import LOCK, open_private, seal, sync_directory, write_all
from . import rotation
from .chain import ZEROS, Link
from .files import (
    CURRENT,
    HEAD,
    Stored,
    backwards,
    closed_segments,
    exists,
    first_number,
    is_at,
    lines_backwards,
    stands_at,
)
from .head import Head
from .records import TRUST, Entry, chained, entry
from .recovery import parsed, recover
from .rotation import Limits
from .touched import Touched
from .verdict import DAMAGED


class LogFile:
    """audit.jsonl and its chain in one state directory. One thread writes; every call may block on the disk.

    `link` is the newest durable record, `size` the bytes of audit.jsonl up to its end. `valid` turns False when what is
    found is not what was written, and is False again at every later start; `reason` says why. `stored` and `tail` may
    be called from any thread.
    """

    def __init__(self, directory: Path, limits: Limits = Limits()) -> None:  # noqa: B008 (it is immutable)
        self.directory = directory
        self.limits = limits
        self.link = Link(0, ZEROS)
        self.size = 0
        self.valid = True
        self.reason: str | None = None
        self._current = directory / CURRENT
        self._head = Head(directory / HEAD)
        self.touched = Touched(self._current)
        self.lock: int | None = None  # the descriptor that holds the directory
        self._file: int | None = None
        self._known = False  # link and size are true
        self._place: os.stat_result | None = None  # of which file `size` is; None until it has been opened
        self._left_over = False  # behind `size` there may be bytes of a write that failed
        self._began: tuple[int, float] | None = None  # number and time of the first record in audit.jsonl, once known
        self._notices: list[dict[str, Any]] = []  # what the next append has to tell first
        self._refused = 0  # records that could not be kept since the last append that worked
        self._names = threading.Lock()  # held while files get another name, or go: who opens them holds it too

    # -- writing

    def append(self, entries: Sequence[Entry]) -> int:
        """Write the records with one write and make them durable; returns how many were written, notices included.

        Whatever is raised, none of them is in the file then, and a later call tries anew: OSError, Unsafe, or a bug.
        """
        try:
            self.open()
            self._rotate_if_full()
            retired = list(self._retired())
            told = [entry("audit.recovered", None, TRUST, details) for details in self._told()]
            told += [entry("audit.retired", None, TRUST, details) for _, details in retired]
            if told or entries:
                self._commit([*told, *entries])
        except Exception:
            self._refused += len(entries)
            self._take_back()
            raise
        self._notices, self._refused = [], 0
        self._remove([path for path, _ in retired])  # their ends are on record now
        return len(told) + len(entries)

    def open(self) -> None:
        """Find the end of the chain and be ready to write behind it. Raises OSError, or Unsafe for a planted file.

        Then nothing is left open.
        """
        if self._file is not None and self._is_untouched():
            return
        self.close()
        self._must_hold_the_directory()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _must_hold_the_directory(self) -> None:
        """Raise OSError if the lock is not where everybody looks for it. Stops a hub whose directory was removed, or
        moved away, from writing into the log of the next hub that was started in its place."""
        if self.lock is not None and not is_at(self.lock, self.directory / LOCK):
            raise OSError(errno.ESTALE, f"{self.directory} was removed or replaced while the hub was running")

    def close(self) -> None:
        """Close the files. Everything appended is durable already."""
        self._close_current()
        self._head.close()

    def _open(self) -> None:
        if not self._known:
            self._recover()
        self._file = open_private(self._current)
        if not self._ends_as_known():
            self._close_current()
            self._recover()
            self._file = open_private(self._current)
            if not self._is_untouched():  # put in its place since it was judged: what is in it is not cut off
                raise _moved(self._current)
        self._place = os.fstat(self._file)
        self._head.open(self.link)
        sync_directory(self.directory)

    def _close_current(self) -> None:
        descriptor, self._file = self._file, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _commit(self, entries: Sequence[Entry]) -> None:
        """Write and sync, and only then count what was written. Behind that nothing may fail any more."""
        assert self._file is not None
        data, link = chained(entries, self.link)
        self.touched.begin(os.fstat(self._file))
        self._left_over = True
        write_all(self._file, data)
        os.fdatasync(self._file)
        self._must_be_in_place()
        self.touched.end(os.fstat(self._file))
        self._left_over = False
        self.link, self.size = link, self.size + len(data)
        self._head.write(link)

    def _must_be_in_place(self) -> None:
        """Raise OSError unless the open file is still the one that everybody finds under its name.

        Stops the log rotation that renames: what is written into a file that was moved away is durable, and in no log.
        """
        assert self._file is not None
        if not is_at(self._file, self._current):
            raise _moved(self._current)

    def _take_back(self) -> None:
        """After a failed write or fdatasync: nothing of it stays, and what is there is read again.

        A failed fdatasync may have dropped the pages, and calls the next one a success. So the same bytes are never
        synced a second time: they are cut off, and the file is opened anew. If even cutting fails, the next open does
        it.
        """
        if self._file is not None and self._left_over:
            with contextlib.suppress(Exception):
                os.ftruncate(self._file, self.size)
                self.touched.end(os.fstat(self._file))
                self._left_over = False
        self.close()

    # -- what is there

    def _recover(self) -> None:
        """Judge what is there. What an earlier call had to tell is still to be told, but for damage that is gone.

        That was a file which was moved away, and has been put back before anything was written in its place.
        """
        self._known, self._began, self._place = False, None, None
        with self._names:
            self.link, self.size, notices, verdict = recover(self.directory, self.link)
            rotation.seal_all(self.directory)
        damaged = verdict.status in DAMAGED
        kept = [notice for notice in self._notices if damaged or notice["what"] != "damage"]
        self._notices = kept + [notice for notice in notices if notice not in kept]
        self._known = True
        self.touched.end(os.stat(self._current) if exists(self._current) else None)
        if damaged:
            self.valid, self.reason = False, verdict.reason

    def _is_untouched(self) -> bool:
        """Nobody has cut, extended or deleted the file under the running hub (a log rotation would)."""
        assert self._file is not None
        facts = os.fstat(self._file)
        return facts.st_size == self.size and facts.st_nlink > 0

    def _ends_as_known(self) -> bool:
        """Cut what a failed write has left, of the file that it was written to: another one may have been put in its
        place. Then the newest durable record must be the last."""
        assert self._file is not None
        facts = os.fstat(self._file)
        ours = self._place is not None and os.path.samestat(facts, self._place)
        if self._left_over and ours and facts.st_size > self.size:
            os.ftruncate(self._file, self.size)
        if self._left_over and ours:
            self.touched.end(os.fstat(self._file))
        self._left_over = False
        if not self._is_untouched():
            return False
        if self.size == 0:
            return True
        last = parsed(next(backwards(self._file, self.size), b""))
        return last is not None and Link(last["seq"], last["hash"]) == self.link

    def _told(self) -> list[dict[str, Any]]:
        refused = [{"what": "could not be written", "refused": self._refused}] if self._refused else []
        return [*self._notices, *refused]

    # -- rotation and retention

    def _rotate_if_full(self) -> None:
        """Close audit.jsonl and begin a new one. If it cannot be renamed, it goes on growing and the next append tries.

        From the rename on, a failure is one of this append: nothing is in the new file then.
        """
        if not self.size:
            return
        assert self._file is not None
        if self._began is None:
            self._began = rotation.beginning(self._file)
        first, began = self._began
        if not rotation.is_full(self.size, began, self.limits):
            return
        self._must_be_in_place()
        with self._names:
            if (closed := rotation.close_current(self.directory, first, self._file)) is None:
                return
            self.size, self._began, self._place = 0, None, None
        self.touched.end(None)
        with contextlib.suppress(Exception):  # seal_all does it at the next start
            seal(closed)
        self.close()
        self.open()

    def _retired(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield what is to be removed, and what to record about it: the end of each file, where `verify` begins later.

        While the chain is broken nothing goes: damage stays to be seen. Only the first records of a new file say what
        goes, so that a start finds them without reading everything.
        """
        if self.size == 0 and self.valid:
            for path, last in rotation.too_many(self.directory, self.limits):
                yield path, {"file": path.name, "seq": last["seq"], "hash": last["hash"]}

    def _remove(self, paths: Sequence[Path]) -> None:
        """Remove the oldest segments. Never raises: what stays is retired once more by the next rotation.

        None goes before an older one has gone: that would be a gap, and a gap is damage.
        """
        with contextlib.suppress(Exception), self._names:
            for path in paths:
                path.unlink(missing_ok=True)

    # -- reading, from any thread

    def stored(self) -> Stored:
        """Open what is durable now, to be verified while writing goes on. Raises OSError if it cannot be opened."""
        with self._names:
            return Stored(self.directory, size=self._durable_size(), durable=self.link)

    def tail(self, limit: int, before: int | None = None, room: int | None = None) -> list[dict[str, Any]]:
        """Return the newest durable records, oldest first; opens no more files than they are in."""
        found, size = list[dict[str, Any]](), 0
        with contextlib.ExitStack() as stack:
            for record, length in self._newest(stack, before) if limit else ():
                size += length
                if room is not None and size > room and found:
                    break
                found.append(record)
                if len(found) == limit:
                    break
        return found[::-1]

    def _newest(self, stack: contextlib.ExitStack, before: int | None) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the durable records, newest first, of those before that number, with the bytes of each."""
        for lines in self._sources(stack, before):
            for line in lines:
                record = parsed(line)
                if record is None:
                    continue
                if before is None or record["seq"] < before:
                    yield record, len(line)
                else:  # so many lines of this file, or more, until that number
                    over = record["seq"] - before
                    next(islice(lines, over, over), None)

    def _sources(self, stack: contextlib.ExitStack, before: int | None) -> Iterator[Iterator[bytes]]:
        """Yield the lines of each file, newest first, without the files that begin at that number or behind it."""
        with self._names:
            current, size = self._open_to_read(stack), self._durable_size()
            closed = closed_segments(self.directory)
        if current is not None:
            yield backwards(current, size)
        for path in reversed(closed):
            if before is None or first_number(path) < before:
                yield lines_backwards(path)

    def _durable_size(self) -> int | None:
        """None if nobody knows: what is found under the name may be another file than `size` is of."""
        if not self._known or (self._place and not stands_at(self._place, self._current)):
            return None
        return self.size

    def _open_to_read(self, stack: contextlib.ExitStack) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return stack.enter_context(self._current.open("rb")).fileno()
        return None


def _moved(path: Path) -> OSError:
    return OSError(errno.ESTALE, f"{path} was moved or replaced while the hub was writing to it")
