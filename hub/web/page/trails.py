"""The events about one task or agent: those in memory, followed while somebody looks, and back through the store."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ...stream.events import Event
from ...wire.strictjson import dumpb

if TYPE_CHECKING:
    from ...hub import Hub

Kind = Literal["task", "agent"]

TRAILS = 16  # that are followed; the one longest not looked at goes first
EVENTS = 500  # of one that are kept
BYTES = 2 * 1024 * 1024  # of them, at most
SLICE = 500  # events in memory that are looked at before others get their turn: some 0.3 ms
PAGE, PAGES = 100, 50  # events of the store that are read at once, and how often for one page
PAGE_BYTES = 256 * 1024  # or so many bytes of them


class Trail:
    """The newest events about one thing, oldest first. Each event in memory is looked at once, however long one looks:
    first whether its bytes have the key in them, and few have."""

    def __init__(self, kind: Kind, key: str) -> None:
        self.kind, self.key = kind, key
        self.events: deque[Event] = deque()
        self._bytes = 0
        self.start = self.position = 0  # all that is behind `start` and up to `position` has been looked at
        self._epoch = ""  # of that
        self._word = dumpb(key)

    async def catch_up(self, hub: "Hub") -> None:
        """Look at what is in memory and new, in turns with everybody else. In another epoch a number may be that of
        another event, so all of it is looked at again."""
        window = hub.window
        if self._epoch != hub.broker.epoch or not window.covers(self.position) or self.position > window.head:
            self.events.clear()
            self._bytes = 0
            self.start = self.position = window.tail - 1
            self._epoch = hub.broker.epoch
        while self.position < window.head:
            if self._epoch != hub.broker.epoch or not window.covers(self.position):
                return await self.catch_up(hub)
            until = min(self.position + SLICE, window.head)
            for event in window.between(self.position, until):
                if self.is_about(event):
                    self._keep(event)
            self.position = until
            await asyncio.sleep(0)
        return None

    def _keep(self, event: Event) -> None:
        self.events.append(event)
        self._bytes += event.size
        while len(self.events) > EVENTS or self._bytes > BYTES:
            oldest = self.events.popleft()
            self._bytes -= oldest.size
            self.start = oldest.seq

    async def before(self, hub: "Hub", number: int, most: int) -> tuple[list[Event], int]:
        """The newest `most` events about it before this number, newest first; and the number before which to go on,
        0 when nothing older is kept. Raises HubError `broker_unavailable`."""
        found = [event for event in reversed(self.events) if event.seq < number][:most]
        if len(found) == most:
            return found, found[-1].seq
        until = min(number, self.start + 1)
        for _ in range(PAGES):
            if until <= hub.broker.tail:
                return found, 0
            after = max(until - 1 - PAGE, hub.broker.tail - 1)
            for event in reversed(await self._between(hub, after, until)):
                found.append(event)
                if len(found) == most:
                    return found, event.seq
            until = after + 1
        return found, until

    async def _between(self, hub: "Hub", after: int, until: int) -> list[Event]:
        """Those about it among the kept events between these numbers, oldest first."""
        found = list[Event]()
        while after < until - 1 and (page := await hub.broadcaster.pages.read(after, until - 1 - after, PAGE_BYTES)):
            found += [event for event in page if event.seq < until and self.is_about(event)]
            after = page[-1].seq
        return found

    def is_about(self, event: Event) -> bool:
        """Whether its data name this task or agent."""
        if self._word not in event.frame or event.withheld:
            return False
        return names(self.kind, self.key, event.name, event.data)


def names(kind: Kind, key: str, event: str, data: Any) -> bool:
    """Whether the data of an event name this task or agent: as what it is about, or as who was at it; a question's by
    its details."""
    if not isinstance(data, Mapping):
        return False
    if data.get(kind) == key or (data.get("id") == key and event.startswith(f"{kind}:")):
        return True
    details = data.get("details")
    return isinstance(details, Mapping) and details.get(kind) == key


class Trails:
    """The trails of what is looked at."""

    def __init__(self) -> None:
        self._trails: OrderedDict[tuple[Kind, str], Trail] = OrderedDict()

    def get(self, kind: Kind, key: str) -> Trail:
        """The trail of this; a new one has not looked at anything yet."""
        trail = self._trails.setdefault((kind, key), Trail(kind, key))
        self._trails.move_to_end((kind, key))
        while len(self._trails) > TRAILS:
            self._trails.popitem(last=False)
        return trail
