"""Who works on what: an agent a line, with its tasks; and other tasks and agents, by what they do."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .board import Board
from .panel import Asked, Context, page_of
from .rows import Agent, Question, Task

if TYPE_CHECKING:
    from ...hub import Hub

ROWS = 20  # on a page
HOUR = 3600.0

Place = tuple[bool, float, str]


@dataclass(slots=True)
class Line:
    """One agent and what it does: `tasks` are the running ones, the one that began last in front, and behind all others
    those of which nothing is heard any more. Without one `waits` says what it waits for a person with. `of`: the agent
    whose subagent it is, if that has a line above it."""

    name: str
    agent: Agent | None
    tasks: list[Task]
    waits: Task | Question | None = None
    of: "Line | None" = field(default=None, repr=False)

    @property
    def key(self) -> str:
        return self.name or self.tasks[0].key

    @property
    def stale(self) -> bool:
        """Nothing of it holds any more: it was not said again in time."""
        if self.agent is not None and self.agent.stale:
            return True
        return bool(self.tasks) and self.tasks[0].stale and all(task.stale for task in self.tasks)

    @property
    def since(self) -> float:
        """When the first of what it does began: a further task does not move the line."""
        return min(task.since for task in self.tasks) if self.tasks else self.agent.at if self.agent else 0.0

    @property
    def mark(self) -> Hashable:
        tasks = ((task.key, *task.mark) for task in self.tasks)  # type: ignore[misc]
        parent = self.of and self.of.agent
        return self.agent and self.agent.mark, self.waits and self.waits.mark, parent and parent.key, *tasks


class Census(NamedTuple):
    """How many lines there are of each kind: together they are all of them. `tasks`: on how many those at work are."""

    at_work: int
    waiting: int
    stale: int
    tasks: int


def working(board: Board, hub: "Hub", asked: Asked) -> Context:
    """Who works on what, the longest first and the stale last; with a filter other tasks and agents."""
    found = board.once(lines) if asked.filter not in OTHERS else OTHERS[asked.filter](board)
    shown, more = page_of(found, asked, ROWS, rank)
    for row in shown:
        if isinstance(row, Agent):
            row.waits = row.key in board.once(waiting_agents)
    recent, over = time.time() - HOUR, [*board.tasks["succeeded"].values(), *board.tasks["cancelled"].values()]
    return {
        "rows": [(KINDS[type(row)], row) for row in shown],
        "more": more,
        "total": len(found),
        "census": census(board),
        "agents": len(board.agents.all),
        "queued": len(board.tasks["queued"]),
        "done": len(over),
        "recent": sum(row.at > recent for row in over),
        "quiet": len(quiet_agents(board)),
    }


KINDS: dict[type, str] = {Line: "line", Task: "task", Agent: "agent"}


def lines(board: Board) -> list[Line]:
    """An agent a line: those with running tasks, and those that say they are at work."""
    agents = board.agents.all
    busy = [
        Line(name, agents.get(name), sorted(tasks.values(), key=front_first))
        for (name, _), tasks in board.working.items()
    ]
    idle = (row for status in ("active", "starting") for row in board.agents[status].values())
    waits = board.once(waiting_agents)
    found = busy + [Line(row.key, row, [], waits.get(row.key)) for row in idle if (row.key, "") not in board.working]
    if subagents := [line for line in found if line.agent is not None and line.agent.parent]:
        by_name = {line.name: line for line in found if line.name}
        for line in subagents:
            above = by_name.get(line.agent.parent) if line.agent is not None else None
            line.of = above if above is not line else None
    return found


def waiting_agents(board: Board) -> dict[str, Task | Question]:
    """By agent, what it waits for a person with."""
    found: dict[str, Task | Question] = {}
    for row in board.questions.values():
        row.about = board.name_of(row.task)
        if row.agent:
            found[row.agent] = row
    return found | {row.agent: row for row in board.tasks["waiting_approval"].values() if row.agent}


def front_first(task: Task) -> tuple[bool, float, int]:
    """The order of the tasks of one line. Those that began in one millisecond stand as they were heard of."""
    return task.stale, -task.since, -task.first


def census(board: Board) -> Census:
    """How many of the lines are at work, wait for a person, and are stale."""
    return board.once(_census)


def _census(board: Board) -> Census:
    found = board.once(lines)
    stale = sum(line.stale for line in found)
    waiting = sum(line.waits is not None and not line.stale for line in found)
    tasks = sum(len(line.tasks) for line in found if not line.stale)
    return Census(len(found) - stale - waiting, waiting, stale, tasks)


def rank(row: Line | Task | Agent) -> tuple[Place, Place]:
    """The order of `working`: it changes only when something begins or ends, so that rows stay where they are. A
    subagent stands below its agent."""
    if not isinstance(row, Line):
        return (False, -row.at, row.key), FIRST
    own = row.stale, row.since, row.key
    if row.of is None:
        return own, FIRST
    first, steps = row, DEEPEST
    while first.of is not None and steps:
        first, steps = first.of, steps - 1
    return (first.stale, first.since, first.key), own


FIRST: Place = (False, float("-inf"), "")
DEEPEST = 8  # subagents of subagents; and of some that say that they are each other's


def quiet_agents(board: Board) -> list[Agent]:
    """Agents that do nothing. Those that have fallen silent at work are counted among the lines, as stale."""
    return list(board.agents["idle"].values())


OTHERS: dict[str, Callable[[Board], list[Any]]] = {
    "queued": lambda board: list(board.tasks["queued"].values()),
    "done": lambda board: [*board.tasks["succeeded"].values(), *board.tasks["cancelled"].values()],
    "quiet": quiet_agents,
    "agents": lambda board: list(board.agents.all.values()),
    "tasks": lambda board: list(board.tasks.all.values()),
}
