"""Who gets in, over real sockets: every attack is refused by the one check that names it, and only by it."""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from strangers import as_older_kernels_say, as_stranger, needs_root

from hub.config import Config
from hub.errors import UsageError
from hub.web.access import connections, peer
from hub.web.access import guard as guards
from hub.web.access.guard import HEADERS, Guard, Refused
from hub.web.access.peer import Peer
from hub.web.keys import PEER


class Site:
    """A small application behind the guard, listening on a free port of this machine."""

    def __init__(self, **settings: Any) -> None:
        self.refused: list[tuple[str, str]] = []
        self.served: list[Peer] = []
        self.happened = asyncio.Event()
        self.guard = Guard(Config(**settings), refused=self._refused)
        self.port = 0

    def _refused(self, reason: str, address: str) -> None:
        self.refused.append((reason, address))
        self.happened.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.served.append(request[PEER])
        self.happened.set()
        return web.json_response({"uid": request[PEER].uid})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.served.append(request[PEER])
        await ws.close()
        return ws

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPInternalServerError

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/page", self._serve)
        app.router.add_post("/page", self._serve)
        app.router.add_get("/fail", self._fail)
        app.router.add_get("/ws", self._websocket, name="ws")
        app.router.add_get("/metrics", self._serve, name="metrics")
        app.router.add_get("/healthz", self._serve, name="healthz")
        app.router.add_static("/static", Path(__file__).parent)
        self.guard.protect(app)
        return app

    async def start(self, listener: socket.socket, *, mounted: bool = False) -> web.AppRunner:
        app = self.application()
        if mounted:
            app, inner = web.Application(), app
            app.add_subapp("/hub/", inner)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        assert runner.server is not None
        if not mounted:
            self.guard.watch(runner.server)
        self.port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        return runner

    async def ask(self, request: str, host: str = "127.0.0.1") -> tuple[int, dict[str, str], str]:
        """Send these lines as they are; PORT in them is the site's. (status, headers, body)"""
        reader, writer = await asyncio.open_connection(host, self.port)
        try:
            writer.write(self.raw(request))
            answer = (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()
        return read(answer)

    def raw(self, request: str) -> bytes:
        lines = request.replace("PORT", str(self.port)).split("\n")
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")


def read(answer: str) -> tuple[int, dict[str, str], str]:
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def listening(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


@pytest.fixture
async def sites() -> AsyncIterator[Any]:
    """Starts sites, and ends them with the test."""
    runners: list[web.AppRunner] = []

    async def start(host: str = "127.0.0.1", *, mounted: bool = False, **settings: Any) -> Site:
        site = Site(**settings)
        runners.append(await site.start(listening(host), mounted=mounted))
        return site

    yield start
    for runner in runners:
        await runner.cleanup()


def page(*headers: str, host: str = "localhost:PORT", target: str = "/page") -> str:
    return "\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *headers])


FORWARDING = (
    *("Forwarded: for=127.0.0.1", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost"),
    *("X-FORWARDED-PROTO: http", "X-Forwarded-Anything: 1", "X-Forwarded: 1", "X-Forwarded-For:"),
    *("X-Real-IP: ::1", "Via: 1.1 proxy", "CF-Connecting-IP: 127.0.0.1", "x-client-ip: 127.0.0.1"),
    *("True-Client-IP: 127.0.0.1", "CDN-Loop: somewhere"),
)
HOSTS = (
    *("evil.test", "evil.test:PORT", "localhost", "127.0.0.1", "localhost:1", "localhost:0PORT", ""),
    *("localhost:PORT0", "localhost.evil.test:PORT", "127.0.0.1.evil.test:PORT", "evil-localhost:PORT"),
    *("localhost..:PORT", "[::2]:PORT", "[::ffff:192.0.2.1]:PORT", "::1:PORT", "0.0.0.0:PORT", "[::]:PORT"),
    *("127.0.0.1,evil.test:PORT", "localhost:PORT, localhost:PORT", "a@localhost:PORT", "localhost:PORT/"),
    *("127.1:PORT", "0x7f.0.0.1:PORT", "2130706433:PORT", "localhost:+PORT", "[::1%25lo]:PORT", "[::1:PORT"),
)
ORIGINS = (
    *("http://evil.test", "https://localhost:PORT", "http://localhost", "http://localhost:1", "null", ""),
    *("http://127.0.0.2:PORT", "http://[::1]:PORT", "NULL", "http://localhost:PORT/", "http://", "://"),
    *("http://localhost:PORT.evil.test", "http://localhost:PORT, http://localhost:PORT", "http://["),
    *("http://a@localhost:PORT", "file://", "http://localhost:999999999999999999999", "localhost:PORT"),
    *("http://local\udcffhost:PORT", "http://evil.test:PORT"),
)
ATTACKS = [
    *(pytest.param("forwarded", page(line), id=line) for line in FORWARDING),
    *(pytest.param("host", page(host=host), id=f"Host {host}") for host in HOSTS),
    pytest.param("host", "GET /page HTTP/1.0", id="no Host, HTTP/1.0"),
    *(
        pytest.param("host", page(target=f"{target}/page"), id=f"target {target}")
        for target in ("http://evil.test", "http://evil.test:PORT", "http://localhost", "https://localhost:1")
    ),
    pytest.param("host", page(target="http://localhost:PORT@evil.test/page"), id="target with user"),
    *(pytest.param("origin", page(f"Origin: {origin}"), id=f"Origin {origin!a}") for origin in ORIGINS),
    pytest.param("origin", page("Origin: http://localhost:PORT", "Origin: http://localhost:PORT"), id="Origin twice"),
    *(
        pytest.param("origin", page(f"Origin: http://{alias}:PORT", host=f"{host}:PORT"), id=f"{alias} at {host}")
        for host, alias in (("127.0.0.1", "localhost"), ("localhost", "127.0.0.1"), ("[::1]", "localhost"))
    ),
    *(
        pytest.param("fetch_site", page(f"Sec-Fetch-Site: {site}"), id=f"Sec-Fetch-Site {site}")
        for site in ("cross-site", "same-site", "", "anything", "same-origin, none", "Same-Origin")
    ),
    pytest.param("fetch_site", page(*["Sec-Fetch-Site: none"] * 2), id="Sec-Fetch-Site twice"),
]


@pytest.mark.parametrize(("check", "request_"), ATTACKS)
async def test_an_attack_is_refused(sites: Any, check: str, request_: str) -> None:
    site = await sites()

    status, headers, body = await site.ask(request_)

    error = json.loads(body)
    assert status == (421 if check == "host" else 403)
    assert error == {"error": error["error"], "code": "forbidden", "retryable": False}
    assert re.fullmatch(r"[ -~]{10,300}[.!]", error["error"])
    assert headers["content-type"].startswith("application/json")
    assert site.refused == [(check, "127.0.0.1")]
    assert site.served == []


@pytest.mark.parametrize(("check", "request_"), ATTACKS)
async def test_the_attack_succeeds_where_its_check_is_off(sites: Any, check: str, request_: str) -> None:
    site = await sites()
    del site.guard.checks[check]

    status, _, _ = await site.ask(request_)

    assert status == 200
    assert site.refused == []
    assert [who.trust for who in site.served] == ["OPERATOR"]


@pytest.mark.parametrize("lines", ["GET /page HTTP/1.1", page("Host: evil.test"), page("Host: [::1]:PORT")])
async def test_no_host_or_two_never_reach_the_application(sites: Any, lines: str) -> None:
    site = await sites()

    status, _, _ = await site.ask(lines)

    assert status in (400, 421)
    assert site.served == []


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("hosts", [[], ["localhost:80", "localhost:80"], ["localhost:80", "evil.test"]])
def test_exactly_one_host(hosts: list[str], weakened: bool) -> None:
    guard = mocked_guard(port=80)
    if weakened:
        del guard.checks["host"]
    request = mocked_request([("Host", host) for host in hosts], port=80)

    assert outcome(guard, request) == ("OPERATOR" if weakened else "host")


@pytest.mark.parametrize(
    "request_",
    [
        page(),
        *(page(host=host) for host in ("LOCALHOST:PORT", "localhost.:PORT", "127.0.0.1:PORT")),
        page(host="127.9.8.7:PORT"),
        *(page(host=host) for host in ("[::1]:PORT", "[0:0:0:0:0:0:0:1]:PORT", "[::ffff:127.0.0.1]:PORT")),
        *(page(host=host) for host in ("[::FFFF:7F00:1]:PORT", "127.0.0.1.:PORT")),
        page(target="http://localhost:PORT/page"),
        page(target="HTTP://127.0.0.1:PORT/page?x=http://evil.test"),
        page(target="/page?next=http://evil.test"),
        page("Origin: http://localhost:PORT", "Sec-Fetch-Site: same-origin"),
        page("Origin: http://127.0.0.1:PORT", host="127.0.0.1:PORT"),
        page("Origin: http://[::1]:PORT", host="[::1]:PORT"),
        page("Origin: http://localhost.:PORT", host="localhost.:PORT"),
        page("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1"),
        page().replace("GET", "POST", 1) + "\nContent-Length: 0",
    ],
)
async def test_the_operator_gets_in(sites: Any, request_: str) -> None:
    site = await sites()

    status, _, body = await site.ask(request_)

    assert (status, json.loads(body)) == (200, {"uid": os.geteuid()})
    assert site.refused == []
    assert site.served[0].trust == "OPERATOR"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", str(site.served[0]))


async def test_the_operator_gets_in_over_ipv6(sites: Any) -> None:
    site = await sites("::1")

    status, _, _ = await site.ask(page("Origin: http://[::1]:PORT", host="[::1]:PORT"), "::1")

    assert status == 200
    assert site.served[0].address == "::1"


async def test_the_hosts_of_a_connection_are_checked_one_by_one(sites: Any) -> None:
    site = await sites()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    good = f"GET /page HTTP/1.1\r\nHost: localhost:{site.port}\r\n\r\n"
    writer.write((good * 2).encode() + site.raw(page(host="evil.test:PORT")))
    answers = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()

    assert re.findall(r"HTTP/1.1 (\d+)", answers) == ["200", "200", "421"]


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("hub.test", "hub.test:PORT", 200),
        ("hub.test", "HUB.test.:PORT", 200),
        ("hub.test", "hub.test", 421),
        ("hub.test", "hub.test:9", 421),
        ("hub.test", "www.hub.test:PORT", 421),
        ("Hub.Test.:9", "hub.test:9", 200),
        ("hub.test:9", "hub.test:PORT", 421),
        ("hub.test:80", "hub.test", 200),
        ("[2001:db8::1]", "[2001:DB8:0::1]:PORT", 200),
    ],
)
async def test_allow_host(sites: Any, allowed: str, host: str, status: int) -> None:
    site = await sites(allow_host=(allowed,))

    assert (await site.ask(page(host=host)))[0] == status


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("hub.test", "http://hub.test:PORT", 200),
        ("hub.test", "http://hub.test", 403),
        ("hub.test:80", "http://hub.test", 200),
        ("hub.test:9", "http://hub.test:9", 200),
        ("hub.test:9", "https://hub.test:9", 403),
    ],
)
async def test_a_page_under_an_allowed_host_is_an_own_page(sites: Any, allowed: str, origin: str, status: int) -> None:
    site = await sites(allow_host=(allowed,))
    host = allowed if ":" in allowed else f"{allowed}:PORT"

    assert (await site.ask(page(f"Origin: {origin}", host=host)))[0] == status
    assert (await site.ask(page(f"Origin: {origin}")))[0] == 403  # of a page under another of its names


