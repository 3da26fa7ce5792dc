"""What every response carries, and who is asked to wait."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from sites import page, starting

from hub.web.access.guard import HEADERS
from hub.web.access.peer import Peer


@pytest.fixture
async def sites() -> AsyncIterator[Any]:
    """Starts sites, and ends them with the test."""
    async with starting() as start:
        yield start


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
PROMISED = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.mark.parametrize("weakened", [None, *HEADERS])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (page(), 200),
        (page(target="/nothing"), 404),
        (page().replace("GET", "DELETE", 1), 405),
        (page(target="/fail"), 500),
        (page(target="/static/test_guard.py"), 200),
        (page(target="/static/nothing"), 404),
        (page(host="evil.test"), 421),
        (page("X-Real-IP: ::1"), 403),
        ("what is this", 400),
        (page("Content-Length: x"), 400),
    ],
)
async def test_every_response_has_the_security_headers(
    sites: Any, request_: str, status: int, weakened: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await sites()
    if weakened:
        monkeypatch.delitem(HEADERS, weakened)

    found, headers, _ = await site.ask(request_)

    assert found == status
    missing = {name for name, value in PROMISED.items() if headers.get(name) != value}
    assert missing == ({weakened.lower()} if weakened else set())
    assert not [name for name in headers if name.startswith("access-control-")]


async def test_the_upgrade_has_the_security_headers(sites: Any) -> None:
    site = await sites()
    async with ClientSession() as session, session.ws_connect(f"http://localhost:{site.port}/ws") as ws:
        assert ws._response.headers.items() >= HEADERS.items()
        assert (await ws.receive()).type is WSMsgType.CLOSE


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://localhost:1", ""])
async def test_a_foreign_pages_websocket_gets_no_upgrade(sites: Any, origin: str) -> None:
    site = await sites()
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    upgrade = page(f"Origin: {origin}", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key, target="/ws")

    status, _, _ = await site.ask(upgrade)

    assert status == 403
    assert site.served == []


async def test_the_limit_is_asked_for_those_who_passed(sites: Any) -> None:
    site = await sites()
    waits, asked = iter([0.0, 1.2]), []

    def limit(request: web.Request, peer: Peer) -> float:
        asked.append((request.path, peer.uid))
        return next(waits)

    site.guard.limit = limit
    assert (await site.ask(page(host="evil.test")))[0] == 421
    assert (await site.ask(page()))[0] == 200
    status, headers, body = await site.ask(page())

    assert asked == [("/page", os.geteuid())] * 2
    assert (status, headers["retry-after"]) == (429, "2")
    assert json.loads(body)["code"] == "rate_limited"
    assert json.loads(body)["retry_after"] == 1.2
