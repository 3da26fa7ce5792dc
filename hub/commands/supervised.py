"""How long application code is waited for: it is asked to end, and given up if it does not let go.

And what it may raise: anything. It ends itself with that, and nothing of the hub's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import Code

log = logging.getLogger("hub")

GRACE = 0.5  # seconds that code gets to end after it was cancelled

_given_up: set[asyncio.Task[Any]] = set()  # asyncio itself forgets a task that nobody holds


class Work:
    """`await function(*args)`, for `limit` seconds. Whoever waits for `run` waits no longer than that and GRACE:
    a function that swallows its cancellation goes on, given up, and holds up nobody.

    `ended`: the code of what asked it to end, `timeout` at the limit.
    """

    __slots__ = ("_args", "_function", "_over", "_task", "_timer", "_what", "ended", "given_up")

    def __init__(self, what: str, limit: float, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._what, self._function, self._args = what, function, args
        self.ended: Code | None = None
        self.given_up = False
        self._task: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(limit, self.end, "timeout")

    def end(self, code: Code) -> bool:
        """Cancel it, for this reason, unless it is done or was cancelled before. Return whether that is so."""
        if self.ended is not None or self._task is None or self._task.done():
            return False
        self.ended = code
        self._task.cancel()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(GRACE, self._wake)
        return True

    async def run(self) -> Any:
        """Return what the function returns. Raises the Exception that it raises, RuntimeError for whatever else comes
        out of it, and CancelledError only if it was ended, or given up.

        Runs it in a task of its own. Whoever is cancelled here takes it along.
        """
        loop = asyncio.get_running_loop()
        self._over, self._task = loop.create_future(), loop.create_task(self._contained())
        self._task.add_done_callback(self._wake)
        try:
            await self._over
        except asyncio.CancelledError:
            self.end("cancelled")
            self._task.add_done_callback(_forget)
            await asyncio.wait({self._task}, timeout=GRACE)
            raise
        finally:
            self._timer.cancel()
            if not self._task.done():
                self._give_up(self._task)
        if self.given_up:
            raise asyncio.CancelledError
        return self._result(self._task)

    async def here(self) -> Any:
        """As `run`, in the task of the caller, for code of the hub's own, which lets go: a task costs 5 µs."""
        self._task = task = asyncio.current_task()
        try:
            return await self._function(*self._args)
        finally:
            self._timer.cancel()
            self._task = None
            if self.ended is not None and task is not None:
                task.uncancel()

    async def _contained(self) -> Any:
        """Application code that calls sys.exit() ends itself, not the hub."""
        try:
            return await self._function(*self._args)
        except (SystemExit, KeyboardInterrupt) as stop:
            raise _stray(stop) from stop

    def _result(self, task: asyncio.Task[Any]) -> Any:
        if task.cancelled() and self.ended is None:
            raise RuntimeError("something that was waited for has been cancelled")
        if not task.cancelled() and not isinstance(stray := task.exception(), Exception | None):
            raise _stray(stray) from stray
        return task.result()

    def _wake(self, task: asyncio.Task[Any] | None = None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self.given_up = True
        keep(task, f"{self._what} goes on although it was ended ({self.ended}); nobody waits for it any more")


async def contained(what: str, limit: float, function: Callable[..., Awaitable[Any]], *args: Any) -> bool:
    """Run application code in the middle of the hub's own, and return whether it came through. What it raises, and that
    it took longer than `limit` seconds, is in the log; only who waits here can be cancelled."""
    work = Work(what, limit, function, *args)
    try:
        await work.run()
    except asyncio.CancelledError:
        if work.ended != "timeout":
            raise
        log.error("%s took longer than %g s; it was ended, and all else goes on", what, limit)
    except Exception:
        log.exception("%s failed; all else goes on", what)
    else:
        return True
    return False


def keep(task: asyncio.Task[Any], why: str) -> None:
    """Let a task that does not end go on; the log says why, and what becomes of it."""
    log.warning("%s", why)
    _given_up.add(task)
    task.add_done_callback(_forget)


def _stray(raised: BaseException) -> RuntimeError:
    return RuntimeError(f"{raised!r} was raised")


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.warning("what was given up has failed: %r; nobody was waiting for it any more", error)
