"""The life of a hub: what was begun is ended in the reverse order, each step by itself, once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .errors import ANYTHING, UsageError, is_closing

log = logging.getLogger("hub")

End = Callable[[], Awaitable[Any]]


class Life:
    """Steps that were taken, and how each is undone. One start, one end.

    `running`: from the end of a start that worked to the beginning of the stop.
    """

    def __init__(self) -> None:
        self.running = False
        self._begun = False
        self._turn = asyncio.Lock()  # a stop waits for the start that is under way
        self._ends: list[tuple[str, End]] = []
        self._ending: asyncio.Task[None] | None = None

    async def begin(self, start: Callable[[], Awaitable[None]]) -> None:
        """Start, or undo all that was done of it and raise what went wrong; also for whoever is cancelled in it.

        Raises UsageError for a second start: what a run has left behind is not where the next one begins.
        """
        if self._begun:
            raise UsageError("A hub runs once; make a new one to start it again.")
        self._begun = True
        async with self._turn:
            try:
                await start()
                self.running = True
            except BaseException:
                await self._all_ended()
                raise

    async def take(self, what: str, step: Coroutine[Any, Any, Any], end: End) -> None:
        """Take a step of a start; from then on `end` belongs to the stop. Raises what the step raises.

        A step is not left in its middle, where nobody would know what to undo: who is cancelled waits for it.
        """
        cancelled = await to_its_end(step)
        self.at_end(what, end)
        if cancelled:
            raise asyncio.CancelledError

    def at_end(self, what: str, end: End) -> None:
        """Note what belongs to the stop, for a step that needs no waiting."""
        self._ends.append((what, end))

    async def end(self) -> None:
        """Undo every step. Harmless without a start, and a second time: then it waits for the same end. The stop goes
        on although who waits for it is cancelled."""
        if self._begun:
            async with self._turn:
                await self._all_ended()

    async def _all_ended(self) -> None:
        self.running = False
        self._ending = self._ending or asyncio.get_running_loop().create_task(self._undo())
        await asyncio.shield(self._ending)

    async def _undo(self) -> None:
        """Whatever a step raises, a cancellation too, the others follow: the first that was taken is always undone."""
        while self._ends:
            what, end = self._ends.pop()
            try:
                await end()
            except ANYTHING as error:
                if is_closing(error, self._ending):
                    raise
                log.exception("%s could not be ended as it should; the stop goes on", what)


async def to_its_end(work: Coroutine[Any, Any, Any]) -> bool:
    """Do it to its end, also for who is cancelled meanwhile, once or (as anyio does it) again and again. Return whether
    they were: they are to be, now. Raises what `work` raises."""
    task, cancelled = asyncio.get_running_loop().create_task(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    return cancelled
