"""Events kept in memory only: gone with the process, and a new epoch at every start."""

import os
import time
from collections.abc import Sequence

from ..errors import HubError
from ..events import Draft, Event
from ..messages import now
from ..patterns import Cursor
from . import Kept, Limits, Pump, Receipt


class MemoryBroker:
    """Keeps the newest events, at most `most` of them and `most_bytes` bytes; remembers their ids as long."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.epoch = os.urandom(4).hex()
        self.head, self.tail, self.bytes = 0, 1, 0
        self.limits = Limits(most, most_bytes)
        self.problem: str | None = None
        self.waiting = 0
        self._kept: dict[int, Event] = {}
        self._ids: dict[str, int] = {}
        self._fresh: list[Event] = []
        self._pump: Pump | None = None
        self._pumping = False

    async def open(self, pump: Pump) -> None:
        self._pump = pump

    async def last_values(self) -> list[Kept]:
        return []

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._pump is None:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        timestamp, accepted = now(), time.monotonic()
        receipts = []
        for draft in drafts:
            first = self._ids.get(draft.id) if draft.given else None
            if first is None:
                self._keep(Event(draft, Cursor(self.epoch, self.head + 1), timestamp, accepted), draft.given)
            receipts.append(Receipt(first or self.head, first is not None))
        self._trim()
        await self._hand_on(self._pump)
        return receipts

    async def _hand_on(self, pump: Pump) -> None:
        """Pump what is fresh in the publisher's own step: no task has to wake for it. If a pump is at work already,
        it takes these, too, so that there is one order."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._fresh:
                batch, self._fresh = self._fresh, []
                await pump(batch)
        finally:
            self._pumping = False

    def _keep(self, event: Event, given: bool) -> None:
        self.head = event.seq
        self._kept[event.seq] = event
        self.bytes += len(event)
        if given:
            self._ids[event.id] = event.seq
        self._fresh.append(event)

    def _trim(self) -> None:
        most, most_bytes, _ = self.limits
        while self.tail <= self.head and (len(self._kept) > most or self.bytes > most_bytes):
            event = self._kept.pop(self.tail)
            self.bytes -= len(event)
            if self._ids.get(event.id) == event.seq:
                del self._ids[event.id]
            self.tail += 1

    async def read(self, after: int, limit: int) -> list[Event]:
        start = max(after + 1, self.tail)
        return [self._kept[seq] for seq in range(start, min(start + limit, self.head + 1))]

    async def close(self) -> None:
        self._pump = None
