"""Token mode over real sockets: who gets in, who only looks on, and what never shows."""

import asyncio
import functools
import hmac
import json
import re
import ssl
import subprocess
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientSession, CookieJar, TCPConnector, WSServerHandshakeError, web
from doors import bearer, guard_of, raw, request, tokens_of
from running import Answer, HubInside, Talk, hub_app, hub_process, run_hub, talk, until
from strangers import as_stranger, needs_root

from hub import Hub, HubClient, cli, commands, create_app, tokens
from hub.arrivals import Event
from hub.config import Config
from hub.errors import HubError
from hub.find import NoHub, verifying
from hub.web import api, guard, login, token, websocket
from hub.web import app as apps
from hub.web.peer import Peer
from hub.web.proxy import Proxies
from hub.web.tls import server_context


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, auth="token") as inside:
        yield inside


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization:"],
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        ["Authorization: Bearer TOKENx"],
        ["Authorization: Bearer PREFIX"],
        ["Authorization: Bearer tök€n"],
        ["Authorization: Bearer TOKEN\udcff"],
        ["Authorization: Basic TOKEN"],
        ["Authorization: TOKEN"],
        ["Authorization: Bearer TOKEN", "Authorization: Bearer TOKEN"],
        ["Cookie: hub_session_PORT=TOKEN"],
        ["Cookie: hub_session_PORT="],
        ["X-Token: TOKEN"],
    ],
)
async def test_without_the_token_nobody_gets_in(hub: HubInside, lines: list[str], weakened: bool) -> None:
    secret = bearer(hub)["Authorization"].split()[1]
    if weakened:
        del guard_of(hub).checks["token"]
    for old, new in (("TOKEN", secret), ("PREFIX", secret[:-1]), ("PORT", str(hub.port))):
        lines = [line.replace(old, new) for line in lines]

    status, answer = await raw(hub.port, *lines)

    assert status == (200 if weakened else 401)
    if not weakened:
        assert "\r\nWWW-Authenticate: Bearer\r\n" in answer
        assert json.loads(answer.partition("\r\n\r\n")[2])["code"] == "forbidden"
        assert secret not in answer
        assert hub.counted("hub_connections_refused_total", "token") == 1


async def test_the_token_is_in_no_address(hub: HubInside) -> None:
    secret = bearer(hub)["Authorization"].split()[1]
    assert (await hub.get("api/state", token=secret, access_token=secret)).status == 401


async def test_with_the_token_everything_is_as_before(hub: HubInside) -> None:
    answer = await hub.ask("POST", "api/commands/hub:info", json={}, headers=bearer(hub))
    assert answer.json["trust"] == "OPERATOR"
    lower = bearer(hub)["Authorization"].replace("Bearer", "bearer")
    assert (await hub.ask("GET", "api/state", headers={"Authorization": lower})).status == 200
    async with talk(hub.url, headers=bearer(hub)) as client:
        assert (await client.call("hub:publish", event="a:b", data=1))["cursor"]


async def test_a_websocket_is_refused_before_the_upgrade(hub: HubInside) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        with pytest.raises(WSServerHandshakeError) as refused:
            async with talk(hub.url, headers=headers):
                pass
        assert refused.value.status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.test"}, 421),
        ({"Origin": "http://evil.test"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"X-Forwarded-For": "127.0.0.1"}, 403),
    ],
)
async def test_the_token_does_not_replace_the_other_checks(
    hub: HubInside, headers: dict[str, str], status: int
) -> None:
    assert (await hub.ask("GET", "api/state", headers={**bearer(hub), **headers})).status == status


