"""The tasks of an agent, among the last values."""

from typing import TYPE_CHECKING, Any

from ..wire.strictjson import dumpb

if TYPE_CHECKING:
    from .state import State

EVENT = "task:progress"
OPEN = ("running", "waiting_approval")


def open_tasks(state: "State", agent: str) -> list[dict[str, Any]]:
    """The tasks of this agent that run or wait for a person, the one longest unchanged first."""
    found = (event.data for event in state.holding(EVENT, b'"agent":' + dumpb(agent)))
    return [task for task in found if task.get("agent") == agent and task.get("status") in OPEN]
