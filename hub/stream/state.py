"""Last values by key, and their leases: what is true now, and at which cursor."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import HubError
from ..wire.names import Patterns
from .brokers.broker import Kept
from .events import Event
from .leases import Leases
from .passes import Passes

log = logging.getLogger("hub")

RETRY_SECONDS = 1.0  # until the end of a lease that could not be announced is announced again
SLICE = 200  # items that are looked at before others get their turn
ENDS = 50  # leases that are ended at once: an event each
# Values that were pushed out while their leases ran, and how large each may be: their ends are told all the same.
PUSHED_OUT, SMALL = 1000, 16 * 1024

Place = tuple[str, str]  # name and key


class Page(NamedTuple):
    """Some of the last values: a JSON list, the number up to which they are true, and whether there are further ones
    behind it."""

    items: bytes
    position: int
    more: bool


class _Item:
    """The last event of one name and key. `changed` is the number of the last change: of the event, or of hub:stale,
    which has told everybody that it holds no more; 0 when something newer has taken its place."""

    __slots__ = ("changed", "event", "stale")

    def __init__(self, event: Event, stale: int) -> None:
        self.event, self.stale = event, bool(stale)
        self.changed = max(event.seq, stale)

    @property
    def json(self) -> bytes:
        return self.event.item(self.stale)


class State:
    """The last event for each `(name, key)`, at most `most` and `most_bytes` of them: the one longest unchanged goes
    first. `bytes` are those of the events as they are sent.

    `position` is the number up to which this is true. An event with `ttl` holds so many seconds; not published again
    in time, its item turns stale and `on_stale(events)` is awaited with all that do so at once, again and again until
    it succeeds. It publishes hub:stale for each, which ends that one event: one that is newer is not meant.
    `on_dropped(event)` is called for one for which there is no room any more. A lease that runs then runs on.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.position = self.bytes = 0
        self.dropped = 0  # how many have had no room any more
        self.on_stale: Callable[[Sequence[Event]], Awaitable[None]] | None = None
        self.on_dropped: Callable[[Event], None] = lambda event: None
        self._most, self._most_bytes = most, most_bytes
        self._items: dict[Place, _Item] = {}  # in the order in which they last changed
        self._pushed_out: dict[Place, _Item] = {}  # of which only the lease counts
        self._is_said = False  # that some lease was lost with its value
        self._leases: Leases[_Item] = Leases()
        self._reading = asyncio.Lock()
        self._read: tuple[tuple[Patterns, int, int, int], Page] | None = None  # the last page, and what was asked for
        self._wake, self._turns = asyncio.Event(), Passes()
        self._failing = False  # the ends of leases cannot be announced just now

    def apply(self, batch: Sequence[Event]) -> None:
        """Take a batch from the pump. Never waits."""
        for event in batch:
            if event.key is not None:
                self._put(event, (event.name, event.key), time.monotonic())
            elif event.name == "hub:stale":
                self._end(event.seq, **event.data)
        self.position = batch[-1].seq

    def restore(self, kept: Iterable[Kept], position: int) -> None:
        """Begin with what was true at `position`, longest unchanged first.

        Leases run on from when the events were accepted. What was known before is forgotten.
        """
        self._items.clear()
        self._pushed_out.clear()
        self._leases, self._read, self.bytes = Leases(), None, 0
        self._wake.set()
        for event, stale in kept:
            assert event.key is not None
            self._put(event, (event.name, event.key), event.accepted, stale)
        self.position = position

    def _put(self, event: Event, place: Place, since: float, stale: int = 0) -> None:
        if place in self._items:
            self._remove(place)
        elif place in self._pushed_out:
            self._leases.drop(self._pushed_out.pop(place).event.seq)
        if event.size > self._most_bytes:  # it would push all others out, and could not stay itself
            self._drop(event)
            return
        self._items[place] = item = _Item(event, stale)
        self.bytes += event.size
        if event.ttl is not None and not stale and self._leases.begin(event.seq, since + event.ttl, item):
            self._wake.set()
        while len(self._items) > self._most or self.bytes > self._most_bytes:
            item = self._items[oldest := next(iter(self._items))]
            end = self._leases.end(item.event.seq)
            self._remove(oldest)
            if end is not None:
                self._push_out(oldest, item, end)
            self._drop(item.event)

    def _push_out(self, place: Place, item: _Item, end: float) -> None:
        """Let its lease run on without it, as far as there is room for that. Stops a job that does not come from being
        missed by nobody, because many others have."""
        event = item.event
        if event.size > SMALL:
            self._miss(event)
            return
        self._pushed_out[place] = item
        item.changed = event.seq
        if self._leases.begin(event.seq, end, item):
            self._wake.set()
        if len(self._pushed_out) > PUSHED_OUT:
            oldest = self._pushed_out.pop(next(iter(self._pushed_out))).event
            if self._leases.end(oldest.seq) is not None:
                self._leases.drop(oldest.seq)
                self._miss(oldest)

    def _miss(self, event: Event) -> None:
        """Say, once, that not all that does not come will be missed."""
        if not self._is_said:
            log.warning(
                "there is no room for all last values, and nobody is told if %s %s does not come; "
                "keep more (--state-items, --state-bytes)",
                json.dumps(event.name),
                json.dumps(event.key),
            )
        self._is_said = True

    def _drop(self, event: Event) -> None:
        self.dropped += 1
        self.on_dropped(event)

    def _remove(self, place: Place) -> None:
        item = self._items.pop(place)
        item.changed = 0
        self.bytes -= item.event.size
        self._leases.drop(item.event.seq)

    def _end(self, changed: int, event: str, key: str, seq: int) -> None:
        place = event, key
        item = self._items.get(place) or self._pushed_out.get(place)
        if item is not None and item.event.seq == seq:
            item.stale, item.changed = True, changed
            if place in self._items:
                self._items[place] = self._items.pop(place)  # to the end
            self._leases.drop(seq)

    def holds(self, items: int, size: int) -> bool:
        """Whether so many items of so many bytes take less than half of the room."""
        return 2 * items < self._most and 2 * size < self._most_bytes

    # ---- reading

    def get(self, name: str, key: str) -> Event | None:
        """The last event of this name and key."""
        item = self._items.get((name, key))
        return item.event if item else None

    def is_stale(self, name: str, key: str) -> bool:
        """Whether the last value of this name and key was not published again in time."""
        item = self._items.get((name, key)) or self._pushed_out.get((name, key))
        return item is not None and item.stale

    def changed_at(self, name: str, key: str) -> int:
        """The number of the last change of this name and key: of its event, or of the hub:stale that has ended it; 0 if
        there is none."""
        item = self._items.get((name, key))
        return item.changed if item else 0

    def of(self, name: str) -> list[Event]:
        """The last events of this name, the one longest unchanged first."""
        return [item.event for place, item in self._items.items() if place[0] == name]

    def newest(self, name: str, begin: str) -> Event | None:
        """The last event of this name whose key begins so; None if there is none."""
        found = (place for place in reversed(self._items) if place[0] == name and place[1].startswith(begin))
        place = next(found, None)
        return self._items[place].event if place else None

    def holding(self, name: str, part: bytes) -> list[Event]:
        """As `of`, those whose JSON has this part; nothing is parsed."""
        return [item.event for place, item in self._items.items() if place[0] == name and part in item.event.frame]

    def changed(self, after: int) -> list[tuple[Event, bool]]:
        """The items that have changed behind this number, in that order, each with whether it is stale. What has had no
        room any more is not among them: `dropped` counts those."""
        return [(item.event, item.stale) for _, item in self._behind(after)]

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

    async def page(self, patterns: Patterns, after: int, room: int) -> Page:
        """The items that match and have changed behind `after`, in the order in which they last changed, and no more
        than fit into `room` bytes, or one.

        It takes a short step of the loop for some of them, and one page at a time: who reads keeps nobody waiting. What
        changes meanwhile moves to the end, so the page is true at its position all the same.
        """
        async with self._reading:
            asked = patterns, after, room, self.position
            if self._read is None or self._read[0] != asked:
                self._read = asked, await self._page(patterns, after, room)
            return self._read[1]

    async def _page(self, patterns: Patterns, after: int, room: int) -> Page:
        found, size = dict[Place, bytes](), 2
        while behind := self._behind(after):
            for count, (changed, item) in enumerate(behind, 1):
                if item.changed == changed and patterns.match(item.event.name):
                    place, text = (item.event.name, item.event.key or ""), item.json
                    size += 1 + len(text) - len(found.pop(place, b""))
                    if found and size > room:
                        return Page(_list(found), after, True)
                    found[place] = text
                after = changed
                if count % SLICE == 0:
                    await asyncio.sleep(0)
        return Page(_list(found), self.position, False)

    def _behind(self, after: int) -> list[tuple[int, _Item]]:
        """What has changed behind this number, in order, each with the number of that change."""
        found = []
        for item in reversed(self._items.values()):
            if item.changed <= after:
                break
            found.append((item.changed, item))
        return found[::-1]

    def __len__(self) -> int:
        return len(self._items)

    # ---- leases

    async def run(self) -> None:
        """Turn items stale when their time is up. Ends when cancelled."""
        while True:
            self._wake.clear()
            end = self._leases.next()
            wait = None if end is None else end - time.monotonic()
            if wait is None or wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
            await self._expire()

    async def _expire(self) -> None:
        """End what is due; many that end together in turns with everybody else."""
        now = time.monotonic()
        while (end := self._leases.next()) is not None and end <= now:
            await self._turns.turn()
            if due := self._leases.due(now, ENDS):  # else all of them were published again meanwhile
                await self._turn_stale(due, now)

    async def _turn_stale(self, due: Sequence[_Item], now: float) -> None:
        for item in due:
            item.stale = True
        if not await self._announce([item.event for item in due]):
            for item in due:
                if item.changed == item.event.seq:  # else it was published again, or told meanwhile
                    self._leases.begin(item.event.seq, now + RETRY_SECONDS, item)

    async def _announce(self, ended: Sequence[Event]) -> bool:
        try:
            if self.on_stale is not None:
                await self.on_stale(ended)
        except Exception as error:
            if not self._failing:
                known = isinstance(error, HubError)
                place = json.dumps(ended[0].name), json.dumps(ended[0].key)
                what = "the end of a lease could not be announced: %s %s: %s; it is tried again"
                log.error(what, *place, error, exc_info=None if known else error)
            self._failing = True
            return False
        self._failing = False
        return True


def _list(found: dict[Place, bytes]) -> bytes:
    return b"[%b]" % b",".join(found.values())
