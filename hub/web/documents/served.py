"""GET /openapi.json and GET /asyncapi.json: made when somebody asks, and anew when what they describe has changed."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from aiohttp import ETag, web

from ...commands.providers import provided
from ...hub import Hub
from ...wire.strictjson import LARGEST_RESULT, dumpb
from .. import answers
from ..keys import GUARD, HUB, SEEN
from . import asyncapi, openapi
from .schemas import Part

OPENAPI, ASYNCAPI = "/openapi.json", "/asyncapi.json"
ADDRESSES = 8  # that a document is kept for; there are 16 million loopback addresses
SLICE = 16  # parts that are put together before others have a turn
NO_ROOM = " {} more have no room in here; hub:commands lists them."


class Made(NamedTuple):
    """A document as it is sent, and a name for just this text."""

    text: bytes
    tag: str


class Documents:
    """The documents of one hub, as long as its commands and event types stay the same."""

    def __init__(self) -> None:
        self._described: list[object] = []
        self._made: dict[tuple[str, ...], Made] = {}
        self._turn = asyncio.Lock()  # who comes meanwhile gets what is being made

    async def get(self, hub: Hub, key: tuple[str, ...], begin: Callable[[], tuple[Part, Iterable[Part]]]) -> Made:
        """The document of this key. `begin` gives what it has in any case, and what is added to that."""
        async with self._turn:
            now = [*provided(hub.commands), *hub.types]
            if now != self._described or len(self._made) > ADDRESSES:
                self._described, self._made = now, {}
            if key not in self._made:
                text = await _put_together(*begin())
                self._made[key] = Made(text, hashlib.sha256(text).hexdigest()[:32])
            return self._made[key]


DOCUMENTS: "web.AppKey[Documents]" = web.AppKey("documents", Documents)


def setup(app: web.Application) -> None:
    """Add the routes."""
    app[DOCUMENTS] = Documents()
    app.router.add_get(OPENAPI, openapi_json, name="api-openapi")
    app.router.add_get(ASYNCAPI, asyncapi_json, name="api-asyncapi")


async def openapi_json(request: web.Request) -> web.Response:
    """GET /openapi.json: the routes, for this very address."""
    hub, app, (scheme, host, prefix) = request.app[HUB], request.app, _where(request, OPENAPI)
    tokens = app[GUARD].tokens is not None

    def begin() -> tuple[Part, Iterable[Part]]:
        server = f"{scheme}://{host}{prefix}".rstrip("/")
        return openapi.head(hub, server, tokens), openapi.parts(hub, app, prefix, tokens)

    return _answer(request, await app[DOCUMENTS].get(hub, (OPENAPI, scheme, host), begin))


async def asyncapi_json(request: web.Request) -> web.Response:
    """GET /asyncapi.json: the WebSocket and the events, likewise."""
    hub, app, (scheme, host, prefix) = request.app[HUB], request.app, _where(request, ASYNCAPI)
    tokens = app[GUARD].tokens is not None

    def begin() -> tuple[Part, Iterable[Part]]:
        return asyncapi.head(hub, scheme, host, prefix, tokens), asyncapi.parts(hub)

    return _answer(request, await app[DOCUMENTS].get(hub, (ASYNCAPI, scheme, host), begin))


def _where(request: web.Request, name: str) -> tuple[str, str, str]:
    """Where the hub is for who asks: scheme, host, and the path below which it is mounted, which ends with a slash."""
    answers.query(request)
    resource = request.match_info.route.resource
    assert resource is not None
    return request[SEEN].scheme, request.host, resource.canonical.removesuffix(name[1:])


def _answer(request: web.Request, made: Made) -> web.Response:
    known = request.if_none_match or ()
    response = web.Response(status=304) if ETag(made.tag) in known else answers.answer(made.text)
    response.etag = made.tag
    return response


async def _put_together(document: Part, parts: Iterable[Part]) -> bytes:
    """The head with all parts for which there is room, as JSON."""
    room, left_out = LARGEST_RESULT - len(dumpb(document)) - len(NO_ROOM), 0
    for count, part in enumerate(parts, 1):
        size = len(dumpb(part))
        if size <= room:
            _merge(document, part)
            room -= size
        else:
            left_out += 1
        if count % SLICE == 0:
            await asyncio.sleep(0)
    if left_out:
        document["info"]["description"] += NO_ROOM.format(left_out)
    return dumpb(document)


def _merge(into: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Put a part in, at any depth."""
    for key, value in part.items():
        if key in into and isinstance(value, Mapping):
            _merge(into[key], value)
        else:
            into[key] = value
