"""What the page knows of the stream: each last value parsed once when it changes, and kept in groups.

Nothing is done on the way of an event. Whoever draws calls `catch_up` first, which takes in what has changed since, in
slices; what is drawn then is true at `position`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...stream.events import Event
from .attempts import Attempt, follow
from .counted import ONE_BY_ONE, THREAT, VOTE, Counted
from .rows import (
    CHECKS,
    Agent,
    Alert,
    Groups,
    Question,
    Row,
    Task,
    Threat,
    agent_row,
    alert_row,
    place_of,
    question_row,
    task_row,
)
from .slices import Slices

if TYPE_CHECKING:
    from ...hub import Hub

T = TypeVar("T")
FEW = 2  # tasks
Take = Callable[["Board", Event, bool], None]


class Board:
    """The hub's tasks, agents, questions, votes and threats, as the page's panels take them."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self._one = asyncio.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """At the start, and with another epoch: nothing of before need be true."""
        self._is_cut = False  # of a task that is new here, there may have been events that are not known
        self.position = self.since = 0  # what it shows is true there; what counts one by one is known from `since` on
        self.tasks: Groups[Task] = Groups()
        self.attempts: dict[str, Attempt] = {}  # by task, the newest
        self.agents: Groups[Agent] = Groups()
        self.working: dict[tuple[str, str], dict[str, Task]] = {}  # running tasks, see `_line_of`
        self.questions: dict[str, Question] = {}
        self.places: dict[str, str] = {}  # by agent, the folder from which it has asked
        self.counted = Counted()
        self.alerts: dict[str, Alert] = {}  # those that are firing
        self.memory: dict[str, Any] | None = None
        self.seen: dict[str, int] = {}  # by the key of hub:seen: the number of the event that was seen
        self.failed_at = ""  # the timestamp of the newest failure
        self._derived: dict[Callable[[Board], Any], tuple[int, Any]] = {}
        self._dropped = self.hub.state.dropped
        self._epoch = self.hub.broker.epoch

    async def catch_up(self, slices: Slices | None = None) -> None:
        """Take in what has changed since the last time, in turns with everybody else."""
        async with self._one:
            if self._epoch != self.hub.broker.epoch:
                self._begin_anew()
            if (head := self.hub.window.head) == self.position:
                return
            await self._take(self._news(head), slices or Slices())
            self.position = head
            if not self.is_plain:
                self.counted.own.clear()  # nobody goes on with it
            if self.hub.state.dropped != self._dropped:
                self._forget()

    def _news(self, head: int) -> list[tuple[Take, Event, bool]]:
        """What has changed, in order: last values, what counts one by one (casts and threats) by the events in memory,
        and before them what tells of a task when it began. Where those events begin later than where this is, only the
        last of what lies between is known."""
        after = max(self.position, self.hub.window.tail - 1)
        if after > self.position or not self.since:
            self.since = after + 1
            self._is_cut = self.since > 1
        else:
            self._is_cut = False
        changed = self.hub.state.changed(self.position)
        happened = self.hub.window.between(after, head)
        newest = {event.seq for event, _ in changed}
        steps = [(event, False) for event in happened if event.name == "task:progress" and event.seq not in newest]
        values = [(event, stale) for event, stale in changed if event.name not in ONE_BY_ONE or event.seq <= after]
        streamed = [(event, False) for event in happened if event.name in ONE_BY_ONE]
        if self.is_plain:
            self.counted.own_events(happened, is_own)
        return [(Board._step, *step) for step in steps] + [
            (take, event, stale) for event, stale in values + streamed if (take := TAKES.get(event.name)) is not None
        ]

    async def _take(self, news: list[tuple[Take, Event, bool]], slices: Slices) -> None:
        for take, event, stale in news:
            if not event.withheld:
                take(self, event, stale)
            await slices.turn()

    def _forget(self) -> None:
        """Let go of what the hub has had no room for any more."""
        self._dropped, get = self.hub.state.dropped, self.hub.state.get
        for key in [key for key in self.tasks.all if get("task:progress", key) is None]:
            self._end(key)
            self.tasks.remove(key)
            self.attempts.pop(key, None)
        for key in [key for key in self.agents.all if get("agent:status_change", key) is None]:
            self.agents.remove(key)
        self.places = {key: place for key, place in self.places.items() if key in self.agents.all}
        self.questions = {key: row for key, row in self.questions.items() if get("hub:question", key) is not None}
        self.alerts = {key: row for key, row in self.alerts.items() if get("alert:status", key) is not None}
        self.seen = {key: seq for key, seq in self.seen.items() if get("hub:seen", key) is not None}

    async def add_earlier(self, events: Sequence[Event]) -> None:
        """Take in casts and threats of before all that is known here, the oldest first."""
        async with self._one:
            self.counted.add_earlier(events, lambda vote: self.hub.state.get(VOTE, vote) is not None)

    # ---- one by one

    def _step(self, event: Event, stale: bool) -> None:
        """An event of a task of which there is a newer one: an attempt may have begun, or failed, with it."""
        if self.hub.state.get(event.name, event.key or "") is not None:
            attempt = self._attempt(event, event.data)
            if attempt.status == "failed":
                self.failed_at = max(self.failed_at, event.timestamp)

    def _attempt(self, event: Event, data: Mapping[str, Any]) -> Attempt:
        known = self.attempts.get(event.key or "")
        attempt = follow(known, event.seq, event.timestamp, data, is_cut=self._is_cut)
        self.attempts[event.key or ""] = attempt
        return attempt

    def _task(self, event: Event, stale: bool) -> None:
        data = event.data
        row = task_row(event, data, stale, self._attempt(event, data))
        self._end(row.key)
        if stale and row.status == "succeeded":  # as it ended well each time, and has not come again
            row.overdue = self.hub.state.changed_at(event.name, row.key)
        self.tasks.put(row, "overdue" if row.overdue else row.status)
        if row.status == "running":
            self.working.setdefault(_line_of(row), {})[row.key] = row
        elif row.status == "failed":
            self.failed_at = max(self.failed_at, row.timestamp)

    def _end(self, key: str) -> None:
        """The task is no longer among its agent's running ones."""
        before = self.tasks.all.get(key)
        if before is not None and (mine := self.working.get(_line_of(before))):
            mine.pop(key, None)
            if not mine:
                del self.working[_line_of(before)]

    def _agent(self, event: Event, stale: bool) -> None:
        row = agent_row(event, stale)
        row.place = row.place or self.places.get(row.key, "")
        self.agents.put(row, row.status)
        if row.status == "error":
            self.failed_at = max(self.failed_at, row.timestamp)

    def _question(self, event: Event, stale: bool) -> None:
        data = event.data
        self.questions.pop(event.key or "", None)
        if data.get("status") == "open":
            self.questions[event.key or ""] = question_row(event, data, stale)
        if place := place_of(data):
            self.places |= (place,)
            if (row := self.agents.all.get(place[0])) is not None:
                row.place = row.place or place[1]

    def _alert(self, event: Event, stale: bool) -> None:
        self.alerts.pop(event.key or "", None)
        if event.data["status"] == "firing":
            self.alerts[event.key or ""] = alert_row(event, stale)

    def _memory(self, event: Event, stale: bool) -> None:
        self.memory = {**event.data, "stale": stale}

    def _seen(self, event: Event, stale: bool) -> None:
        self.seen[event.key or ""] = event.data["seq"]

    # ---- what several panels ask

    def is_seen(self, row: Row) -> bool:
        """Whether a person has seen this value as it is."""
        row.seen = row.heard <= self.seen.get(f"{event_of(row)} {row.key}", 0) <= row.seq
        return row.seen

    def once(self, derive: "Callable[[Board], T]") -> T:
        """What follows from all this, found out once for each position."""
        known = self._derived.get(derive)
        if known is None or known[0] != self.position:
            known = self._derived[derive] = self.position, derive(self)
        return cast(T, known[1])

    def name_of(self, task: str) -> str:
        """What a task is called; itself where that is not known."""
        return self.tasks.all[task].name if task in self.tasks.all else task

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said here, ever."""
        return not self.position

    @property
    def is_plain(self) -> bool:
        """Whether next to nothing works here that has rows of its own: what else is said stands in their place."""
        return len(self.tasks.all) <= FEW and not self.agents.all

    @property
    def is_young(self) -> bool:
        """Whether all that was said here, beside events of own names, are a few tasks, as of somebody who tries what
        the first minute tells."""
        if not self.is_plain or self.questions or self.counted.is_any or self.alerts:
            return False
        return self.hub.state.newest("hub:question", "") is None

    def approvals(self) -> list[Task]:
        """Tasks that wait, but for those whose question is open: that is the same thing, and stands there already.

        A question that names no task is about the one for which its agent waits since last; which waits for more, where
        it does for more than is asked."""
        waiting = self.tasks["waiting_approval"].values()  # the one that changed last at the end
        asking = Counter(question.agent for question in self.questions.values() if question.agent and not question.task)
        for agent, count in list(asking.items()):  # a subagent's: it works at the agent's task
            if "/" in agent:
                asking[agent.partition("/")[0]] += count
        latest = {task.agent: task for task in waiting if task.agent in asking}
        newest = {agent: task.key for agent, task in latest.items() if task.asks <= asking[agent]}
        asked = {question.task for question in self.questions.values()} | {*newest.values()}
        return [task for task in waiting if task.key not in asked]

    def open_threats(self) -> list[Threat]:
        """Those that nobody has met, and no person has seen."""
        return [threat for threat in self.counted.threats if not threat.mitigated and not self.is_seen(threat)]

    def open_alerts(self) -> list[Alert]:
        """Those that are firing, and no person has seen."""
        return [alert for alert in self.alerts.values() if not self.is_seen(alert)]

    def in_error(self) -> list[Task | Agent]:
        """Tasks that failed or did not come, and agents in error."""
        return [*self.tasks["failed"].values(), *self.tasks["overdue"].values(), *self.agents["error"].values()]

    def failures(self) -> list[Task | Agent]:
        """Those in error that no person has seen."""
        return [row for row in self.in_error() if not self.is_seen(row)]


def is_own(name: str) -> bool:
    """Whether events of this name have no rows of another kind, and are no word of the hub's own."""
    return name not in TAKES and name != CHECKS and not name.startswith("hub:")


def event_of(row: Row) -> str:
    """The event that this row is the last value of, or that it is itself."""
    return EVENTS[type(row)]


EVENTS: Mapping[type, str] = {
    Task: "task:progress",
    Agent: "agent:status_change",
    Threat: THREAT,
    Alert: "alert:status",
}
TAKES: Mapping[str, Take] = {
    "task:progress": Board._task,
    "agent:status_change": Board._agent,
    "hub:question": Board._question,
    "memory:stats_update": Board._memory,
    "alert:status": Board._alert,
    "hub:seen": Board._seen,
    VOTE: lambda board, event, stale: board.counted.cast(event, stale),
    THREAT: lambda board, event, stale: board.counted.threat(event, stale),
}


def _line_of(task: Task) -> tuple[str, str]:
    """Tasks of one agent stand together; without one, each by itself."""
    return (task.agent, "") if task.agent else ("", task.key)
