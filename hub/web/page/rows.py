"""What the page's panels show, as rows: a last value each, or one threat, or what was cast of one vote."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...stream.events import Event
from .formats import cut, epoch, outline, seen, text, unfolded

KEY = 300  # characters of a text in one line, and of what names another row
QUESTION = 4200  # of a question: all that a hook asks

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
    seen: bool = field(default=False, kw_only=True)  # by a person, as it is; known of what is drawn with a mark on it

    @property
    def mark(self) -> Hashable:
        return self.seq, self.stale, self.seen


@dataclass(slots=True)
class Task(Row):
    name: str
    status: str
    progress: float | None
    message: str
    agent: str
    error: str
    duration: float | None
    started: str  # when it began to be in this status, as far as is known
    since: float  # the same in seconds since 1970


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
    details: str  # what else is said of it
    by: str
    deadline: str
    agent: str  # whose question it is, if its details name one
    task: str  # what waits for it, likewise
    about: str = field(default="", kw_only=True)  # the name of that task, as far as it is known

    @property
    def mark(self) -> Hashable:
        return self.seq, self.about


@dataclass(slots=True)
class Vote(Row):
    topic: str = ""
    threshold: str = ""
    eligible: int | None = None
    deadline: str = ""
    status: str = "open"
    first: str = ""  # the timestamp of the first cast that is known
    ballots: dict[str, str] = field(default_factory=dict)

    def join(self, later: "Vote") -> None:
        """Go on with what was counted later."""
        for name in OF_A_VOTE:
            if getattr(later, name) not in ("", None):
                setattr(self, name, getattr(later, name))
        self.ballots |= later.ballots
        self.seq, self.stale = later.seq, later.stale

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


# ---- from an event to its row


def task_row(event: Event, stale: bool, before: Task | None) -> Task:
    """The row of a task; `before` is what is known of it."""
    data = event.data
    status = data.get("status") or "running"
    started = text(data.get("started_at")) if status == "running" else ""
    if epoch(started) is None:
        started = before.started if before and before.status == status else event.timestamp
    return Task(
        **_basics(event, stale),
        name=_line(data.get("name")) or _line(event.key),
        status=status,
        progress=data.get("progress"),
        message=_line(data.get("message")),
        agent=cut(text(data.get("agent")), KEY),
        error=_line(data.get("error")),
        duration=data.get("duration_ms"),
        started=started,
        since=epoch(started) or 0.0,
    )


def agent_row(event: Event, stale: bool) -> Agent:
    """The row of an agent."""
    data = event.data
    return Agent(
        **_basics(event, stale),
        status=data["status"],
        task=cut(text(data.get("task")), KEY),
        reason=_line(data.get("reason")),
        type=_line(data.get("type")),
        host=_line(data.get("host")),
        errors=data.get("error_count") or 0,
    )


def question_row(event: Event, stale: bool) -> Question:
    """The row of an open question; as old as the question is."""
    data = event.data
    details = data.get("details")
    named = details if isinstance(details, dict) else {}
    agent, task = (value if isinstance(value := named.get(name), str) else "" for name in ("agent", "task"))
    rest = {name: value for name, value in named.items() if not (name in ("agent", "task") and value in (agent, task))}
    question = unfolded(data["question"], QUESTION)
    rest = _beside(rest, question)
    return Question(
        **_basics(event, stale) | {"timestamp": data["asked_at"], "at": epoch(data["asked_at"]) or 0.0},
        question=question,
        options=data["options"],
        default=data.get("default"),
        details=outline(rest if named else details) if details is not None else "",
        by=_line(data.get("asked_by")),
        deadline=data["deadline"],
        agent=agent,
        task=task,
    )


def _beside(details: Mapping[str, Any], question: str) -> dict[str, Any]:
    """What the details say that the question does not: one as a sender's hook asks it has it all in its text."""
    found = {}
    for name, value in details.items():
        value = _beside(value, question) if isinstance(value, dict) and name == "input" else value
        if value != {} and not (isinstance(value, str) and value in question):
            found[name] = value
    return found


def vote_row(event: Event, stale: bool) -> Vote:
    """The row of a vote of which nothing is counted yet."""
    return Vote(**_basics(event, stale), first=event.timestamp)


def count_cast(vote: Vote, event: Event, stale: bool) -> None:
    """Count one cast: of an agent the newest option counts; a `votes` mapping replaces all before it."""
    data = event.data
    for name in OF_A_VOTE:
        if data.get(name) is not None:
            value = data[name]
            setattr(vote, name, _line(value) if isinstance(value, str) else value)
    if isinstance(data.get("votes"), dict):
        vote.ballots = dict(data["votes"])
    if isinstance(data.get("agent"), str) and isinstance(data.get("option"), str):
        vote.ballots[data["agent"]] = data["option"]
    vote.seq, vote.stale = event.seq, stale


def threat_row(event: Event, stale: bool) -> Threat:
    """The row of a threat, whose key is its number."""
    data = event.data
    details = data.get("details")
    return Threat(
        **_basics(event, stale) | {"key": str(event.seq)},
        type=_line(data["type"]),
        severity=data["severity"],
        source=_line(data.get("source")),
        risk=data.get("risk_score"),
        mitigated=data.get("mitigated") is True,
        details=outline(details) if details is not None else "",
    )


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
    return cut(seen(text(value)[: KEY + 1]), KEY)
