"""Events kept in memory only: gone with the process, and a new epoch at every start."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence

from ..errors import HubError
from ..events import Draft, Event
from ..messages import Cursor, now
from . import Receipt


class MemoryBroker:
    """Keeps the newest events, at most `most` of them and `most_bytes` bytes; remembers their ids as long."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.epoch = os.urandom(4).hex()
        self.head, self.tail, self.bytes = 0, 1, 0
        self._most, self._most_bytes = most, most_bytes
        self._kept: dict[int, Event] = {}
        self._ids: dict[str, int] = {}
        self._fresh: list[Event] = []
        self._wake = asyncio.Event()
        self._closed = False

    async def open(self) -> None:
        pass

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closed:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        timestamp, accepted = now(), time.monotonic()
        receipts = []
        for draft in drafts:
            first = self._ids.get(draft.id) if draft.given else None
            if first is None:
                self._keep(Event(draft, Cursor(self.epoch, self.head + 1), timestamp, accepted), draft.given)
            receipts.append(Receipt(first or self.head, first is not None))
        self._trim()
        self._wake.set()
        return receipts

    def _keep(self, event: Event, given: bool) -> None:
        self.head = event.seq
        self._kept[event.seq] = event
        self.bytes += len(event)
        if given:
            self._ids[event.id] = event.seq
        self._fresh.append(event)

    def _trim(self) -> None:
        while self.tail <= self.head and (len(self._kept) > self._most or self.bytes > self._most_bytes):
            event = self._kept.pop(self.tail)
            self.bytes -= len(event)
            if self._ids.get(event.id) == event.seq:
                del self._ids[event.id]
            self.tail += 1

    async def batches(self) -> AsyncIterator[list[Event]]:
        while self._fresh or not self._closed:
            if not self._fresh:
                self._wake.clear()
                await self._wake.wait()
            batch, self._fresh = self._fresh, []
            if batch:
                yield batch

    async def read(self, after: int, limit: int) -> list[Event]:
        start = max(after + 1, self.tail)
        return [self._kept[seq] for seq in range(start, min(start + limit, self.head + 1))]

    async def close(self) -> None:
        self._closed = True
        self._wake.set()
