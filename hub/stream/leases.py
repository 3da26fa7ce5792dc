"""Leases: until when something holds. Their memory is that of those that run, however often they are renewed."""

import heapq
from typing import Generic, TypeVar

SPARE = 64  # entries that may be passed over, beside as many as there are leases

T = TypeVar("T")


class Leases(Generic[T]):
    """What runs, and when it ends: by number, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[float, T]] = {}
        self._ends: list[tuple[float, int]] = []  # a heap; what has ended otherwise stays in it for a while

    def begin(self, number: int, end: float, what: T) -> bool:
        """Run until then, also what runs already. Return whether none ends before it."""
        self._running[number] = end, what
        heapq.heappush(self._ends, (end, number))
        if len(self._ends) > 2 * len(self._running) + SPARE:
            self._ends = [(end, number) for number, (end, _) in self._running.items()]
            heapq.heapify(self._ends)
        return self.next() == end

    def drop(self, number: int) -> None:
        """Let go of what does not matter any more. What does not run is no error."""
        self._running.pop(number, None)

    def next(self) -> float | None:
        """Return when the first one ends; None if none runs."""
        while self._ends and not self._is_running(*self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    def due(self, now: float, most: int) -> list[T]:
        """Take out what has ended, in the order of the ends, `most` of it at a time."""
        found: list[T] = []
        while len(found) < most and (end := self.next()) is not None and end <= now:
            found.append(self._running.pop(heapq.heappop(self._ends)[1])[1])
        return found

    def end(self, number: int) -> float | None:
        """Return when this one ends; None if it does not run."""
        return self._running[number][0] if number in self._running else None

    def __len__(self) -> int:
        return len(self._running)

    def _is_running(self, end: float, number: int) -> bool:
        return number in self._running and self._running[number][0] == end
