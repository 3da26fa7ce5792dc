"""Waiting for the disk, once for many: a round takes in all who come while the one before it is on its way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ...errors import HubError
from ..events import Event
from .broker import unavailable


class Rounds:
    """One round after the other: `sync()` waits for the disk, `hand_on(events)` is called when it has them. If either
    fails, `fail(error)` says what everybody in the round hears.

    A round belongs to the store that it was begun in. When that has failed, `end` ends it wherever it stands: what it
    carries is refused, because reopening the store takes it back.
    """

    def __init__(
        self,
        sync: Callable[[], Awaitable[None]],
        hand_on: Callable[[Sequence[Event]], Awaitable[None]],
        fail: Callable[[Exception], HubError],
    ) -> None:
        self.turn = asyncio.Lock()  # of the round that is on its way; whoever holds it keeps all of them waiting
        self._sync, self._hand_on, self._fail = sync, hand_on, fail
        self._generation = 0
        self._next: list[Event] | None = None  # what the round takes along that has not begun yet
        self._task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def join(self, events: Sequence[Event] = ()) -> None:
        """Return when these events, and what was committed before them, have reached the disk and gone on. Raises
        HubError `broker_unavailable`."""
        if self._next is None or self._task is None:
            collected: list[Event] = []
            self._task = asyncio.get_running_loop().create_task(self._run(collected, self._generation))
            self._running.add(self._task)
            self._task.add_done_callback(self._done)
            self._next = collected
        self._next += events
        await asyncio.shield(self._task)  # it is not this publisher's alone

    def end(self) -> None:
        """The store has failed: no round that has begun goes on behind this."""
        self._generation += 1
        self._next = None

    async def drain(self) -> None:
        """Return when none is left."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run(self, events: list[Event], generation: int) -> None:
        async with self.turn:
            if self._next is events:
                self._next = None
            self._check(generation)
            try:
                await self._sync()
                self._check(generation)
                if events:
                    await self._hand_on(events)
            except HubError:
                raise
            except Exception as error:
                raise self._fail(error) from error

    def _check(self, generation: int) -> None:
        if generation != self._generation:
            raise unavailable("Events could not be kept: the store failed while they were on their way.")

    def _done(self, task: asyncio.Task[None]) -> object:
        """Those who publish hear of an error; if all of them have gone, the log has it all the same."""
        self._running.discard(task)
        return task.cancelled() or task.exception()