@pytest.mark.parametrize(
    ("allowed", "headers", "status"),
    [
        ("https://other.test", ["Origin: https://other.test"], 200),
        ("https://Other.test:443/", ["Origin: https://other.test"], 200),
        ("https://other.test", ["Origin: https://other.test", "Sec-Fetch-Site: cross-site"], 200),
        ("https://other.test", ["Origin: http://other.test"], 403),
        ("https://other.test", ["Origin: https://other.test:8443"], 403),
        ("https://other.test", ["Sec-Fetch-Site: cross-site"], 403),
        ("chrome-extension://abc", ["Origin: chrome-extension://abc"], 200),
    ],
)
async def test_allow_origin(sites: Any, allowed: str, headers: list[str], status: int) -> None:
    site = await sites(allow_origin=(allowed,))

    assert (await site.ask(page(*headers)))[0] == status


@pytest.mark.parametrize("settings", [{"allow_host": ("a b",)}, {"allow_origin": ("null",)}])
def test_a_guard_is_not_built_for_what_is_no_name(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^--allow-(host|origin) needs "):
        Guard(Config(**settings), refused=mock.Mock())


# Other accounts.


@needs_root
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_another_account_is_refused(sites: Any, mounted: bool, weakened: bool) -> None:
    site = await sites(mounted=mounted)
    if weakened:
        del site.guard.checks["user"]

    status, body = await stranger(site, page(target="/hub/page" if mounted else "/page"))

    assert status == (200 if weakened else 403)
    assert site.refused == ([] if weakened else [("user", "127.0.0.1")])
    assert [who.trust for who in site.served] == (["NONE"] if weakened else [])
    assert weakened or "another account" in json.loads(body)["error"]


@needs_root
@pytest.mark.parametrize("target", ["/metrics", "/healthz"])
@pytest.mark.parametrize("mounted", [False, True])
async def test_another_account_may_read_metrics_and_health(sites: Any, target: str, mounted: bool) -> None:
    site = await sites(mounted=mounted)
    target = "/hub" + target if mounted else target

    assert (await stranger(site, page(target=target)))[0] == 200
    assert (await stranger(site, page(target=target, host="evil.test:PORT")))[0] == 421
    assert (await stranger(site, page("X-Forwarded-For: ::1", target=target)))[0] == 403
    assert (await stranger(site, page("Origin: http://evil.test", target=target)))[0] == 403
    assert (await stranger(site, page("Sec-Fetch-Site: cross-site", target=target)))[0] == 403
    assert (await stranger(site, page(target=target).replace("GET", "POST", 1)))[0] == 403
    assert [who.uid for who in site.served] == [65534]


@needs_root
@pytest.mark.parametrize("weakened", [False, True])
async def test_another_account_that_sends_and_closes_at_once_is_refused(
    monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    as_older_kernels_say(monkeypatch)
    if weakened:
        monkeypatch.setattr(peer, "_is_held", lambda inode: True)
    site, listener = Site(), listening()
    site.port = listener.getsockname()[1]
    await as_stranger(site.port, site.raw(page()), "s.close()")

    runner = await site.start(listener)  # only now is anything accepted
    await site.happened.wait()
    await runner.cleanup()

    assert site.refused == ([] if weakened else [("user", "127.0.0.1")])
    assert [who.uid for who in site.served] == ([0] if weakened else [])


async def stranger(site: Site, request: str) -> tuple[int, str]:
    """The answer that another account of this machine gets: (status, body)."""
    status, _, body = read(await as_stranger(site.port, site.raw(request)))
    return status, body


@pytest.mark.parametrize("weakened", [False, True])
async def test_no_certain_answer_means_no(sites: Any, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    monkeypatch.setattr(connections, "owner", lambda transport: None)
    site = await sites()
    if weakened:
        del site.guard.checks["user"]

    assert (await site.ask(page()))[0] == (200 if weakened else 403)
    assert (await site.ask(page(target="/healthz")))[0] == 200


async def test_the_kernel_is_asked_once_a_connection_and_at_every_request_where_that_is_not_seen(
    sites: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def owner(transport: Any) -> int:
        asked.append(transport)
        return os.geteuid()

    monkeypatch.setattr(connections, "owner", owner)
    site, mounted = await sites(), await sites(mounted=True)
    for each, path, times in ((site, "/page", 1), (mounted, "/hub/page", 3)):
        asked.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", each.port)
        lines = f"GET {path} HTTP/1.1\r\nHost: localhost:{each.port}\r\n\r\n"
        writer.write((lines * 2).encode() + each.raw(page(target=path)))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        assert (len(each.served), len(asked)) == (3, times)


async def test_a_connection_that_sends_nothing_is_known_already(sites: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()
    monkeypatch.setattr(connections, "owner", lambda transport: asked.set())
    site = await sites()
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)

    await asked.wait()
    writer.close()
    await writer.wait_closed()


# Other machines: the hub never listens for them, but the application that it is mounted in may.


@pytest.mark.parametrize("weakened", [False, True])
async def test_another_machine_is_refused(sites: Any, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    site = await sites()
    from_elsewhere(monkeypatch, site)
    if weakened:
        del site.guard.checks["peer"]

    assert (await site.ask(page(target="/metrics")))[0] == (200 if weakened else 403)
    assert (await site.ask(page()))[0] == 403
    second = "user" if weakened else "peer"  # the kernel knows nobody of another machine
    assert site.refused == [("peer", "192.0.2.1")] * (not weakened) + [(second, "192.0.2.1")]


async def test_another_machines_websocket_is_closed_with_1008(sites: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await sites()
    from_elsewhere(monkeypatch, site)
    async with ClientSession() as session, session.ws_connect(f"http://localhost:{site.port}/ws") as ws:
        message = await ws.receive()

    assert message.type is WSMsgType.CLOSE
    assert (message.data, message.extra) == (1008, "Only local connections allowed")
    assert site.served == []
    assert (await site.ask(page(target="/ws")))[0] == 403


def from_elsewhere(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    """Every connection to the site comes from an address of another machine, as far as the guard can see."""

    def endpoint(name: Any) -> tuple[str, int]:
        return peer.endpoint(name) if name[1] == site.port else ("192.0.2.1", name[1])

    monkeypatch.setattr(connections, "endpoint", endpoint)


@pytest.mark.parametrize(
    ("peername", "reason"),
    [
        (("127.0.0.1", 9), None),
        (("127.3.2.1", 9), None),
        (("::1", 9, 0, 0), None),
        (("::ffff:127.0.0.1", 9, 0, 0), None),
        (("192.0.2.1", 9), "peer"),
        (("::ffff:192.0.2.1", 9, 0, 0), "peer"),
        (("fe80::1%eth0", 9, 0, 2), "peer"),
        ("", "peer"),
        (None, "peer"),
    ],
)
@pytest.mark.parametrize("weakened", [False, True])
def test_only_loopback_peers(peername: Any, reason: str | None, weakened: bool) -> None:
    guard = mocked_guard(port=80)
    if weakened:
        del guard.checks["peer"], guard.checks["user"]
    request = mocked_request([("Host", "localhost")], port=80, peername=peername)

    trust = "OPERATOR" if reason is None else "NONE"
    assert outcome(guard, request) == (trust if weakened or reason is None else reason)


@pytest.mark.parametrize(
    ("host", "origin", "reason"),
    [
        ("localhost", "https://localhost", "OPERATOR"),
        ("localhost:443", "https://localhost", "OPERATOR"),
        ("localhost", "http://localhost", "origin"),
        ("localhost:80", "https://localhost", "host"),
    ],
)
def test_tls(host: str, origin: str, reason: str) -> None:
    request = mocked_request([("Host", host), ("Origin", origin)], port=443, tls=True)

    assert outcome(mocked_guard(port=443), request) == reason


async def test_a_connection_is_remembered_until_it_is_lost_even_if_it_takes_no_weak_reference() -> None:
    guard, server = mocked_guard(port=80), web.Server(mock.Mock())
    guard.watch(server)
    request = mocked_request([("Host", "localhost")])
    handler: Any = request.protocol
    with mock.patch.object(connections, "owner", return_value=os.geteuid()) as owner:
        server.connection_made(handler, handler.transport)
        assert [guard.check(request).trust for _ in range(2)] == ["OPERATOR"] * 2
        assert (owner.call_count, len(guard.accepted.connections)) == (1, 1)
        server.connection_lost(handler)
    assert guard.accepted.connections == {}


async def test_nothing_is_kept_of_a_connection_that_is_closed(sites: Any) -> None:
    site = await sites()
    for lines in (page(), page(host="evil.test"), "what is this"):
        await site.ask(lines)
    await all_gone(site)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /page HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % site.port)
    await reader.readuntil(b"}")
    assert len(site.guard.accepted.connections) == 1
    writer.transport.abort()
    await all_gone(site)


async def all_gone(site: Site) -> None:
    """Wait until the guard knows no connection; the time limit of the test ends it."""
    while site.guard.accepted.connections:
        await asyncio.sleep(0)


def test_a_connection_that_is_gone_is_nobodys() -> None:
    request = mocked_request([("Host", "localhost")], port=80)
    with mock.patch.object(web.Request, "transport", None):
        assert outcome(mocked_guard(port=80), request) == "user"


@given(st.text(max_size=60))
def test_the_checks_never_raise_anything_else(text: str) -> None:
    guard = mocked_guard(port=80)

    assert outcome(guard, mocked_request([("Host", text)])) in ("host", "OPERATOR")
    assert outcome(guard, mocked_request([("Host", "localhost"), ("Origin", text)])) in ("origin", "OPERATOR")
    assert outcome(guard, mocked_request([("Host", f"[{text}]:80")])) in ("host", "OPERATOR")


@given(st.from_regex(r"https?://[a-z0-9@:.\[\]%-]{0,30}(/[a-z]*)?", fullmatch=True))
def test_no_target_makes_the_check_raise(target: str) -> None:
    request = mocked_request([("Host", "localhost")])
    with mock.patch.object(web.Request, "raw_path", target):
        assert outcome(mocked_guard(port=80), request) in ("host", "OPERATOR")


class Transport:
    """A transport that takes no weak references, as uvloop's for TLS."""

    __slots__ = ("facts",)

    def __init__(self, peername: Any, port: int, tls: bool) -> None:
        self.facts = {
            "peername": peername,
            "sockname": ("127.0.0.1", port),
            "sslcontext": tls or None,
            "socket": None,
        }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.facts.get(name, default)


def mocked_guard(port: int) -> Guard:
    return Guard(Config(port=port), refused=mock.Mock())


def mocked_request(
    headers: list[tuple[str, str]],
    *,
    port: int = 80,
    peername: Any = ("127.0.0.1", 9),
    tls: bool = False,
) -> web.Request:
    transport = Transport(peername, port, tls)
    return make_mocked_request("GET", "/page", CIMultiDict(headers), transport=transport)


def outcome(guard: Guard, request: web.Request) -> str:
    """The peer's trust, or the reason of the refusal."""
    with mock.patch.object(connections, "owner", return_value=os.geteuid()):
        try:
            return guard.check(request).trust
        except Refused as refusal:
            return refusal.reason


# What every response carries.


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
PROMISED = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
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
        (page(target="/static/test_peer.py"), 200),
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


# What `--auth local` cannot protect does not start.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3", "::ffff:127.0.0.1"])
def test_a_loopback_bind_is_fine(host: str) -> None:
    guards.refuse_bind(Config(host=host))


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"trusted_proxy": ("127.0.0.1",)}, {"host": "192.0.2.1"}])
def test_with_a_token_every_bind_is_fine(settings: dict[str, Any]) -> None:
    guards.refuse_bind(Config(auth="token", **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_proxy": ("127.0.0.1",)},
        *({"host": host} for host in ("0.0.0.0", "::", "", "192.0.2.1", "example.org", "localhost.example")),
    ],
)
def test_what_needs_a_token_does_not_start(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^[ -~]{10,120}\.$"):
        guards.refuse_bind(Config(**settings))


@pytest.mark.parametrize(
    ("host", "name", "own"),
    [
        ("hub.test", "hub.test:80", True),
        ("hub.test", "other.test:80", False),
        ("[::1]", "hub.test:80", False),
        ("", "hub.test:80", False),
        ("0.0.0.0", "127.0.0.1:80", True),
    ],
)
def test_in_token_mode_a_hub_answers_to_the_name_that_it_listens_on(
    tmp_path: Path, host: str, name: str, own: bool
) -> None:
    guard = Guard(Config(auth="token", host=host, port=80, state_dir=tmp_path), refused=mock.Mock())
    assert outcome(guard, mocked_request([("Host", name)])) == ("token" if own else "host")


def test_a_system_that_does_not_name_the_user_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "supported", lambda: False)

    guards.refuse_bind(Config())
    assert guards.mode(Config()) == "token"
    with pytest.raises(UsageError, match="does not say whose"):
        guards.refuse_bind(Config(auth="local"))
