"""The one thread that writes the audit log: whatever has queued up meanwhile shares one write and one fdatasync.

The thread takes the state directory and gives it back: lock, files and descriptors begin and end with it, whoever
waits for it or has ceased to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ..private import Unsafe, lock, prepare_directory
from .records import Entry
from .writer import LogFile

MAX_QUEUE = 65536  # records waiting for the disk
MAX_GROUP = 4096  # records a commit
RETRY = 1.0  # seconds
CLOSED = "The audit log is closed"


class Waiting(NamedTuple):
    """A record on its way to the disk, and who waits for it: nobody for a note."""

    entry: Entry
    future: asyncio.Future[None] | None


class Done(NamedTuple):
    """A group that is durable, or the sentence that says why it is not."""

    group: list[Waiting]
    failure: str | None
    written: int  # records, those of the log itself included
    seconds: float


class Commits:
    """The queue and its thread. All methods are called in the event loop, but for `close`, from any thread.

    `settle(done)` is called in the loop for every group, in order. What is accepted is settled, whatever happens.
    """

    def __init__(self, file: LogFile, settle: Callable[[Done], None]) -> None:
        self._file = file
        self._settle = settle
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._failing = False
        self._open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()

    async def start(self) -> None:
        """Take the directory and start writing; returns when the first attempt to write was made.

        Raises Locked, Unsafe or OSError if the directory cannot be taken. Then, and when it is cancelled, no lock, no
        thread and no descriptor is left.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        ready: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(target=self._run, args=(ready,), name="hub-audit", daemon=True)
        thread.start()
        self._thread, self._open = thread, True  # only the loop takes them back, `_end` or `stop`
        try:
            await ready
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Write what is waiting, then end the thread. A second call waits for the same end."""
        self.close()
        if self._thread is not None:
            await self._ended.wait()  # not in a thread: the application's may have taken them all
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> threading.Thread | None:
        """Accept nothing more; returns the thread, which ends when it has written what is waiting."""
        if self._open:
            self._open = False
            self._queue.put(None)
        return self._thread

    def put(self, entry: Entry, future: asyncio.Future[None] | None = None) -> bool:
        """Queue a record; False if nobody will write it."""
        if not self._open or self._queue.qsize() >= MAX_QUEUE:
            return False
        self._queue.put(Waiting(entry, future))
        return True

    @property
    def is_open(self) -> bool:
        return self._open

    # -- in the thread

    def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            with contextlib.closing(self._file), self._directory():
                self._commit([])
                self._tell_loop(_set, ready, None)
                self._write_until_closed()
        except BaseException as error:
            self._tell_loop(_set, ready, error)
        self._tell_loop(self._end)

    @contextlib.contextmanager
    def _directory(self) -> Any:
        """The locked directory. A disk that fails is no reason not to start: the first commit says what is wrong."""
        prepare_directory(self._file.directory)
        self._file.lock = descriptor = lock(self._file.directory)
        try:
            try:
                self._file.open()
            except Unsafe:
                raise
            except Exception:
                pass
            yield
        finally:
            self._file.lock = None
            os.close(descriptor)

    def _write_until_closed(self) -> None:
        going = True
        while going:
            group, going = self._next_group()
            self._commit(group)

    def _next_group(self) -> tuple[list[Waiting], bool]:
        """Whatever waits, and whether more may come. While the log is unavailable, nothing, once a second."""
        group: list[Waiting] = []
        try:
            waiting = self._queue.get(timeout=RETRY if self._failing else None)
            while waiting is not None:
                group.append(waiting)
                if len(group) == MAX_GROUP:
                    return group, True
                waiting = self._queue.get_nowait()
        except queue.Empty:
            return group, True
        return group, False

    def _commit(self, group: list[Waiting]) -> None:
        """Make the group durable and let the loop know. Any failure is a failure of all of it: never half an answer."""
        begun = time.perf_counter()
        written, failure = 0, None
        try:
            written = self._file.append([waiting.entry for waiting in group])
        except Exception as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            failure = f"The audit log cannot be written: {why}"
        self._failing = failure is not None
        self._tell_loop(self._settle, Done(group, failure, written, time.perf_counter() - begun))

    def _tell_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
            self._loop.call_soon_threadsafe(function, *args)  # type: ignore[union-attr]

    # -- in the loop again

    def _end(self) -> None:
        """Refuse what came in behind the end. Here, where it is put in: nothing can come in behind this."""
        self._open = False
        rest = []
        with contextlib.suppress(queue.Empty):
            while True:
                rest.append(self._queue.get_nowait())
        self._settle(Done([waiting for waiting in rest if waiting], CLOSED, 0, 0.0))
        self._ended.set()


def _set(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
