"""Events on disk, in one SQLite file of the state directory: what has been answered survives `kill -9`."""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..errors import HubError
from ..events import Draft, Event
from ..messages import now
from . import Kept, Limits, Pump, Receipt
from .database import Database, DatabaseError, Reader, Waiting

log = logging.getLogger("hub")

FILE = "events.sqlite"
MOST_DRAFTS = 2000  # of one transaction
SLACK = 256  # events over the limit until a busy store looks after it; a quiet one does at once
QUIET = 0.05  # seconds without news
LOOK = 10.0  # seconds between two looks at the age of events
RETRY = 1.0  # seconds until a store that failed is tried again


class _Append(NamedTuple):
    """One publisher that waits."""

    waiting: Waiting
    future: "asyncio.Future[list[Receipt]]"


class _Outcome(NamedTuple):
    """What the writer has done: to be pumped, then answered."""

    events: list[Event]
    answers: list[tuple["asyncio.Future[list[Receipt]]", list[Receipt] | HubError]]
    tail: int
    bytes: int
    problem: str | None
    last: bool = False


class SqliteBroker:
    """Keeps the newest events on disk, within `limits`. One thread writes: it commits whatever waits in one
    transaction, and more comes together meanwhile. Nothing is pumped or answered before it is committed."""

    def __init__(self, directory: Path, limits: Limits, state_items: int, *, full: bool = False) -> None:
        self.epoch, self.head, self.tail, self.bytes = "", 0, 1, 0
        self.limits = limits
        self.problem: str | None = None
        self.waiting = 0
        self._database = Database(directory / FILE, limits, state_items, full=full)
        self._slack = min(SLACK, limits.events // 100)
        self._queue: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._open = False
        self._failed: str | None = None  # the writer's own view of `problem`
        self._tidy, self._look = True, 0.0
        self._outcomes: deque[_Outcome] = deque()
        self._news = asyncio.Event()

    # ---- in the loop

    async def open(self, pump: Pump) -> None:
        self._kept = await asyncio.to_thread(self._database.open)
        database = self._database
        self.epoch, self.head, self.tail, self.bytes = database.epoch, database.head, database.tail, database.bytes
        self._readers = ThreadPoolExecutor(1, "hub-events-reader")
        self._reader: Reader | None = None
        self._loop = asyncio.get_running_loop()
        self._delivering = self._loop.create_task(self._deliver(pump))
        self._thread = threading.Thread(target=self._write, name="hub-events-writer", daemon=True)
        self._thread.start()
        self._open = True

    async def last_values(self) -> list[Kept]:
        kept, self._kept = self._kept, []
        return kept

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if not self._open:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        future: asyncio.Future[list[Receipt]] = asyncio.get_running_loop().create_future()
        self._queue.put(_Append(Waiting(drafts, now(), time.monotonic()), future))
        self.waiting += 1
        return await future

    async def read(self, after: int, limit: int) -> list[Event]:
        """As in Broker. Nothing that has not been through the pump is read: nobody may be ahead of the stream."""
        head = self.head
        try:
            found = await self._loop.run_in_executor(self._readers, self._read, after, head, limit)
        except (DatabaseError, RuntimeError) as error:
            raise _unavailable(f"The kept events cannot be read: {error}.") from None
        if not found and head < self.head:  # all of it was trimmed meanwhile; what came since may be kept
            return await self.read(after, limit)
        if limit and after < head:  # the writer's word on what it trimmed may still be on its way
            self.tail = max(self.tail, found[0].seq if found and found[0].seq > after + 1 else 0)
            self.tail = max(self.tail, 0 if found else head + 1)
        return found

    def _read(self, after: int, head: int, limit: int) -> list[Event]:
        if self._reader is None:
            self._reader = Reader(self._database.path, self.epoch)
        return self._reader.read(after, head, limit)

    async def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._queue.put(None)
        await self._delivering
        await self._loop.run_in_executor(self._readers, self._close_reader)
        self._readers.shutdown()
        self._thread.join()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def _arrived(self, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        self._news.set()

    async def _deliver(self, pump: Pump) -> None:
        """Hand on what is committed, in order, one batch at a time; then answer those who published it."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._outcomes:
                outcome = self._outcomes.popleft()
                self.tail, self.bytes = max(self.tail, outcome.tail), outcome.bytes
                self.problem = outcome.problem
                self.waiting -= len(outcome.answers)
                if outcome.events:
                    self.head = outcome.events[-1].seq
                    try:
                        await pump(outcome.events)
                    except Exception:
                        log.exception("the events up to %d could not be handed on", self.head)
                for future, answer in outcome.answers:
                    if future.done():  # whoever asked has gone
                        continue
                    if isinstance(answer, HubError):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
                if outcome.last:
                    return

    # ---- in the writer's thread

    def _write(self) -> None:
        running = True
        while running:
            try:
                first = self._queue.get(timeout=self._pause())
            except queue.Empty:
                self._look_after()
                continue
            group, running = self._gather(first)
            if group:
                self._commit(group)
                if time.monotonic() >= self._look:
                    self._look_after()
        try:
            self._database.close()
        except DatabaseError as error:
            log.error("the store of events could not be closed: %s", error)
        self._post([], [], last=True)

    def _pause(self) -> float:
        """How long to wait for news before there is something else to do."""
        if self._failed:
            return RETRY
        return QUIET if self._tidy else max(0.0, self._look - time.monotonic())

    def _gather(self, first: _Append | None) -> tuple[list[_Append], bool]:
        """All that waits, up to a limit; and whether the hub goes on."""
        group: list[_Append] = []
        count, next = 0, first
        while next is not None:
            group.append(next)
            count += len(next.waiting.drafts)
            if count >= MOST_DRAFTS:
                return group, True
            try:
                next = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: list[_Append]) -> None:
        try:
            if self._failed:
                self._database.reconnect()
            events, receipts = self._database.write([append.waiting for append in group])
        except DatabaseError as error:
            self._fail(error)
            refusal = f"The event cannot be kept: {error}."
            self._post([], [(append.future, _unavailable(refusal)) for append in group])
        except Exception as error:  # one that cannot be written must not cost the others theirs
            if len(group) > 1:
                for append in group:
                    self._commit([append])
                return
            log.exception("an event could not be written")
            self._post([], [(group[0].future, _unavailable(f"The event cannot be kept: {error!r}."))])
        else:
            self._recovered()
            self._post(events, list(zip((append.future for append in group), receipts, strict=True)))
            self._trim(self._slack)

    def _look_after(self) -> None:
        """When it is quiet: trim to the limits, look for what is too old, make the file smaller, one step of each."""
        try:
            if self._failed:
                self._database.reconnect()
                self._recovered()
                self._post([], [])
            self._tidy = self._database.trim()
            if not self._tidy:
                self._tidy = self._database.expire() or self._database.shrink()
            self._look = time.monotonic() + min(LOOK, (self.limits.seconds or LOOK) / 4)
        except DatabaseError as error:
            self._fail(error)
        if self._database.tail != self.tail or self._failed != self.problem:
            self._post([], [])

    def _trim(self, slack: int) -> None:
        tail = self._database.tail
        try:
            self._database.trim(slack)
        except DatabaseError as error:
            self._fail(error)
        self._tidy = True
        if tail != self._database.tail or self._failed:
            self._post([], [])

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            log.error("events cannot be kept: %s", error)
        self._failed = f"Events cannot be kept: {error}."

    def _recovered(self) -> None:
        if self._failed:
            log.warning("events can be kept again")
        self._failed = None

    def _post(
        self,
        events: list[Event],
        answers: list[tuple["asyncio.Future[list[Receipt]]", list[Receipt] | HubError]],
        *,
        last: bool = False,
    ) -> None:
        database = self._database
        outcome = _Outcome(events, answers, database.tail, database.bytes, self._failed, last)
        try:
            self._loop.call_soon_threadsafe(self._arrived, outcome)
        except RuntimeError:  # the loop has ended without closing the hub; what is committed stays
            log.warning("the hub has ended without closing its store")


def _unavailable(sentence: str) -> HubError:
    return HubError("broker_unavailable", sentence, retry_after=RETRY)
