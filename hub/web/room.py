"""Room for bodies: so many bytes of them at once, whoever sends them. Who comes then with a large one that is to be
parsed waits for room, and whose body is only half here is told to come again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from ..errors import HubError

COMING = 256 * 1024 * 1024  # bytes of bodies that are not whole yet, or whose turn has not come


class Room:
    """So many bytes in all. What is not read yet waits in its sender's socket."""

    def __init__(self, size: int, patience: float) -> None:
        self._free, self._patience = size, patience
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold so much of it, which must be no more than all. Raises HubError `busy` if there is no room in time."""
        try:
            async with asyncio.timeout(self._patience), self._freed:
                await self._freed.wait_for(lambda: self._free >= size)
                self._free -= size
        except TimeoutError:
            raise too_much() from None
        try:
            yield
        finally:
            self._free += size
            async with self._freed:
                self._freed.notify_all()


class Coming:
    """What is here of the bodies that are not whole yet, or wait for their turn: so many bytes in all. Stops thousands
    that are sent by halves, or all at once, from taking all memory. Held is what has come, not what is announced: who
    sends nothing keeps nobody out."""

    def __init__(self, most: int) -> None:
        self.left = most

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """For one body, until its turn has come: what this gives is to be called with the size of each part of it. It
        raises HubError `busy` where there is no room."""
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if size > self.left:
                raise too_much()
            self.left, held = self.left - size, held + size

        try:
            yield hold
        finally:
            self.left += held


def too_much() -> HubError:
    """Make the refusal for what there is no room for."""
    return HubError("busy", "Too much is sent at once; try again.", retry_after=1)
