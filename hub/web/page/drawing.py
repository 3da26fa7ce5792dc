"""One panel as HTML. Whatever the code of a panel does, the others are drawn, and its place says that it failed."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from ...commands.supervised import Work
from ...errors import ANYTHING
from ...wire.timestamps import now
from .panel import Asked, Context, Panel

if TYPE_CHECKING:
    from ...hub import Hub

log = logging.getLogger(__name__)

PREPARE_SECONDS = 2.0


async def prepared(panel: Panel, hub: "Hub", asked: Asked) -> Context | None:
    """What a panel must wait for; None if it failed or took too long."""
    assert panel.prepare
    given = (hub, asked) if panel.links else (hub,)
    work = Work(f"the panel {panel.name}", PREPARE_SECONDS, panel.prepare, *given)
    try:
        return await work.run()  # type: ignore[no-any-return]
    except asyncio.CancelledError:
        if work.ended != "timeout":
            raise
        log.error(
            "the panel %s took longer than %g s; the page shows that it failed until it is in time",
            panel.name,
            PREPARE_SECONDS,
        )
        return None
    except Exception:
        log.exception("the panel %s could not be prepared; the page shows that it failed, all else goes on", panel.name)
        return None


def given_to(panel: Panel, hub: "Hub", asked: Asked, prepared: Context | None) -> dict[str, Any] | None:
    """What the panel's template is given; None if that fails, which is logged and harms no other."""
    if prepared is None:
        return None
    try:
        own = panel.context(hub, asked) if panel.links else panel.context(hub)
        return {"hub": hub, "now": now(), "panel": panel, "asked": asked, **prepared, **own}
    except ANYTHING:
        log.exception("the panel %s could not be drawn; the page shows that it failed, all else goes on", panel.name)
        return None


def draw(env: Environment, panel: Panel, given: Context | None) -> Markup:
    """One panel as HTML: a section, or nothing if it has nothing to show. One that fails says so in its place."""
    try:
        if given is None:
            return _section(env, panel, None)
        body = env.get_template(f"panels/{panel.name}.html").render(given).strip()
        if not body or not panel.title or body.startswith("<section"):
            return Markup(body)
        return _section(env, panel, Markup(body))
    except ANYTHING:
        log.exception("the panel %s could not be drawn; the page shows that it failed, all else goes on", panel.name)
        return _section(env, panel, None)


def _section(env: Environment, panel: Panel, body: Markup | None) -> Markup:
    return Markup(env.get_template("section.html").render(panel=panel, body=body).strip())
