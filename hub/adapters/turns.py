"""Sessions, turns and tools of an agent, whoever it is: from what a hook says to events.

A turn is one task, and its last value is the whole of it: so what is known of it goes on with each event. Hooks arrive
late and in any order: what runs does not reopen a turn that is over, what ends one counts also then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import waits
from .reading import LINE, between, shortened, text
from .shape import Event, Given
from .waits import PENDING, WAITING, Entry

Kind = Literal[
    "session_start",
    "prompt",
    "tool_started",
    "tool_finished",
    "tool_failed",
    "waiting",
    "stop",
    "failure",
    "interrupt",
    "subagent_start",
    "subagent_stop",
    "session_end",
    "item_created",
    "item_completed",
    "notification",
    "compaction",
]
STATUS, TASK, CALL = "agent:status_change", "task:progress", "agent:tool_call"
OVER = frozenset({"succeeded", "failed", "cancelled"})
TURN = "turn"  # of a sender that does not name its turns
ITEM = "/task-"  # what an agent has put down to do: no turn
CARRIED = ("name", "started_at", "message", "progress")  # what goes on with a task

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What a hook has said, in the words of no sender. `said` is a line for people: a prompt, a message, a subject.

    `is_named`: the turn has an id of its own, so that a prompt cannot mean the next one. `mark` tells the input of its
    tool, see `waits`; `begins`: a call that waits begins with that."""

    kind: Kind
    sender: str
    session: str
    turn: str = ""
    is_named: bool = False
    subagent: str = ""
    subagent_type: str = ""
    said: str = ""
    reason: str = ""
    error: str = ""
    tool: str = ""
    summary: str = ""
    mark: str | None = None
    begins: bool = False
    call: str = ""
    item: str = ""
    took: float | None = None
    at: str | None = None  # when it was sent, if it says so

    @property
    def agent(self) -> str:
        return f"{self.sender}:{self.session}"

    @property
    def actor(self) -> str:
        """The agent, or the subagent that it was."""
        return f"{self.agent}/{self.subagent}" if self.subagent else self.agent

    @property
    def line(self) -> str:
        """`Bash: pytest`."""
        return shortened(f"{self.tool}: {self.summary}" if self.summary else self.tool, LINE)


def events(hook: Hook, given: Given) -> list[Event]:
    """What a hook becomes."""
    found = _EVENTS[hook.kind](hook, given)
    return [*_moved_on(hook, given, found), *found]


def _moved_on(hook: Hook, given: Given, found: list[Event]) -> list[Event]:
    """That the session goes on in another process than was known, if nothing else says so: the end of the first is not
    its end."""
    known = given.last.value(STATUS, hook.agent) or {}
    is_told = any(event.name == STATUS and event.data["id"] == hook.agent for event in found)
    if given.pid is None or is_told or known.get("status") == "stopped" or known.get("pid") in (None, given.pid):
        return []
    return [_agent(hook, given, str(known["status"]), **_kept(known, "task", "reason"))]


def task_of(hook: Hook, given: Given) -> str:
    """The id of the turn that is meant: the one that is named, else the one that is open."""
    if hook.turn:
        return f"{hook.agent}/{hook.turn}"
    opened = [] if hook.kind == "prompt" else _turns(hook, given)
    return str(opened[-1]["id"]) if opened else f"{hook.agent}/{TURN}"


def closes(hook: Hook, given: Given) -> bool:
    """Whether an end is one of all that goes on in the session: hooks run in parallel, and that of an earlier turn may
    come when a later one has begun."""
    return hook.kind == "session_end" or not _others(hook, given)


def _others(hook: Hook, given: Given) -> list[Data]:
    """The turns that are open beside the one that is meant."""
    task = task_of(hook, given)
    return [turn for turn in _turns(hook, given) if turn["id"] != task]


def over(hook: Hook, found: list[Event]) -> frozenset[str]:
    """The turns that are over with what this hook has become: also the one before, of a sender that names none."""
    turns = [event.data for event in found if event.name == TASK]
    begins_anew = hook.kind == "prompt" and not hook.is_named
    return frozenset(str(turn["id"]) for turn in turns if begins_anew or turn["status"] in OVER)


def resumed(agent: str, task: str, given: Given, wait: Entry) -> list[Event]:
    """A person has decided: the turn goes on, if it waits for nothing else."""
    known = given.last.value(TASK, task)
    rest = waits.decided(before := waits.of(known), wait)
    return [] if rest == before else [_goes_on(agent, task, known, rest)]


# ---- sessions


def _session_start(hook: Hook, given: Given) -> list[Event]:
    known = given.last.value(STATUS, hook.agent) or {}
    goes_on = hook.reason == "compact" and known.get("status") == "active"  # in the middle of a turn
    more = {"reason": hook.reason} if hook.reason else {}
    if goes_on:
        return [_agent(hook, given, "active", **_kept(known, "task"), **more)]
    return [_agent(hook, given, "idle", **more)]


