"""What watches the hub: its metrics, and whether it lives and works. Every account of this machine may ask for two of
them, so these cost little: see `Scrapes`, and STRANGERS in `access.connections`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from ..wire.strictjson import dumpb
from .answers import answer, query
from .keys import HUB, PEER

POSITION = "Hub-Cursor"
OPENMETRICS = "application/openmetrics-text"
SHARED_SECONDS = 0.5  # for which other accounts get what was drawn last


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/metrics", Scrapes().metrics, name="metrics")
    app.router.add_get("/healthz", health, name="healthz")
    app.router.add_get("/readyz", ready, name="readyz")


class Scrapes:
    """The metrics as text. To draw them takes milliseconds: other accounts share one drawing for a while."""

    def __init__(self) -> None:
        self._drawn: dict[str, tuple[float, bytes]] = {}  # by content type: until when it is shared
        self._one = asyncio.Lock()

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics: for Prometheus, as text or as OpenMetrics."""
        query(request)
        asks = OPENMETRICS in ",".join(request.headers.getall(hdrs.ACCEPT, ()))
        encode, kind = choose_encoder(OPENMETRICS if asks else "")
        draw = self._shared if request[PEER].trust == "NONE" else _draw
        text = await draw(kind, encode, request.app)
        return web.Response(body=text, headers={hdrs.CONTENT_TYPE: kind})

    async def _shared(self, kind: str, encode: Callable[[Any], bytes], app: web.Application) -> bytes:
        async with self._one:  # else all who come while it waits for other workers would have one drawn each
            until, text = self._drawn.get(kind, (0.0, b""))
            if time.monotonic() >= until:
                text = await _draw(kind, encode, app)
                self._drawn[kind] = time.monotonic() + SHARED_SECONDS, text
            return text


async def _draw(kind: str, encode: Callable[[Any], bytes], app: web.Application) -> bytes:
    """Of one hub; or of all workers of its port, whichever of them is asked."""
    return encode(await app[HUB].metrics.gather())


async def health(request: web.Request) -> web.Response:
    """GET /healthz: the process answers."""
    query(request)
    return answer(dumpb({"status": "ok", "version": request.app[HUB].version}))


async def ready(request: web.Request) -> web.Response:
    """GET /readyz: every part works, or 503 with the reasons. A channel or a webhook that fails is one of them, but by
    itself no 503: it keeps nobody from using the hub. The header `Hub-Cursor` is the newest position: whoever asks
    where the stream is has called no command, so no record is made of it."""
    query(request)
    hub = request.app[HUB]
    is_ready = not hub.obstacles()
    status = {"status": "ok" if is_ready else "unavailable", "reasons": hub.problems()}
    response = answer(dumpb(status), 200 if is_ready else 503)
    response.headers[POSITION] = str(hub.cursor)
    return response
