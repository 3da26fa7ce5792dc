"""What the tests of token mode share: a hub's guard and tokens, and requests sent as they are."""

import asyncio

from aiohttp import ClientSession, CookieJar
from running import HubInside

from hub import tokens
from hub.web import keys
from hub.web.access.credentials import Tokens
from hub.web.access.guard import Guard
from hub.wire.vocabulary import Trust


def guard_of(hub: HubInside) -> Guard:
    return hub.app[keys.GUARD]


def tokens_of(hub: HubInside) -> Tokens:
    found = guard_of(hub).tokens
    assert found
    return found


def bearer(hub: HubInside, trust: Trust = "OPERATOR") -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens.ensure(hub.hub.config.state_dir, trust)}"}


async def raw(port: int, *lines: str, target: str = "/api/state", host: str = "127.0.0.1") -> tuple[int, str]:
    """Send a request as it is; its status and all that came back."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request(port, *lines, target=target))
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1]), answer


def request(port: int, *lines: str, target: str = "/api/state") -> bytes:
    head = [f"GET {target} HTTP/1.1", *lines, "Connection: close", "", ""]
    if not any(line.startswith("Host:") for line in lines):
        head.insert(1, f"Host: 127.0.0.1:{port}")
    return "\r\n".join(head).encode("utf-8", "surrogateescape")


def browser() -> ClientSession:
    """Keeps cookies, as browsers do, also of a host that is an address."""
    return ClientSession(cookie_jar=CookieJar(unsafe=True))
