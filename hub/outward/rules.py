"""What a person is told of: events in, messages out. No clock, no socket."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from ..configfile.shapes import Notify, Rule
from ..stream.events import Event
from ..stream.liveness import REASON
from ..stream.tasks import OVER, End, end_of
from ..wire.names import Patterns
from ..wire.texts import seen

LONGEST_TITLE = 120  # characters
LONGEST_TEXT = 500
MOST = 20_000  # tasks and agents of which is known how they stand
QUESTION, TASK, AGENT, STALE = "hub:question", "task:progress", "agent:status_change", "hub:stale"
PRIORITY: Mapping[str, int] = {
    "question": 4,
    "task_failed": 4,
    "task_succeeded": 3,
    "agent_error": 4,
    "stale": 4,
}
TAGS: Mapping[str, str] = {
    "question": "question",
    "task_failed": "x",
    "task_succeeded": "white_check_mark",
    "agent_error": "rotating_light",
    "stale": "hourglass",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to a person. `id` tells it from all others, at a later start, too; `seq` is the number of its event;
    `page` what the hub's address ends with, to look at it; `due` when to tell it, in seconds since 1970, 0 for at once.
    `while_` is the last value and the status for as long as which it is true: `(name, key, status)`; `subject` what it
    is about: messages about the same are told in their order."""

    id: str
    seq: int
    rule: str
    title: str
    message: str
    priority: int
    tags: tuple[str, ...] = ()
    page: str = ""
    due: float = 0.0
    while_: tuple[str, str, str] | None = None
    subject: tuple[str, ...]
    event: Mapping[str, Any]
    size: int  # bytes of its event


class Stand(NamedTuple):
    """How a task or an agent stands: its status, the end that was told last, since when it is on its way (None if it is
    not), what it is called, and whether it was the kernel that told its end."""

    status: str | None
    ended: End | None
    since: float | None
    name: str
    is_gone: bool = False