@pytest.mark.parametrize("weakened", [False, True])
async def test_every_token_is_compared_to_the_end(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """The time of an answer does not say how much of a token fits, nor which of them."""
    asked: list[tuple[object, object]] = []
    held = {tokens.ensure(hub.hub.config.state_dir, trust).encode() for trust in tokens.FILES}
    compare = hmac.compare_digest

    def watched(given: bytes, held: bytes) -> bool:
        asked.append((type(given), held))
        return compare(given, held)

    def plainly(self: token.Tokens, given: bytes) -> str | None:
        return next((trust for trust, held in self._held.items() if held == given), None)

    monkeypatch.setattr("hub.web.token.hmac.compare_digest", watched)
    if weakened:
        monkeypatch.setattr(token.Tokens, "holder", plainly)

    assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == 200

    assert len(asked) == (0 if weakened else 2)
    assert set(asked) == (set() if weakened else {(bytes, each) for each in held})


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("length", [0, 1, 21, 42])
async def test_a_part_of_the_token_is_not_the_token(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, length: int, weakened: bool
) -> None:
    part = bearer(hub)["Authorization"][: len("Bearer ") + length]
    if weakened:
        monkeypatch.setattr("hub.web.token.hmac.compare_digest", lambda given, held: held.startswith(given))
    assert (await raw(hub.port, f"Authorization: {part}"))[0] == (200 if weakened else 401)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("text", ["tök€n", "TOKEN\udcff", "\udc80"])
async def test_what_is_not_ascii_is_a_bad_token_and_no_failure_of_the_hub(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, text: str, weakened: bool
) -> None:
    compare, given = hmac.compare_digest, text.replace("TOKEN", bearer(hub)["Authorization"].split()[1])
    if weakened:  # texts in place of bytes
        read = functools.partial(str, encoding="utf-8", errors="surrogateescape")
        monkeypatch.setattr("hub.web.token.hmac.compare_digest", lambda given, held: compare(read(given), read(held)))
    assert (await raw(hub.port, f"Authorization: Bearer {given}"))[0] == (500 if weakened else 401)


# Guessing.


@pytest.mark.parametrize("weakened", [False, True])
async def test_ten_guesses_a_second(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    now = 1000.0
    monkeypatch.setattr("hub.web.token.time", mock.Mock(monotonic=lambda: now))
    if weakened:
        del guard_of(hub).checks["guesses"]
    wrong = {"Authorization": "Bearer wrong"}
    statuses = [(await hub.ask("GET", "api/state", headers=wrong)).status for _ in range(11)]
    right = await hub.ask("GET", "api/state", headers=bearer(hub))

    if weakened:
        assert (statuses, right.status) == ([401] * 11, 200)
        return
    assert statuses == [401] * 10 + [429]
    error = right.refused(429, "rate_limited")
    assert (right.headers["Retry-After"], error["retry_after"], error["retryable"]) == ("1", 1.0, True)
    assert (await hub.get("metrics")).status == 200
    now += 1.0
    assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == 200


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_comes_back_as_told_is_let_in_while_the_guessing_goes_on(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """A block is never prolonged; the right token waits two seconds at most."""
    now, blocked = 1000.0, token.Failures.blocked

    def prolonged(self: token.Failures, peer: Peer) -> bool:
        if found := blocked(self, peer):
            self._counts[token._whose(peer)] = (now, token.FAILURES)
        return found

    if weakened:
        monkeypatch.setattr(token.Failures, "blocked", prolonged)
    monkeypatch.setattr("hub.web.token.time", mock.Mock(monotonic=lambda: now))

    async def guess(headers: dict[str, str]) -> Answer:
        return await hub.ask("GET", "api/state", headers=headers)

    for _ in range(token.FAILURES):
        await guess({"Authorization": "Bearer wrong"})
    right = await guess(bearer(hub))
    wait = float(right.headers["Retry-After"])
    for _ in range(10):
        assert (await guess({"Authorization": "Bearer wrong"})).status == 429
        now += wait / 10
    assert (right.status, wait <= 2.0) == (429, True)
    assert (await guess(bearer(hub))).status == (429 if weakened else 200)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_stranger_does_not_shut_the_operator_out(monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(token, "_whose", lambda peer: (peer.address, None))
    failures = token.Failures()
    me, stranger, elsewhere = Peer("127.0.0.1", 1, 0, ""), Peer("127.0.0.1", 2, 7, ""), Peer("::1", 1, 0, "")
    for _ in range(20):
        failures.count(stranger)
    assert [failures.blocked(peer) for peer in (stranger, me, elsewhere)] == [True, weakened, False]


def test_failures_are_forgotten_at_last() -> None:
    failures = token.Failures()
    for number in range(token.ADDRESSES + 10):
        failures.count(Peer(f"address {number}", 0, None, ""))
    assert len(failures._counts) == token.ADDRESSES


# Browsers.


async def enter(hub: HubInside, trust: str = "OPERATOR") -> tuple[str, Any]:
    """Follow a new link; its path, and the cookie."""
    link = (await hub.ask("POST", "login", headers=bearer(hub, trust))).json["link"]
    answer = await hub.ask("GET", link, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "../")
    (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    return link, cookie


async def test_a_link_lets_one_browser_in_once(hub: HubInside) -> None:
    link, cookie = await enter(hub)
    headers = {"Cookie": f"{cookie.key}={cookie.value}"}

    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Strict", "/", "")
    assert cookie.key == f"hub_session_{hub.port}"
    assert cookie.value not in (link, bearer(hub)["Authorization"].split()[1])
    assert "<html" in (await hub.ask("GET", "", headers=headers)).text
    async with talk(hub.url, headers=headers) as client:
        assert (await client.call("hub:info"))["trust"] == "OPERATOR"
    again = await hub.ask("GET", link, allow_redirects=False)
    again.refused(401, "forbidden")
    assert "Set-Cookie" not in again.headers
    other = {**headers, "Authorization": "Bearer wrong"}
    assert (await hub.ask("GET", "", headers=other)).status == 401


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_link_is_good_once(hub: HubInside, weakened: bool) -> None:
    held = tokens_of(hub)
    if weakened:
        held._links = Kept(held._links)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    statuses = [(await hub.ask("GET", link, allow_redirects=False)).status for _ in range(2)]
    assert statuses == [303, 303 if weakened else 401]
    assert hub.counted("hub_connections_refused_total", "token") == (not weakened)


class Kept(OrderedDict[Any, Any]):
    """What is taken out of it stays in it."""

    def pop(self, key: Any, default: Any = None) -> Any:
        return self.get(key, default)


async def test_a_link_is_asked_for_with_the_token_only(hub: HubInside) -> None:
    (await hub.ask("POST", "login")).refused(401, "forbidden")
    (await hub.ask("GET", "login/guessed")).refused(401, "forbidden")
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    assert (await hub.ask("HEAD", link)).status == 401  # and it is not used up
    assert (await hub.ask("GET", link, allow_redirects=False)).status == 303


@pytest.mark.parametrize("weakened", [False, True])
async def test_links_and_sessions_end(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(token.Ticket, "is_good", lambda ticket: True)
    now = 1000.0
    monkeypatch.setattr("hub.web.token.time", mock.Mock(monotonic=lambda: now))
    _, cookie = await enter(hub)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    now += token.LINK_SECONDS + 1
    assert (await hub.ask("GET", link, allow_redirects=False)).status == (303 if weakened else 401)
    headers = {"Cookie": f"{cookie.key}={cookie.value}"}
    assert (await hub.ask("GET", "api/state", headers=headers)).status == 200
    now += token.SESSION_SECONDS
    assert (await hub.ask("GET", "api/state", headers=headers)).status == (200 if weakened else 401)


def test_a_session_is_for_the_account_that_began_it(tmp_path: Path) -> None:
    held = token.Tokens(tmp_path)
    held.open()
    secret = held.enter(held.link("OPERATOR"), 1000)
    assert secret
    assert [held._session(secret, uid) for uid in (1000, 0, None)] == ["OPERATOR", None, None]


@needs_root
@pytest.mark.parametrize("weakened", [False, True])
async def test_another_account_that_has_got_the_cookie_gets_nothing_with_it(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """By a server of its own on another port of this machine, to which a browser sends the cookie as well."""
    if weakened:
        monkeypatch.setattr(token.Ticket, "is_for", lambda ticket, uid: True)
    _, cookie = await enter(hub)
    line = f"Cookie: {cookie.key}={cookie.value}"
    assert (await raw(hub.port, line))[0] == 200
    stolen = await as_stranger(hub.port, request(hub.port, line))
    assert stolen.split()[1] == ("200" if weakened else "401")


def test_only_so_many_links_are_kept(tmp_path: Path) -> None:
    held = token.Tokens(tmp_path)
    held.open()
    first = held.link("OPERATOR")
    codes = [held.link("OPERATOR") for _ in range(token.LINKS)]
    assert held.enter(first, None) is None
    assert held.enter(codes[0], None)


async def test_the_cookie_is_for_the_place_where_the_hub_is_mounted(tmp_path: Path) -> None:
    inner, outer = Hub(state_dir=tmp_path, auth="token"), web.Application()
    mounted = create_app(inner)
    outer.add_subapp("/hub/", mounted)
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    held = mounted[api.GUARD].tokens
    assert held
    status, answer = await raw(port, target=f"/hub/login/{held.link('OPERATOR')}")
    await runner.cleanup()
    assert status == 303
    assert "Path=/hub/;" in answer
    assert "\r\nLocation: ../\r\n" in answer


def browser() -> ClientSession:
    """Keeps cookies, as browsers do, also of a host that is an address."""
    return ClientSession(cookie_jar=CookieJar(unsafe=True))


# Who only looks on.


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_observer_reads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    def prepare(hub: Hub) -> None:
        @hub.command("orders:cancel", effect="dangerous")
        async def cancel(call: Any) -> None:
            """Cancel an order."""

    if weakened:
        for room in (commands, api):
            monkeypatch.setattr(room, "check_trust", lambda trust, effect, what: None)
    async with hub_app(tmp_path, prepare=prepare, auth="token") as hub:
        headers = bearer(hub, "OBSERVER")
        posted = await hub.ask("POST", "api/events", json={"event": "a:x", "data": 1}, headers=headers)
        called = await hub.ask("POST", "api/commands/orders:cancel", json={}, headers=headers)
        async with talk(hub.url, headers=headers) as client:
            assert (await client.call("hub:info"))["trust"] == "OBSERVER"
            published = await answered(client, "hub:publish", event="a:y", data=2)
            assert await answered(client, "hub:subscribe", topics=["a:*"]) == "response"
        assert (await hub.ask("GET", "api/events", headers=headers)).status == 200
        if weakened:
            assert (posted.status, called.status, published, hub.hub.cursor.seq) == (200, 200, "response", 2)
            return
        posted.refused(403, "forbidden")
        called.refused(403, "forbidden")
        assert (published, hub.hub.cursor.seq) == ("forbidden", 0)
        records = await hub.recorded("command.refused")
        assert [r["details"]["command"] for r in records] == ["hub:publish", "orders:cancel", "hub:publish"]
        assert {(r["trust"], r["details"]["outcome"]) for r in records} == {("OBSERVER", "forbidden")}


async def answered(client: Talk, command: str, **args: Any) -> str:
    frame = await client.answer(await client.begin(command, **args))
    return str(frame["payload"].get("code", frame["type"]) if frame["type"] == "error" else frame["type"])


async def test_an_observers_link_gives_no_more(hub: HubInside) -> None:
    _, cookie = await enter(hub, "OBSERVER")
    headers = {"Cookie": f"{cookie.key}={cookie.value}"}
    answer = await hub.ask("POST", "api/commands/hub:info", json={}, headers=headers)
    assert answer.json["trust"] == "OBSERVER"


# A new token.


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_replaced_token_ends_what_it_has_opened(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    ended = asyncio.Event()
    if weakened:
        monkeypatch.setattr(login, "end", lambda app, trusts: ended.set() if trusts else None)
    old, observer = bearer(hub), bearer(hub, "OBSERVER")
    async with talk(hub.url, headers=old) as client, talk(hub.url, headers=observer) as other:
        await client.call("hub:ping")
        async with hub.http.get(f"{hub.url}events", headers=old) as stream:
            tokens.replace(hub.hub.config.state_dir)
            if weakened:
                await ended.wait()
                await client.call("hub:publish", event="a:b", data=1)
                while b"a:b" not in await stream.content.readline():
                    pass
            else:
                assert await client.end() == 1008
                await until(stream.content.exception, "the end of the event stream")
        await other.call("hub:ping")


async def test_a_request_right_after_the_replacing_does_not_hide_it(hub: HubInside) -> None:
    """The request is the first to notice; the connections are ended by who looks once a second."""
    async with talk(hub.url, headers=bearer(hub)) as client:
        await client.call("hub:ping")
        tokens.replace(hub.hub.config.state_dir)
        assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == 200
        assert await client.end() == 1008


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_replaced_token_opens_nothing(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    _, cookie = await enter(hub)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    ways = [bearer(hub), {"Cookie": f"{cookie.key}={cookie.value}"}]
    if weakened:
        monkeypatch.setattr(token.Tokens, "refresh", lambda self: None)
    tokens.replace(hub.hub.config.state_dir)
    found = [(await hub.ask("GET", "api/state", headers=way)).status for way in ways]
    found.append((await hub.ask("GET", link, allow_redirects=False)).status)
    assert found == ([200, 200, 303] if weakened else [401] * 3)
    assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == (401 if weakened else 200)


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("short\n"), lambda path: path.symlink_to("/dev/null")])
async def test_a_token_file_that_cannot_be_trusted_opens_nothing(
    hub: HubInside, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    headers, path = bearer(hub), hub.hub.config.state_dir / "token"
    path.unlink()
    spoil(path)
    assert (await hub.ask("GET", "api/state", headers=headers)).status == 401
    assert "nobody gets in with this token any more" in caplog.text


async def test_without_its_file_a_token_opens_nothing(hub: HubInside) -> None:
    headers = bearer(hub)
    (hub.hub.config.state_dir / "token").unlink()
    assert (await hub.ask("GET", "api/state", headers=headers)).status == 401


# Metrics, and proxies.


async def test_metrics_and_health_are_open_from_here(hub: HubInside) -> None:
    for path in ("metrics", "healthz"):
        assert (await hub.get(path)).status == 200
        assert (await hub.ask("GET", path, headers={"Host": "evil.test"})).status == 421
    assert (await hub.get("readyz")).status == 401


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_behind_a_proxy_is_of_this_machine(tmp_path: Path, weakened: bool) -> None:
    async with hub_app(tmp_path, auth="token", trusted_proxy=("127.0.0.1",)) as hub:
        if weakened:
            del guard_of(hub).checks["forwarded"]
        for lines in ([], ["X-Forwarded-For: 127.0.0.1"], ["Forwarded: for=192.0.2.1"]):
            status, _ = await raw(hub.port, *lines, target="/metrics")
            assert status == (200 if weakened else 401)
        headers = [f"Authorization: {bearer(hub)['Authorization']}", "X-Forwarded-For: 192.0.2.7"]
        assert (await raw(hub.port, *headers, target="/metrics"))[0] == 200


async def test_behind_a_proxy_the_client_is_the_last_hop(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"trusted_proxy": ("127.0.0.1",), "allow_host": ("hub.test:443",)}
    async with hub_app(tmp_path, auth="token", **settings) as hub:
        lines = [
            f"Authorization: {bearer(hub)['Authorization']}",
            "X-Forwarded-For: 127.0.0.1, 192.0.2.7",
            "X-Forwarded-Proto: https",
        ]
        same = [*lines, "Host: hub.test", "Origin: https://hub.test"]
        beside = [*lines, "X-Forwarded-Host: hub.test", "Origin: https://hub.test"]
        assert [(await raw(hub.port, *some))[0] for some in (same, beside)] == [200, 200]
        assert (await raw(hub.port, *lines, "Host: hub.test", "Origin: http://hub.test"))[0] == 403
        assert (await raw(hub.port, *lines, "X-Forwarded-Host: evil.test"))[0] == 421
        assert (await raw(hub.port, *lines, "X-Forwarded-Host: hub.test", "Host: evil.test"))[0] == 421
        assert (await raw(hub.port, *lines, "Forwarded: for=192.0.2.1"))[0] == 403
        await raw(hub.port, "X-Forwarded-For: 192.0.2.8")
        assert tokens_of(hub).failures._counts.keys() == {("192.0.2.8", None)}


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_guesser_behind_a_proxy_cannot_change_his_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """The proxy appends the address that it sees to what the client has written."""
    if weakened:  # every hop is believed
        monkeypatch.setattr(Proxies, "trusts", lambda self, address: True)
    async with hub_app(tmp_path, auth="token", trusted_proxy=("127.0.0.1",)) as hub:
        found = []
        for number in range(token.FAILURES + 1):
            lines = ["Authorization: Bearer wrong", f"X-Forwarded-For: 198.51.100.{number}, 192.0.2.8"]
            found.append((await raw(hub.port, *lines))[0])
    assert found == [401] * token.FAILURES + [401 if weakened else 429]


async def test_a_proxied_browsers_cookie_is_secure(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"trusted_proxy": ("127.0.0.1",), "allow_host": ("hub.test:443",)}
    async with hub_app(tmp_path, auth="token", **settings) as hub:
        lines = ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "Host: hub.test"]
        _, answer = await raw(hub.port, *lines, target=f"/login/{tokens_of(hub).link('OPERATOR')}")
    assert re.search(r"\r\nSet-Cookie: .*; Secure", answer)


# As a program.


async def test_a_hub_for_other_machines(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token", "--host", "0.0.0.0", "--log-level", "debug") as hub:
        assert hub.url.startswith("http://127.0.0.1:")
        assert hub.process.stdout
        line = (await hub.process.stdout.readline()).decode()
        secret = (hub.state_dir / "token").read_text().strip()
        good = f"Authorization: Bearer {secret}"
        for address in ("127.0.0.1", "127.0.0.2"):
            own = f"Host: {address}:{hub.port}"
            assert (await raw(hub.port, own, host=address))[0] == 401
            assert (await raw(hub.port, own, good, host=address))[0] == 200
            assert (await raw(hub.port, own, good, f"Origin: http://{address}:{hub.port}", host=address))[0] == 200
        assert (await raw(hub.port, "Host: evil.test", good))[0] == 421

        link = line.split()[-1]
        assert link.startswith(f"{hub.url}login/")
        async with browser() as http, http.get(link) as page:
            assert (page.status, str(page.url)) == (200, hub.url)
        async with ClientSession() as other, other.get(link) as again:
            assert again.status == 401
        async with HubClient(hub.url, state_dir=hub.state_dir) as client:
            assert (await client.call("hub:info"))["trust"] == "OPERATOR"


@pytest.mark.parametrize(
    "flags",
    [
        ["--host", "0.0.0.0"],
        ["--host", "0.0.0.0", "--auth", "local"],
        ["--trusted-proxy", "127.0.0.1"],
        ["--auth", "token", "--trusted-proxy", "somewhere"],
        ["--tls-cert", "x.pem"],
        ["--tls-key", "x.pem"],
        ["--tls-cert", "x.pem", "--tls-key", "y.pem"],
    ],
)
async def test_an_unsafe_start_is_refused(tmp_path: Path, flags: list[str]) -> None:
    status, out, err = await run_hub(tmp_path, "--port", "0", "--state-dir", str(tmp_path / "state"), *flags)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"hub: [^\n]+\.\n", err)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--host", "::"], ["--trusted-proxy", "127.0.0.1"]])
def test_nothing_listens_where_it_is_not_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], weakened: bool
) -> None:
    served: list[str] = []

    async def serve(hub: Hub, context: object) -> int:
        served.append(hub.config.host)
        return 0

    monkeypatch.setattr(apps, "_serve", serve)
    monkeypatch.setattr(apps, "set_up_logging", lambda config: None)
    if weakened:
        monkeypatch.setattr(apps, "refuse_bind", lambda config: None)
    assert cli.main(["serve", "--auth", "local", "--state-dir", str(tmp_path), *flags]) == (0 if weakened else 2)
    assert len(served) == weakened


def test_without_the_kernels_word_the_token_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_app(Hub(state_dir=tmp_path))[api.GUARD].tokens is None
    monkeypatch.setattr(guard, "supported", lambda: False)
    assert create_app(Hub(state_dir=tmp_path))[api.GUARD].tokens is not None
    assert create_app(Hub(state_dir=tmp_path, auth="local"))[api.GUARD].tokens is None


async def test_the_command_line_finds_the_token(tmp_path: Path) -> None:
    async with hub_process(tmp_path, "--auth", "token") as hub:
        where = ["--state-dir", str(hub.state_dir)]
        secret = (hub.state_dir / "token").read_text().strip()
        assert (await run_hub(tmp_path, "publish", "a:b", *where))[0] == 0
        assert (await run_hub(tmp_path, "publish", "a:b", "--url", hub.url, *where))[0] == 0
        assert await run_hub(tmp_path, "token", *where) == (0, f"{secret}\n", "")
        status, link, _ = await run_hub(tmp_path, "token", "--link", *where)
        async with browser() as http, http.get(link.strip()) as page:
            assert (status, page.status) == (0, 200)
        (tmp_path / "wrong").write_text("a-token-of-another-hub")
        for command in (["publish", "a:b"], ["tail"], ["call", "hub:ping"], ["audit", "tail"]):
            status, out, err = await run_hub(tmp_path, *command, *where, "--token-file", str(tmp_path / "wrong"))
            assert (status, out) == (1, "")
            assert re.fullmatch(r"hub: [^\n]+token[^\n]+\.\n", err)
        status, reader, _ = await run_hub(tmp_path, "token", "--read-only", *where)
        (tmp_path / "reader").write_text(reader)
        status, _, err = await run_hub(tmp_path, "publish", "a:b", *where, "--token-file", str(tmp_path / "reader"))
        assert status == 1
        assert "only read" in err
        status, new, _ = await run_hub(tmp_path, "token", "--new", *where)
        assert new.strip() not in ("", secret)
        assert (await run_hub(tmp_path, "publish", "a:b", *where))[0] == 0


async def test_the_command_line_without_a_token(tmp_path: Path) -> None:
    status, _, err = await run_hub(tmp_path, "token", "--state-dir", str(tmp_path / "state"))
    assert status == 1
    assert "no token" in err
    async with hub_process(tmp_path, "--auth", "local") as hub:
        status, _, err = await run_hub(tmp_path, "token", "--link", "--state-dir", str(hub.state_dir))
        assert status == 1
        assert "not in token mode" in err


async def test_a_client_with_the_wrong_token_is_told_so(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match="token") as refused:
        async with HubClient(hub.url, token="wrong"):
            pass
    assert refused.value.code == "forbidden"
    monkeypatch.setenv("HUB_TOKEN", bearer(hub)["Authorization"].split()[1])
    async with HubClient(hub.url) as client:
        assert (await client.call("hub:ping"))["pong"]


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


async def test_tls(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    async with hub_process(tmp_path, "--auth", "token", "--tls-cert", cert, "--tls-key", key) as hub:
        assert hub.url.startswith("https://127.0.0.1:")
        assert json.loads((hub.state_dir / "server.json").read_text())["url"] == hub.url
        async with HubClient(state_dir=hub.state_dir, ca=cert) as client:
            sent = await client.publish("a:b", {"big": "x" * 30_000})
            event = await anext(client)
            assert isinstance(event, Event)
            assert event.cursor == sent["cursor"]
        with pytest.raises(NoHub, match=r"(?i)certificate"):
            async with HubClient(hub.url, state_dir=hub.state_dir):
                pass
        where = ["--state-dir", str(hub.state_dir)]
        assert (await run_hub(tmp_path, "publish", "a:b", *where))[0] == 3
        assert (await run_hub(tmp_path, "publish", "a:b", *where, "--ca", cert))[0] == 0
        _, link, _ = await run_hub(tmp_path, "token", "--link", *where, "--ca", cert)
        async with hub.http.get(link.strip(), ssl=verifying(cert), allow_redirects=False) as answer:
            assert answer.status == 303
            assert "; Secure" in answer.headers["Set-Cookie"]
        status, _, err = await run_hub(tmp_path, "publish", "a:b", *where, "--ca", key)
        assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("weakened", [False, True])
async def test_over_tls_an_event_does_not_wait_for_the_next_ping(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(websocket, "_least", lambda transport: 0)
    cert, key = certificate
    context = server_context(Config(tls_cert=cert, tls_key=key))
    async with (
        hub_app(tmp_path, tls=context, heartbeat=3600.0) as hub,
        talk(hub.url, ssl=verifying(cert)) as client,
    ):
        (connection,) = websocket.connections(hub.hub)
        for number in range(1, 9):
            await hub.publish(1)
            if not weakened:
                assert await client.numbers(1) == [number]
        if weakened:
            await until(lambda: connection.full() and connection._transport.get_write_buffer_size() == 0)


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_impostor_does_not_get_the_token(
    tmp_path: Path, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Whoever answers at the hub's address, with a certificate that nobody has vouched for."""
    got: list[str | None] = []

    async def listen(request: web.Request) -> web.Response:
        got.append(request.headers.get("Authorization"))
        return web.json_response({"cursor": None})

    if weakened:
        monkeypatch.setattr("hub.client.verifying", lambda ca: ssl._create_unverified_context())
    app = web.Application()
    app.router.add_get("/{path:.*}", listen)
    runner = web.AppRunner(app)
    await runner.setup()
    context = server_context(Config(tls_cert=certificate[0], tls_key=certificate[1]))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        with suppress(NoHub):
            async with HubClient(f"https://127.0.0.1:{runner.addresses[0][1]}", token="secret"):
                pass
    finally:
        await runner.cleanup()
    assert got == (["Bearer secret"] if weakened else [])


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_sees_the_traffic_does_not_see_the_token(
    tmp_path: Path, certificate: tuple[str, str], weakened: bool
) -> None:
    cert, key = certificate
    context = None if weakened else server_context(Config(tls_cert=cert, tls_key=key))
    async with hub_app(tmp_path, tls=context, auth="token") as hub, overheard(hub.port) as (port, seen):
        url = f"http{'s' * (not weakened)}://127.0.0.1:{port}/api/state"
        headers = bearer(hub) | {"Host": f"127.0.0.1:{hub.port}", "Connection": "close"}
        async with hub.http.get(url, headers=headers, ssl=verifying(cert)) as answer:
            assert answer.status == 200
    assert (headers["Authorization"].encode() in b"".join(seen)) is weakened


@asynccontextmanager
async def overheard(target: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that leads to the target, and all that went through."""
    seen: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            seen.append(data)
            writer.write(data)
        writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", target)
        with suppress(ConnectionError):
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def test_a_certificate_that_does_not_fit_its_key(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, _ = certificate
    status, _, err = await run_hub(tmp_path, "--port", "0", "--tls-cert", cert, "--tls-key", cert)
    assert status == 2
    assert re.fullmatch(r"hub: [^\n]+\.\n", err)


async def test_open_in_token_mode_starts_no_browser(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("hub.web.app.webbrowser.open", opened.append)
    apps._show(hub.app, hub.url)
    link = capsys.readouterr().out.split()[-1].removeprefix(hub.url)
    assert opened == []
    assert (await hub.ask("GET", link, allow_redirects=False)).status == 303


async def test_through_a_reverse_proxy(tmp_path: Path) -> None:
    """One that appends to X-Forwarded-For, as they do, and speaks to the hub under the hub's own name."""

    async def forward(request: web.Request) -> web.Response:
        chain = [*request.headers.getall("X-Forwarded-For", ()), str(request.remote)]
        passed = {name: value for name, value in request.headers.items() if name in ("Authorization", "Cookie")}
        passed |= {"X-Forwarded-For": ", ".join(chain), "X-Forwarded-Proto": "http"}
        async with (
            ClientSession() as http,
            http.request(
                request.method, inside.url.rstrip("/") + request.path_qs, headers=passed, allow_redirects=False
            ) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    port = runner.addresses[0][1]
    elsewhere = ClientSession(connector=TCPConnector(local_addr=("127.0.0.3", 0)))
    try:
        async with hub_app(tmp_path, auth="token", trusted_proxy=("127.0.0.1",)) as inside, elsewhere as http:
            # The proxy connects from 127.0.0.1 and names its client, who wrote another address before that.
            for path, headers, status in (
                ("metrics", {}, 401),
                ("api/state", {}, 401),
                ("api/state", bearer(inside), 200),
            ):
                forged = {**headers, "X-Forwarded-For": "198.51.100.1"}
                async with http.get(f"http://127.0.0.2:{port}/{path}", headers=forged) as answer:
                    assert answer.status == status
            assert tokens_of(inside).failures._counts.keys() == {("127.0.0.3", None)}
    finally:
        await runner.cleanup()
