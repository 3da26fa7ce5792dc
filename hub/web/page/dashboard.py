"""The page: what is shown of the hub, put together from drawings that all viewers share, and kept fresh by notices."""

import asyncio
import contextlib
import platform
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp_jinja2
from aiohttp import hdrs, web

from ...commands.asked import person
from ...errors import HubError
from ...processes import typed_command
from ...wire.validation import misfit
from ..answers import client_of, query
from ..keys import HUB
from ..refusalpage import is_wanted, link_command, where
from ..viewers import VIEWERS, Viewers
from . import details, forms, frame, search
from .board import Board
from .earlier import look_back
from .formats import retimed
from .panel import LONGEST, Asked, Panel
from .panels import counts, has_voted
from .panels import panels as own_panels
from .shown import Look, Shown, Variant, minute

if TYPE_CHECKING:
    from ...hub import Hub

# Other pages in the same frame, by the parameter of the query that asks for them: `?call=NAME`. Each answers through
# `frame.show`.
PAGES: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]] = {
    "call": forms.show,
    "task": details.task,
    "agent": details.agent,
    "search": search.show,
}
QUERY = ("panel", "page", "filter", "before", "viewer", "only")  # what the page itself can be asked for
BODIES = 32  # pages that are kept as they were put together
MOST_PAGES = 1000
Place = tuple[str, Asked, bool, str]
SHOWN: "web.AppKey[Pages]" = web.AppKey("shown")


def setup(app: web.Application) -> None:
    """Give the application the page at `/` and its files below `static/`. The hub must be in `app[HUB]`."""
    frame.setup(app)
    forms.setup(app)
    details.setup(app)
    hub, viewers = app[HUB], Viewers()
    app[VIEWERS] = viewers
    app[SHOWN] = pages = Pages(hub, Board(hub), viewers, app)
    app[frame.HEAD], app[frame.BOARD], app[frame.PANELS] = pages.head, pages.board, pages.panels
    pages.env.globals["places"] = PAGES
    pages.env.globals["link"] = link_command(hub.config) if hub.config.auth == "token" else ""
    hub.clients.on_leave.append(lambda client, reason: viewers.leave(client))
    hub.on_moved.append(pages.shown.moved)
    app.router.add_get("/", page, name="dashboard")
    app.cleanup_ctx.append(_fresh)


