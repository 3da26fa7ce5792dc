"""What `hub print nginx` prints, in a real nginx with TLS: the page, calls, Server-Sent Events, a WebSocket."""

import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from doors import bearer
from prints import printed
from proxies import ADDRESS, kept, nginx
from running import HubInside, Stream, Talk, hub_app

pytestmark = pytest.mark.once

DOMAIN = "hub.user.example"


class ToNginx(AbstractResolver):
    """Every name is this address."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=ADDRESS, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={DOMAIN}"
    names = ["-addext", f"subjectAltName=DNS:{DOMAIN}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def ports() -> Iterator[Sequence[int]]:
    """Two that nginx can listen on."""
    with kept(2) as found:
        yield found


@asynccontextmanager
async def behind_nginx(
    folder: Path, ports: Sequence[int], certificate: tuple[Path, Path], change: tuple[str, str] = ("", "")
) -> AsyncIterator[tuple[HubInside, ClientSession, str]]:
    """A hub behind it as printed, but for ports and certificate; a client that has the token, and the address."""
    plain, secure = ports
    async with AsyncExitStack() as stack:
        settings: dict[str, Any] = {"auth": "token", "trusted_proxy": ("127.0.0.1",)}
        hub = await stack.enter_async_context(hub_app(folder / "state", **settings, allow_host=(f"{DOMAIN}:{secure}",)))
        text = printed("nginx", "--domain", DOMAIN, "--port", str(hub.port)).replace(*change)
        for there, here in (("80", f"{ADDRESS}:{plain}"), ("443 ssl", f"{ADDRESS}:{secure} ssl")):
            assert f"listen {there};" in text
            text = text.replace(f"listen {there};", f"listen {here} reuseport;")
            text = text.replace(f"listen [::]:{there};", "")
        for name, path in zip(("fullchain", "privkey"), certificate, strict=True):
            text = text.replace(f"/etc/letsencrypt/live/{DOMAIN}/{name}.pem", str(path))
        await stack.enter_async_context(nginx(folder, text, secure))
        context = ssl.create_default_context(cafile=str(certificate[0]))
        connector = TCPConnector(resolver=ToNginx(), ssl=context)
        http = await stack.enter_async_context(ClientSession(connector=connector, headers=bearer(hub)))
        yield hub, http, f"https://{DOMAIN}:{secure}/"


async def test_everything_goes_through_it(tmp_path: Path, ports: Sequence[int], certificate: tuple[Path, Path]) -> None:
    async with behind_nginx(tmp_path, ports, certificate) as (hub, http, url):
        async with http.get(url) as page:
            assert (page.status, page.content_type) == (200, "text/html")
        async with http.get(f"http://{DOMAIN}:{ports[0]}/api/state?topics=a:*", allow_redirects=False) as sent:
            assert (sent.status, sent.headers["Location"]) == (308, f"https://{DOMAIN}/api/state?topics=a:*")
        async with http.get(f"{url}events") as response, http.ws_connect(f"{url}ws", origin=url.rstrip("/")) as ws:
            events, client = Stream(response), Talk(ws)
            await events.block()
            for number in range(3):  # each is there before the next one is published
                async with http.post(f"{url}api/events", json={"event": "a:b", "data": number}) as answer:
                    assert answer.status == 200
                told = await events.event()
                assert told is not None
                assert told.json["payload"]["data"] == number
                assert (await client.event())["payload"]["data"] == number
            assert await client.call("hub:ping") == {"pong": True, "args": {}}
            assert {client.trust for client in hub.hub.clients} == {"OPERATOR"}
        async with http.post(f"{url}hooks/claude-code", data=BytesIO(b'{"x":"' + b"y" * 4_000_000 + b'"}')) as answer:
            assert answer.status != 413  # nginx's own limit is 1 MiB


@pytest.mark.parametrize(("line", "status"), [("Upgrade $http_upgrade;", 400), ("Host $http_host;", 403)])
async def test_weakened_without_a_line_of_it_the_websocket_does_not(
    line: str, status: int, tmp_path: Path, ports: Sequence[int], certificate: tuple[Path, Path]
) -> None:
    async with behind_nginx(tmp_path, ports, certificate, (f"proxy_set_header {line}", "")) as (_, http, url):
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": url.rstrip("/")}
        async with http.get(f"{url}ws", headers=upgrade) as answer:
            assert answer.status == status


def test_it_names_what_the_hub_has_to_be_told() -> None:
    text = printed("nginx", "--domain", DOMAIN, "--host", "127.0.0.1", "--port", "4000")
    assert f"HUB_AUTH=token HUB_TRUSTED_PROXY=127.0.0.1 HUB_ALLOW_HOST={DOMAIN}:443" in text
    assert re.findall(r"proxy_pass (\S+);", text) == ["http://127.0.0.1:4000"]


def test_an_ipv6_address_stands_in_brackets() -> None:
    texts = [printed(what, "--host", "::1", "--port", "3141") for what in ("nginx", "prometheus-rules")]
    assert [("[::1]:3141" in text, "//::1" in text) for text in texts] == [(True, False)] * 2
