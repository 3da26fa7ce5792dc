"""Events kept in memory only: gone with the process, and a new epoch at every start."""

import os
import time
from collections.abc import Sequence

from ...errors import HubError
from ...wire.messages import now
from ...wire.names import Cursor
from ..events import Draft, Event
from .broker import Kept, Limits, Outlet, Pump, Receipt


class MemoryBroker:
    """Keeps the newest events, at most `most` of them and `most_bytes` bytes; remembers their ids as long."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.epoch = os.urandom(4).hex()
        self.head, self.tail, self.bytes = 0, 1, 0
        self.limits = Limits(most, most_bytes)
        self.problem: str | None = None
        self._kept: dict[int, Event] = {}
        self._ids: dict[str, int] = {}
        self._outlet: Outlet | None = None

    async def open(self, pump: Pump) -> None:
        self._outlet = Outlet(pump)

    async def last_values(self) -> list[Kept]:
        return []

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._outlet is None:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        timestamp, accepted = now(), time.monotonic()
        events, receipts = [], []
        for draft in drafts:
            first = self._ids.get(draft.id) if draft.given else None
            if first is None:
                events.append(Event(draft, Cursor(self.epoch, self.head + 1), timestamp, accepted))
                self._keep(events[-1], draft.given)
            receipts.append(Receipt(first or self.head, first is not None))
        self._trim()
        if events:
            await self._outlet.send(events)
        return receipts

    def _keep(self, event: Event, given: bool) -> None:
        self.head = event.seq
        self._kept[event.seq] = event
        self.bytes += len(event)
        if given:
            self._ids[event.id] = event.seq

    def _trim(self) -> None:
        most, most_bytes, _ = self.limits
        while self.tail <= self.head and (len(self._kept) > most or self.bytes > most_bytes):
            event = self._kept.pop(self.tail)
            self.bytes -= len(event)
            if self._ids.get(event.id) == event.seq:
                del self._ids[event.id]
            self.tail += 1

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        start = max(after + 1, self.tail)
        return [self._kept[seq] for seq in range(start, min(start + limit, self.head + 1))]

    async def close(self) -> None:
        self._outlet = None
