"""Events on disk, in one SQLite file of the state directory: what has been answered survives `kill -9`.

A commit that does not wait for the disk costs less than handing it to a thread and back (20 to 40 µs against some
200), so it is done in the loop: at once, and what comes in the same pass of the loop together. What waits for the disk
is done in a thread.

The store fails closed. Whatever goes wrong, of whatever kind, ends in `_fail`: from there on everything is refused,
also what had been committed and had not gone on, until the file has been opened anew at the newest number that went on.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ...errors import HubError, UsageError
from ...wire.names import Cursor
from ..events import Draft, Event
from .answers import DiskAnswers
from .broker import Answers, Kept, Limits, OnLost, Outlet, Pump, Receipt, unavailable
from .care import Care
from .database import Database
from .peers import Peers
from .retention import STEP
from .rounds import Rounds
from .storefile import WAL_PAGES, DatabaseError, is_full

log = logging.getLogger("hub")

FILE = "events.sqlite"
LOOK_SECONDS = 1.0  # between two looks at what is too much or too old
ALONE = 4  # publishes until the next look whether others come in the same pass: a look costs 10 µs

Result = TypeVar("Result")
_Append = tuple[Sequence[Draft], asyncio.Future[list[Receipt]]]


class SqliteBroker:
    """Keeps the newest events on disk, within `limits`. Nothing is pumped or answered before it is committed; with
    `full` not before it has reached the disk, one fdatasync for all that came meanwhile."""

    def __init__(self, directory: Path, limits: Limits, state: Limits, *, full: bool = False) -> None:
        self.epoch, self.head, self.tail, self.bytes = "", 0, 1, 0
        self.lineage: Mapping[str, int] = {}
        self.limits = limits
        self.problem: str | None = None
        self.peers: Peers | None = None  # nobody else writes here
        self._database = Database(directory / FILE, limits, state, full=full)
        self.answers: Answers = DiskAnswers(self._database, self._readable, self._writing)
        self._full, self._open = full, False
        self._file = asyncio.Lock()  # whose turn it is; the others wait in order
        self._queue: list[_Append] = []  # to be committed together
        self._committing: asyncio.Task[None] | None = None
        self._busy = False  # one has been committed in this pass of the loop; who comes now, queues
        self._alone = 0  # so many are committed without a look whether others come, because lately nobody did
        self._rounds = Rounds(self._sync, self._hand_on, self._fail)
        self._care = Care(self._look_after, self._fail, min(LOOK_SECONDS, (limits.seconds or LOOK_SECONDS) / 4))

    # ---- life

    async def open(self, pump: Pump) -> None:
        self._thread = ThreadPoolExecutor(1, "hub-events")  # one, and from here on: later there may be none to get
        try:
            self._last_values = await self._in_thread(self._database.open)
        except Exception as error:
            self._thread.shutdown()
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"The events in {self._database.path} cannot be used ({error}).") from error
        epochs, self.head = self._database.epochs, self._database.head
        self.epoch, self.lineage = epochs.epoch, epochs.lineage
        if epochs.changed:
            log.warning(
                "another epoch begins behind the event %d, because %s; "
                "clients go on up to there, and are told of what is gone",
                self.head,
                epochs.changed,
            )
        self._outlet = Outlet(pump, self.head)
        self._count()
        self._open = True
        if self._database.failure:
            self._fail(self._database.failure)
        self._care.begin()

    def begin(self, on_lost: OnLost) -> None:
        """Nobody else writes here, and nothing is lost while it is open."""

    async def last_values(self) -> list[Kept]:
        found, self._last_values = self._last_values, []
        return found

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for step in (self._care.end, self._finish, self._take_back, self._close):
            try:
                await step()
            except Exception as error:
                log.error(
                    "the store of events could not be closed: %s; "
                    "what was answered is in it, the next start looks it through",
                    error,
                )
        self._thread.shutdown()

    async def _finish(self) -> None:
        """What has been committed goes on; what has only queued up is refused."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
        await self._rounds.drain()

    async def _take_back(self) -> None:
        if self.problem:  # what was refused would be there at the next start
            await self._reopen()

    async def _close(self) -> None:
        async with self._file:
            await self._in_thread(self._database.close)

    # ---- events

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._queue or self._busy or self._file.locked():
            return await self._queue_up(drafts)
        if self._alone:
            self._alone -= 1
        else:
            asyncio.get_running_loop().call_soon(self._rest)
            self._busy = True
        try:
            events, receipts = self._write(drafts)
            await self._go_on(events, receipts)
        except Exception as error:
            raise self._fail(error) from None
        return receipts

    def _rest(self) -> None:
        """The pass of the loop is over."""
        self._busy = False
        self._alone = 0 if self._queue else ALONE

    async def _queue_up(self, drafts: Sequence[Draft]) -> list[Receipt]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Receipt]] = loop.create_future()
        try:
            if not self._queue:
                self._committing = loop.create_task(self._commit())
            self._queue.append((drafts, future))
        except Exception as error:
            raise self._fail(error) from None
        return await future

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
            refusal = self._fail(error)
            for _, future in queue:
                if not future.done():  # else whoever asked has gone
                    future.set_exception(refusal)
            return
        start = 0
        for drafts, future in queue:
            if not future.done():
                future.set_result(receipts[start : start + len(drafts)])
            start += len(drafts)

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        async with self._readable():
            return self._database.read(after, self.head, limit, size)

    async def names(self, after: int, limit: int) -> list[tuple[int, str]]:
        async with self._readable():
            return self._database.names(after, self.head, limit)

    async def reach(self, cursor: Cursor) -> None:
        """What is not known here is not known."""

    @contextlib.asynccontextmanager
    async def _readable(self) -> AsyncIterator[None]:
        try:
            async with self._file:
                yield
        except Exception as error:
            raise unavailable(f"The kept events cannot be read: {error}.") from error

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """The file, for what is no event and is to be kept like one: with `--sync full` it is on the disk behind
        this."""
        try:
            async with self._file:
                self._must_take()
                yield
                self._look_at_journal()
            if self._full:
                await self._rounds.join()
        except Exception as error:
            raise self._fail(error) from None

    def _write(self, drafts: Sequence[Draft]) -> tuple[list[Event], list[Receipt]]:
        self._must_take()
        written = self._database.write(drafts)
        self._look_at_journal()
        return written

    def _must_take(self) -> None:
        if not self._open:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        if self.problem:
            raise unavailable(self.problem)

    def _look_at_journal(self) -> None:
        if self._database.unsaved >= WAL_PAGES:
            self._care.soon()

    async def _go_on(self, events: Sequence[Event], receipts: Sequence[Receipt]) -> None:
        """Hand on what has been committed; with `--sync full` when it has reached the disk. In the step of the commit:
        nothing can come between, but what has joined a round may be ended with it."""
        if self._full and any(receipt.seq > self.head for receipt in receipts):
            await self._rounds.join(events)
        elif events:
            await self._hand_on(events)

    async def _hand_on(self, events: Sequence[Event]) -> None:
        """From here on these events are in the stream, and stay there whatever happens."""
        self._outlet.take(events)
        self.head = events[-1].seq
        self._database.settle(events)
        await self._outlet.flush()
        self._trim(1 + len(events) // STEP)

    def _trim(self, steps: int) -> None:
        if self._file.locked():  # a thread is at the file
            self._care.soon()
            return
        try:
            while steps and self._database.trim(self.head, lazily=True):
                steps -= 1
        except Exception as error:  # the events are kept all the same
            self._fail(error)
        self._count()

    # ---- care

    async def _look_after(self) -> bool:
        """Come back when the store has failed, keep to the limits, bring the journal into the file: one step of it;
        whether there is more to do."""
        if self.problem:
            await self._reopen()
            self.problem = None
            log.warning("events can be kept again; whoever was refused may publish again")
        async with self._file:
            await self._in_thread(self._database.look)
            more = self._database.tidy(self.head)
        self._count()
        if self._database.unsaved >= WAL_PAGES:
            await self._checkpoint()
        return more

    async def _reopen(self) -> None:
        """Begin anew behind what has gone on, and let go on what the failure has held up."""
        async with self._file, self._rounds.turn:
            await self._in_thread(self._database.reopen, self.head)
        await self._outlet.flush()

    async def _checkpoint(self) -> None:
        """Bring the journal into the file: the greater part of the waiting while others may still write."""
        try:
            await (self._rounds.join() if self._full else self._sync())
            async with self._file:
                await self._in_thread(self._database.checkpoint)
        except Exception as error:
            if self._full:  # the disk tells of a failure once, and it may be the publishers' whom it is about
                raise
            log.warning(
                "the journal of the events could not be brought into their file: %s; "
                "nothing is lost, it grows, and this is tried again",
                error,
            )
            self._database.unsaved = 0  # nothing is lost: it grows, and this is tried again

    async def _sync(self) -> None:
        """The only one that asks whether the disk has everything."""
        await self._in_thread(self._database.sync)

    def _fail(self, error: BaseException) -> HubError:
        """What whoever publishes hears of an error. Any at all is one of the store, unless it says otherwise: refuse
        events until `_care` has brought the store back, also those that are on their way to the disk."""
        if isinstance(error, HubError):
            return error
        self._rounds.end()
        self._care.rest()
        why = (str(error) or type(error).__name__) + is_full(error) * ": make room on the disk"
        if not self.problem:
            known = isinstance(error, DatabaseError | OSError)
            log.error(
                "events cannot be kept: %s; publishing is refused until they can be, clients stay connected",
                why,
                exc_info=None if known else error,
            )
        self.problem = f"Events cannot be kept: {why}."
        return unavailable(self.problem)

    def _count(self) -> None:
        self.tail, self.bytes = self._database.tail, self._database.bytes

    async def _in_thread(self, work: Callable[..., Result], *args: object) -> Result:
        """Whoever is cancelled here keeps the file until the thread lets go of it."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
