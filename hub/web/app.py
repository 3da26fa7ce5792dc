"""The aiohttp application of a hub, to be run or to be mounted."""

import functools
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from ..hub import Hub
from ..stderr import Seldom
from ..wire.vocabulary import Refusal
from . import answers, api, health, hooks, outgoing, pings, room, serverfile, sse, streams
from .access import login
from .access.guard import Guard
from .documents import served
from .keys import COMING, GUARD, HUB
from .page import dashboard
from .ws import connection

log = logging.getLogger("hub")


def create_app(hub: Hub, url: str | None = None) -> web.Application:
    """The hub as an aiohttp application: run it, or mount it with `add_subapp`. It starts and stops the hub.

    `url`: where programs of this machine reach it, its prefix included; then the command line and `HubClient` find it
    by its state directory.
    """
    app = web.Application(middlewares=[answers.errors], client_max_size=hub.config.max_body)
    app[HUB], app[COMING] = hub, room.Coming(room.COMING)
    guard = Guard(hub.config, refused=functools.partial(_refused, hub, Seldom(log)), limit=api.limit(hub))
    guard.protect(app)
    app[GUARD] = guard
    api.setup(app)
    hooks.setup(app)
    pings.setup(app)
    streams.setup(app)
    connection.setup(app)
    sse.setup(app)
    health.setup(app)
    dashboard.setup(app)
    served.setup(app)
    app.cleanup_ctx.append(outgoing.client)
    app.cleanup_ctx.append(_life)
    if url is not None:
        hub.outward.url = f"{url.rstrip('/')}/"
        app.cleanup_ctx.append(functools.partial(_findable, hub.outward.url))
    if guard.tokens:
        login.setup(app)
    app.on_shutdown.append(_shutdown)
    return app


async def _life(app: web.Application) -> AsyncIterator[None]:
    await app[HUB].start()
    yield
    await app[HUB].stop()


async def _findable(url: str, app: web.Application) -> AsyncIterator[None]:
    with serverfile.announced(app[HUB], url):
        yield


async def _shutdown(app: web.Application) -> None:
    await say_goodbye(app)


async def say_goodbye(app: web.Application) -> float:
    """Answer what runs, then say goodbye; open connections would hold up aiohttp's own shutdown.

    Return the seconds that are left for half a request.
    """
    hub = app[HUB]
    app[GUARD].closing = True
    await hub.commands.stop(hub.config.stop_timeout)
    hub.broadcaster.flush()
    return await streams.goodbye(app)


def _refused(hub: Hub, seldom: Seldom, reason: Refusal, address: str) -> None:
    """Counted, and noted in the log and the audit log: one line and one record a second at most."""
    hub.metrics.refused(reason)
    seldom.info(f"refused a request from {address}: {reason}")
    actor = {"client": None, "peer": address, "uid": None}
    hub.audit.note("client.refused", actor, "NONE", {"reason": reason}, key="client.refused")
