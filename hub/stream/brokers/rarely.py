"""What goes on is said once a minute, however often it is found."""

import logging
import math
import time

log = logging.getLogger("hub")

MINUTE = 60.0  # seconds
HELD = 3.0  # seconds without a problem, until an outage is over
MOST = 100  # different things that are remembered


class Rarely:
    """Lets the same words through once a minute."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}  # when, on the monotonic clock

    def may(self, words: str) -> bool:
        """Whether they may be said now; then they are."""
        now = time.monotonic()
        if now - self._said.get(words, -math.inf) < MINUTE:
            return False
        if len(self._said) >= MOST:
            self._said.clear()
        self._said[words] = now
        return True


class Outage:
    """What the log hears of why events cannot be kept: the first word and the last of each outage. One that comes back
    before it has been over for a while is the same: the last word of the log is how it stands."""

    def __init__(self) -> None:
        self._told, self._over = False, math.inf  # that there is one; since when there is none any more

    def say(self, problem: str | None) -> None:
        """There is this problem now, or none."""
        if problem:
            self._over = math.inf
            if not self._told:
                log.error(
                    "events cannot be kept: %s; publishing is refused until they can be, clients stay connected",
                    problem.rstrip("."),
                )
            self._told = True
        elif self._told:
            self._over = min(self._over, time.monotonic())
            if time.monotonic() - self._over >= HELD:
                log.warning("events can be kept again; whoever was refused may publish again")
                self._told = False
