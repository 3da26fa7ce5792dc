"""What of the events stays: what is over the limits, or too old, goes, a step at a time; then the file gets smaller."""

import time
from collections import deque
from itertools import accumulate, islice
from pathlib import Path

from ...wire.timestamps import stamp
from .answers import CallTable
from .broker import Limits
from .lastvalues import STEP_BYTES, LastValues
from .storefile import WAL_PAGES, StoreFile

STEP = 256  # events, or pages of the file, that are removed in one go
SPARE = 256  # free pages that are left for the next events


class Retention(StoreFile):
    """How much of the stream is in the file, from the number `tail` on, and what has to go."""

    def __init__(self, path: Path, limits: Limits, state: Limits) -> None:
        super().__init__(path)
        self.limits, self._slack = limits, min(STEP, limits.events // 100)
        self.tail, self.bytes = 1, 0
        self._sizes: deque[int] = deque()  # of the kept events
        self._last_values = LastValues(state)
        self._calls = CallTable()

    def tidy(self, until: int) -> bool:
        """Take away what is over the limits or too old, up to `until`, and make the file smaller, one step of it;
        whether there is more to do."""
        return self.trim(until) or self._expire(until) or self._clean() or self._expire_calls() or self._shrink()

    def trim(self, until: int, *, lazily: bool = False) -> bool:
        """Take away what is over the limits, one step; whether there is more to do.

        `lazily` waits until it is more than a little, so that one transaction does it for many events.
        """
        count, size = len(self._sizes) - self.limits.events, self.bytes - self.limits.bytes
        if count <= (self._slack if lazily else 0) and size <= (self.limits.bytes // 100 if lazily else 0):
            return False
        over, step = 0, self._step(until)
        for length in step:
            if over >= count and size <= 0:
                break
            over, size = over + 1, size - length
        self._forget(self.tail + over - 1)
        return 0 < over == len(step)

    def _step(self, until: int) -> list[int]:
        """The sizes of the oldest events, up to `until`, that may be removed in one go: some of them."""
        sizes = list(islice(self._sizes, min(STEP, max(0, until - self.tail + 1))))
        few = sum(total <= STEP_BYTES for total in accumulate(sizes))
        return sizes[: max(1, few)]

    def _expire(self, until: int) -> bool:
        """Take away what is too old; whether there is more to do. An event that seems younger stops it."""
        last = self.tail + len(self._step(until)) - 1
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
            self._note(trimmed=last, gone=self._last_values.gone)
        self._last_values.moved(last)
        for _ in range(last - self.tail + 1):
            self.bytes -= self._sizes.popleft()
        self.tail = last + 1

    def _clean(self) -> bool:
        """Take away last values that have gone; whether there is more to do."""
        if self._last_values.unmoved:
            self._forget(self.tail - 1)
        return self._last_values.unmoved

    def _expire_calls(self) -> bool:
        """Forget how calls have ended that nobody repeats any more; whether there is more to do."""
        if self._calls.is_young(self._sql):
            return False
        with self._transaction():
            numbers = self._calls.expire(self._sql)
        self._calls.numbers = numbers
        return True

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
