"""Calls are weighed: one client's reads run one after the other, and nobody is called for who does not read."""

import asyncio

UNREAD = 1024 * 1024  # bytes of answers that a client has not taken, from which on nothing more is done for it


class Load:
    """What one client has been answered and has not taken yet, and whose turn it is among its reads.

    Over HTTP one client is everybody at an address and account: `running` counts their calls.
    """

    __slots__ = ("_lighter", "reading", "running", "unread")

    def __init__(self) -> None:
        self.running = self.unread = 0
        self.reading = asyncio.Lock()
        self._lighter = asyncio.Event()

    def add(self, size: int) -> None:
        """There is an answer of so many bytes."""
        self.unread += size

    def take(self, size: int) -> None:
        """It has been taken."""
        self.unread -= size
        self._lighter.set()

    async def room(self) -> None:
        """Wait until another answer may be made."""
        while self.unread >= UNREAD:
            self._lighter.clear()
            await self._lighter.wait()
