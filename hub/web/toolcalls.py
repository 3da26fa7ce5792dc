"""Calls of tools that agents tell of, each by its id: which of them run, and which have run before anybody heard that
they may. Hooks run in parallel and arrive late."""

import time
from dataclasses import dataclass

from ..adapters.shape import Taken, Tool, is_same_call

LATE_SECONDS = 5.0  # so long a request may come behind the word that its tool has run
KEPT = 256  # calls; the oldest goes first


@dataclass(slots=True)
class Call:
    """A call of a tool. `ended` is when the word of its end has come."""

    session: str
    actor: str
    tool: Tool
    has_begun: bool
    ended: float | None = None
    is_asked: bool = False


class ToolCalls:
    """What is known of calls. A request names none, so it is one for a call of the same tool and input that has begun
    and not ended. Only where there is no such call, and one has ended a moment ago without a request, this is the late
    one of that: nobody is asked what has been decided in the terminal. In doubt somebody is."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], Call] = {}  # by session and id

    def note(self, taken: Taken) -> bool:
        """Take note of what a hook says; return whether it asks for what has run already. `taken.call` is the call that
        it is about behind this, empty if that is not known."""
        if taken.waits:
            return self._is_late(taken)
        if taken.call and (taken.starts or taken.ran is not None):
            known = self._calls.get((taken.session, taken.call))
            if known is None:
                known = self._add(taken)
            if taken.starts:
                known.has_begun = True
            else:
                known.ended = time.monotonic()
            if not known.has_begun:
                taken.call = ""
        return False

    def _add(self, taken: Taken) -> Call:
        assert taken.tool is not None
        call = self._calls[taken.session, taken.call] = Call(taken.session, taken.actor, taken.tool, taken.starts)
        if len(self._calls) > KEPT:
            del self._calls[next(iter(self._calls))]
        return call

    def _is_late(self, taken: Taken) -> bool:
        same = [
            (id, call)
            for (_, id), call in self._calls.items()
            if call.session == taken.session and taken.tool is not None and is_same_call(taken.tool, call.tool)
        ]
        running = [one for one in same if one[1].has_begun and one[1].ended is None]
        if running:
            running.sort(key=lambda one: (one[1].is_asked, one[1].actor != taken.actor))
            taken.call, running[0][1].is_asked = running[0][0], True
            return False
        since = time.monotonic() - LATE_SECONDS
        for _, call in same:
            if call.has_begun and not call.is_asked and call.actor == taken.actor and (call.ended or 0.0) >= since:
                call.is_asked = True
                return True
        return False
