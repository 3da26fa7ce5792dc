"""Events on disk, in one SQLite file of the state directory: what has been answered survives `kill -9`.

A commit that does not wait for the disk costs less than handing it to a thread and back (20 to 40 µs against some
200), so it is done in the loop: at once, and what comes in the same pass of the loop together. What waits for the disk
is done in threads.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ...errors import HubError, UsageError
from ..events import Draft, Event
from .broker import Kept, Limits, Outlet, Pump, Receipt
from .database import STEP, WAL_PAGES, Database, DatabaseError

log = logging.getLogger("hub")

FILE = "events.sqlite"
LOOK = 1.0  # seconds between two looks at what is too much or too old, or at a store that has failed
BREATH = 0.01  # seconds between two steps of much tidying
ALONE = 4  # publishes until the next look whether others come in the same pass: a look costs 10 µs

Result = TypeVar("Result")
_Append = tuple[Sequence[Draft], asyncio.Future[list[Receipt]]]
_Round = tuple[list[Event], asyncio.Task[None]]


class SqliteBroker:
    """Keeps the newest events on disk, within `limits`. Nothing is pumped or answered before it is committed; with
    `full` not before it has reached the disk, one fdatasync for all that came meanwhile."""

    def __init__(self, directory: Path, limits: Limits, state_items: int, *, full: bool = False) -> None:
        self.epoch, self.head, self.tail, self.bytes = "", 0, 1, 0
        self.limits = limits
        self.problem: str | None = None
        self._database = Database(directory / FILE, limits, state_items, full=full)
        self._full, self._open = full, False
        self._file = asyncio.Lock()  # whose turn it is; the others wait in order
        self._queue: list[_Append] = []  # to be committed together
        self._busy = False  # one has been committed in this pass of the loop; who comes now, queues
        self._alone = 0  # so many are committed without a look whether others come, because lately nobody did
        self._disk = asyncio.Lock()  # one fdatasync at a time
        self._round: _Round | None = None  # the next one
        self._wake = asyncio.Event()
        self._look = min(LOOK, (limits.seconds or LOOK) / 4)

    # ---- life

    async def open(self, pump: Pump) -> None:
        self._threads = ThreadPoolExecutor(2, "hub-events")  # for `sync` and for checkpoints
        try:
            self._last_values = await self._in_thread(self._database.open)
        except UsageError:
            self._threads.shutdown()
            raise
        if self._database.lost:
            log.warning("the machine went down under the last hub: the newest events may be gone, a new epoch begins")
        self._outlet = Outlet(pump)
        self.epoch, self.head = self._database.epoch, self._database.head
        self._count()
        self._open = True
        self._caring = asyncio.get_running_loop().create_task(self._care())

    async def last_values(self) -> list[Kept]:
        found, self._last_values = self._last_values, []
        return found

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._wake.set()
        await self._caring
        async with self._file, self._disk:  # behind everybody who still waits for one of them
            try:
                await self._in_thread(self._database.close)
            except DatabaseError as error:
                log.error("the store of events could not be closed: %s", error)
        self._threads.shutdown()

    # ---- events

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        loop = asyncio.get_running_loop()
        if self._queue or self._busy or self._file.locked():
            future: asyncio.Future[list[Receipt]] = loop.create_future()
            self._queue.append((drafts, future))
            if len(self._queue) == 1:
                self._committing = loop.create_task(self._commit())
            return await future
        if self._alone:
            self._alone -= 1
        else:
            self._busy = True
            loop.call_soon(self._rest)
        events, receipts = self._write(drafts)
        await self._go_on(events, receipts)
        return receipts

    def _rest(self) -> None:
        """The pass of the loop is over."""
        self._busy = False
        self._alone = 0 if self._queue else ALONE

    async def _commit(self) -> None:
        """Commit what has queued up, in one transaction, and answer."""
        queue: list[_Append] = []
        try:
            async with self._file:
                queue, self._queue = self._queue, []
                self._alone = ALONE if len(queue) == 1 else 0
                events, receipts = self._write([draft for drafts, _ in queue for draft in drafts])
            await self._go_on(events, receipts)
        except Exception as error:
            for _, future in queue:
                if not future.done():  # else whoever asked has gone
                    future.set_exception(error)
            return
        start = 0
        for drafts, future in queue:
            if not future.done():
                future.set_result(receipts[start : start + len(drafts)])
            start += len(drafts)

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        try:
            async with self._file:
                return self._database.read(after, self.head, limit, size)
        except DatabaseError as error:
            raise _unavailable(f"The kept events cannot be read: {error}.") from None

    def _write(self, drafts: Sequence[Draft]) -> tuple[list[Event], list[Receipt]]:
        if not self._open:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        if self.problem:
            raise _unavailable(self.problem)
        try:
            written = self._database.write(drafts)
        except DatabaseError as error:
            raise self._fail(error) from None
        if self._database.unsaved >= WAL_PAGES:
            self._wake.set()
        return written

    async def _go_on(self, events: list[Event], receipts: Sequence[Receipt]) -> None:
        """Hand on what has been committed; with `--sync full` when it has reached the disk."""
        if self._full and any(receipt.seq > self.head for receipt in receipts):
            await self._on_disk(events)
        elif events:
            await self._hand_on(events)

    async def _hand_on(self, events: list[Event]) -> None:
        self.head = events[-1].seq
        await self._outlet.send(events)
        try:
            for _ in range(1 + len(events) // STEP):
                if not self._database.trim(self.head, lazily=True):
                    break
        except DatabaseError as error:  # these events are kept all the same
            self._fail(error)
        self._count()

    async def _on_disk(self, events: list[Event]) -> None:
        """Return when these events, and what was committed before them, have reached the disk and gone on."""
        if self._round is None:
            collected: list[Event] = []
            self._round = collected, asyncio.get_running_loop().create_task(self._sync(collected))
            self._round[1].add_done_callback(_look_at)
        collected, task = self._round
        collected += events
        await asyncio.shield(task)  # it is not this publisher's alone

    async def _sync(self, events: list[Event]) -> None:
        """One round for all who publish while the round before it is on its way."""
        async with self._disk:
            self._round = None
            if self.problem:  # the round before failed, and these events with it
                raise _unavailable(self.problem)
            try:
                await self._in_thread(self._database.sync)
            except OSError as error:
                raise self._fail(error) from None
            if events:
                await self._hand_on(events)

    # ---- care

    async def _care(self) -> None:
        """Keep to the limits, bring the journal into the file, come back when the store has failed."""
        pause = self._look
        while self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            try:
                pause = BREATH if await self._look_after() else self._look
            except DatabaseError as error:
                self._fail(error)
            self._count()

    async def _look_after(self) -> bool:
        """One step of it; whether there is more to do."""
        if self.problem:
            async with self._file, self._disk:
                await self._in_thread(self._database.reopen, self.head)
            self.problem = None
            log.warning("events can be kept again")
            return True
        async with self._file:
            more = self._database.tidy(self.head)
        if self._database.unsaved >= WAL_PAGES:
            await self._checkpoint()
        return more

    async def _checkpoint(self) -> None:
        """Bring the journal into the file: the greater part of the waiting while others may still write."""
        try:
            await self._in_thread(self._database.sync)
            async with self._file:
                await self._in_thread(self._database.checkpoint)
        except (DatabaseError, OSError) as error:  # nothing is lost: the journal grows, and this is tried again
            log.warning("the journal of the events could not be brought into their file: %s", error)
            self._database.unsaved = 0

    def _fail(self, error: Exception) -> HubError:
        """Refuse events until `_care` has brought the store back."""
        if not self.problem:
            log.error("events cannot be kept: %s", error)
        self.problem = f"Events cannot be kept: {error}."
        return _unavailable(self.problem)

    def _count(self) -> None:
        self.tail, self.bytes = self._database.tail, self._database.bytes

    async def _in_thread(self, work: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _unavailable(sentence: str) -> HubError:
    return HubError("broker_unavailable", sentence, retry_after=LOOK)


def _look_at(task: asyncio.Task[None]) -> object:
    """Those who publish hear of an error; if all of them have gone, the log has it all the same."""
    return task.cancelled() or task.exception()
