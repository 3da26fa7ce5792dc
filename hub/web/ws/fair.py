"""Frames of all clients in turns with everybody else: so many in a row, then the event loop is the others' for some
passes. What a client sends that is small waits for nobody."""

import asyncio
from collections import deque
from collections.abc import Callable

from ...stream.passes import REST

FAIR = 64 * 1024  # bytes of frames in a row, of all clients together, before everybody else has a turn, and
FRAME = 1024  # as many as one costs beside its bytes
LIGHT = 8 * 1024  # as many of them a client has for itself in each step: it never waits for what others have sent


class Fair:
    """What is left to be taken before the others have their turn. Stops many clients, each with one large frame, from
    holding the loop for all of them in a row: a neighbour waited three seconds for a hundred of 64 KiB."""

    def __init__(self) -> None:
        self.left = FAIR
        self._waiting: deque[Callable[[], None]] = deque()
        self._passes = 0  # since something was taken

    def spend(self, cost: int) -> None:
        """So much has been taken just now."""
        self.left -= cost
        if not self._passes:
            self._passes = 1
            asyncio.get_running_loop().call_soon(self._pass)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call this when there is something left; whoever waits, in order."""
        self._waiting.append(go_on)

    def _pass(self) -> None:
        if self.left <= 0 and self._passes < REST:
            self._passes += 1
            asyncio.get_running_loop().call_soon(self._pass)
            return
        self.left, self._passes = FAIR, 0
        while self._waiting and self.left > 0:
            self._waiting.popleft()()
