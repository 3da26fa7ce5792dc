"""The shape that all adapters have in common: what came, and what it becomes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

ALLOW, DENY, TERMINAL = PERMISSION = ("allow", "deny", "answer in the terminal")
DECLINE, CANCEL = "decline", "cancel"
OWN_WORDS = frozenset({*PERMISSION, DECLINE, CANCEL})
MOST_LABELS = 13  # of a sender's own; a question has 16 options
LONGEST_LABEL, LONGEST_QUESTION = 200, 4000  # characters
MARKED, SMALL = 64, 64  # members of a tool's input that are compared one by one, and characters of what needs no hash


class Last(Protocol):
    """What an adapter may ask: last values, as they are now."""

    def value(self, event: str, key: str) -> Mapping[str, Any] | None:
        """The last value of this event and key, None if there is none."""

    def tasks(self, agent: str) -> list[Mapping[str, Any]]:
        """The tasks of this agent that run or wait for a person, the one longest unchanged first."""

    def subagents(self, agent: str) -> list[Mapping[str, Any]]:
        """The last values of the agents of which this one is the parent."""


@dataclass(frozen=True, slots=True)
class Given:
    """What came: the body, and what stood beside it. `now` is a timestamp; `event` the name in the address; `asks`
    whether a question may be asked; `pid` the process that sends; `size` the bytes of the body. `digest`, of a sender
    whose deliveries may come again, is the same for the same body, and no other."""

    body: Mapping[str, Any]
    last: Last
    now: str
    event: str = ""
    asks: bool = False
    pid: int | None = None
    size: int = 0
    digest: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Event(NamedTuple):
    """An event to publish."""

    name: str
    data: Mapping[str, Any]
    id: str | None = None


class Question(NamedTuple):
    """A question to a person. `decision(n, by)` says in the sender's words that `by` has chosen option `n`; None if
    that decides nothing. `task` is what waits for it."""

    text: str
    options: tuple[str, ...]
    details: Mapping[str, Any]
    task: str
    decision: Callable[[int, str], Mapping[str, Any] | None]


class Tool(NamedTuple):
    """A tool and its input, as a session has told them."""

    name: str
    input: Any


@dataclass(slots=True)
class Taken:
    """What it becomes. `answer` goes back where nothing is decided, None for an empty one. `session` is the agent whose
    questions end if it says that a turn `is_over`, or that a tool of this input `ran`; `actor` that agent, or the
    subagent, whose own end if it `stops`; `over` are the turns that this ends. Whether its `tool` `starts`, or `waits`
    for a permission. `call` is the id of that call, of a sender who says of each that it starts, before it asks for a
    permission, and that it has run."""

    events: list[Event] = field(default_factory=list)
    question: Question | None = None
    answer: Mapping[str, Any] | None = field(default_factory=dict)
    session: str = ""
    actor: str = ""
    call: str = ""
    tool: Tool | None = None
    ran: Tool | None = None
    starts: bool = False
    waits: bool = False
    is_over: bool = False
    over: frozenset[str] = frozenset()
    stops: bool = False
    is_known: bool = True


def passed_over(answer: Mapping[str, Any] | None) -> Taken:
    """Nothing that is known."""
    return Taken(answer=answer, is_known=False)


def is_same_call(asked: Tool, ran: Tool) -> bool:
    """Whether the tool that ran is the one that was asked about. Senders fill in defaults meanwhile: what stands in
    both must be the same, and that must be something."""
    if asked.name != ran.name or not (isinstance(asked.input, dict) and isinstance(ran.input, dict)):
        return asked == ran
    both = asked.input.keys() & ran.input.keys()
    return all(asked.input[name] == ran.input[name] for name in both) and bool(both or asked.input == ran.input)


def marked(tool: Tool) -> Tool:
    """The tool with its input as far as `is_same_call` needs it: each member, or the hash of one that is large."""
    if not isinstance(tool.input, dict):
        return Tool(tool.name, _mark(tool.input))
    names = sorted(tool.input)
    found = {_mark(name): _mark(tool.input[name]) for name in names[:MARKED]}
    if len(names) > MARKED:
        found[""] = _mark({name: tool.input[name] for name in names[MARKED:]})
    return Tool(tool.name, found)


def _mark(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= SMALL):
        return value
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
