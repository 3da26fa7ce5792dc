"""Other accounts of this machine, other machines, and what is known of a connection."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientSession, WSMsgType, web
from sites import Site, listening, mocked_guard, mocked_request, outcome, page, read, starting
from strangers import as_older_kernels_say, as_stranger, needs_root

from hub import sockdiag
from hub.web.access import connections, peer


@pytest.fixture
async def sites() -> AsyncIterator[Any]:
    """Starts sites, and ends them with the test."""
    async with starting() as start:
        yield start


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
        monkeypatch.setattr(sockdiag, "_is_held", lambda inode: True)
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


# What is known of a connection.


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


async def test_a_connection_that_is_gone_is_nobodys() -> None:
    """uvloop does not know any more who a connection was from that was reset: nobody is refused, and nothing noted."""
    guard = mocked_guard(port=80)
    assert outcome(guard, mocked_request([("Host", "localhost")], port=80, peername=None)) == "user"
    assert guard.refused.call_count == 0  # type: ignore[attr-defined]
    server, transport = web.Server(mock.Mock()), mock.Mock(get_extra_info=mock.Mock(return_value=None))
    guard.watch(server)
    server.connection_made(mock.Mock(), transport)
    assert guard.accepted.connections == {}
    request = mocked_request([("Host", "localhost")], port=80)
    with mock.patch.object(web.Request, "transport", None):
        assert outcome(mocked_guard(port=80), request) == "user"
