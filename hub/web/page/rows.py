"""What the page's panels show, as rows: a last value each, or one threat, or what was cast of one vote."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ...adapters.waits import of as waits_of
from ...stream.events import Event
from ...stream.liveness import REASON
from ...wire.texts import seen
from ...wire.timestamps import unix_time
from .attempts import RUN_ENDED, Attempt, error_of
from .formats import BLANK, called, cut, outline, text, unfolded
from .told import Lines, is_in, lines_of, told_of

KEY = 300  # characters of a text in one line, and of what names another row
QUESTION = 4200  # of a question: all that a hook asks

CHECKS = "doctor:check"  # by what `hub doctor` tries the hub
OF_A_VOTE = ("topic", "threshold", "eligible", "deadline", "status")
SEVERITIES = ("critical", "high", "medium", "low")
GRAVE = ("critical", "high", "error", "page", "disaster")  # as threats and alerts say it


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

    @property
    def heard(self) -> int:
        """The number with which this was heard first: a mark from then on holds."""
        return self.seq

    @property
    def noticed(self) -> int:
        """The number since which it wants attention as it is."""
        return self.seq


@dataclass(slots=True)
class Task(Row):
    name: str
    status: str
    progress: float | None
    message: str
    agent: str
    error: str
    took: float | None  # milliseconds of the attempt that is over
    began: str  # when the attempt began, as far as is known
    since: float  # the same in seconds since 1970, else when it was heard of
    first: int  # the number with which the attempt was heard of
    overdue: int = field(default=0, kw_only=True)  # of one that did not come: the number of the hub:stale that says so
    asks: int = field(default=1, kw_only=True)  # of one that waits: for how many permissions
    told: int = field(default=0, kw_only=True)  # the number with which its end was heard first
    where: str = field(default="", kw_only=True)  # of one that waits: the folder in which its agent works
    host: str = field(default="", kw_only=True)  # likewise the machine

    @property
    def mark(self) -> Hashable:
        return self.seq, self.stale, self.seen, self.where, self.host

    @property
    def was_lost(self) -> bool:
        """Whether it did not say itself that it failed: what it says last is from before that."""
        return self.error in (REASON, RUN_ENDED)

    @property
    def place(self) -> str:
        """The repository whose run it is, as its id says it."""
        return self.key.removeprefix("github:").rpartition("/")[0] if self.key.startswith("github:") else ""

    @property
    def heard(self) -> int:
        return self.seq if self.overdue else self.told or self.seq

    @property
    def noticed(self) -> int:
        return self.overdue or self.heard


@dataclass(slots=True)
class Agent(Row):
    status: str
    task: str
    reason: str
    type: str
    host: str
    errors: int
    parent: str  # whose subagent it is
    place: str  # the folder in which it works
    waits: bool = field(default=False, kw_only=True)  # for a person; known of what is drawn with it

    @property
    def mark(self) -> Hashable:
        return self.seq, self.stale, self.seen, self.waits, self.place


@dataclass(slots=True)
class Question(Row):
    question: str
    options: list[str]
    default: str | None
    details: Lines  # what else is said of it
    told: Mapping[str, str]  # what is said of each answer
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
    mine: str = ""  # what the person has cast for whom it is drawn

    @property
    def mark(self) -> Hashable:
        return self.seq, self.stale, self.mine

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


@dataclass(slots=True)
class Alert(Row):
    """One that is firing."""

    title: str
    severity: str
    source: str
    summary: str
    began: str  # when it began to fire, as its sender says it, else when it was heard of


@dataclass(slots=True)
class Own(Row):
    """The newest event of a name that has no rows of another kind; the name is its key."""

    text: str = ""


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


def task_row(event: Event, data: Mapping[str, Any], stale: bool, attempt: Attempt) -> Task:
    """The row of a task, whose data and newest attempt these are."""
    basics = _basics(event, stale)
    began = "" if attempt.is_cut else attempt.began
    return Task(
        **basics,
        name=_name(data.get("name"), event.key),
        status=attempt.status,
        progress=data.get("progress"),
        message=_line(attempt.message),
        agent=cut(text(data.get("agent")), KEY),
        error=_line(error_of(data)),
        took=attempt.took,
        began=began,
        told=attempt.told,
        first=attempt.first,
        since=basics["at"] if began in ("", event.timestamp) else unix_time(began) or basics["at"],
        asks=sum("asks" in entry for entry in waits_of(data)),
    )


def agent_row(event: Event, stale: bool) -> Agent:
    """The row of an agent."""
    data = event.data
    return Agent(
        **_basics(event, stale),
        status=data["status"],
        task=_line(data.get("task")),
        reason=_line(data.get("reason")),
        type=_line(data.get("type")),
        host=_line(data.get("host")),
        errors=data.get("error_count") or 0,
        parent=cut(text(data.get("parent")), KEY),
        place=_line(data.get("cwd")),
    )


def place_of(question: Mapping[str, Any]) -> tuple[str, str] | None:
    """The agent that has asked a question, and the folder from which it did, where its details name both."""
    details = question.get("details")
    agent, place = (details.get("agent"), details.get("cwd")) if isinstance(details, dict) else (None, None)
    return (agent, _line(place)) if isinstance(agent, str) and isinstance(place, str) and _line(place) else None


def question_row(event: Event, data: Mapping[str, Any], stale: bool) -> Question:
    """The row of an open question; as old as the question is."""
    details = data.get("details")
    named = details if isinstance(details, dict) else {}
    agent, task = (value if isinstance(value := named.get(name), str) else "" for name in ("agent", "task"))
    rest = {name: value for name, value in named.items() if not (name in ("agent", "task") and value in (agent, task))}
    question = called(unfolded(data["question"], QUESTION))
    told = told_of(details, data["options"])
    return Question(
        **_basics(event, stale) | {"timestamp": data["asked_at"], "at": unix_time(data["asked_at"]) or 0.0},
        question=question,
        options=data["options"],
        default=data.get("default"),
        details=lines_of(rest if named else details, question, is_told=told is not None),
        told=told or {},
        by=_line(data.get("asked_by")),
        deadline=data["deadline"],
        agent=agent,
        task=task,
    )


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
        type=_name(data["type"]),
        severity=data["severity"],
        source=_line(data.get("source")),
        risk=data.get("risk_score"),
        mitigated=data.get("mitigated") is True,
        details="" if is_in(details, f"{data['type']} {data.get('source')}") else outline(details),
    )


def alert_row(event: Event, stale: bool) -> Alert:
    """The row of an alert."""
    data = event.data
    began = data.get("started_at")
    return Alert(
        **_basics(event, stale),
        title=_name(data.get("title"), event.key),
        severity=_line(data.get("severity")),
        source=_line(data.get("source")),
        summary=_line(data.get("description")),
        began=began if unix_time(began) is not None else event.timestamp,
    )


def own_row(event: Event) -> Own:
    """The row of an event that is the newest of its name."""
    return Own(**_basics(event, False) | {"key": event.name})


def _basics(event: Event, stale: bool) -> dict[str, Any]:
    return {
        "key": event.key or "",
        "seq": event.seq,
        "timestamp": event.timestamp,
        "at": unix_time(event.timestamp) or 0.0,
        "stale": stale,
    }


def _name(*values: object) -> str:
    """What something is called: the first of these in which something is to be seen."""
    *firsts, last = (text(value)[: KEY + 1] for value in values)
    return cut(called(*map(_line, firsts), seen(last)), KEY)


def _line(value: object) -> str:
    """As much of a text as a row shows; nothing of one in which nothing is to be seen."""
    shown = text(value)[: KEY + 1]
    return "" if BLANK.fullmatch(shown) else cut(seen(shown).strip(), KEY)
