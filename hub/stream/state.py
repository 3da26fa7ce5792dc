"""Last values by key, and leases: what is true now, and at which cursor."""

import asyncio
import contextlib
import heapq
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from ..errors import HubError
from ..wire.names import Patterns
from .events import Event

log = logging.getLogger("hub")

RETRY_SECONDS = 1.0  # until the end of a lease that could not be announced is announced again


class _Item:
    """The last event of one name and key, and until when it holds (monotonic seconds; None: for good). `stale`: it
    holds no more; `told`: everybody has been told so."""

    __slots__ = ("event", "expires", "stale", "told")

    def __init__(self, event: Event, expires: float | None, stale: bool) -> None:
        self.event, self.expires = event, expires
        self.stale = self.told = stale

    def __lt__(self, other: "_Item") -> bool:
        return (self.expires or 0.0) < (other.expires or 0.0)


class State:
    """The last event for each `(name, key)`, at most `most`: the one longest unchanged goes first.

    `position` is the number up to which this is true. An event with `ttl` holds so many seconds; not published again
    in time, its item turns stale and `on_stale(event)` is awaited, again and again until it succeeds. It publishes
    hub:stale, which ends that one event: one that is newer is not meant.
    """

    def __init__(self, most: int) -> None:
        self.position = 0
        self.on_stale: Callable[[Event], Awaitable[None]] | None = None
        self._most = most
        self._items: dict[tuple[str, str], _Item] = {}
        self._leases: list[_Item] = []
        self._wake = asyncio.Event()
        self._failing = False  # the ends of leases cannot be announced just now

    def apply(self, batch: Sequence[Event]) -> None:
        """Take a batch from the pump. Never waits."""
        for event in batch:
            if event.key is not None:
                self._put(event, (event.name, event.key))
            elif event.name == "hub:stale":
                self._end(**event.data)
        self.position = batch[-1].seq

    def restore(self, kept: Iterable[tuple[Event, bool]], position: int) -> None:
        """Begin with what was true at `position`, longest unchanged first: events, and whether they are stale.

        Leases run on from when the events were accepted.
        """
        for event, stale in kept:
            assert event.key is not None
            self._put(event, (event.name, event.key), event.accepted, stale)
        self.position = position

    def _put(self, event: Event, place: tuple[str, str], since: float | None = None, stale: bool = False) -> None:
        lease = event.ttl is not None and not stale
        expires = (time.monotonic() if since is None else since) + (event.ttl or 0.0) if lease else None
        item = _Item(event, expires, stale)
        self._items.pop(place, None)  # to the end: the order of the dict is the order of changes
        self._items[place] = item
        if expires is not None:
            heapq.heappush(self._leases, item)
            self._wake.set()
        if len(self._items) > self._most:
            del self._items[next(iter(self._items))]

    def _end(self, event: str, key: str, seq: int) -> None:
        item = self._items.get((event, key))
        if item is not None and item.event.seq == seq:
            item.stale = item.told = True

    def snapshot(self, patterns: Patterns) -> list[dict[str, Any]]:
        """All items that match, `{event, key, timestamp, data, stale}`, true at `position`. Never waits, so that the
        position and the items belong together."""
        return [
            {
                "event": name,
                "key": key,
                "timestamp": item.event.timestamp,
                "data": item.event.data,
                "stale": item.stale,
            }
            for (name, key), item in self._items.items()
            if patterns.match(name)
        ]

    def __len__(self) -> int:
        return len(self._items)

    # ---- leases

    async def run(self) -> None:
        """Turn items stale when their time is up. Ends when cancelled."""
        while True:
            self._wake.clear()
            wait = self._leases[0].expires - time.monotonic() if self._leases and self._leases[0].expires else None
            if wait is None or wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
            await self._expire()

    async def _expire(self) -> None:
        now = time.monotonic()
        while self._leases and (self._leases[0].expires or 0.0) <= now:
            item = heapq.heappop(self._leases)
            current = self._items.get((item.event.name, item.event.key or ""))
            if current is item and not item.told:  # else it was published again
                item.stale = True
                if not await self._announce(item.event):
                    item.expires = now + RETRY_SECONDS
                    heapq.heappush(self._leases, item)

    async def _announce(self, ended: Event) -> bool:
        try:
            if self.on_stale is not None:
                await self.on_stale(ended)
        except Exception as error:
            if not self._failing:
                known = isinstance(error, HubError)
                place = json.dumps(ended.name), json.dumps(ended.key)
                what = "the end of a lease could not be announced and is tried again: %s %s: %s"
                log.error(what, *place, error, exc_info=None if known else error)
            self._failing = True
            return False
        self._failing = False
        return True
