"""One drawing for all who look at the same, however many they are, and with a rest between two."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

LEAST, MOST = 0.1, 1.0  # seconds between two drawings, from the end of one to the beginning of the next
REST = 20  # times as long as a drawing took it is not drawn again

T = TypeVar("T")


class Shared(Generic[T]):
    """What `draw()` makes, true at `position()` or later.

    Nobody gets a drawing that was begun before he asked, unless nothing has happened since: so whoever asks because he
    was told of news finds it in what he gets.
    """

    def __init__(self, draw: Callable[[], Awaitable[T]], position: Callable[[], Any]) -> None:
        self._draw, self._position = draw, position
        self._one = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None  # is waited for, and not begun
        self._last: tuple[Any, T] | None = None
        self._rested = 0.0  # when it may be drawn again

    async def get(self) -> T:
        """Return the drawing. Whoever is cancelled leaves it to the others. Raises what `draw` raises."""
        if self._last is not None and self._last[0] == self._position():
            return self._last[1]
        if self._next is None:
            self._next = asyncio.create_task(self._drawn())
        return await asyncio.shield(self._next)

    async def _drawn(self) -> T:
        async with self._one:
            await asyncio.sleep(self._rested - time.monotonic())
            self._next = None  # who asks from here on is shown the next one
            at, began = self._position(), time.monotonic()
            self._last = None
            try:
                drawn = await self._draw()
                self._last = at, drawn
                return drawn
            finally:
                ended = time.monotonic()
                self._rested = ended + max(LEAST, min(MOST, REST * (ended - began)))
