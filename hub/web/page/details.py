"""The pages of one task and of one agent: how it stands, its attempts, tasks, questions and calls, and its events."""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp_jinja2
from aiohttp import web
from markupsafe import Markup

from ...errors import HubError
from ...stream.events import Event
from ...wire.strictjson import dumpb
from ...wire.texts import seen
from ..answers import query
from ..keys import HUB
from . import frame
from .attempts import Attempt, error_of, follow
from .board import Board
from .formats import agent as agent_name
from .formats import called, cut, text
from .history import line
from .shared import Shared
from .shown import minute
from .trails import Kind, Trail, Trails, names
from .working import waiting_agents

if TYPE_CHECKING:
    from ...hub import Hub

DETAILS: "web.AppKey[Details]" = web.AppKey("details")

PAGES = 32  # that are kept as they were drawn; the one longest not looked at goes first
EVENTS = 50  # on a page
ROWS = 50  # of tasks, attempts, questions
ABOUT: Mapping[Kind, str] = {"task": "task:progress", "agent": "agent:status_change"}


def setup(app: web.Application) -> None:
    """Give the application a place for what is looked at."""
    app[DETAILS] = Details(app)


async def task(request: web.Request) -> web.Response:
    """GET /?task=ID."""
    return await _show(request, "task")


async def agent(request: web.Request) -> web.Response:
    """GET /?agent=ID."""
    return await _show(request, "agent")


async def _show(request: web.Request, kind: Kind) -> web.Response:
    asked = query(request, kind, "before", "viewer", "only")
    before = frame.number(asked, "before", 0)
    drawn = await request.app[DETAILS].page(kind, asked[kind], before).get()
    is_found = drawn.is_known or "viewer" in asked  # it may still come: who looks goes on
    context = {"title": drawn.title, "main": drawn.main, "root": ""}
    return await frame.show(request, "pages/detail.html", context, 200 if is_found else 404)


class Drawn(NamedTuple):
    """The main part of such a page, which is the same for all who look."""

    title: str
    main: Markup
    is_known: bool


class Details:
    """The pages that are looked at, each drawn once for all who do, when there is news."""

    def __init__(self, app: web.Application) -> None:
        self._app, self._trails = app, Trails()
        self._pages: OrderedDict[tuple[Kind, str, int], Shared[Drawn]] = OrderedDict()

    def page(self, kind: Kind, key: str, before: int) -> Shared[Drawn]:
        """The page of this task or agent, with its events before this number (0: the newest)."""
        place = kind, key, before
        if place not in self._pages:
            self._pages[place] = Shared(partial(self._draw, *place), self._position)
        self._pages.move_to_end(place)
        while len(self._pages) > PAGES:
            self._pages.popitem(last=False)
        return self._pages[place]

    def _position(self) -> Any:
        """What changes a page: an event, the minute (for the ages), and a store that is away or back."""
        hub = self._app[HUB]
        return hub.window.head, hub.broker.epoch, minute(), hub.broker.problem

    async def _draw(self, kind: Kind, key: str, before: int) -> Drawn:
        hub, board, trail = self._app[HUB], self._app[frame.BOARD], self._trails.get(kind, key)
        await asyncio.gather(trail.catch_up(hub), board.catch_up())
        context = {
            "kind": kind,
            "key": key,
            "before": before,
            "board": board,
            **_known(hub, board, kind, key),
            **_told(trail, board),
        }
        try:
            found, further = await trail.before(hub, before or hub.window.head + 1, EVENTS)
        except HubError as error:
            found, further = [], 0
            context["problem"] = error.message
        spoke = any(event.name == ABOUT[kind] and event.key == key for event in found)
        context |= {
            "lines": [line(event, of=key) for event in found],
            "further": further,
            "gone": hub.broker.tail - 1,
            "spoke": spoke,
        }
        main = aiohttp_jinja2.get_env(self._app).get_template("pages/detail_main.html").render(context)
        is_known = any((context["value"], found, context["tasks"], context["questions"]))
        return Drawn(cut(context["name"], 60), Markup(main), is_known)


def _known(hub: "Hub", board: Board, kind: Kind, key: str) -> dict[str, Any]:
    """What the last values say: its own, its tasks, its questions."""
    event = hub.state.get(ABOUT[kind], key)
    known = board.tasks.all.get(key) if kind == "task" else board.agents.all.get(key)
    tasks = [row for row in board.tasks.all.values() if row.agent == key] if kind == "agent" and key else []
    questions = [one.data for one in hub.state.holding("hub:question", dumpb(key))]
    value: dict[str, Any] = event.data if event is not None else {}
    if kind == "task" and (attempt := board.attempts.get(key)) is not None:
        value = {name: part for name, part in value.items() if name != "message" or attempt.message}
        value |= {"error": error_of(value)} if "error" in value else {}
    return {
        "value": value,
        "known": known,
        "name": agent_name(key) if kind == "agent" else seen(called(text(value.get("name")), key)),
        "timestamp": event.timestamp if event is not None else "",
        "waits": kind == "agent" and key in board.once(waiting_agents),
        "is_stale": known is not None and known.stale,
        "tasks": heapq.nlargest(ROWS, tasks, lambda row: row.seq),
        "all_tasks": len(tasks),
        "questions": [one for one in reversed(questions) if names(kind, key, "hub:question", one)][:ROWS],
    }


# ---- what its events tell


@dataclass(slots=True)
class Tool:
    """How often a tool was used, how often it failed or was denied, and how long it took in all."""

    name: str
    count: int = 0
    failed: int = 0
    denied: int = 0
    begun: int = 0
    timed: int = 0
    ms: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.ms / self.timed if self.timed else None

    @property
    def runs(self) -> int:
        """How many of its calls have not been heard of again."""
        return max(0, self.begun - self.count)


def _told(trail: Trail, board: Board) -> dict[str, Any]:
    attempts = _attempts(trail, board.attempts.get(trail.key)) if trail.kind == "task" else []
    return {"attempts": attempts[-ROWS:][::-1], "all_attempts": len(attempts), "tools": _tools(trail.events)}


def _attempts(trail: Trail, newest: Attempt | None) -> Sequence[Attempt]:
    """The attempts of a task, the first one first. Of the newest the board knows more, where its beginning is not among
    the events here."""
    found: list[Attempt] = []
    for event in trail.events:
        if event.name == ABOUT["task"] and event.key == trail.key:
            known = found[-1] if found else None
            attempt = follow(known, event.seq, event.timestamp, event.data, is_cut=trail.start > 0)
            if attempt is not known:
                found.append(attempt)
    return [*found[:-1], newest] if newest is not None else found


def _tools(events: Iterable[Event]) -> Sequence[Tool]:
    """The tools that were used, the one most used first."""
    tools: dict[str, Tool] = {}
    for event in events:
        if event.name != "agent:tool_call":
            continue
        data = event.data
        tool = tools.setdefault(data["tool"], Tool(data["tool"]))
        tool.begun += data["phase"] == "started"
        tool.count += data["phase"] != "started"
        tool.failed += data["phase"] == "failed"
        tool.denied += data["phase"] == "denied"
        if isinstance(ms := data.get("duration_ms"), int | float):
            tool.timed, tool.ms = tool.timed + 1, tool.ms + ms
    return sorted(tools.values(), key=lambda tool: (-tool.count, tool.name))[:ROWS]
