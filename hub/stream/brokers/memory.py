"""Events kept in memory only: gone with the process, and a new epoch at every start."""

import os
import time
from collections.abc import Mapping, Sequence

from ...errors import HubError
from ...wire.names import Cursor
from ...wire.timestamps import now
from ..events import Draft, Event
from .answers import MemoryAnswers
from .broker import Answers, Kept, Limits, OnLost, Outlet, Pump, Receipt, unavailable
from .peers import Peers


class MemoryBroker:
    """Keeps the newest events, at most `most` of them and `most_bytes` bytes; remembers their ids as long."""

    def __init__(self, most: int, most_bytes: int, begins: str = "") -> None:
        """`begins`: how its epoch does."""
        self.epoch = begins + os.urandom(4).hex()
        self.lineage: Mapping[str, int] = {}  # nothing goes on from one life to the next
        self.head, self.tail, self.bytes = 0, 1, 0
        self.limits = Limits(most, most_bytes)
        self.answers: Answers = MemoryAnswers()
        self.problem: str | None = None
        self.peers: Peers | None = None
        self._kept: dict[int, Event] = {}
        self._ids: dict[str, int] = {}
        self._outlet: Outlet | None = None

    async def open(self, pump: Pump) -> None:
        self._outlet = Outlet(pump)

    def begin(self, on_lost: OnLost) -> None:
        """Nobody else writes here, and nothing is lost while it is open."""

    async def last_values(self) -> list[Kept]:
        return []

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._outlet is None:
            raise HubError("broker_unavailable", "The hub is stopping and takes no more events.")
        try:
            if self.problem:
                await self._outlet.flush()  # what was left there goes first, or nothing more comes in
            return await self._append(self._outlet, drafts)
        except Exception as error:
            self.problem = f"Events cannot be handed on: {error!r}."
            raise unavailable(self.problem) from error

    async def _append(self, outlet: Outlet, drafts: Sequence[Draft]) -> list[Receipt]:
        timestamp, accepted = now(), time.monotonic()
        events, receipts, ids = list[Event](), [], dict[str, int]()
        for draft in drafts:
            first = (self._ids.get(draft.id) or ids.get(draft.id)) if draft.given else None
            if first is None:
                events.append(Event(draft, Cursor(self.epoch, self.head + len(events) + 1), timestamp, accepted))
                if draft.given:
                    ids[draft.id] = events[-1].seq
            receipts.append(Receipt(first or self.head + len(events), first is not None))
        if events:
            outlet.take(events)
            self._keep(events, ids)
            await outlet.flush()
        self.problem = None
        return receipts

    def _keep(self, events: Sequence[Event], ids: Mapping[str, int]) -> None:
        for event in events:
            self.head = event.seq
            self._kept[event.seq] = event
            self.bytes += event.size
        self._ids.update(ids)
        self._trim()

    def _trim(self) -> None:
        most, most_bytes, _ = self.limits
        while self.tail <= self.head and (len(self._kept) > most or self.bytes > most_bytes):
            event = self._kept.pop(self.tail)
            self.bytes -= event.size
            if self._ids.get(event.id) == event.seq:
                del self._ids[event.id]
            self.tail += 1

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        events, filled = [], 0
        start = max(after + 1, self.tail)
        for seq in range(start, min(start + limit, self.head + 1)):
            events.append(self._kept[seq])
            filled += events[-1].size
            if size is not None and filled >= size:
                break
        return events

    async def names(self, after: int, limit: int) -> list[tuple[int, str]]:
        start = max(after + 1, self.tail)
        return [(seq, self._kept[seq].name) for seq in range(start, min(start + limit, self.head + 1))]

    async def reach(self, cursor: Cursor) -> None:
        """What is not known here is not known."""

    async def close(self) -> None:
        self._outlet = None
