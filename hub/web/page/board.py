"""What the page knows of the stream: each last value parsed once when it changes, and kept in groups.

Nothing is done on the way of an event. Whoever draws calls `catch_up` first, which takes in what has changed since, in
slices; what is drawn then is true at `position`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...stream.events import Event
from .formats import cut, epoch, outline, text

if TYPE_CHECKING:
    from ...hub import Hub

SLICE = 0.002  # seconds of the loop that are taken in a row
THREATS = 500  # that are kept
VOTES = 500
DAY = 86400.0
OPTIONS = ("approve", "reject", "abstain")
OF_A_VOTE = ("topic", "threshold", "eligible", "deadline", "status")
SEVERITIES = ("critical", "high", "medium", "low")


@dataclass(slots=True)
class Row:
    """One last value. `at` is when it was accepted, in seconds since 1970; `mark` changes when it is drawn anew."""

    key: str
    seq: int
    timestamp: str
    at: float
    stale: bool

    @property
    def mark(self) -> Hashable:
        return self.seq, self.stale


@dataclass(slots=True)
class Task(Row):
    name: str
    status: str
    progress: float | None
    message: str
    agent: str
    error: str
    duration: float | None
    started: str
    since: float  # when it began to be in this status, as far as is known


@dataclass(slots=True)
class Agent(Row):
    status: str
    task: str
    reason: str
    type: str
    host: str
    errors: int


@dataclass(slots=True)
class Question(Row):
    question: str
    options: list[str]
    default: str | None
    details: str
    by: str
    deadline: str


@dataclass(slots=True)
class Vote(Row):
    topic: str = ""
    threshold: str = ""
    eligible: int | None = None
    deadline: str = ""
    status: str = "open"
    first: str = ""  # the timestamp of the first cast that is known
    ballots: dict[str, str] = field(default_factory=dict)

    def count(self, option: str) -> int:
        return sum(chosen == option for chosen in self.ballots.values())


@dataclass(slots=True)
class Threat(Row):
    type: str
    severity: str
    source: str
    risk: float | None
    mitigated: bool
    details: str

    @property
    def is_open(self) -> bool:
        return not self.mitigated


R = TypeVar("R", bound=Row)


class Groups(Generic[R]):
    """Rows by key, and their keys by group. Taking one in costs the same however many there are."""

    def __init__(self) -> None:
        self.all: dict[str, R] = {}
        self._group: dict[str, str] = {}
        self._groups: dict[str, dict[str, R]] = {}

    def put(self, row: R, group: str) -> None:
        self.remove(row.key)
        self.all[row.key], self._group[row.key] = row, group
        self._groups.setdefault(group, {})[row.key] = row

    def remove(self, key: str) -> None:
        if self.all.pop(key, None) is not None:
            del self._groups[self._group.pop(key)][key]

    def __getitem__(self, group: str) -> Mapping[str, R]:
        return self._groups.get(group, {})


class Slices:
    """Counts the seconds that are taken of the loop, and gives everybody else a turn behind each SLICE of them."""

    def __init__(self) -> None:
        self._took, self._began = 0.0, time.perf_counter()

    @property
    def took(self) -> float:
        return self._took + time.perf_counter() - self._began

    async def turn(self) -> None:
        """Between two steps: let the others run, if the slice is over."""
        if time.perf_counter() - self._began > SLICE:
            self._took = self.took
            await asyncio.sleep(0)
            self._began = time.perf_counter()


class Board:
    """The hub's tasks, agents, questions, votes and threats, as the page's panels take them."""

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self._one = asyncio.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """At the start, and with another epoch: nothing of before need be true."""
        self.position = self.since = 0  # what it shows is true there; votes and threats are known from `since` on
        self.tasks: Groups[Task] = Groups()
        self.agents: Groups[Agent] = Groups()
        self.working: dict[tuple[str, str], dict[str, Task]] = {}  # running tasks, see `_line_of`
        self.questions: dict[str, Question] = {}
        self.votes: dict[str, Vote] = {}
        self.threats: deque[Threat] = deque(maxlen=THREATS)
        self.memory: dict[str, Any] | None = None
        self.seen: dict[str, int] = {}  # by the key of hub:seen: the number of the event that was seen
        self.failed_at = ""  # the timestamp of the newest failure
        self._dropped = self.hub.state.dropped
        self._epoch = self.hub.broker.epoch

    async def catch_up(self, slices: "Slices | None" = None) -> None:
        """Take in what has changed since the last time, in turns with everybody else."""
        async with self._one:
            if self._epoch != self.hub.broker.epoch:
                self._begin_anew()
            if (head := self.hub.window.head) == self.position:
                return
            await self._take(self._news(head), slices or Slices())
            self.position = head
            if self.hub.state.dropped != self._dropped:
                self._forget()

    def _news(self, head: int) -> list[tuple[Event, bool]]:
        """What has changed, in order: last values, and what counts one by one (casts and threats) by the events in
        memory. Where those begin later than where this is, only the last of what lies between is known."""
        after = max(self.position, self.hub.window.tail - 1)
        if after > self.position or not self.since:
            self.since = after + 1
        changed = self.hub.state.changed(self.position)
        values = [(event, stale) for event, stale in changed if event.name not in STREAMED or event.seq <= after]
        happened = self.hub.window.between(after, head)
        return values + [(event, False) for event in happened if event.name in STREAMED]

    async def _take(self, news: list[tuple[Event, bool]], slices: "Slices") -> None:
        for event, stale in news:
            if (take := TAKES.get(event.name)) is not None and not event.withheld:
                take(self, event, stale)
            await slices.turn()

    def _forget(self) -> None:
        """Let go of what the hub has had no room for any more."""
        self._dropped, get = self.hub.state.dropped, self.hub.state.get
        for key in [key for key in self.tasks.all if get("task:progress", key) is None]:
            self._end(key)
            self.tasks.remove(key)
        for key in [key for key in self.agents.all if get("agent:status_change", key) is None]:
            self.agents.remove(key)
        self.questions = {key: row for key, row in self.questions.items() if get("hub:question", key) is not None}
        self.seen = {key: seq for key, seq in self.seen.items() if get("hub:seen", key) is not None}

    # ---- one by one

    def _task(self, event: Event, stale: bool) -> None:
        data, before = event.data, self.tasks.all.get(event.key or "")
        status = data.get("status") or "running"
        started, at = text(data.get("started_at")), epoch(event.timestamp) or 0.0
        since = epoch(started) if status == "running" else None
        if since is None:
            since = before.since if before and before.status == status else at
        row = Task(
            **_basics(event, stale),
            name=_line(data.get("name")) or _line(event.key),
            status=status,
            progress=data.get("progress"),
            message=_line(data.get("message")),
            agent=_line(data.get("agent")),
            error=_line(data.get("error")),
            duration=data.get("duration_ms"),
            started=started,
            since=since,
        )
        self._end(row.key)
        self.tasks.put(row, status)
        if status == "running":
            self.working.setdefault(_line_of(row), {})[row.key] = row
        elif status == "failed":
            self.failed_at = max(self.failed_at, row.timestamp)

    def _end(self, key: str) -> None:
        """The task is no longer among its agent's running ones."""
        before = self.tasks.all.get(key)
        if before is not None and (mine := self.working.get(_line_of(before))):
            mine.pop(key, None)
            if not mine:
                del self.working[_line_of(before)]

    def _agent(self, event: Event, stale: bool) -> None:
        data = event.data
        row = Agent(
            **_basics(event, stale),
            status=data["status"],
            task=_line(data.get("task")),
            reason=_line(data.get("reason")),
            type=_line(data.get("type")),
            host=_line(data.get("host")),
            errors=data.get("error_count") or 0,
        )
        self.agents.put(row, row.status)
        if row.status == "error":
            self.failed_at = max(self.failed_at, row.timestamp)

    def _question(self, event: Event, stale: bool) -> None:
        data = event.data
        self.questions.pop(event.key or "", None)
        if data.get("status") == "open":
            details = data.get("details")
            self.questions[event.key or ""] = Question(
                **_basics(event, stale) | {"timestamp": data["asked_at"], "at": epoch(data["asked_at"]) or 0.0},
                question=cut(data["question"], 1000),
                options=data["options"],
                default=data.get("default"),
                details=outline(details) if details is not None else "",
                by=_line(data.get("asked_by")),
                deadline=data["deadline"],
            )

    def _cast(self, event: Event, stale: bool) -> None:
        """Count one cast: of an agent the newest option counts; a `votes` mapping replaces all before it."""
        data, key = event.data, event.key or ""
        vote = self.votes.get(key)
        if vote is not None and event.seq <= vote.seq:
            vote.stale = stale
            return
        if vote is None:
            if len(self.votes) >= VOTES:
                del self.votes[next(iter(self.votes))]
            vote = self.votes[key] = Vote(**_basics(event, stale), first=event.timestamp)
        for name in OF_A_VOTE:
            if data.get(name) is not None:
                value = data[name]
                setattr(vote, name, _line(value) if isinstance(value, str) else value)
        if isinstance(data.get("votes"), dict):
            vote.ballots = dict(data["votes"])
        if isinstance(data.get("agent"), str) and isinstance(data.get("option"), str):
            vote.ballots[data["agent"]] = data["option"]
        vote.seq, vote.stale = event.seq, stale

    def _threat(self, event: Event, stale: bool) -> None:
        data = event.data
        details = data.get("details")
        self.threats.append(
            Threat(
                **_basics(event, stale) | {"key": str(event.seq)},
                type=_line(data["type"]),
                severity=data["severity"],
                source=_line(data.get("source")),
                risk=data.get("risk_score"),
                mitigated=data.get("mitigated") is True,
                details=outline(details) if details is not None else "",
            )
        )

    def _memory(self, event: Event, stale: bool) -> None:
        self.memory = {**event.data, "stale": stale}

    def _seen(self, event: Event, stale: bool) -> None:
        self.seen[event.key or ""] = event.data["seq"]

    # ---- what several panels ask

    def is_seen(self, event: str, row: Row) -> bool:
        """Whether a person has seen this value as it is."""
        return self.seen.get(f"{event} {row.key}") == row.seq

    @property
    def is_empty(self) -> bool:
        return not (self.tasks.all or self.agents.all or self.questions or self.votes or self.threats)

    def approvals(self) -> Mapping[str, Task]:
        return self.tasks["waiting_approval"]

    def open_votes(self) -> list[Vote]:
        return [vote for vote in self.votes.values() if vote.status == "open"]

    def open_threats(self) -> list[Threat]:
        return [threat for threat in self.threats if threat.is_open]

    def failed_tasks(self) -> list[Task]:
        return [row for row in self.tasks["failed"].values() if not self.is_seen("task:progress", row)]

    def failed_agents(self) -> list[Agent]:
        return [row for row in self.agents["error"].values() if not self.is_seen("agent:status_change", row)]


STREAMED = {"governance:vote_cast", "security:threat_detected"}
TAKES: Mapping[str, Callable[[Board, Event, bool], None]] = {
    "task:progress": Board._task,
    "agent:status_change": Board._agent,
    "hub:question": Board._question,
    "memory:stats_update": Board._memory,
    "hub:seen": Board._seen,
    "governance:vote_cast": Board._cast,
    "security:threat_detected": Board._threat,
}


def _line_of(task: Task) -> tuple[str, str]:
    """Tasks of one agent stand together; without one, each by itself."""
    return (task.agent, "") if task.agent else ("", task.key)


def _basics(event: Event, stale: bool) -> dict[str, Any]:
    return {
        "key": event.key or "",
        "seq": event.seq,
        "timestamp": event.timestamp,
        "at": epoch(event.timestamp) or 0.0,
        "stale": stale,
    }


def _line(value: object) -> str:
    """As much of a text as a row shows."""
    return cut(text(value), 300)
