"""The tamper-evident log of a running hub: a command is written down, and durable, before it runs.

One thread writes; whatever has queued up meanwhile shares one write and one fdatasync.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import HubError
from ..private import Unsafe, lock, prepare_directory
from . import verify as verifier
from .files import CURRENT, closed_segments
from .recovery import lines_backwards, parsed
from .rotation import Limits
from .verify import Verdict
from .writer import Entry, LogFile, entry, reduced

MAX_QUEUE = 65536  # records waiting for the disk
MAX_GROUP = 4096  # records a commit
MAX_KEYS = 1024  # keys of notes watched at a time
LIMIT = 10  # notes of one key a second
LIMITS = {"client.refused": 1}
RETRY = 1.0  # seconds
END = 0.5  # seconds


Read = TypeVar("Read")


class Waiting(NamedTuple):
    """A record on its way to the disk, and who waits for it: nobody for a note."""

    entry: Entry
    future: asyncio.Future[None] | None


@dataclass(slots=True)
class Sum:
    """The notes of one key in the running second: how many were written, and what was not."""

    written: int = 0
    count: int = 0
    args: tuple[str, Mapping[str, Any] | None, str, Mapping[str, Any]] | None = None


def _ignore(records: int, seconds: float) -> None:
    pass


class AuditLog:
    """The audit log of a running hub. All methods are called in the event loop; the disk is only touched in a thread.

    `available`: whether the last attempt to write worked, if not, `reason` says why. `valid`: whether the chain was
    intact at the start; never True again once broken. `seq`, `head`: number and hash of the newest durable record.
    `unrecorded`: what happened without a record: lost notes; the caller adds the reads it answered all the same.
    `on_write(records, seconds)` is called in the loop after each group that became durable.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limits: Limits = Limits(),  # noqa: B008 (it is immutable)
        on_write: Callable[[int, float], None] = _ignore,
    ) -> None:
        self.directory = Path(directory)
        self.available = False
        self.unrecorded = 0
        self.on_write = on_write
        self._file = LogFile(self.directory, limits)
        self._failure: str | None = "The audit log is not started"
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._sums: dict[str, Sum] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._ended = asyncio.Event()

    @property
    def valid(self) -> bool:
        return self._file.valid

    @property
    def reason(self) -> str | None:
        return self._failure or self._file.reason

    @property
    def seq(self) -> int:
        return self._file.link.seq

    @property
    def head(self) -> str:
        return self._file.link.hash

    async def start(self) -> None:
        """Lock the directory, recover, and be ready to record; what was recovered is on record when this returns.

        Raises Locked (another hub is there) or Unsafe (not this account's files). A disk that fails is no reason not to
        start: `available` is False then, and every second it is tried again.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._take_directory)
        self._ended.clear()
        started = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="hub-audit", daemon=True)
        self._thread.start()
        with contextlib.suppress(HubError):
            await started

    async def record(
        self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]
    ) -> None:
        """Durable on disk when this returns. Raises HubError `audit_unavailable` if it cannot be written.

        Then nothing of it is in the log. Cancelled while it waits, the record may be written all the same.
        """
        if self._loop is None or self._thread is None or self._queue.qsize() >= MAX_QUEUE:
            raise self._unavailable()
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(Waiting(entry(action, actor, trust, details), future))
        await future

    def note(
        self,
        action: str,
        actor: Mapping[str, Any] | None,
        trust: str,
        details: Mapping[str, Any],
        *,
        key: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Record without waiting; never raises, a note that is lost is counted in `unrecorded`.

        Notes with the same key: at most `limit` a second (default LIMITS[key], else 10). What is beyond becomes one
        record when the second is over: the first of them, with `count` in its details. That record counts for the next
        second.
        """
        if key is None or self._thread is None:
            self._put(action, actor, trust, details)
            return
        total = self._sums.get(key)
        if total is None:
            total = self._open_sum(key)
        if total.written < (limit or LIMITS.get(key, LIMIT)):
            total.written += 1
            self._put(action, actor, trust, details)
        else:
            total.count += 1
            total.args = total.args or (action, actor, trust, dict(details))

    reduced = staticmethod(reduced)

    async def tail(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest records, oldest first, at most so many; lines that are no records are left out."""
        return await asyncio.to_thread(self._undisturbed, lambda: self._newest(limit, self._file.size))

    async def verify(self) -> Verdict:
        """Verify everything on disk up to the newest durable record, in a thread, while writing goes on."""
        verdict = await asyncio.to_thread(
            self._undisturbed, lambda: verifier.verify(self.directory, size=self._file.size)
        )
        if verdict.status in verifier.DAMAGED:
            self._file.valid, self._file.reason = False, verdict.reason
        return verdict

    async def stop(self) -> None:
        """Write what is waiting, sums included, then close the files and the lock. A second call does nothing."""
        thread = self._last_words()
        if thread is None:
            return
        await self._ended.wait()  # not in a thread: the application's may have taken them all
        thread.join()
        assert self._lock is not None
        os.close(self._lock)
        self._lock = None
        self.available, self._failure = False, "The audit log is closed"

    def end(self, action: str, details: Mapping[str, Any]) -> None:
        """As `stop`, behind one more record, from any thread and without the event loop: the process ends now.

        Waits for END seconds at most: the disk may be what hangs.
        """
        thread = self._thread
        if thread is not None:
            self.sum_up()
            self._put(action, None, "SYSTEM", details)
            self._last_words()
            thread.join(END)

    def _last_words(self) -> threading.Thread | None:
        """Let the thread write what is waiting, and end; None if it is told already."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self.sum_up()
            self._queue.put(None)
        return thread

    # -- sums

    def sum_up(self) -> None:
        """Write what has been summed up so far, without waiting for the second to be over."""
        for key in list(self._sums):
            self._close_sum(key)

    def _open_sum(self, key: str) -> Sum:
        if len(self._sums) >= MAX_KEYS:  # keys may come from outside: beyond this many, one sum for all
            key = ""
        if key not in self._sums and self._loop is not None:
            self._sums[key] = Sum()
            self._loop.call_later(1.0, self._second_over, key)
        return self._sums[key]

    def _second_over(self, key: str) -> None:
        if self._close_sum(key) and self._loop is not None and self._thread is not None:
            self._sums[key] = Sum(written=1)
            self._loop.call_later(1.0, self._second_over, key)

    def _close_sum(self, key: str) -> bool:
        """Write what was summed up, if anything was."""
        total = self._sums.pop(key, None)
        if total is None or total.args is None:
            return False
        action, actor, trust, details = total.args
        self._put(action, actor, trust, {**details, "count": total.count})
        return True

    def _put(self, action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]) -> None:
        try:
            if self._loop is None or self._queue.qsize() >= MAX_QUEUE:
                raise ValueError("nobody is writing")
            self._queue.put(Waiting(entry(action, actor, trust, details), None))
        except (TypeError, ValueError, RecursionError):
            self.unrecorded += 1

    # -- in the thread

    def _take_directory(self) -> None:
        prepare_directory(self.directory)
        self._lock = lock(self.directory)
        try:
            with contextlib.suppress(OSError):  # the first append tries again, and says what is wrong
                self._file.open()
        except Unsafe:
            os.close(self._lock)
            raise

    def _run(self, started: asyncio.Future[None]) -> None:
        self._commit([Waiting(Entry("", ""), started)], [])
        going = True
        while going:
            group, going = self._next_group()
            self._commit(group, [waiting.entry for waiting in group])
        self._file.close()
        self._tell_loop(self._ended.set)

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Whatever waits, and whether more may come. While the log is unavailable, nothing, once a second."""
        group: list[Waiting] = []
        try:
            waiting = self._queue.get(timeout=RETRY if self._failure else None)
            while waiting is not None:
                group.append(waiting)
                if len(group) == MAX_GROUP:
                    return group, True
                waiting = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _commit(self, group: list[Waiting], entries: list[Entry]) -> None:
        """Make the group durable and let the loop know. Any failure is a failure of all of it: never half an answer."""
        begun = time.perf_counter()
        written, failure = 0, None
        try:
            written = self._file.append(entries)
        except OSError as error:
            failure = f"The audit log cannot be written: {error.strerror or error}"
        except Exception as error:
            failure = f"The audit log cannot be written: {error}"
        self._failure = failure
        seconds = time.perf_counter() - begun
        self._tell_loop(self._settle, group, failure, written, seconds)

    def _tell_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
            self._loop.call_soon_threadsafe(function, *args)  # type: ignore[union-attr]

    def _undisturbed(self, read: Callable[[], Read]) -> Read:
        """What is read while no file is closed or removed; read again if one was."""
        while True:
            rotations = self._file.rotations
            found = read()
            if rotations % 2 == 0 and rotations == self._file.rotations:
                return found

    def _newest(self, limit: int, size: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        closed = reversed(closed_segments(self.directory))
        for path, end in ((self.directory / CURRENT, size), *((path, None) for path in closed)):
            for line in lines_backwards(path, end):
                if len(found) >= limit:
                    return found[::-1]
                if (record := parsed(line)) is not None:
                    found.append(record)
        return found[::-1]

    # -- in the loop again

    def _settle(self, group: list[Waiting], failure: str | None, written: int, seconds: float) -> None:
        self.available = failure is None
        for _, future in group:
            if future is None:
                self.unrecorded += failure is not None
            elif not future.done():
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(self._unavailable())
        if written:
            self.on_write(written, seconds)

    def _unavailable(self) -> HubError:
        why = self._failure or "The audit log is overloaded"
        return HubError("audit_unavailable", why.rstrip(".") + ".", retry_after=1)
