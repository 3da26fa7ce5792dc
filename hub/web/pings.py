"""A job's sign of life: a GET that writes, so that an existing cron line changes only its base."""

import asyncio
import time
from typing import Any

from aiohttp import hdrs, web

from ..adapters import ping
from ..adapters.reading import identity
from ..adapters.turns import TASK
from ..errors import HubError
from ..stream.events import Event
from ..wire.timestamps import MAX_TTL, now
from .answers import body, query
from .hooks import HOOKS, LARGEST, QUICK, may_publish, seconds_of
from .keys import GUARD, HUB, PEER

WHAT = "A ping is /ping/NAME, then nothing, /start, /fail, /log or /0 to /255."
FETCH = "sec-fetch-"
OWN_SITE = ("none", "same-origin")


def setup(app: web.Application) -> None:
    """Add the routes."""
    for path, name in (("/ping/{job}", "api-ping"), ("/ping/{job}/{what}", "api-ping-what")):
        app.router.add_get(path, pinged, name=name)
        app.router.add_post(path, pinged, name=f"{name}-post")


async def pinged(request: web.Request) -> web.Response:
    """GET, POST or HEAD /ping/{job}[/start|/fail|/log|/<exit status>]: the body is the message."""
    _refuse_browsers(request)
    key, said = ping.key_of(request.match_info["job"]), ping.status_of(request.match_info.get("what", ""))
    if key is None or said is None:
        raise HubError("unknown_command", WHAT, status=404)
    given = query(request, "rid", "ttl", "create")
    ttl = seconds_of("ttl", given["ttl"], MAX_TTL) if "ttl" in given else None
    may_publish(request)
    data = await body(request, LARGEST)
    message = ping.message_of(data) if len(data) <= QUICK else await asyncio.to_thread(ping.message_of, data)
    hub = request.app[HUB]
    async with request.app[HOOKS].turn:
        known = hub.state.get(TASK, key)
        before = {} if known is None else known.data
        found = ping.events(key, said, before, now(), identity(given.get("rid")), message)
        if not found:
            return web.Response(text="OK")
        records: list[dict[str, Any]] = [{"event": event.name, "data": dict(event.data)} for event in found]
        is_over = said not in ("start", "log") and len(found) == 1
        if ttl is None and known is not None and not is_over:
            ttl = _left(known, hub.state.is_stale(TASK, key))
        if ttl is not None:
            records[-1]["ttl"] = ttl
        await hub.bus.publish(records, many=len(records) > 1)
    return web.Response(text="OK")


def _refuse_browsers(request: web.Request) -> None:
    """Stops a picture in a page, also of a browser that says nothing of where it was sent from, from reporting a job as
    done."""
    is_browser = "Mozilla/" in ",".join(request.headers.getall(hdrs.USER_AGENT, ()))
    fetched = (value for name, value in request.headers.items() if name.lower().startswith(FETCH))
    if is_browser or any(value not in OWN_SITE for value in fetched):
        sentence = "A ping is for jobs, and a browser sent this one; use curl."
        raise request.app[GUARD].refuse("fetch_site", sentence, request[PEER])


def _left(known: Event, is_stale: bool) -> float | None:
    """The seconds that a lease still runs: neither a start nor a message without one renews or ends it. Where it has
    ended, whatever comes begins it anew. Stops a job that hangs, or whose start is the last that is heard of it, from
    running for ever."""
    if known.ttl is None or is_stale:
        return known.ttl
    return max(known.accepted + known.ttl - time.monotonic(), 0.001)