class Rules:
    """The rules of one hub.toml, and what they must know of tasks and agents: since when one runs, how it stands."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._own = [(rule, Patterns(rule.topics)) for rule in notify.own]
        self._stands: dict[tuple[str, str], Stand] = {}  # by event and key

    def begin(self, events: Iterable[Event]) -> None:
        """Take how things stand without telling of it."""
        for event in events:
            if event.name in (TASK, AGENT) and event.key is not None:
                self._moved(event, event.data)

    def of(self, event: Event) -> Iterator[Message]:
        """What is told of this event."""
        if event.name == QUESTION:
            yield from self._question(event, event.data)
        elif event.name == TASK:
            yield from self._task(event, event.data)
        elif event.name == AGENT:
            yield from self._agent(event, event.data)
        elif event.name == STALE:
            yield from self._stale(event, event.data)
        for rule, patterns in self._own:
            if patterns.match(event.name):
                yield self._of_own(rule, event)

    # ---- the hub's own

    def _question(self, event: Event, data: Mapping[str, Any]) -> Iterator[Message]:
        if data["status"] != "open" or "question" not in self._notify.rules:
            return
        details = data.get("details")
        agent = details.get("agent") if isinstance(details, dict) else None
        is_agents = isinstance(agent, str)
        who, colon, what = str(data["question"]).partition(": ")
        if not is_agents or not colon:
            who, what = str(agent if is_agents else data["asked_by"]), str(data["question"])
        due = seconds(data["asked_at"]) + self._notify.question_after
        yield self._message(
            "question", event, f"{who} asks", what,
            id=f"question:{data['id']}", page=f"#q-{data['id']}", due=due, status="open",
            tags=("robot",) if is_agents else None,
        )  # fmt: skip

    def _task(self, event: Event, data: Mapping[str, Any]) -> Iterator[Message]:
        _, ended, since = self._moved(event, data)
        status, end = data.get("status"), end_of(data, ended)
        if end is None or end == ended:
            return
        took = _took(event, data, since)
        name, page = _name(event, data), _page(event.name, event.key)
        if status == "failed" and "task_failed" in self._notify.rules:
            said = dict.fromkeys(str(data[each]) for each in ("error", "message") if data.get(each))
            text = " · ".join(said) or "It failed."
            yield self._message("task_failed", event, f"{name} failed", text, page=page, status=status)
        elif status == "succeeded" and took > self._notify.success_after and "task_succeeded" in self._notify.rules:
            text = f"It took {spoken(took)}."
            yield self._message("task_succeeded", event, f"{name} is done", text, page=page, status=status)

    def _agent(self, event: Event, data: Mapping[str, Any]) -> Iterator[Message]:
        before, _, _ = self._moved(event, data)
        if data["status"] == "error" != before and "agent_error" in self._notify.rules:
            text = str(data.get("reason") or data.get("task") or "It does not say why.")
            page = _page(event.name, event.key)
            yield self._message("agent_error", event, f"{event.key} is in error", text, page=page, status="error")

    def _stale(self, event: Event, data: Mapping[str, Any]) -> Iterator[Message]:
        if "stale" in self._notify.rules:
            about, key = str(data["event"]), str(data["key"])
            known = self._stands.get((about, key))
            if known and known.is_gone:
                return  # that it does not come any more has been told
            title = f"{known.name if known else key} did not come"
            text = "Nothing was heard of it in time." if known else f"Nothing was heard of it in time: {about}."
            yield self._message("stale", event, title, text, page=_page(about, key), while_=(about, key, STALE))

    def _moved(self, event: Event, data: Mapping[str, Any]) -> tuple[str | None, End | None, float]:
        """Note how a task or agent stands now; return how it stood, how it had ended if it had, and since when it has
        run."""
        place, at = (event.name, event.key or ""), seconds(event.timestamp)
        before, ended, since, *_ = self._stands.pop(place, Stand(None, None, None, ""))
        status = str(data.get("status") or before or "")
        if since is None or status == "running" != before:
            since = at
        end = end_of(data, ended) if data.get("status") else ended
        is_gone = end is not None and data.get("error") == REASON
        self._stands[place] = Stand(status, end, None if status in OVER else since, _name(event, data), is_gone)
        if len(self._stands) > MOST:
            del self._stands[next(iter(self._stands))]
        return before, ended, since

    # ---- the operator's

    def _of_own(self, rule: Rule, event: Event) -> Message:
        data = event.data
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        return Message(
            id=f"{rule.name}:{event.cursor}",
            seq=event.seq,
            rule=rule.name,
            title=cut(rule.title or event.name, LONGEST_TITLE),
            message=cut(text, LONGEST_TEXT),
            priority=rule.priority,
            subject=(event.name, str(event.seq) if event.key is None else event.key),
            event=json.loads(event.json),
            size=event.size,
        )

    @staticmethod
    def _message(
        rule: str,
        event: Event,
        title: str,
        text: str,
        *,
        id: str | None = None,
        page: str = "",
        due: float = 0.0,
        status: str = "",
        while_: tuple[str, str, str] | None = None,
        tags: tuple[str, ...] | None = None,
    ) -> Message:
        stands = while_ or (event.name, event.key or "", status)
        return Message(
            id=id or f"{rule}:{event.cursor}",
            seq=event.seq,
            rule=rule,
            title=cut(title, LONGEST_TITLE),
            message=cut(text, LONGEST_TEXT),
            priority=PRIORITY[rule],
            tags=tags or (TAGS[rule],),
            page=page,
            due=due,
            while_=stands,
            subject=stands[:2],
            event=json.loads(event.json),
            size=event.size,
        )


def _name(event: Event, data: Mapping[str, Any]) -> str:
    """What a person calls it: a task by its name, if it has one."""
    return cut(str(data.get("name") or event.key), LONGEST_TITLE)


def _page(name: str, key: str | None) -> str:
    """Where on the page it is looked at."""
    where = {TASK: "task", AGENT: "agent"}.get(name)
    return f"?{where}={quote(key or '', safe='')}" if where else ""


def _took(event: Event, data: Mapping[str, Any], since: float) -> float:
    """How many seconds a task has taken, as it says itself, or as was seen."""
    if isinstance(data.get("duration_ms"), int | float):
        return float(data["duration_ms"]) / 1000
    try:
        end = seconds(data["ended_at"]) if data.get("ended_at") else seconds(event.timestamp)
        return end - seconds(data["started_at"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return seconds(event.timestamp) - since


def seconds(timestamp: str) -> float:
    """A timestamp in seconds since 1970. Raises ValueError."""
    return datetime.fromisoformat(timestamp).timestamp()


def spoken(seconds: float) -> str:
    """How long something took, as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def cut(text: str, most: int) -> str:
    """A text on one line, without what cannot be seen, and not longer than that."""
    text = seen(" ".join(text[: 4 * most].split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"
