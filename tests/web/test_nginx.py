"""`--trusted-proxy` behind a real nginx: what it passes on gets in with the token only, under the address it names."""

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, WSServerHandshakeError
from doors import bearer, guard_of, tokens_of
from running import Talk, hub_app, send_signal, until

from hub.web.access.credentials import FAILURES
from hub.web.access.proxy import Proxies

# As nginx's own documentation has it for a WebSocket, and what a proxy is expected to say of its client.
SETTINGS = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen {address} reuseport;
        location / {{
            proxy_pass http://127.0.0.1:{hub};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""
OUTSIDE = "127.0.0.3"  # where the clients come from


@pytest.fixture
def door() -> Any:
    """Keeps the port on which nginx is to listen, so that the hub can be told it before."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.2", 0))
        yield sock


@asynccontextmanager
async def nginx(door: socket.socket, folder: Path, hub: int) -> AsyncIterator[str]:
    """nginx before the hub on this port; its address."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: the package nginx)")
    address = "{}:{}".format(*door.getsockname())
    settings = folder / "nginx.conf"
    settings.write_text(SETTINGS.format(folder=folder, address=address, hub=hub))
    command = (program, "-p", str(folder), "-e", "stderr", "-c", str(settings))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: process.returncode is not None or listens(door), "nginx listening")
        yield f"http://{address}/"
    finally:
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == 0


def listens(door: socket.socket) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(door.getsockname()) == 0


def outside(**headers: str) -> ClientSession:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ClientSession(connector=TCPConnector(local_addr=(OUTSIDE, 0)), headers=named)


def settings(door: socket.socket) -> dict[str, Any]:
    return {"auth": "token", "trusted_proxy": ("127.0.0.1",), "allow_host": ("{}:{}".format(*door.getsockname()),)}


async def test_behind_nginx_the_token_decides(door: socket.socket, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        nginx(door, tmp_path, hub.port) as url,
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


async def test_a_browser_gets_in_by_its_link_through_nginx(door: socket.socket, tmp_path: Path) -> None:
    async with (
        hub_app(tmp_path / "state", **settings(door)) as hub,
        nginx(door, tmp_path, hub.port) as url,
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
    door: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Neither to be of this machine, nor to guess from ever new addresses."""
    if weakened:  # every hop is believed
        monkeypatch.setattr(Proxies, "trusts", lambda self, address: True)
    async with hub_app(tmp_path / "state", **settings(door)) as hub, nginx(door, tmp_path, hub.port) as url:
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
async def test_a_proxy_that_nobody_named_gets_nothing(
    door: socket.socket, tmp_path: Path, weakened: bool, auth: str
) -> None:
    """Without the check the whole world would look like this machine."""
    host = "{}:{}".format(*door.getsockname())
    async with (
        hub_app(tmp_path / "state", auth=auth, allow_host=(host,)) as hub,
        nginx(door, tmp_path, hub.port) as url,
    ):
        if weakened:
            del guard_of(hub).checks["forwarded"]
        async with outside(**bearer(hub)) as client, client.get(f"{url}api/state") as answer:
            assert answer.status == (200 if weakened else 403)