def _session_end(hook: Hook, given: Given) -> list[Event]:
    more = {"reason": hook.reason} if hook.reason else {}
    ended = [_ended(hook, given, str(turn["id"]), "cancelled") for turn in _turns(hook, given)]
    left = [_event(STATUS, **part, status="stopped") for part in _at_work(hook, given)]
    return [_agent(hook, given, "stopped", **more), *left, *ended]


def _at_work(hook: Hook, given: Given) -> list[dict[str, Any]]:
    """The subagents of this session that nobody has said the end of."""
    known = given.last.subagents(hook.agent)
    return [_kept(part, "id", "type", "parent") for part in known if part.get("status") != "stopped"]


def _subagent_start(hook: Hook, given: Given) -> list[Event]:
    """It begins, or goes on in a later turn. One that has stopped in this very turn, or whose session is over, has only
    come late."""
    known = given.last.value(STATUS, hook.actor) or {}
    session = given.last.value(STATUS, hook.agent) or {}
    is_late = session.get("status") == "stopped"
    if known.get("status") == "stopped":
        ended = known.get("ended_at")
        if hook.at and isinstance(ended, str) and not hook.is_named:
            is_late |= hook.at <= ended
        else:
            is_late |= known.get("turn", "") == hook.turn
    return [] if is_late else [_subagent(hook, given, "active")]


def _subagent_stop(hook: Hook, given: Given) -> list[Event]:
    more = {"turn": hook.turn, "ended_at": hook.at}
    stopped = _subagent(hook, given, "stopped", **{name: value for name, value in more.items() if value})
    before = _pending(hook, given)
    return [stopped, *_moved(hook, given, rest)] if (rest := waits.left(before, hook.subagent)) != before else [stopped]


# ---- turns


def _prompt(hook: Hook, given: Given) -> list[Event]:
    """A turn begins. One before it that has not ended was interrupted: not every sender says so."""
    task = task_of(hook, given)
    known = given.last.value(TASK, task)
    if _is_late(hook, known):
        return []
    begun = hook.at or given.now
    before = [str(turn["id"]) for turn in _others(hook, given)]
    named = {"name": hook.said} if hook.said else {}
    if hook.is_named and (pending := waits.of(known)):  # only its prompt is late, what it waits for is not over
        turn = _goes_on(hook.agent, task, known, pending, **named)
    else:
        turn = _event(TASK, id=task, status="running", agent=hook.agent, started_at=begun, **named)
    return [
        *(_ended(hook, given, other, "cancelled") for other in before),
        _agent(hook, given, "active", **({"task": hook.said} if hook.said else {})),
        turn,
    ]


def _is_late(hook: Hook, known: Data | None) -> bool:
    """Whether this prompt belongs to a turn that is over: it has the turn's own id, or was sent before the end."""
    if known is None or known.get("status") not in OVER:
        return False
    ended = known.get("ended_at")
    return hook.is_named or bool(hook.at and isinstance(ended, str) and hook.at < ended)


def _end(status: str, agent: str) -> Callable[[Hook, Given], list[Event]]:
    def end(hook: Hook, given: Given) -> list[Event]:
        task = task_of(hook, given)
        found = []
        known = given.last.value(STATUS, hook.agent) or {}
        if not _others(hook, given) and known.get("status") != "stopped":
            error = {"reason": hook.error} if hook.error else {}
            found.append(_agent(hook, given, agent, tasks_in_progress=0, **error))
        return [*found, _ended(hook, given, task, status)]

    return end


def _ended(hook: Hook, given: Given, task: str, status: str) -> Event:
    known = given.last.value(TASK, task) or {}
    ended = hook.at or given.now
    more: dict[str, Any] = {"ended_at": ended}
    if (took := between(known.get("started_at"), ended)) is not None:
        more["duration_ms"] = took
    if status == "succeeded":
        more["progress"] = 100
    if status == "failed":
        more["error"] = hook.error or "failed"
    return _task(hook.agent, task, status, known, **more)


def _waiting(hook: Hook, given: Given) -> list[Event]:
    said = hook.said or hook.line
    return _moved(hook, given, waits.asked(_pending(hook, given), _told(hook), said, begins=hook.begins), said)


def _told(hook: Hook) -> Entry:
    return waits.call(hook.tool, hook.mark, hook.call, hook.subagent)


def _pending(hook: Hook, given: Given) -> list[Entry]:
    return waits.of(given.last.value(TASK, task_of(hook, given)))


def _moved(hook: Hook, given: Given, pending: list[Entry], message: str = "") -> list[Event]:
    """A turn moves on, unless it is over; and so is one that nobody knows of a session that is."""
    task = task_of(hook, given)
    known = given.last.value(TASK, task)
    if (known or {}).get("status") in OVER:
        return []
    if known is None and (given.last.value(STATUS, hook.agent) or {}).get("status") == "stopped":
        return []
    return [_goes_on(hook.agent, task, known, pending, **({"message": message} if message else {}))]


