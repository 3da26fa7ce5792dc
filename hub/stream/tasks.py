"""Tasks: those of an agent, among the last values; and which end of a task is another one."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..wire.strictjson import dumpb

if TYPE_CHECKING:
    from .state import State

EVENT = "task:progress"
OPEN = ("running", "waiting_approval")
OVER = ("succeeded", "failed", "cancelled")

End = tuple[str, str | None]  # how a task has ended, and when, as its publisher says it


def end_of(data: Mapping[str, Any]) -> End | None:
    """Which end of its task an event tells of, None while it is not over. The same one again is the same end: told
    once, and seen once. Another `ended_at` is another end, also where nothing was heard of the task between the two."""
    status, ended = data.get("status"), data.get("ended_at")
    return (status, ended if isinstance(ended, str) else None) if status in OVER else None


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
