"""The application's own listeners: called in order, each on its own, so that none holds up another or the hub."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ..wire.names import Patterns, pattern_problem
from .events import Event

log = logging.getLogger("hub")

Listener = Callable[[Event], Awaitable[None] | None]


class Listeners:
    """The application's listeners: each in its own task with its own place in the stream, so none holds up another.

    A listener that raises is logged and counted and goes on with the next event; one that takes longer than `limit`
    seconds over an event is cancelled there. One that falls more than `most` events behind misses the oldest, and
    the log says how many.
    """

    def __init__(self, limit: float = 30.0, most: int = 10_000) -> None:
        self.failures = 0
        self._limit, self._most = limit, most
        self._all: list[_Follower] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, pattern: str, listener: Listener, *, once: bool = False) -> None:
        """Raises ValueError for a bad pattern."""
        if problem := pattern_problem(pattern):
            raise ValueError(f"{pattern!r}: {problem}")
        self._all.append(_Follower(Patterns((pattern,)), listener, once, self._most))

    def remove(self, pattern: str, listener: Listener) -> None:
        """Forget the listener. Unknown ones are no error."""
        for follower in [f for f in self._all if f.listener == listener and f.patterns.texts == (pattern,)]:
            self._all.remove(follower)
            follower.events.clear()

    async def offer(self, batch: Sequence[Event]) -> None:
        """Hand a batch to everyone who asked for some of it; returns at once."""
        for follower in list(self._all):
            wanted = [event for event in batch if follower.patterns.match(event.name)]
            if wanted and follower.once:
                wanted = wanted[:1]
                self._all.remove(follower)
            if wanted and follower.take(wanted):
                task = asyncio.create_task(self._run(follower))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, follower: "_Follower") -> None:
        while follower.events:
            await self._tell(follower, follower.events.popleft())
        follower.running = False

    async def _tell(self, follower: "_Follower", event: Event) -> None:
        try:
            async with asyncio.timeout(self._limit):
                result = follower.listener(event)
                if result is not None:
                    await result
        except (Exception, SystemExit):  # one that calls sys.exit() ends itself, not the hub
            self.failures += 1
            log.exception("a listener of %s failed on %s", follower.patterns, event.cursor)

    async def drain(self, seconds: float) -> None:
        """Give the listeners some time to finish what they were handed, then end them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()


class _Follower:
    """One listener, and the events that it has not seen yet."""

    def __init__(self, patterns: Patterns, listener: Listener, once: bool, most: int) -> None:
        self.patterns, self.listener, self.once = patterns, listener, once
        self.events: deque[Event] = deque(maxlen=most)
        self.running = False

    def take(self, events: Sequence[Event]) -> bool:
        """Queue the events; True if nothing is working on the queue yet."""
        missed = len(self.events) + len(events) - (self.events.maxlen or 0)
        if missed > 0:
            log.warning("a listener of %s is too slow and missed %d events", self.patterns, missed)
        self.events.extend(events)
        idle, self.running = not self.running, True
        return idle
