"""How often somebody may do something."""

import time


class Bucket:
    """A token bucket: `rate` a second, `burst` at once (twice the rate if not given). A rate of 0 is no limit."""

    __slots__ = ("_at", "_burst", "_left", "rate")

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self.rate, self._burst = rate, 2 * rate if burst is None else burst
        self._left, self._at = self._burst, time.monotonic()

    def take(self) -> float:
        """Take one token: 0.0, or the seconds until there is one."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.rate

    def give(self) -> None:
        """Give one back: what it was taken for does not count."""
        self._left = min(self._burst, self._left + 1)
