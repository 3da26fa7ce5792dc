"""The application's own listeners: called in order, each on its own, so that none holds up another or the hub."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ..errors import ANYTHING, is_closing
from ..wire.names import Patterns, pattern_problem
from .events import Event

log = logging.getLogger("hub")

Listener = Callable[[Event], Awaitable[None] | None]


class Listeners:
    """The application's listeners: each in its own task with its own place in the stream, so none holds up another.

    Whatever a listener raises is logged and counted (`on_failure`), and it goes on with the next event; one that takes
    longer than `limit` seconds over an event is cancelled there. One that swallows that, too, keeps its place until it
    lets go: a listener never hears two events side by side. One that falls more than `most` events behind misses the
    oldest, and the log says how many.
    """

    def __init__(self, limit: float = 30.0, most: int = 10_000) -> None:
        self.on_failure: Callable[[], None] = lambda: None
        self._limit, self._most = limit, most
        self._all: list[_Follower] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._drained = False

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
                self._start(follower)

    def _start(self, follower: "_Follower") -> None:
        follower.task = task = asyncio.get_running_loop().create_task(self._run(follower))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._over(done, follower))

    def _over(self, task: asyncio.Task[None], follower: "_Follower") -> None:
        """Begin anew with what is left: a listener that has cancelled its own task missed only that event."""
        self._tasks.discard(task)
        follower.running = False
        if follower.events and not self._drained:
            follower.running = True
            self._start(follower)

    async def _run(self, follower: "_Follower") -> None:
        while follower.events:
            await self._tell(follower, follower.events.popleft())

    async def _tell(self, follower: "_Follower", event: Event) -> None:
        try:
            async with asyncio.timeout(self._limit) as limit:
                result = follower.listener(event)
                if result is not None:
                    await result
            if limit.expired():
                raise TimeoutError("it did not let go when its time was over")
        except ANYTHING as error:
            if is_closing(error, follower.task):
                raise
            cancelled = isinstance(error, asyncio.CancelledError) and self._is_asked_to_end()
            if not (cancelled and self._drained):
                self.on_failure()
                log.exception(
                    "a listener of %s failed on %s; it gets the next events all the same",
                    follower.patterns,
                    event.cursor,
                )
            if cancelled:
                raise

    @staticmethod
    def _is_asked_to_end() -> bool:
        """Else the cancellation is that of something else, which a listener has waited for."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def drain(self, seconds: float) -> None:
        """Give the listeners some time to finish what they were handed, then end them."""
        late = (await asyncio.wait(self._tasks, timeout=seconds))[1] if self._tasks else ()
        self._drained = True
        for task in late:
            task.cancel()


class _Follower:
    """One listener, and the events that it has not seen yet."""

    def __init__(self, patterns: Patterns, listener: Listener, once: bool, most: int) -> None:
        self.patterns, self.listener, self.once = patterns, listener, once
        self.events: deque[Event] = deque(maxlen=most)
        self.running = False
        self.task: asyncio.Task[None] | None = None

    def take(self, events: Sequence[Event]) -> bool:
        """Queue the events; True if nothing is working on the queue yet."""
        missed = len(self.events) + len(events) - (self.events.maxlen or 0)
        if missed > 0:
            log.warning(
                "a listener of %s is too slow and missed %d events; have it hand its work on", self.patterns, missed
            )
        self.events.extend(events)
        idle, self.running = not self.running, True
        return idle
