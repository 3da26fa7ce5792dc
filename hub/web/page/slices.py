"""Long work in turns with everybody else: a slice of the loop at a time."""

import asyncio
import time

SLICE = 0.002  # seconds of the loop that are taken in a row


class Slices:
    """Counts the seconds that are taken of the loop, and gives everybody else a turn behind each SLICE of them."""

    def __init__(self) -> None:
        self._took, self._began = 0.0, time.perf_counter()

    @property
    def took(self) -> float:
        return self._took + time.perf_counter() - self._began

    async def turn(self) -> None:
        """Between two steps: let the others run, if the slice is over."""
        if time.perf_counter() - self._began > SLICE:
            self._took = self.took
            await asyncio.sleep(0)
            self._began = time.perf_counter()
