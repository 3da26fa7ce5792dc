"""Links, sessions, observers, and a token that is replaced: what stands in the token's place, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from doors import bearer, raw, request, tokens_of
from running import HubInside, Talk, hub_app, talk, until
from strangers import as_stranger, needs_root

from hub import Hub, create_app, tokens
from hub.commands import registry
from hub.web import api, keys
from hub.web.access import credentials, opened, tickets
from hub.web.access.peer import Peer
from hub.wire.vocabulary import Trust


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, auth="token") as inside:
        yield inside


async def enter(hub: HubInside, trust: Trust = "OPERATOR") -> tuple[str, Any]:
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
async def test_a_link_is_good_once(hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(tickets.OwnTickets, "take", tickets.OwnTickets.find)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    statuses = [(await hub.ask("GET", link, allow_redirects=False)).status for _ in range(2)]
    assert statuses == [303, 303 if weakened else 401]
    assert hub.counted("hub_connections_refused_total", "token") == (not weakened)


async def test_a_link_is_asked_for_with_the_token_only(hub: HubInside) -> None:
    (await hub.ask("POST", "login")).refused(401, "forbidden")
    (await hub.ask("GET", "login/guessed")).refused(401, "forbidden")
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    assert (await hub.ask("HEAD", link)).status == 401  # and it is not used up
    assert (await hub.ask("GET", link, allow_redirects=False)).status == 303


@pytest.mark.parametrize("weakened", [False, True])
async def test_links_and_sessions_end(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(tickets.Ticket, "is_good", lambda ticket: True)
    now = 1000.0
    for module in (tickets, credentials):
        monkeypatch.setattr(module, "time", mock.Mock(monotonic=lambda: now))
    _, cookie = await enter(hub)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    now += credentials.LINK_SECONDS + 1
    assert (await hub.ask("GET", link, allow_redirects=False)).status == (303 if weakened else 401)
    headers = {"Cookie": f"{cookie.key}={cookie.value}"}
    assert (await hub.ask("GET", "api/state", headers=headers)).status == 200
    now += credentials.SESSION_SECONDS
    assert (await hub.ask("GET", "api/state", headers=headers)).status == (200 if weakened else 401)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_session_is_for_whoever_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    """On this machine the account, whatever address of it; elsewhere, where no account is known, the address."""
    if weakened:
        for module in (tickets, credentials):
            monkeypatch.setattr(module, "whose", lambda peer: peer.uid)
    held = credentials.Tokens(tmp_path)
    held.open()
    here, here_too, other = (
        Peer(address, 1, uid, "NONE") for address, uid in (("127.0.0.1", 7), ("::1", 7), ("::1", 0))
    )
    far, farther = Peer("192.0.2.1", 1, None, "NONE"), Peer("192.0.2.2", 1, None, "NONE")

    def found(beginner: Peer, *peers: Peer) -> list[bool]:
        secret = held.enter(held.link("OPERATOR"), beginner)
        assert secret
        return [held._session(secret, peer) is not None for peer in peers]

    assert found(here, here, here_too, other, far) == [True, True, False, False]
    assert found(far, far, farther, here) == [True, weakened, False]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_cookie_given_to_one_address_does_not_work_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(tickets.Ticket, "is_for", lambda ticket, peer: True)
    async with hub_app(tmp_path, auth="token", trusted_proxy=("127.0.0.1",)) as hub:
        target = f"/login/{tokens_of(hub).link('OPERATOR')}"
        _, answer = await raw(hub.port, "X-Forwarded-For: 192.0.2.7", target=target)
        (cookie,) = SimpleCookie(answer.partition("Set-Cookie: ")[2].partition("\r\n")[0]).values()
        line = f"Cookie: {cookie.key}={cookie.value}"
        found = [(await raw(hub.port, line, f"X-Forwarded-For: 192.0.2.{host}"))[0] for host in (7, 8)]
    assert found == [200, 200 if weakened else 401]


@needs_root
@pytest.mark.parametrize("weakened", [False, True])
async def test_another_account_that_has_got_the_cookie_gets_nothing_with_it(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """By a server of its own on another port of this machine, to which a browser sends the cookie as well."""
    if weakened:
        monkeypatch.setattr(tickets.Ticket, "is_for", lambda ticket, peer: True)
    _, cookie = await enter(hub)
    line = f"Cookie: {cookie.key}={cookie.value}"
    assert (await raw(hub.port, line))[0] == 200
    stolen = await as_stranger(hub.port, request(hub.port, line))
    assert stolen.split()[1] == ("200" if weakened else "401")


def test_only_so_many_links_are_kept(tmp_path: Path) -> None:
    held = credentials.Tokens(tmp_path)
    held.open()
    first = held.link("OPERATOR")
    codes = [held.link("OPERATOR") for _ in range(credentials.LINKS)]
    me = Peer("192.0.2.1", 1, None, "NONE")
    assert held.enter(first, me) is None
    assert held.enter(codes[0], me)


async def test_the_cookie_is_for_the_place_where_the_hub_is_mounted(tmp_path: Path) -> None:
    inner, outer = Hub(state_dir=tmp_path, auth="token"), web.Application()
    mounted = create_app(inner)
    outer.add_subapp("/hub/", mounted)
    runner = web.AppRunner(outer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    held = mounted[keys.GUARD].tokens
    assert held
    status, answer = await raw(port, target=f"/hub/login/{held.link('OPERATOR')}")
    await runner.cleanup()
    assert status == 303
    assert "Path=/hub/;" in answer
    assert "\r\nLocation: ../\r\n" in answer


# Who only looks on.


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_observer_reads_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    def prepare(hub: Hub) -> None:
        @hub.command("orders:cancel", effect="write")
        async def cancel(call: Any) -> None:
            """Cancel an order."""

    if weakened:
        for room in (registry, api):
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
        monkeypatch.setattr(opened.Opened, "end", lambda self, is_over, sentence: ended.set())
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
    """The request is the first to notice, and ends the connections."""
    async with talk(hub.url, headers=bearer(hub)) as client:
        await client.call("hub:ping")
        ending = asyncio.ensure_future(client.end())
        tokens.replace(hub.hub.config.state_dir)
        assert (await hub.ask("GET", "api/state", headers=bearer(hub))).status == 200
        assert await ending == 1008


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_replaced_token_opens_nothing(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    _, cookie = await enter(hub)
    link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
    ways = [bearer(hub), {"Cookie": f"{cookie.key}={cookie.value}"}]
    if weakened:
        monkeypatch.setattr(credentials.Tokens, "refresh", lambda self: None)
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
    (said,) = [each.message for each in caplog.records if "a token cannot be used" in each.message]
    assert said.count("hub token --new") <= 1


def test_what_opens_a_hub_is_what_its_files_have_now(tmp_path: Path) -> None:
    held = credentials.Tokens(tmp_path)
    held.open()
    reader = tokens.replace(tmp_path, "OBSERVER").encode()
    assert held.held() == {"OPERATOR": (tmp_path / "token").read_bytes().strip(), "OBSERVER": reader}
    (tmp_path / "token").write_text("short")
    assert held.held() == {"OBSERVER": reader}
    assert held.holder(b"short") is None


async def test_without_its_file_a_token_opens_nothing(hub: HubInside, caplog: pytest.LogCaptureFixture) -> None:
    headers = bearer(hub)
    (hub.hub.config.state_dir / "token").unlink()
    assert (await hub.ask("GET", "api/state", headers=headers)).status == 401
    assert "token is gone, or empty; hub token --new makes another" in caplog.text
