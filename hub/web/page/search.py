"""What the search field finds: agents, tasks, panels and commands by name; as a page, from which its script takes them.

`?search=TEXT` works without script; with it the same page is asked for while somebody types.
"""

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from ...commands.providers import provided
from ..answers import query
from ..keys import HUB
from . import frame

if TYPE_CHECKING:
    from .board import Board

LONGEST = 100  # characters that are searched for
MOST = 8  # of each kind
SLICE = 1000  # names that are looked at before others get their turn

Named = tuple[str, str, str, str]  # what it is found by, what its link asks for, its name, and what else is shown


class Found(NamedTuple):
    """Something that was found."""

    href: str
    name: str
    more: str


class Group(NamedTuple):
    """What was found of one kind: the best MOST, and how many there are."""

    kind: str
    found: Sequence[Found]
    total: int


async def show(request: web.Request) -> web.Response:
    """GET /?search=TEXT: a page of links to what has this in its name."""
    text = query(request, "search")["search"].strip()[:LONGEST]
    groups = await find(request, text) if text else []
    return await frame.show(request, "pages/found.html", {"text": text, "groups": groups})


async def find(request: web.Request, text: str) -> list[Group]:
    """What is called like this, in turns with everybody else."""
    board, commands = request.app[frame.BOARD], provided(request.app[HUB].commands)
    await board.catch_up()
    panels = ((panel.title, panel.name, panel.title, "") for panel in request.app[frame.PANELS]() if panel.title)
    named = {
        "agent": _agents(board),
        "task": _tasks(board),
        "panel": panels,
        "call": ((command.name, command.name, command.name, command.summary) for command in commands),
    }
    found = [await _group(kind, names, text.casefold()) for kind, names in named.items()]
    return [group for group in found if group.found]


def _agents(board: "Board") -> Iterator[Named]:
    for key, row in list(board.agents.all.items()):
        yield f"{key} {row.type} {row.task}", key, key, f"{row.status} {row.task}".strip()


def _tasks(board: "Board") -> Iterator[Named]:
    for key, row in list(board.tasks.all.items()):
        yield f"{row.name} {key} {row.agent}", key, row.name, f"{row.status.replace('_', ' ')} {row.agent}".strip()


async def _group(kind: str, names: Iterable[Named], wanted: str) -> Group:
    """Those whose name begins like this first, then those that have it somewhere."""
    ranked = []
    for count, (text, key, name, more) in enumerate(names, 1):
        at = text.casefold().find(wanted)
        if at >= 0:
            ranked.append((at > 0, name, key, more))
        if count % SLICE == 0:
            await asyncio.sleep(0)
    best = heapq.nsmallest(MOST, ranked)
    return Group(kind, [Found(f"./?{urlencode({kind: key})}", name, more) for _, name, key, more in best], len(ranked))
