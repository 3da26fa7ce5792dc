"""What is drawn once for all viewers: however many look, the page costs one drawing a second at most."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

EVERY = 1.0  # seconds between two drawings, from the end of one to the beginning of the next


class Shown:
    """One drawing, shared. `draw()` makes it, true at `position()` or later.

    Nobody gets a drawing that was begun before he asked, unless nothing has happened since: so whoever asks because he
    has missed something finds it in what he gets.
    """

    def __init__(self, draw: Callable[[], Awaitable[str]], position: Callable[[], Any]) -> None:
        self._draw, self._position = draw, position
        self._one = asyncio.Lock()
        self._next: asyncio.Task[str] | None = None  # is waited for, and not begun
        self._last, self._at, self._ended = "", None, -EVERY

    async def get(self) -> str:
        """Return the drawing. Whoever is cancelled leaves it to the others. Raises what `draw` raises."""
        if self._at == self._position() and time.monotonic() < self._ended + EVERY:
            return self._last
        if self._next is None:
            self._next = asyncio.create_task(self._drawn())
        return await asyncio.shield(self._next)

    async def _drawn(self) -> str:
        async with self._one:
            await asyncio.sleep(self._ended + EVERY - time.monotonic())
            self._next = None  # who asks from here on is shown the next one
            at, self._at = self._position(), None
            try:
                self._last = await self._draw()
                self._at = at
                return self._last
            finally:
                self._ended = time.monotonic()
