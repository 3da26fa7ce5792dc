"""Tasks: those of an agent, among the last values; and which end of a task is another one."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..wire.strictjson import dumpb
from ..wire.timestamps import unix_time

if TYPE_CHECKING:
    from .state import State

EVENT = "task:progress"
OPEN = ("running", "waiting_approval")
OVER = ("succeeded", "failed", "cancelled")

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


def open_tasks(state: "State", agent: str) -> list[dict[str, Any]]:
    """The tasks of this agent that run or wait for a person, the one longest unchanged first."""
    found = (event.data for event in state.holding(EVENT, b'"agent":' + dumpb(agent)))
    return [task for task in found if task.get("agent") == agent and task.get("status") in OPEN]


def open_tasks_of(state: "State", agents: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """As `open_tasks`, of many agents: one look at the last values."""
    if len(agents) == 1:
        return {agent: open_tasks(state, agent) for agent in agents}
    found: dict[str, list[dict[str, Any]]] = {agent: [] for agent in agents}
    for status in OPEN:
        for event in state.holding(EVENT, b'"status":' + dumpb(status)):
            task = event.data
            if task.get("status") == status and isinstance(task.get("agent"), str) and task["agent"] in found:
                found[task["agent"]].append(task)
    return found
