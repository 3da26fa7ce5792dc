"""Tasks: those of an agent, among the last values; and which end of a task is another one."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..wire.strictjson import dumpb
from ..wire.timestamps import unix_time

if TYPE_CHECKING:
    from .events import Event
    from .state import State

EVENT = "task:progress"
OPEN = ("running", "waiting_approval")
OVER = ("succeeded", "failed", "cancelled")
SLICE, COUNTED = 256 * 1024, 256  # bytes that are parsed before others get their turn, and what looking is counted as

End = tuple[str, float | str | None]  # how a task has ended, and when, as its publisher says it: see _moment


def end_of(data: Mapping[str, Any], before: End | None = None) -> End | None:
    """Which end of its task an event tells of, None while it is not over; `before`: how it was over already. The same
    one again is the same end, in whichever way its moment is written, or if none is: told once. Another `ended_at` is
    another end, also where nothing was heard of the task between the two."""
    status, at = data.get("status"), _moment(data.get("ended_at"))
    if status not in OVER:
        return None
    return before if at is None and before is not None and before[0] == status else (status, at)


def _moment(value: object) -> float | str | None:
    """A time in seconds since 1970, in whichever way it is written; what is none, or has no offset, as it is."""
    if not isinstance(value, str) or not value:
        return None
    then = unix_time(value)
    return value if then is None else then


def is_open(task: Mapping[str, Any]) -> bool:
    """Whether it runs, as one does that does not say what it does, or waits for a person."""
    return task.get("status", "running") in OPEN


def open_tasks(state: "State", agent: str) -> list[dict[str, Any]]:
    """The tasks of this agent that run or wait for a person, the one longest unchanged first."""
    found = (event.data for event in state.holding(EVENT, b'"agent":' + dumpb(agent)))
    return [task for task in found if task.get("agent") == agent and is_open(task)]


class OpenTasks:
    """The open tasks of many agents: all last values are looked at once, and after that only what has changed."""

    def __init__(self, state: "State") -> None:
        self._state, self._after = state, -1
        self._agents: dict[str, str] = {}  # by task
        self._tasks: dict[str, dict[str, None]] = {}  # by agent: a set, in order

    @property
    def has_looked(self) -> bool:
        return self._after >= 0

    async def look(self, turn: Callable[[], Awaitable[None]]) -> None:
        """See all that is true when this returns; `turn` is awaited between two slices."""
        while changed := self._state.changed(self._after):
            self._after, left = self._state.position, SLICE
            for event, _ in changed:
                if event.name == EVENT and event.key is not None:
                    left -= COUNTED + self._take(event, event.key)
                    if left < 0:
                        left = SLICE
                        await turn()

    def _take(self, event: "Event", task: str) -> int:
        """Note whose it is, if it is open; return how many bytes were parsed."""
        if (before := self._agents.pop(task, None)) is not None:
            del self._tasks[before][task]
        if b'"agent":' not in event.frame:
            return 0
        data = event.data
        agent = data.get("agent")
        if isinstance(agent, str) and is_open(data):
            self._agents[task] = agent
            self._tasks.setdefault(agent, {})[task] = None
        return event.size

    def of(self, agent: str) -> Iterator[dict[str, Any]]:
        """Those of this agent, the one longest unchanged first, each as it is when it comes to it. Without any look so
        far, they are searched for."""
        if not self.has_looked:
            yield from open_tasks(self._state, agent)
            return
        for task in [*self._tasks.get(agent, ())]:
            event = self._state.get(EVENT, task)
            data = event.data if event is not None else {}
            if data.get("agent") == agent and is_open(data):
                yield data
