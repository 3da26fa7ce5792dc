"""What goes on in a hub beside its calls: work of its own, and the application's."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from .commands.supervised import GRACE, keep
from .errors import ANYTHING, is_closing

log = logging.getLogger("hub")

Work = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """Work that runs from `start` to `end`. What ends itself is heard of; it is not begun again.

    `failed()` is called when work of the application has ended with an error: that ends nothing else. Work of the hub's
    own never ends by itself: `is_broken` says that some has.
    """

    def __init__(self, failed: Callable[[], None]) -> None:
        self._failed = failed
        self._waiting: list[Work] = []  # of the application, for the start
        self._own: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []  # all, the hub's own too
        self._running = False

    @property
    def is_broken(self) -> bool:
        return any(task.done() for task in self._own)

    def add(self, work: Work) -> None:
        """Run `await work()` of the application: at once, or from the start on."""
        if self._running:
            self.run(self._alone(work))
        else:
            self._waiting.append(work)

    def start(self, own: Iterable[Coroutine[Any, Any, None]]) -> None:
        self._running = True
        self._own = [self.run(work) for work in own]
        for work in self._waiting:
            self.run(self._alone(work))

    def run(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run what the hub does once, beside all else."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_report)
        self._tasks.append(task)
        return task

    async def end(self) -> None:
        """Cancel all. What does not let go is waited for GRACE seconds."""
        self._running, self._own = False, []
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in (await asyncio.wait(tasks, timeout=GRACE))[1] if tasks else ():
            keep(task, "background work goes on although it was ended; nobody waits for it any more")

    async def _alone(self, work: Work) -> None:
        """Application code that ends itself only, however it does that."""
        task = asyncio.current_task()
        try:
            await work()
        except ANYTHING as error:
            if isinstance(error, asyncio.CancelledError) and not self._running:  # the stop has come for it
                raise
            if is_closing(error, task):
                raise
            self._failed()
            log.exception(
                "background work of the application ended with an error; it is not started again before the hub is"
            )


def _report(task: "asyncio.Task[None]") -> None:
    """A background task that dies is heard of."""
    if not task.cancelled() and (error := task.exception()):
        log.error(
            "a background task of the hub ended, which is a bug of the hub: %r; /readyz says so, restart the hub",
            error,
            exc_info=error,
        )
