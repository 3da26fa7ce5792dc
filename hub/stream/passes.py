"""Much work in pieces, so that everybody else is served between."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

LARGE = 128 * 1024  # bytes that came at once, from which on each step with them is a piece
HEAVY_REST = 32  # passes of the event loop between two pieces of what is LARGE: uvloop accepts one connection in each
REST = 4  # passes of the event loop between two long pieces: to ask and be answered takes a neighbour about eight

T = TypeVar("T")


class Passes:
    """`most` pieces of work in one pass of the event loop, then none for `rest` passes; whoever asks, in order. While
    nobody else wants anything, a pass costs some µs."""

    def __init__(self, most: int = 1, rest: int = REST) -> None:
        self._most, self._rest = most, rest
        self._left, self._resting = most, 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._thread = asyncio.Lock()

    async def turn(self, *, begun: bool = False) -> None:
        """Wait for a turn. What is done then must not take more than a few ms before it waits for anything, or what one
        step with something LARGE takes where they rest for HEAVY_REST. Who has `begun` goes before who has not, so that
        what all of them have in hand is not in memory together."""
        loop = asyncio.get_running_loop()
        if self._left:
            self._begin(loop)
            return
        future = loop.create_future()
        (self._waiting.appendleft if begun else self._waiting.append)(future)
        await future

    async def apart(self, work: Callable[[], T]) -> T:
        """Do what takes long in a thread, between two turns, and nothing else so meanwhile, also when whoever waits for
        it is cancelled: of several threads each keeps the event loop waiting for as long as one does."""
        await self._thread.acquire()
        try:
            await self.turn(begun=True)
            doing = asyncio.ensure_future(asyncio.to_thread(work))
        except BaseException:
            self._thread.release()
            raise
        doing.add_done_callback(lambda _: self._thread.release())
        done = await asyncio.shield(doing)
        await self.turn(begun=True)
        return done

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left -= 1
        if not self._resting:
            self._resting = self._rest
            loop.call_soon(self._pass, loop)

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._resting -= 1
        if self._resting:
            loop.call_soon(self._pass, loop)
            return
        self._left = self._most
        while self._waiting and self._left:
            future = self._waiting.popleft()
            if not future.done():  # else it was cancelled
                future.set_result(None)
                self._begin(loop)
