"""What the search field finds: agents, tasks, panels and commands by name; as a page, from which its script takes them.

`?search=TEXT` works without script; with it the same page is asked for while somebody types. Of each kind it shows the
best few, and with `&kind=task` all of that one, page by page.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from ...wire.texts import seen
from ...wire.validation import misfit
from ..answers import query
from ..keys import HUB
from . import form, frame
from .formats import agent, called, words
from .working import waiting_agents

LONGEST = 100  # characters that are searched for
FEW, MANY = 8, 100  # of each kind, and of one on a page of its own
SLICE = 1000  # names that are looked at before others get their turn
MOST_PAGES = 1000
ALERTS = "panel=threats&filter=all"  # an alert has no page of its own

Named = tuple[str, str, str, str]  # what it is found by, what its link asks for, its name, and what else is shown


class Found(NamedTuple):
    """Something that was found."""

    href: str
    name: str
    more: str


class Group(NamedTuple):
    """What was found of one kind: some of them, how many there are, and how many lie behind these."""

    kind: str
    found: Sequence[Found]
    total: int
    behind: int


async def show(request: web.Request) -> web.Response:
    """GET /?search=TEXT: a page of links to what has this in its name; with `&kind=KIND&page=N` of that kind alone."""
    given = query(request, "search", "kind", "page")
    text, kind, page = given["search"].strip()[:LONGEST], given.get("kind", ""), frame.number(given, "page", 1)
    if kind and kind not in KINDS:
        raise misfit("invalid_args", "No such kind", {"kind": [f"Known are {', '.join(KINDS)}."]}, status=400)
    groups = await find(request, text, kind, min(page, MOST_PAGES)) if text else []
    context = {"text": text, "groups": groups, "kind": kind, "page": page, "searched": given["search"][:LONGEST]}
    return await frame.show(request, "pages/found.html", context)


async def find(request: web.Request, text: str, kind: str = "", page: int = 1) -> list[Group]:
    """What is called like this, in turns with everybody else."""
    await request.app[frame.BOARD].catch_up()
    size, page = (MANY, page) if kind else (FEW, 1)
    named = {name: names(request) for name, names in KINDS.items() if kind in ("", name)}
    found = [await _group(name, names, text.casefold(), size, page) for name, names in named.items()]
    return [group for group in found if group.found]


def _agents(request: web.Request) -> Iterator[Named]:
    board = request.app[frame.BOARD]
    waits = board.once(waiting_agents)
    for key, row in list(board.agents.all.items()):
        status = "waits for you" if key in waits and row.status in ("active", "starting") else row.status
        yield f"{key} {agent(key)} {row.type} {row.task}", key, agent(key), " · ".join(filter(None, (status, row.task)))


def _tasks(request: web.Request) -> Iterator[Named]:
    for key, row in list(request.app[frame.BOARD].tasks.all.items()):
        yield (
            f"{row.name} {key} {row.agent}",
            key,
            row.name,
            " · ".join(filter(None, (words(row.status), agent(row.agent)))),
        )


def _alerts(request: web.Request) -> Iterator[Named]:
    for key, row in list(request.app[frame.BOARD].alerts.items()):
        more = " · ".join(filter(None, ("firing", row.severity, row.summary)))
        yield f"{row.title} {row.summary} {row.source}", key, row.title, more


def _panels(request: web.Request) -> Iterator[Named]:
    return ((panel.title, panel.name, panel.title, "") for panel in request.app[frame.PANELS]() if panel.title)


def _commands(request: web.Request) -> Iterator[Named]:
    return ((one.name, one.name, one.name, one.summary) for one in form.commands(request.app[HUB]))


KINDS: Mapping[str, Callable[[web.Request], Iterator[Named]]] = {
    "agent": _agents,
    "task": _tasks,
    "alert": _alerts,
    "panel": _panels,
    "call": _commands,
}


async def _group(kind: str, names: Iterable[Named], wanted: str, size: int, page: int) -> Group:
    """Those whose name begins like this first, then those that have it somewhere."""
    ranked = []
    for count, (text, key, name, more) in enumerate(names, 1):
        at = text.casefold().find(wanted)
        if at >= 0:
            ranked.append((at > 0, name, key, more))
        if count % SLICE == 0:
            await asyncio.sleep(0)
    best = heapq.nsmallest(page * size, ranked)[(page - 1) * size :]
    links = [
        Found(f"./?{ALERTS if kind == 'alert' else urlencode({kind: key})}", seen(called(name)), seen(more))
        for _, name, key, more in best
    ]
    return Group(kind, links, len(ranked), max(0, len(ranked) - page * size))
