"""The stream in pages, for all who are behind: what they read from the store, they read together."""

import asyncio
from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from ..wire.framing import Framing
from ..wire.names import Patterns
from .brokers.broker import Broker
from .events import Event
from .passes import Passes
from .window import Window

PAGE = 256  # events of a page at most
PIECE = 64 * 1024  # bytes at which it ends, too: those of one write to a client that is behind
MEMORY = 8 * 1024 * 1024  # bytes of pages that are kept for those who come after
EVENT = 500  # bytes that an event takes beside its frame
ALIKE = 4  # kinds of clients for which a page keeps its bytes ready: those that come first
LONGEST = 8  # of so many reads one is for whoever has waited longest, the others for the hindmost


class Piece(NamedTuple):
    """What a client gets of a page: ready-made bytes, of how many events, and the number of the last of them."""

    data: bytes
    events: int
    told: int


class Page:
    """Events without a hole between them, and their bytes, made once for all who want the same of them."""

    __slots__ = ("_ready", "_size", "events", "first", "last")

    def __init__(self, events: Sequence[Event]) -> None:
        self.events, self.first, self.last = events, events[0].seq, events[-1].seq
        self._size = sum(event.size for event in events) + EVENT * len(events)
        self._ready: dict[tuple[Patterns, Framing], Piece] = {}

    @property
    def full(self) -> bool:
        """Whether it ends here for everybody: else it ends at the head, and there is more of it in a moment."""
        return len(self.events) == PAGE or self._size - EVENT * len(self.events) >= PIECE

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly."""
        return self._size + sum(len(piece.data) for piece in self._ready.values())

    def behind(self, position: int, patterns: Patterns, framing: Framing) -> Piece:
        """Return what a client at this position gets."""
        if position >= self.first:
            return _piece(self.events[position + 1 - self.first :], patterns, framing)
        kind = patterns, framing
        piece = self._ready.get(kind)
        if piece is None:
            piece = _piece(self.events, patterns, framing)
            if len(self._ready) < ALIKE:
                self._ready[kind] = piece
        return piece


def _piece(events: Sequence[Event], patterns: Patterns, framing: Framing) -> Piece:
    wanted = [event for event in events if patterns.match(event.name)]
    data = framing.joined(framing.events(wanted)) if wanted else b""
    return Piece(data, len(wanted), wanted[-1].seq if wanted else 0)


class Pages:
    """The pages that are in memory, within MEMORY bytes, and the reading of the others.

    One read every few passes of the event loop, for everybody who waits at its place. The hindmost is served first: so
    it comes up with the one before it, and from there on one read serves both. Whoever would wait for that for ever,
    because more and more come from behind, has its turn all the same.
    """

    def __init__(self, window: Window, broker: Broker) -> None:
        self._window, self._broker = window, broker
        self._kept: dict[int, Page] = {}  # by the position that each begins behind; used longest ago first
        self._places: list[int] = []  # the same positions, in order
        self._wanted: dict[int, list[asyncio.Future[Page | None]]] = {}  # by the position behind which they read on
        self._reading: asyncio.Task[None] | None = None
        self._turns, self._reads = Passes(), 0
        self._generation = 0  # of the stream

    def at_hand(self, position: int) -> Page | None:
        """Return the page with what comes behind a position, if that takes no reading; None at the head, too."""
        place = bisect_right(self._places, position) - 1
        if place >= 0:
            start = self._places[place]
            page = self._kept.pop(start)
            self._kept[start] = page  # used just now
            if position < page.last:
                return page
        if self._window.covers(position) and position < self._window.head:
            return self._keep(self._of_window(position))
        return None

    async def behind(self, position: int) -> Page | None:
        """Return the page with what comes behind a position; it begins further on if what comes is not kept. None if
        nothing more is. Raises HubError `broker_unavailable` if the store cannot be read."""
        page = self.at_hand(position)
        if page is None and not self._window.covers(position):
            page = await self._wait(position)
            if page is None or page.first > self._window.tail:
                page = self.at_hand(self._window.tail - 1)
        return page

    def forget(self) -> None:
        """Nobody is behind: keep nothing for those who might come."""
        self._kept.clear()
        self._places.clear()

    def lose(self) -> None:
        """The stream is another one: keep nothing, and nothing of what is being read."""
        self._generation += 1
        self.forget()

    def _of_window(self, position: int) -> Page:
        events, size = [], 0
        for event in self._window.between(position, min(position + PAGE, self._window.head)):
            events.append(event)
            size += event.size
            if size >= PIECE:
                break
        return Page(events)

    def _keep(self, page: Page) -> Page:
        if page.full:
            start = page.first - 1
            if start not in self._kept:
                insort(self._places, start)
            self._kept[start] = page
            self._trim()
        return page

    def _trim(self) -> None:
        over = sum(page.weight for page in self._kept.values()) - MEMORY
        for start, page in list(self._kept.items())[:-1]:
            if over <= 0:
                break
            over -= page.weight
            del self._kept[start]
            del self._places[bisect_right(self._places, start) - 1]

    # ---- reading

    async def read(self, after: int, limit: int, size: int) -> list[Event]:
        """As the broker's `read`, in turn with all who read. What is read is not kept here."""
        await self._turns.turn()
        return await self._broker.read(after, limit, size)

    async def names(self, after: int, limit: int) -> list[tuple[int, str]]:
        """As the broker's `names`, likewise."""
        await self._turns.turn()
        return await self._broker.names(after, limit)

    async def _wait(self, position: int) -> Page | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Page | None] = loop.create_future()
        self._wanted.setdefault(position, []).append(future)
        if self._reading is None:
            self._reading = loop.create_task(self._read())
        return await future

    async def _read(self) -> None:
        """Read for as long as anybody waits."""
        try:
            while self._wanted:
                await self._turns.turn()
                position = self._next()
                if position is not None:
                    await self._read_behind(position)
        finally:
            self._reading = None

    def _next(self) -> int | None:
        """Return for which position to read; those who have gone wait for nothing."""
        for position, futures in list(self._wanted.items()):
            if all(future.done() for future in futures):
                del self._wanted[position]
        self._reads += 1
        if not self._wanted:
            return None
        return next(iter(self._wanted)) if self._reads % LONGEST == 0 else min(self._wanted)

    async def _read_behind(self, position: int) -> None:
        generation = self._generation
        try:
            events = await self._broker.read(position, PAGE, PIECE)
            if generation != self._generation:
                return  # who still waits for this is read for again
            page = self._keep(Page(events)) if events else None
        except Exception as error:
            self._answer(position, error)
            return
        self._answer(position, page)
        if page is not None:
            for other in [other for other in self._wanted if page.first - 1 <= other < page.last]:
                self._answer(other, page)

    def _answer(self, position: int, result: Page | Exception | None) -> None:
        for future in self._wanted.pop(position):
            if future.done():  # whoever waited has gone
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
