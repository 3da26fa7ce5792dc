"""The dashboard: one complete page from the server, a loop over panels. Its script only keeps it fresh."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import aiohttp_jinja2
from aiohttp import web
from jinja2 import Environment
from markupsafe import Markup

from ...commands.supervised import Work
from ...errors import ANYTHING
from ...wire.messages import now
from ..answers import query
from ..keys import HUB
from . import forms, frame
from .panels import PANELS, Panel
from .shown import Shown

if TYPE_CHECKING:
    from ...hub import Hub

__all__ = ["PANELS", "Panel", "panels", "render", "setup"]

log = logging.getLogger(__name__)

SHOWN: "web.AppKey[dict[str, Shown]]" = web.AppKey("shown", dict)  # by the page's own address

ADDRESSES = 8  # that the page is drawn for at a time; there are 16 million loopback addresses
PREPARE_SECONDS = 2.0
# Other pages in the same frame, by the parameter of the query that asks for them: `?call=NAME`. Each answers through
# `frame.show`.
PAGES: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]] = {"call": forms.show}


def setup(app: web.Application) -> None:
    """Give the application the page at `/` and its files below `static/`. The hub must be in `app[HUB]`."""
    frame.setup(app)
    forms.setup(app)
    app[SHOWN] = {}
    app.router.add_get("/", page, name="dashboard")


async def page(request: web.Request) -> web.Response:
    """GET / : the dashboard as it is now, one drawing for all who look at it by the same address."""
    for name, answer in PAGES.items():
        if name in request.query:
            return await answer(request)
    query(request)
    shown, url = request.app[SHOWN], str(request.url.with_query(None))
    if url not in shown:
        if len(shown) >= ADDRESSES:
            shown.clear()
        shown[url] = _shown(request.app, url)
    return web.Response(text=await shown[url].get(), content_type="text/html", charset="utf-8")


def _shown(app: web.Application, url: str) -> Shown:
    hub, env = app[HUB], aiohttp_jinja2.get_env(app)

    async def draw() -> str:
        return render(env, hub, await prepare(hub), url)

    return Shown(draw, lambda: hub.cursor)


def panels(hub: "Hub") -> list[Panel]:
    """The page's panels in order: the hub's own, then the application's."""
    return [*PANELS, *getattr(hub, "panels", ())]


async def prepare(hub: "Hub") -> dict[str, Mapping[str, Any] | None]:
    """What the panels must wait for, all at once; None for a panel that failed or took too long."""
    waiting = [panel for panel in panels(hub) if panel.prepare]
    found = await asyncio.gather(*(_prepared(panel, hub) for panel in waiting))
    return {panel.name: context for panel, context in zip(waiting, found, strict=True)}


async def _prepared(panel: Panel, hub: "Hub") -> Mapping[str, Any] | None:
    assert panel.prepare
    work = Work(f"the panel {panel.name}", PREPARE_SECONDS, panel.prepare, hub)
    try:
        return await work.run()  # type: ignore[no-any-return]
    except asyncio.CancelledError:
        if work.ended != "timeout":
            raise
        log.error("the panel %s took longer than %g s", panel.name, PREPARE_SECONDS)
        return None
    except Exception:
        log.exception("the panel %s could not be prepared", panel.name)
        return None


def render(env: Environment, hub: "Hub", prepared: Mapping[str, Mapping[str, Any] | None], url: str) -> str:
    """The page as HTML. Never waits, so that what it shows is exactly what is true at its cursor.

    `url` is the page's own address, for the commands that its empty panels suggest.
    """
    moment = {"url": url, "hub": hub, "now": now()}
    drawn = [(panel, draw(env, hub, panel, prepared.get(panel.name, {}), moment)) for panel in panels(hub)]
    topics = _topics([panel for panel, _ in drawn])
    return env.get_template("dashboard.html").render(panels=drawn, topics=topics, cursor=str(hub.cursor), **moment)


def draw(
    env: Environment, hub: "Hub", panel: Panel, prepared: Mapping[str, Any] | None, moment: Mapping[str, Any]
) -> Markup | None:
    """One panel as HTML; None if it fails, which is logged and harms no other."""
    if prepared is None:
        return None
    try:
        context = {**moment, **prepared, **panel.context(hub)}
        return Markup(env.get_template(f"panels/{panel.name}.html").render(panel=panel, **context))
    except ANYTHING:
        log.exception("the panel %s could not be drawn", panel.name)
        return None


def _topics(drawn: Sequence[Panel]) -> str:
    return ",".join(dict.fromkeys([topic for panel in drawn for topic in panel.topics] + ["hub:stale"]))