async def _fresh(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[SHOWN].run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def page(request: web.Request) -> web.Response:
    """GET / : the page as it is now, or some of its panels, or another page that stands in its frame."""
    answer = next((answer for name, answer in PAGES.items() if name in request.query), request.app[SHOWN].get)
    try:
        return await answer(request)
    except HubError as error:
        return await frame.refuse(request, error)


class Pages:
    """The page of one hub, whole or in parts, for whoever asks."""

    def __init__(self, hub: "Hub", board: Board, viewers: Viewers, app: web.Application) -> None:
        self.hub, self.board, self.viewers = hub, board, viewers
        self.env = aiohttp_jinja2.get_env(app)
        self.shown = Shown(hub, self.env, board, viewers)
        self._own = own_panels(board)
        self._bodies: OrderedDict[Place, bytes] = OrderedDict()
        self._started = asyncio.Event()
        hub.on_start.append(self._begin)

    async def run(self) -> None:
        """Tell those who look what is new, for ever."""
        await frame.compile_all(self.env)
        looking = asyncio.create_task(self._look_back())
        try:
            await self.shown.run(lambda: [(panel, Asked()) for panel in self.panels()])
        finally:
            looking.cancel()

    async def _look_back(self) -> None:
        await self._started.wait()
        await look_back(self.board)
        self.shown.again()

    async def _begin(self, hub: "Hub") -> None:
        self._started.set()

    def panels(self) -> list[Panel]:
        """The page's panels in order: the hub's own, then the application's."""
        return [*self._own, *self.hub.panels]

    async def head(self, request: web.Request) -> Mapping[str, Any]:
        """What stands in the head of every page."""
        viewer, who = request.query.get("viewer", ""), await self._who(request)
        looks = self._looks(self.panels(), Asked(), who)
        (variant,) = await self.shown.get(looks[:1], live=viewer in self.viewers)
        self.viewers.fetched(viewer, {variant.panel.name: variant.version}, _named(looks))
        return {"summary": variant, "host": platform.node(), **counts(self.board, who)}

    async def _who(self, request: web.Request) -> str:
        """For whom a page is drawn: nobody's name, if it is the same for all."""
        who = person(client_of(request, "http")).name
        if request.query.get("viewer", "") not in self.viewers:  # else he was told of what is taken in already
            await self.board.catch_up()
        return who if has_voted(self.board, who) else ""

    @staticmethod
    def _looks(panels: Sequence[Panel], asked: Asked, who: str) -> list[Look]:
        return [(panel, replace(asked, who=who) if panel.personal else asked) for panel in panels]

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the panels that are asked for, or with 304 if the client has just these."""
        names, asked, viewer = self._asked(request)
        who = await self._who(request)
        everything = self._looks(self.panels(), Asked(), who)
        wanted = self._looks([panel for panel in self.panels()[1:] if panel.name in names], asked, who)
        looks = [everything[0], *wanted] if names else everything
        variants = await self.shown.get(looks, live=viewer in self.viewers)
        if viewer:
            has = {variant.panel.name: variant.version for variant in variants}
            self.viewers.fetched(viewer, has, _named(looks if "only" in request.query else everything))
        around = frame.surroundings(request)
        versions = ".".join(variant.version for variant in variants)
        version = f"{around['trust']}.{versions}{'' if viewer else f'.{minute():x}'}"
        is_read = not viewer and is_wanted(request)  # by a person, without script too: its ages are those of the second
        etag = f'"{version}.{int(time.time()) % 60}"' if is_read else f'"{version}"'
        if request.headers.get(hdrs.IF_NONE_MATCH) == etag:
            return web.Response(status=304, headers={hdrs.ETAG: etag})
        is_alone = bool(names) and (not viewer or "only" in request.query)
        place = around["url"], asked, is_alone, version
        given = {**around, "asked": asked, **counts(self.board, who)}
        body = self._bodies.get(place) or self._put_together(place, variants, given)
        if not viewer:
            body = retimed(body.decode()).encode()
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers={hdrs.ETAG: etag})

    def _put_together(self, place: Place, variants: Sequence[Variant], around: Mapping[str, Any]) -> bytes:
        head, *others = variants
        parts = {"summary": head, "panels": others, "alone": place[2], "cursor": self.shown.cursor}
        if self.board.is_young:
            is_asked = self.hub.config.auth == "token"
            around = {**around, "program": typed_command(), "where": where(self.hub.config), "token": is_asked}
        given = {**around, **parts, "board": self.board, "host": platform.node()}
        text = self.env.get_template("dashboard.html").render(given)
        self._bodies[place] = body = text.encode()
        while len(self._bodies) > BODIES:
            self._bodies.popitem(last=False)
        return body

    def _asked(self, request: web.Request) -> tuple[set[str], Asked, str]:
        """Which panels are wanted (none: all of them), what of them, and the viewer who asks. Raises HubError."""
        given = query(request, *QUERY)
        names = set(request.query.getall("panel", ()))
        known = [panel.name for panel in self.panels()]
        if not names <= {*known}:
            raise misfit("invalid_args", "No such panel", {"panel": [f"Known are {', '.join(known)}."]}, status=400)
        asked = Asked(
            page=min(frame.number(given, "page", 1), MOST_PAGES),
            filter=given.get("filter", "")[:LONGEST],
            before=frame.number(given, "before", 0),
        )
        return names, asked, given.get("viewer", "")


def _named(looks: Sequence[Look]) -> dict[str, Look]:
    """What a viewer shows, by panel."""
    return {look[0].name: look for look in looks}
