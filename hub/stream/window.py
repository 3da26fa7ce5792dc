"""The newest events and their bytes, in memory, once for everybody. A client is a place in here."""

import logging
from collections.abc import Iterable, Sequence

from .events import Event

log = logging.getLogger("hub")


class Window:
    """A ring of events with consecutive numbers, `tail` to `head`; at most `most` of them and `most_bytes` bytes.

    `tail` is `head + 1` while the window is empty. Nothing here waits.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.head, self.tail, self.bytes = 0, 1, 0
        self._most, self._most_bytes = most, most_bytes
        self._events: dict[int, Event] = {}

    def start_at(self, head: int) -> None:
        """Begin behind `head`, with nothing: what a broker kept from before is older than this window."""
        self._events.clear()
        self.head, self.tail, self.bytes = head, head + 1, 0

    def extend(self, batch: Sequence[Event]) -> None:
        """Take the next events in, and pass over those that are here; the oldest make room.

        Never leaves a hole: where one would be the window begins anew, and the log says so. Who still needs what is
        missing is then behind the window and gets it from the store; to refuse the batch would silence everyone.
        """
        for event in batch:
            if event.seq != self.head + 1:
                if event.seq <= self.head:
                    continue
                self._begin_anew(event.seq)
            self._events[event.seq] = event
            self.bytes += event.size
            self.head = event.seq
        while self.bytes > self._most_bytes or len(self._events) > self._most:
            self.bytes -= self._events.pop(self.tail).size
            self.tail += 1

    def _begin_anew(self, first: int) -> None:
        log.error(
            "the events %d to %d never reached the window, which is a bug of the hub; "
            "it begins anew, and who needs them gets them from the store",
            self.head + 1,
            first - 1,
        )
        self.start_at(first - 1)

    def covers(self, position: int) -> bool:
        """Whether everything behind this position is still here."""
        return position + 1 >= self.tail

    def between(self, after: int, until: int) -> list[Event]:
        """The events behind `after`, up to and with `until`; the position must be covered."""
        return [self._events[seq] for seq in range(after + 1, until + 1)]

    def events(self) -> Iterable[Event]:
        """All of them, oldest first."""
        return self.between(self.tail - 1, self.head)

    def __len__(self) -> int:
        return len(self._events)