def _goes_on(agent: str, task: str, known: Data | None, pending: list[Entry], **more: Any) -> Event:
    """It waits as long as anything of it does, whatever else runs beside that."""
    if pending:
        more[PENDING] = pending
    if asks := waits.line(pending):
        return _task(agent, task, WAITING, known, **{**more, "message": asks})
    return _task(agent, task, "running", known, **more)


# ---- tools


def _beside(hook: Hook, given: Given, pending: list[Entry], message: str = "") -> list[Event]:
    """The turn moves on, unless it waits for what it has waited for."""
    waits_on = pending == _pending(hook, given) and waits.line(pending)
    return [] if waits_on else _moved(hook, given, pending, message)


def _tool_started(hook: Hook, given: Given) -> list[Event]:
    pending = waits.started(_pending(hook, given), _told(hook))
    return [_call(hook, given, "started"), *_beside(hook, given, pending, hook.line)]


def _tool_finished(hook: Hook, given: Given) -> list[Event]:
    return [_call(hook, given, "finished"), *_beside(hook, given, waits.ended(_pending(hook, given), _told(hook)))]


def _tool_failed(hook: Hook, given: Given) -> list[Event]:
    rest = waits.ended(before := _pending(hook, given), _told(hook))
    return [_call(hook, given, "failed"), *(_moved(hook, given, rest) if rest != before else [])]


def _call(hook: Hook, given: Given, phase: str) -> Event:
    more: dict[str, Any] = {"call": hook.call, "summary": hook.summary, "error": hook.error}
    found = {name: value for name, value in more.items() if value}
    if hook.took is not None:
        found["duration_ms"] = hook.took
    return _event(CALL, agent=hook.actor, tool=hook.tool, phase=phase, task=task_of(hook, given), **found)


# ---- what else there is


def _item(status: str, **more: Any) -> Callable[[Hook, Given], list[Event]]:
    def item(hook: Hook, given: Given) -> list[Event]:
        task = f"{hook.agent}{ITEM}{hook.item}"
        known = given.last.value(TASK, task) or {}
        if status not in OVER and known.get("status") in OVER:
            return []
        named = {"name": hook.said} if hook.said else {}
        return [_task(hook.agent, task, status, known, **named, **more)]

    return item


def _notification(hook: Hook, given: Given) -> list[Event]:
    said = {"message": hook.said} if hook.said else {}
    return [_event("agent:notification", agent=hook.actor, kind=hook.reason or "notification", **said)]


def _compaction(hook: Hook, given: Given) -> list[Event]:
    return [_event("agent:compaction", agent=hook.actor, trigger=hook.reason)]


_EVENTS: Mapping[Kind, Callable[[Hook, Given], list[Event]]] = {
    "session_start": _session_start,
    "prompt": _prompt,
    "tool_started": _tool_started,
    "tool_finished": _tool_finished,
    "tool_failed": _tool_failed,
    "waiting": _waiting,
    "stop": _end("succeeded", "idle"),
    "failure": _end("failed", "error"),
    "interrupt": _end("cancelled", "idle"),
    "subagent_start": _subagent_start,
    "subagent_stop": _subagent_stop,
    "session_end": _session_end,
    "item_created": _item("queued"),
    "item_completed": _item("succeeded", progress=100),
    "notification": _notification,
    "compaction": _compaction,
}


# ---- from state, and to events


def _turns(hook: Hook, given: Given) -> list[Data]:
    """The open turns of this session, the one longest unchanged first."""
    begin = f"{hook.agent}/"
    found = [task for task in given.last.tasks(hook.agent) if text(task.get("id"), 1000).startswith(begin)]
    return [task for task in found if not str(task["id"]).startswith(f"{hook.agent}{ITEM}")]


def _agent(hook: Hook, given: Given, status: str, **more: Any) -> Event:
    return _event(STATUS, id=hook.agent, status=status, type=hook.sender, **more, **_process(given))


def _subagent(hook: Hook, given: Given, status: str, **more: Any) -> Event:
    known = given.last.value(STATUS, hook.actor) or {}
    kind = hook.subagent_type or known.get("type") or hook.sender
    return _event(STATUS, id=hook.actor, status=status, type=kind, parent=hook.agent, **more, **_process(given))


def _process(given: Given) -> dict[str, int]:
    return {} if given.pid is None else {"pid": given.pid}


def _task(agent: str, task: str, status: str, known: Data | None, **more: Any) -> Event:
    return _event(TASK, **{"id": task, "status": status, "agent": agent, **_kept(known or {}, *CARRIED), **more})


def _kept(known: Data, *names: str) -> dict[str, Any]:
    return {name: known[name] for name in names if known.get(name) is not None}


def _event(event: str, /, **data: Any) -> Event:
    return Event(event, data)
