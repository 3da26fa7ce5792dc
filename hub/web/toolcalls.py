"""Which tools of agents have run before anybody heard that they may. Hooks run in parallel and arrive in any order."""

import time
from collections import deque

from ..adapters.shape import Taken, Tool, is_same_call

LATE_SECONDS = 5.0  # so long a request may come behind the word that its tool has run
KEPT = 256  # of each kind; the oldest goes first


class ToolCalls:
    """Requests for permission and tools that ran, matched one to one.

    What ran and was not asked for, a moment ago, takes the next request of its kind: that is its own, and nobody is
    asked what has been decided in the terminal. A new call of that tool makes it forgotten.
    """

    def __init__(self) -> None:
        self._asked: deque[tuple[str, Tool]] = deque(maxlen=KEPT)
        self._ran: deque[tuple[str, Tool, float]] = deque(maxlen=KEPT)

    def is_late(self, taken: Taken) -> bool:
        """Take note of what a hook says; return whether it asks for what has run already."""
        if taken.ran is not None:
            self._has_run(taken.session, taken.ran)
        if taken.tool is None or not (taken.starts or taken.waits):
            return False
        mark = next((one for one in self._ran if _is_of(one, taken.session, taken.tool)), None)
        if mark is not None:
            self._ran.remove(mark)
        if not taken.waits:
            return False
        if mark is not None and time.monotonic() - mark[2] <= LATE_SECONDS:
            return True
        self._asked.append((taken.session, taken.tool))
        return False

    def _has_run(self, session: str, tool: Tool) -> None:
        for asked in self._asked:
            if _is_of((*asked, 0.0), session, tool):
                self._asked.remove(asked)
                return
        self._ran.append((session, tool, time.monotonic()))


def _is_of(one: tuple[str, Tool, float], session: str, tool: Tool) -> bool:
    return one[0] == session and is_same_call(one[1], tool)
