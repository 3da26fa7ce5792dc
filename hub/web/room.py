"""Room for large bodies: so many bytes of them at once, whoever sends them; who comes then waits for room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import HubError


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
            raise HubError("busy", "Too much is sent at once; try again.", retry_after=1) from None
        try:
            yield
        finally:
            self._free += size
            async with self._freed:
                self._freed.notify_all()
