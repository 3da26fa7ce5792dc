"""`--trusted-proxy` behind a real nginx: what it passes on gets in with the token only, under the address it names."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector, WSServerHandshakeError
from doors import bearer, guard_of, tokens_of
from prints import printed
from proxies import ADDRESS, kept, nginx
from running import Talk, hub_app

from hub.web.access.credentials import FAILURES
from hub.web.access.proxy import Proxies

# What nginx is to be told, as it is printed: the part that passes on. All of it, with TLS: printed/test_nginx_conf.py
BLOCK = "location / {" + printed("nginx").partition("location / {")[2].partition("\n    }\n")[0] + "}"
SERVER = """
map $http_upgrade $hub_connection {{ default upgrade; '' close; }}
server {{
    listen {address} reuseport;
    {block}
}}
"""
OUTSIDE = "127.0.0.3"  # where the clients come from


@pytest.fixture
def door() -> Iterator[str]:
    """The address on which nginx is to listen, so that the hub can be told it before."""
    with kept(1) as (port,):
        yield f"{ADDRESS}:{port}"


@asynccontextmanager
async def passing_on(door: str, folder: Path, hub: int, block: str = BLOCK) -> AsyncIterator[str]:
    """nginx before the hub on this port; its address."""
    servers = SERVER.format(address=door, block=block.replace("127.0.0.1:3141", f"127.0.0.1:{hub}"))
    async with nginx(folder, servers, int(door.rpartition(":")[2])):
        yield f"http://{door}/"


def outside(**headers: str) -> ClientSession:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ClientSession(connector=TCPConnector(local_addr=(OUTSIDE, 0)), headers=named)


def settings(door: str) -> dict[str, Any]:
    return {"auth": "token", "trusted_proxy": ("127.0.0.1",), "allow_host": (door,)}


async def test_behind_nginx_the_token_decides(door: str, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        passing_on(door, tmp_path, hub.port) as url,
        outside() as without,
        outside(**bearer(hub)) as known,
    ):
        for path in ("", "api/state", "metrics", "healthz"):
            async with without.get(url + path) as answer:
                assert answer.status == 401
            async with known.get(url + path) as answer:
                assert answer.status == 200
        with pytest.raises(WSServerHandshakeError) as refused:
            await without.ws_connect(f"{url}ws")
        assert refused.value.status == 401
        for headers, status in (({"Origin": "http://evil.test"}, 403), ({"Host": "evil.test"}, 421)):
            async with known.get(f"{url}api/state", headers=headers) as answer:
                assert answer.status == status
        async with known.ws_connect(f"{url}ws", headers={"Origin": url.rstrip("/")}) as socket:
            client = Talk(socket)
            await client.call("hub:publish", event="a:b", data=1)
            assert await client.name() == "a:b"
            (seen,) = hub.hub.clients
            assert (seen.peer, seen.uid, seen.trust) == (OUTSIDE, None, "OPERATOR")


async def test_events_come_through_nginx_one_by_one(door: str, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        passing_on(door, tmp_path, hub.port) as url,
        outside(**bearer(hub)) as known,
        known.get(f"{url}events") as events,
    ):
        for number in range(3):
            await hub.hub.publish("a:b", number)
            assert await anext(data_of(events)) == number


async def data_of(events: ClientResponse) -> AsyncIterator[Any]:
    """What the events of a stream carry."""
    async for line in events.content:
        if line.startswith(b"data:"):
            yield json.loads(line.removeprefix(b"data:"))["payload"]["data"]


async def test_as_it_is_by_itself_nginx_lets_no_websocket_through(door: str, tmp_path: Path) -> None:
    """It takes the upgrade out, and older ones speak HTTP/1.0. All the rest works."""
    plain = """location / {
        proxy_pass http://127.0.0.1:3141; proxy_http_version 1.0; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }"""
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        passing_on(door, tmp_path, hub.port, plain) as url,
        outside(**bearer(hub)) as known,
    ):
        async with known.get(f"{url}api/state") as answer:
            assert answer.status == 200
        async with known.post(f"{url}api/events", json={"event": "a:b", "data": 1}) as answer:
            assert answer.status == 200
        async with known.get(f"{url}ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"].endswith(".")


async def test_a_browser_gets_in_by_its_link_through_nginx(door: str, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        passing_on(door, tmp_path, hub.port) as url,
        outside() as browser,
    ):
        link = tokens_of(hub).link("OPERATOR")
        async with browser.get(f"{url}login/{link}", allow_redirects=False) as answer:
            assert answer.status == 303
            (cookie,) = answer.cookies.values()
        for headers, status in (({}, 401), ({"Cookie": f"{cookie.key}={cookie.value}"}, 200)):
            async with browser.get(url, headers=headers) as page:
                assert page.status == status


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_a_client_writes_into_the_headers_does_not_help(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Neither to be of this machine, nor to guess from ever new addresses."""
    if weakened:  # every hop is believed
        monkeypatch.setattr(Proxies, "trusts", lambda self, address: True)
    async with hub_app(tmp_path / "state", **settings(door)) as hub, passing_on(door, tmp_path, hub.port) as url:
        statuses = []
        for number in range(FAILURES + 1):
            forged = {"X-Forwarded-For": f"198.51.100.{number}", "Authorization": "Bearer wrong"}
            async with outside() as guesser, guesser.get(f"{url}metrics", headers=forged) as answer:
                statuses.append(answer.status)
        assert statuses == [401] * FAILURES + [401 if weakened else 429]
        addresses = {address for address, _ in tokens_of(hub).failures._counts}
        assert addresses == ({f"198.51.100.{n}" for n in range(FAILURES + 1)} if weakened else {OUTSIDE})
        async with outside() as client, client.get(f"{url}metrics", headers={"Forwarded": "for=127.0.0.1"}) as answer:
            assert answer.status == 403


@pytest.mark.parametrize(("weakened", "auth"), [(False, "local"), (False, "token"), (True, "local")])
async def test_a_proxy_that_nobody_named_gets_nothing(door: str, tmp_path: Path, weakened: bool, auth: str) -> None:
    """Without the check the whole world would look like this machine."""
    async with (
        hub_app(tmp_path / "state", auth=auth, allow_host=(door,)) as hub,
        passing_on(door, tmp_path, hub.port) as url,
    ):
        if weakened:
            del guard_of(hub).checks["forwarded"]
        async with outside(**bearer(hub)) as client, client.get(f"{url}api/state") as answer:
            assert answer.status == (200 if weakened else 403)
