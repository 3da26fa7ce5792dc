"""Letting a browser in: a one-time link becomes a session's cookie. Only in token mode."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from ...errors import UsageError
from ...private import Unsafe
from ...stdio import mention
from ...wire.strictjson import dumpb
from ..answers import answer
from ..keys import GUARD, LOGIN_ROUTE, PEER, SEEN
from .credentials import Tokens

LOOK = 1.0  # seconds between two looks whether a token was replaced, or a session has ended


def setup(app: web.Application) -> None:
    """Add the routes, make the token when the application starts, and end what an old token has opened."""
    app.router.add_post("/login", link, name="api-login")
    app.router.add_get("/login/{code}", enter, name=LOGIN_ROUTE, allow_head=False)
    app.cleanup_ctx.append(_watch)


async def link(request: web.Request) -> web.Response:
    """POST /login: `{link}`, relative to this hub, good once and for ten minutes, with the trust of who asks."""
    code = _tokens(request.app).link(request[PEER].trust)
    return answer(dumpb({"link": f"login/{code}"}))


async def enter(request: web.Request) -> web.Response:
    """GET /login/{code}: the cookie, and on to the page. The cookie is neither the code nor the token."""
    tokens, peer = _tokens(request.app), request[PEER]
    code = request.match_info["code"]
    secret = tokens.enter(code, peer)
    if secret is None:  # counts as a bad token does
        sentence = "This link is used up or too old; hub token --link prints a new one."
        raise request.app[GUARD].refuse("token", sentence, peer)
    response = web.Response(status=303, headers={hdrs.LOCATION: "../"})
    response.set_cookie(
        request[SEEN].cookie,
        secret,
        path=request.path.removesuffix(f"login/{code}") or "/",
        secure=request[SEEN].scheme == "https",
        httponly=True,
        samesite="Strict",
    )
    return response


def invite(tokens: Tokens, url: str) -> None:
    """Print the way to the page, once good. A browser is not started with it: every account of the machine can read the
    arguments of a program."""
    mention(f"open its page, once and within ten minutes, with {url}login/{tokens.link('OPERATOR')}")


def _tokens(app: web.Application) -> Tokens:
    found = app[GUARD].tokens
    assert found is not None
    return found


async def _watch(app: web.Application) -> AsyncIterator[None]:
    tokens = _tokens(app)
    try:
        tokens.open()
    except (OSError, Unsafe) as error:
        raise UsageError(f"{error}.") from None

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK)
            tokens.look()

    task = asyncio.create_task(look())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
