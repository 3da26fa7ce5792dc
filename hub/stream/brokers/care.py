"""Looking after the store at intervals, whatever happens to it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from .broker import RETRY_SECONDS

log = logging.getLogger("hub")

BREATH = 0.01  # seconds between two steps of much work


class Care:
    """Calls `step()` every `seconds`, sooner while it returns True, and not for RETRY_SECONDS after a failure: what
    fails again at once must not keep the hub busy.

    `fail(error)` is told of everything that goes wrong, also that nobody looks after the store any more.
    """

    def __init__(
        self, step: Callable[[], Awaitable[bool]], fail: Callable[[BaseException], object], seconds: float
    ) -> None:
        self._step, self._fail, self._seconds = step, fail, seconds
        self._wake, self._ending = asyncio.Event(), False
        self._not_before = 0.0  # on the monotonic clock

    def begin(self) -> None:
        self._task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    def soon(self) -> None:
        """There is something to do."""
        self._wake.set()

    def rest(self) -> None:
        """Something has failed: wait until it is worth to try again."""
        self._not_before = time.monotonic() + RETRY_SECONDS
        self._wake.set()

    async def end(self) -> None:
        """Return when the step that runs is over; there is none after it."""
        self._ending = True
        self._wake.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause = self._seconds
        while not self._ending:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            pause = self._not_before - time.monotonic()
            if pause <= 0 and not self._ending:
                pause = BREATH if await self._guarded() else self._seconds

    async def _guarded(self) -> bool:
        try:
            return await self._step()
        except Exception as error:
            self._fail(error)
            return False

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._ending:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        log.error(
            "nobody looks after the store of events any more, which is a bug of the hub: %r; "
            "events are refused, restart the hub",
            error,
            exc_info=error,
        )
        self._fail(error or RuntimeError("the care of the store has ended"))
