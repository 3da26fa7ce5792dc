"""Who gets in, over real sockets: every attack is refused by the one check that names it, and only by it."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from sites import mocked_guard, mocked_request, outcome, page, starting

from hub.config import Config
from hub.errors import UsageError
from hub.web.access.guard import Guard


@pytest.fixture
async def sites() -> AsyncIterator[Any]:
    """Starts sites, and ends them with the test."""
    async with starting() as start:
        yield start


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


async def behind_a_good_one(site: Any, request: str, *, weakened: bool = False) -> int:
    """The status of this request, on a connection on which the same without the attack was let in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        for lines in (page(), request):
            writer.write(
                "\r\n".join([*lines.replace("PORT", str(site.port)).split("\n"), "", ""]).encode(
                    errors="surrogateescape"
                )
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await reader.readexactly(int(re.findall(r"(?i)content-length: (\d+)", head)[0]))
            for connection in site.guard.accepted.connections.values():
                assert connection.passed or lines == request
                if weakened:
                    connection.passed = mock.ANY
    finally:
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1])


@pytest.mark.parametrize(("check", "request_"), ATTACKS)
async def test_an_attack_is_refused_behind_a_request_that_was_let_in(sites: Any, check: str, request_: str) -> None:
    site = await sites()
    assert await behind_a_good_one(site, request_) == (421 if check == "host" else 403)
    assert site.refused == [(check, "127.0.0.1")]
    assert len(site.served) == 1


@pytest.mark.parametrize("line", ["Via: 1.1 proxy", "Origin: http://evil.test", "Sec-Fetch-Site: cross-site"])
async def test_weakened_where_one_request_lets_in_all_others(sites: Any, line: str) -> None:
    site = await sites()
    assert await behind_a_good_one(site, page(line), weakened=True) == 200


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
        ("https://other.test/", ["Origin: https://other.test"], 200),
        ("http://[0::1]:80/", ["Origin: http://[::1]"], 200),
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
