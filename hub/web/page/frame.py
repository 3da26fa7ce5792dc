"""The frame that every page stands in: its templates, its files, and how one of them is answered."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

import aiohttp_jinja2
from aiohttp import web
from jinja2 import BytecodeCache, ChoiceLoader, Environment, FileSystemLoader
from jinja2.bccache import Bucket

from ...errors import HubError
from ...wire.timestamps import now
from ...wire.validation import misfit
from ..answers import query
from ..keys import HUB, PEER
from ..refusalpage import is_wanted
from . import formats
from .board import Board
from .exact import Sent, carried, drawn, exact
from .panel import Panel
from .panels import needed
from .rows import GRAVE
from .sparklines import sparkline

# Written out: with `nosniff` a script whose type a machine's mime table gets wrong does not run.
SCRIPTS = "hub frames link serving dashboard bars sending settling morph ages gaps keys notices palette".split()
STATIC = {"hub.css": "text/css", "pages.css": "text/css", "hub.d.ts": "text/plain"} | {
    f"{name}.js": "text/javascript" for name in SCRIPTS
}


COMPILED = 200  # templates that are kept
# What stands in the head of every page, as the templates take it. A viewer who asks for it has fetched it.
BOARD: web.AppKey[Board] = web.AppKey("board")
PANELS: web.AppKey[Callable[[], Sequence[Panel]]] = web.AppKey("panels")  # all of them, the application's included
HEAD: web.AppKey[Callable[[web.Request], Awaitable[Mapping[str, Any]]]] = web.AppKey("head")


class _Compiled(BytecodeCache):
    """Templates as they were compiled, for all hubs of this process: that takes a quarter of a second."""

    def __init__(self) -> None:
        self._code: dict[str, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get(bucket.key + bucket.checksum)

    def dump_bytecode(self, bucket: Bucket) -> None:
        if len(self._code) < COMPILED and bucket.code is not None:
            self._code[bucket.key + bucket.checksum] = bucket.code


_COMPILED = _Compiled()
_NAMES: set[str] = set()  # of the templates that some hub of this process has compiled


async def compile_all(env: Environment) -> None:
    """Compile the templates before somebody waits for them, in turns with everybody else; each once in a process."""
    for name in sorted({*env.list_templates(extensions=["html"])} - _NAMES):
        # One of an application's that is none, or no descriptors just now: whoever draws it hears of it.
        with contextlib.suppress(Exception):
            env.get_template(name)
            _NAMES.add(name)
        await asyncio.sleep(0)


def setup(app: web.Application) -> None:
    """Give the application the templates, and the page's files below `static/`."""
    prepare_environment(aiohttp_jinja2.setup(app, loader=ChoiceLoader([FileSystemLoader(folder())]), autoescape=True))
    app.router.add_get("/static/{name}", static)


def prepare_environment(env: Environment) -> Environment:
    """Give the templates what they call."""
    env.globals.update(grave=GRAVE, needed=needed, sparkline=sparkline, carried=carried)
    env.finalize = drawn
    env.add_extension(Sent)
    env.filters.update(formats.FILTERS, exact=exact)
    env.trim_blocks = env.lstrip_blocks = True
    env.auto_reload = False  # it would look at the files for each row
    env.bytecode_cache = _COMPILED
    return env


def folder() -> Path:
    """Where the templates are: the installed package `hub.templates`, else the checkout's folder."""
    spec = find_spec("hub.templates")
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[3] / "templates"


async def show(
    request: web.Request, template: str, context: Mapping[str, Any] | None = None, status: int = 200
) -> web.Response:
    """Answer with a page of its own in the frame, as `pages/call.html`.

    Its template extends `frame.html` and fills the blocks `title` and `main`; what stands in `<main data-live>` is
    fetched and put in again when something has happened: by the same address, with `viewer` in its query. Beside
    `context` it has `hub`, `now`, `url`, `trust`, and what stands in the head. `root` is the way to the main page from
    where this stands, as a form that was sent to an address of its own; one that is live says "".
    """
    head = await request.app[HEAD](request)
    drawn = aiohttp_jinja2.get_env(request.app).get_template(template)
    text = drawn.render({**surroundings(request), "root": "./", **head, **(context or {})})
    if "viewer" not in request.query:  # whose script counts by itself
        text = formats.retimed(text)
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


async def refuse(request: web.Request, error: HubError, root: str = "./") -> web.Response:
    """Answer with what the hub does not take, as a page in the frame. Raises the error for who wants no page, and where
    the hub itself has failed."""
    if not is_wanted(request) or error.status >= 500:
        raise error
    return await show(request, "pages/refused.html", {"sentence": error.message, "root": root}, error.status)


def surroundings(request: web.Request) -> dict[str, Any]:
    """What every page knows: the hub, the time, its own address (without the query), and what its viewer may do."""
    hub, peer = request.app[HUB], request.get(PEER)
    url = str(request.url.with_query(None))
    return {
        "hub": hub,
        "now": now(),
        "url": url,
        "cursor": str(hub.cursor),
        "trust": peer.trust if peer else "NONE",
        "root": "",
    }


def number(given: Mapping[str, str], name: str, usual: int) -> int:
    """A whole number of the query, `usual` at least. Raises HubError with status 400."""
    text = given.get(name, "")
    if not text:
        return usual
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII) or int(text) < usual:
        raise misfit("invalid_args", "This does not fit", {name: [f"Must be a number from {usual} on."]}, status=400)
    return int(text)


async def static(request: web.Request) -> web.FileResponse:
    """GET static/… : one of the page's own files, and no other."""
    query(request)
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    return web.FileResponse(folder() / "static" / name, headers={"Content-Type": STATIC[name] + "; charset=utf-8"})
