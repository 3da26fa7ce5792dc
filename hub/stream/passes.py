"""Much work in pieces, so that everybody else is served between."""

import asyncio
from collections import deque

REST = 4  # passes of the event loop between two pieces: to ask and be answered takes a neighbour about eight


class Passes:
    """One piece of work every few passes of the event loop, in the order in which they are asked for. While nobody
    else wants anything, a pass costs some µs."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resting = 0  # passes until the next may begin

    async def turn(self) -> None:
        """Wait for a turn. What is done then must not take more than a few ms before it waits for anything."""
        loop = asyncio.get_running_loop()
        if not self._resting:
            self._rest(loop)
            return
        future = loop.create_future()
        self._waiting.append(future)
        await future

    def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        self._resting = REST
        loop.call_soon(self._pass, loop)

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._resting -= 1
        if self._resting:
            loop.call_soon(self._pass, loop)
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # else it was cancelled
                future.set_result(None)
                self._rest(loop)
                return
