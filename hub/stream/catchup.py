"""Leading one subscriber from wherever it is up to the head of the stream, as fast as it reads."""

import asyncio
import logging
from collections.abc import Callable

from ..errors import HubError
from ..wire.names import Cursor
from ..wire.vocabulary import GapReason, Transport
from .brokers.broker import Broker
from .pages import Page, Pages
from .passes import Passes
from .subscriber import Subscriber
from .window import Window

log = logging.getLogger("hub")

WRITES = 8  # in one pass of the event loop, to all that are behind


class CatchUp:
    """Serves the subscribers in `behind`, a page for one after the other.

    `on_level(subscriber)` is called in the step in which one has reached the head and reads; `on_end(subscriber)` for
    one that cannot be served from the store, `on_broken(subscriber)` for one that cannot be written to, while that
    error is handled. `on_write` and `on_gap` as Broadcaster has them.
    """

    def __init__(
        self,
        window: Window,
        broker: Broker,
        pages: Pages,
        on_level: Callable[[Subscriber], None],
        on_end: Callable[[Subscriber], None],
        on_broken: Callable[[Subscriber], None],
    ) -> None:
        self.behind: set[Subscriber] = set()
        self.on_write: Callable[[Transport, int, int, int], None] = lambda transport, events, subscribers, size: None
        self.on_gap: Callable[[GapReason, int | None], None] = lambda reason, count: None
        self._window, self._broker, self._pages = window, broker, pages
        self._turns = Passes(WRITES, 1)
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
        if start == subscriber.position and not subscriber.paused:
            if page := self._pages.at_hand(start):
                self._write(subscriber, page)
            if self._is_level(subscriber):
                return
        self._follow(subscriber)

    def stop(self, subscriber: Subscriber) -> None:
        """Lead it no further. One that is not led is no error."""
        self._discard(subscriber)
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
                page = await self._next(subscriber)
                await self._turns.turn()
                page = page or self._come_meanwhile(subscriber)
                first = page.first if page else self._window.head + 1
                if first > subscriber.position + 1:
                    self._tell_missing(subscriber, first)
                if page:
                    self._write(subscriber, page)
                if self._is_level(subscriber):
                    return
        except HubError as error:  # not a gap: what it asks for is kept
            log.warning(
                "a client that is behind cannot be served from the store: %s; "
                "it was turned away (1013) and may come back",
                error,
            )
            subscriber.turn_away()
            self._on_end(subscriber)
        except Exception:
            self._on_broken(subscriber)

    def _is_level(self, subscriber: Subscriber) -> bool:
        """Whether it has reached the head and reads; then this has done its part, and it is live."""
        if subscriber.position != self._window.head or subscriber.paused:
            return False
        self._discard(subscriber)
        subscriber.task = None
        self._on_level(subscriber)
        return True

    def _discard(self, subscriber: Subscriber) -> None:
        self.behind.discard(subscriber)
        if not self.behind:
            self._pages.forget()

    async def _next(self, subscriber: Subscriber) -> Page | None:
        """Return the next page for this subscriber; None if nothing more is kept. Raises HubError `broker_unavailable`
        if the store cannot be read."""
        return await self._pages.behind(self._start_of_kept(subscriber))

    def _come_meanwhile(self, subscriber: Subscriber) -> Page | None:
        """Return what there is now, if there was nothing more before it waited for its turn."""
        return self._pages.at_hand(max(self._start_of_kept(subscriber), self._window.tail - 1))

    def _start_of_kept(self, subscriber: Subscriber) -> int:
        """Return where it can go on. Who comes back gets what is kept, the same as from hub:history, and not what
        happens to be in the window; who was level and reads slowly is not made to lose that by a short retention."""
        if subscriber.reason == "slow":
            return subscriber.position
        return max(subscriber.position, self._broker.tail - 1)

    def _write(self, subscriber: Subscriber, page: Page) -> None:
        """Write what it wants of a page, and move it behind that."""
        piece = page.behind(subscriber.position, subscriber.patterns, subscriber.framing)
        if piece.events:
            subscriber.write(piece.data)
            self.on_write(subscriber.framing.transport, piece.events, 1, len(piece.data))
            subscriber.told = piece.told
        subscriber.position = page.last

    def _tell_missing(self, subscriber: Subscriber, first: int) -> None:
        at = str(Cursor(self._broker.epoch, subscriber.position))
        self.tell_gap(subscriber, at, first, subscriber.reason, first - subscriber.position - 1)
        subscriber.position = first - 1
        subscriber.reason = "slow"
