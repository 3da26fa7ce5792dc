"""Token mode over real sockets: whom the token lets in, who guesses, proxies, and the hub as a program."""

import functools
import hmac
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import ClientSession, TCPConnector, WSServerHandshakeError, web
from doors import bearer, browser, guard_of, raw, tokens_of
from running import HubInside, hub_app, hub_process, run_hub, talk

from hub import Hub, HubClient, create_app, tokens
from hub.cli import main as cli_main
from hub.errors import HubError
from hub.web import keys, program
from hub.web.access import credentials, guard
from hub.web.access.peer import Peer
from hub.web.access.proxy import Proxies


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


async def test_a_wrong_token_is_not_called_a_missing_one(hub: HubInside, tmp_path: Path) -> None:
    """And neither sends its reader round in a circle: each names what gives the token, and where it is."""
    wrong = tmp_path / "wrong"
    wrong.write_text("w" * 43)
    for more, said in (((), credentials.MISSING), (("--token-file", str(wrong)), credentials.WRONG)):
        assert await run_hub(tmp_path, "status", "--url", hub.url, *more) == (1, "", f"hub: {said}\n")
        assert all(word in said for word in ("--state-dir", "--token-file", "HUB_TOKEN"))
    status, _, err = await run_hub(tmp_path, "status", "--url", hub.url, "--state-dir", str(hub.hub.config.state_dir))
    assert (status, err) == (0, "")


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

    def plainly(self: credentials.Tokens, given: bytes) -> str | None:
        return next((trust for trust, held in self._held.items() if held == given), None)

    monkeypatch.setattr("hub.web.access.credentials.hmac.compare_digest", watched)
    if weakened:
        monkeypatch.setattr(credentials.Tokens, "holder", plainly)

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
        monkeypatch.setattr(
            "hub.web.access.credentials.hmac.compare_digest", lambda given, held: held.startswith(given)
        )
    assert (await raw(hub.port, f"Authorization: {part}"))[0] == (200 if weakened else 401)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("text", ["tök€n", "TOKEN\udcff", "\udc80"])
async def test_what_is_not_ascii_is_a_bad_token_and_no_failure_of_the_hub(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, text: str, weakened: bool
) -> None:
    compare, given = hmac.compare_digest, text.replace("TOKEN", bearer(hub)["Authorization"].split()[1])
    if weakened:  # texts in place of bytes
        read = functools.partial(str, encoding="utf-8", errors="surrogateescape")
        monkeypatch.setattr(
            "hub.web.access.credentials.hmac.compare_digest", lambda given, held: compare(read(given), read(held))
        )
    assert (await raw(hub.port, f"Authorization: Bearer {given}"))[0] == (500 if weakened else 401)


# Guessing.


@pytest.mark.parametrize("weakened", [False, True])
async def test_ten_guesses_a_second(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    now = 1000.0
    monkeypatch.setattr("hub.web.access.credentials.time", mock.Mock(monotonic=lambda: now))
    if weakened:
        monkeypatch.setattr(credentials.Failures, "too_many", lambda self, peer: False)

    async def guess() -> list[int]:
        wrong = {"Authorization": "Bearer wrong"}
        return [(await hub.ask("GET", "api/state", headers=wrong)).status for _ in range(10)]

    assert await guess() == [401] * 10
    answer = await hub.ask("GET", "api/state", headers={"Authorization": "Bearer another"})
    if weakened:
        assert answer.status == 401
        return
    error = answer.refused(429, "rate_limited")
    assert (answer.headers["Retry-After"], error["retry_after"], error["retryable"]) == ("1", 1.0, True)
    assert hub.counted("hub_connections_refused_total", "guesses") == 1
    (await hub.ask("GET", "login/guessed")).refused(429, "rate_limited")
    now += 1.0
    assert await guess() == [401] * 10


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_right_token_is_never_kept_waiting(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Nor a session or a link, however many wrong ones come from the same address and account."""
    monkeypatch.setattr(credentials, "BLOCK_SECONDS", 600.0)
    link = f"login/{tokens_of(hub).link('OPERATOR')}"
    for _ in range(credentials.FAILURES + 5):
        last = await hub.ask("GET", "api/state", headers={"Authorization": "Bearer wrong"})
    assert last.status == 429
    if weakened:  # counted first, and compared only then
        known, too_many = tokens_of(hub).known, tokens_of(hub).failures.too_many
        guard_of(hub).checks["token"] = lambda seen, request: "No." if too_many(seen.peer) else known(seen, request)
    found = [(await hub.ask("GET", "api/state", headers=bearer(hub))).status for _ in range(30)]
    found.append((await hub.ask("GET", link, allow_redirects=False)).status)
    assert found == ([429] * 31 if weakened else [200] * 30 + [303])


@pytest.mark.parametrize("weakened", [False, True])
def test_a_strangers_guesses_are_his_own(monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    if weakened:
        monkeypatch.setattr(credentials, "_source", lambda peer: (peer.address, None))
    failures = credentials.Failures()
    me, stranger, elsewhere = (
        Peer("127.0.0.1", 1, 0, "NONE"),
        Peer("127.0.0.1", 2, 7, "NONE"),
        Peer("::1", 1, 0, "NONE"),
    )
    for _ in range(20):
        failures.too_many(stranger)
    assert [failures.too_many(peer) for peer in (stranger, me, elsewhere)] == [True, weakened, False]


def test_failures_are_forgotten_at_last() -> None:
    failures = credentials.Failures()
    for number in range(credentials.ADDRESSES + 10):
        failures.too_many(Peer(f"address {number}", 0, None, "NONE"))
    assert len(failures._counts) == credentials.ADDRESSES


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
        for number in range(credentials.FAILURES + 1):
            lines = ["Authorization: Bearer wrong", f"X-Forwarded-For: 198.51.100.{number}, 192.0.2.8"]
            found.append((await raw(hub.port, *lines))[0])
    assert found == [401] * credentials.FAILURES + [401 if weakened else 429]


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

    async def serve(hub: Hub, sock: object, context: object, seat: object) -> int:
        served.append(hub.config.host)
        return 0

    monkeypatch.setattr(program, "_serve", serve)
    monkeypatch.setattr(program, "set_up_logging", lambda config, worker: None)
    monkeypatch.setattr(program, "bind", lambda config, *, shared: socket.socket())
    if weakened:
        monkeypatch.setattr(program, "refuse_bind", lambda config: None)
    assert cli_main.main(["serve", "--auth", "local", "--state-dir", str(tmp_path), *flags]) == (0 if weakened else 2)
    assert len(served) == weakened


def test_without_the_kernels_word_the_token_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_app(Hub(state_dir=tmp_path))[keys.GUARD].tokens is None
    monkeypatch.setattr(guard, "supported", lambda: False)
    assert create_app(Hub(state_dir=tmp_path))[keys.GUARD].tokens is not None
    assert create_app(Hub(state_dir=tmp_path, auth="local"))[keys.GUARD].tokens is None


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
        (tmp_path / "wrong").write_text("a-token-of-another-hub-that-is-long-enough")
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
    assert (status, err) == (
        1,
        f"hub: There is no token in {tmp_path / 'state'}: name the folder of a hub in token mode (--state-dir DIR), "
        "or start one there (hub serve --auth token).\n",
    )
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


async def test_open_in_token_mode_starts_no_browser(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("hub.web.program.webbrowser.open", opened.append)
    program._show(hub.app, hub.url)
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
