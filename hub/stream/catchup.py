"""Leading one subscriber from wherever it is up to the head of the stream, as fast as it reads."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from ..errors import HubError
from ..wire.names import Cursor
from ..wire.vocabulary import GapReason, Transport
from .brokers.broker import Broker
from .events import Event
from .subscriber import Subscriber
from .window import Window

log = logging.getLogger("hub")

PIECE = 64 * 1024  # bytes of one write to a subscriber that is catching up
PAGE = 1000  # events of one read from the store


class CatchUp:
    """Serves the subscribers in `behind` from the window, and from the store what is older than that.

    `on_level(subscriber)` is called in the step in which one has reached the head and reads; `on_end(subscriber)` for
    one that cannot be served from the store, `on_broken(subscriber)` for one that cannot be written to, while that
    error is handled. `on_write` and `on_gap` as Broadcaster has them.
    """

    def __init__(
        self,
        window: Window,
        broker: Broker,
        on_level: Callable[[Subscriber], None],
        on_end: Callable[[Subscriber], None],
        on_broken: Callable[[Subscriber], None],
    ) -> None:
        self.behind: set[Subscriber] = set()
        self.on_write: Callable[[Transport, int, int, int], None] = lambda transport, events, subscribers, size: None
        self.on_gap: Callable[[GapReason, int | None], None] = lambda reason, count: None
        self._window, self._broker = window, broker
        self._on_level, self._on_end, self._on_broken = on_level, on_end, on_broken

    def begin(self, subscriber: Subscriber, position: int) -> None:
        """Lead a subscriber on from this position, behind the scenes."""
        subscriber.position = subscriber.told = position
        self.behind.add(subscriber)
        self._follow(subscriber)

    def advance(self, subscriber: Subscriber) -> None:
        """As `begin`, from where it is; in this very step if that takes no waiting."""
        self.behind.add(subscriber)
        start = self._start_of_kept(subscriber)
        if start == subscriber.position and self._window.covers(start) and not subscriber.paused:
            self._write_piece(subscriber, self._ahead(subscriber.position))
            if self._is_level(subscriber):
                return
        self._follow(subscriber)

    def stop(self, subscriber: Subscriber) -> None:
        """Lead it no further. One that is not led is no error."""
        self.behind.discard(subscriber)
        task, subscriber.task = subscriber.task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def tell_gap(
        self, subscriber: Subscriber, after: str, before: int, reason: GapReason, count: int | None = None
    ) -> None:
        """Tell a subscriber what it will not get: the numbers between `after` and `before`."""
        data = {"after": after, "before": str(Cursor(self._broker.epoch, before)), "count": count, "reason": reason}
        subscriber.write(subscriber.framing.notice("hub:gap", data))
        self.on_gap(reason, count)

    def _follow(self, subscriber: Subscriber) -> None:
        subscriber.task = asyncio.get_running_loop().create_task(self._lead(subscriber))

    async def _lead(self, subscriber: Subscriber) -> None:
        """The only task a client can cost, while it is behind."""
        try:
            while True:
                await subscriber.drain()
                events = await self._next(subscriber)
                first = events[0].seq if events else self._window.head + 1
                if first > subscriber.position + 1:
                    self._tell_missing(subscriber, first)
                self._write_piece(subscriber, events)
                if self._is_level(subscriber):
                    return
                await asyncio.sleep(0)
        except HubError as error:  # not a gap: what it asks for is kept
            log.warning("a client that is behind cannot be served from the store: %s", error)
            subscriber.turn_away()
            self._on_end(subscriber)
        except Exception:
            self._on_broken(subscriber)

    def _is_level(self, subscriber: Subscriber) -> bool:
        """Whether it has reached the head and reads; then this has done its part, and it is live."""
        if subscriber.position != self._window.head or subscriber.paused:
            return False
        self.behind.discard(subscriber)
        subscriber.task = None
        self._on_level(subscriber)
        return True

    async def _next(self, subscriber: Subscriber) -> list[Event]:
        """Return the next events for this subscriber: from the window, or behind it from the store; none if nothing
        more is kept. Raises HubError `broker_unavailable` if the store cannot be read."""
        start = self._start_of_kept(subscriber)
        if not self._window.covers(start):
            events = await self._broker.read(start, PAGE, PIECE)
            if events and events[0].seq < self._window.tail:
                return events
        return self._ahead(max(start, self._window.tail - 1))

    def _start_of_kept(self, subscriber: Subscriber) -> int:
        """Return where it can go on. Who comes back gets what is kept, the same as from hub:history, and not what
        happens to be in the window; who was level and reads slowly is not made to lose that by a short retention."""
        if subscriber.reason == "slow":
            return subscriber.position
        return max(subscriber.position, self._broker.tail - 1)

    def _ahead(self, position: int) -> list[Event]:
        """Return the window's next page behind a position."""
        return self._window.between(position, min(position + PAGE, self._window.head))

    def _write_piece(self, subscriber: Subscriber, events: Sequence[Event]) -> None:
        """Write events up to a piece's size and move the subscriber behind them."""
        chosen, size, position, told = [], 0, subscriber.position, subscriber.told
        for event in events:
            if size >= PIECE:
                break
            position = event.seq
            if subscriber.patterns.match(event.name):
                told = event.seq
                chosen.append(event)
                size += len(event)
        if chosen:
            data = subscriber.framing.joined(subscriber.framing.events(chosen))
            subscriber.write(data)
            self.on_write(subscriber.framing.transport, len(chosen), 1, len(data))
        subscriber.position, subscriber.told = position, told

    def _tell_missing(self, subscriber: Subscriber, first: int) -> None:
        at = str(Cursor(self._broker.epoch, subscriber.position))
        self.tell_gap(subscriber, at, first, subscriber.reason, first - subscriber.position - 1)
        subscriber.position = first - 1
        subscriber.reason = "slow"
