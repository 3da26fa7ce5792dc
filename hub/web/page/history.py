"""The page's list of events: the newest, those that match a pattern, and back through what is kept."""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import HubError
from ...stream.events import Event
from ...wire.names import Cursor, Patterns, pattern_problem
from .formats import agent, cut, outline, plural, words
from .panel import NOTHING, Asked, Context
from .rows import CHECKS

if TYPE_CHECKING:
    from ...hub import Hub

FEW, MANY = 14, 100  # rows on the whole page, and on a page of their own
NAMES, PAGES = 1000, 30  # names that are looked at in one go, and how often for one page of rows
LINE, PART = 300, 200  # characters of a line, and of one thing that it tells
LOOKED = 500  # events in memory that are looked at for the newest few
SEEN = "hub:seen"
ASIDE = (CHECKS, SEEN)  # of no use to who looks at the page as it is
JSON = 1200  # characters that are shown in place; for more there is a link
PARSED = 8 * 1024  # bytes: what is larger is not looked into
# What is worth a line, in this order: what has become of it stands before its name.
TOLD = (
    "line event question status tool phase progress option severity type action total_entries error message summary "
    "name task"
).split()


@dataclass(slots=True)
class Hole:
    """What is missing between two lines."""

    key: str
    text: str

    @property
    def mark(self) -> str:
        return self.text


@dataclass(slots=True)
class Line:
    """One event of the list. `after` is the cursor before it, for a link to all of it."""

    key: str
    name: str
    timestamp: str
    text: str
    json: str
    is_cut: bool
    after: str

    @property
    def mark(self) -> Hashable:
        return self.after, self.text


def events(hub: "Hub", asked: Asked) -> Context:
    """The newest events that are in memory; what is asked for beyond that, `look_back` has found.

    Some stand there only where they are asked for (ASIDE); that there are some between these is said."""
    if asked != Asked():
        return NOTHING
    window, found, until = hub.window, list[Event](), hub.window.head
    last = max(window.head - LOOKED, window.tail - 1)
    left = dict.fromkeys(ASIDE, 0)
    while until > last and len(found) < FEW:
        (event,) = window.between(until - 1, until)
        if event.name in left:
            left[event.name] += 1
        else:
            found.append(event)
        until -= 1
    return {**_page(hub, found, until, is_all=not any(left.values())), "checks": left[CHECKS], "marks": left[SEEN]}


async def look_back(hub: "Hub", asked: Asked) -> Context:
    """Events of the store, the newest first: those before a number, and that match the filter."""
    if asked == Asked():
        return NOTHING
    problem, meant, patterns = matching(asked.filter)
    if problem:
        return {"rows": (), "problem": problem, "meant": meant, "before": 0, "gone": 0}
    head = hub.window.head
    try:
        until = min(asked.before - 1, head) if asked.before else head
        wanted, until = await numbers(hub, patterns.match, until, MANY)
        found = [event for seq in wanted for event in await hub.broadcaster.pages.read(seq - 1, 1, PARSED)]
    except HubError as error:
        return {"rows": (), "problem": str(error), "before": 0, "gone": 0}
    return {**_page(hub, found, until, is_all=not asked.filter)}


def matching(filter: str) -> tuple[str | None, str, Patterns]:
    """One sentence if the filter is no pattern, and which one was probably meant (else ""); and what it matches. A
    domain alone stands for all of it."""
    given = filter.replace(",", " ").split()
    texts = [text if ":" in text or text == "*" else f"{text}:*" for text in given]
    problem = next((one for one in map(pattern_problem, texts) if one), None)
    if problem is None:
        return None, "", Patterns(texts or ["*"])
    meant = [text if pattern_problem(text) is None else _meant(text) for text in texts]
    return problem, " ".join(meant) if all(meant) else "", Patterns([])


def _meant(text: str) -> str:
    """The pattern in place of one whose last part is a name with a star in it: `task*` is `task:*`, all of that domain;
    "" where that makes none."""
    parts = text.removesuffix(":*").split(":")
    at = next((at for at, part in enumerate(parts) if "*" in part and part != "*"), len(parts))
    name = parts[at].replace("*", "") if at == 0 else ""
    found = ":".join([*parts[:at], *filter(None, [name]), "*"])
    return found if pattern_problem(found) is None else ""


async def numbers(hub: "Hub", wants: Callable[[str], bool], until: int, most: int) -> tuple[list[int], int]:
    """The numbers of the newest events up to `until` whose names are wanted, `most` of them, newest first; and up to
    where nothing was looked at. Raises HubError if the store is away."""
    wanted = list[int]()
    for _ in range(PAGES):
        rows = await hub.broadcaster.pages.names(max(until - NAMES, 0), min(until, NAMES)) if until > 0 else []
        if not rows:
            return wanted, 0
        for seq, name in reversed(rows):
            if seq <= until and wants(name):
                wanted.append(seq)
                if len(wanted) == most:
                    return wanted, seq - 1
        until = min(until, rows[0][0]) - 1
    return wanted, until


def _page(hub: "Hub", found: list[Event], until: int, *, is_all: bool) -> Context:
    """The rows, newest first. `before` leads on; where nothing is kept behind that it is 0, and `gone` events were."""
    is_end = until < hub.broker.tail
    rows: list[tuple[str, Line | Hole]] = []
    for newer, event in zip((None, *found), found, strict=False):
        if newer is not None and (text := missing(newer, event, is_all=is_all)):
            rows.append(("hole", Hole(f"{newer.seq}", text)))
        rows.append(("event", line(event)))
    return {"rows": rows, "before": 0 if is_end else until + 1, "gone": hub.broker.tail - 1, "problem": None}


def missing(newer: Event, older: Event, *, is_all: bool) -> str:
    """What is to be said between two events that stand next to each other; `is_all`: nothing was left out of them."""
    count = newer.seq - older.seq - 1 if is_all else 0
    texts = [f"{plural(count, 'event')} between these {'is' if count == 1 else 'are'} not kept."] if count else []
    if newer.cursor.epoch != older.cursor.epoch:
        texts.append("The hub began a new history here: events that were behind the older one can be gone.")
    return " ".join(texts)


def line(event: Event, of: str = "") -> Line:
    """The line of an event; `of` is the key that need not be said on each."""
    text, whole = "", event.body
    if event.withheld:
        text = "too large to be shown"
    elif len(whole) <= PARSED:
        text, whole = told(event.key, event.data, of), json.dumps(event.data, indent=1, ensure_ascii=False).encode()
    cursor = event.cursor
    after = str(Cursor(cursor.epoch, cursor.seq - 1))
    shown = cut(whole[: 4 * JSON].decode(errors="replace"), JSON)
    return Line(str(event.seq), event.name, event.timestamp, text, shown, len(whole) > len(shown.encode()), after)


def told(key: str | None, data: Any, of: str = "") -> str:
    """One line about an event: its key, and what is worth telling of its data, each thing once."""
    if not isinstance(data, dict):
        return outline(data, LINE)
    if key is None and isinstance(data.get("id"), str):  # of a name that has no last value: it is called all the same
        key = data["id"]
    known = {name: data[name] for name in TOLD if data.get(name) not in (None, "", key, of)}
    if _is_said_by(key, known.get("name")):
        del known["name"]
    answered = _answered(data) if "question" in known else ""
    parts = [answered if answered and name == "status" else _part(name, value) for name, value in known.items()]
    if "event" in known:  # what the hub says of another one: of which
        parts.insert(1, agent(outline(data.get("key"), PART)))
    said = "\N{NO-BREAK SPACE}· ".join(filter(None, dict.fromkeys(parts)))
    rest = said or outline({name: value for name, value in data.items() if value != key}, LINE)
    title = data.get("title") if isinstance(data.get("title"), str) else None  # as of an alert, whose key is a hash
    called = "" if {"event", "question"} & {*known} or key == of else (title and outline(title, PART)) or agent(key)
    return cut(" ".join(text for text in (called, rest) if text), LINE)


def _is_said_by(key: str | None, name: Any) -> bool:
    """Whether the key has this name as its last part: `run:make`."""
    return isinstance(name, str) and (key or "").rpartition(":")[2].casefold() == name.casefold()


def _answered(data: Mapping[str, Any]) -> str:
    """How a question is over, where it has an answer: which, and whose."""
    if data.get("answer") is None:
        return ""
    by = f"by {outline(data['by'], PART)}" if data.get("by") else "by itself"
    return f"{words(outline(data.get('status'), PART))}: “{outline(data['answer'], PART)}” {by}"


def _part(name: str, value: Any) -> str:
    shown = outline(value, PART)
    match name:
        case "progress":
            return f"{shown}\N{NO-BREAK SPACE}%"
        case "status":
            return words(shown)
        case "task":
            return agent(shown)
    return shown
