"""POST /hooks/github in token mode, from whoever has only a signature: read in a room and a time of its own."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from running import HubInside, hub_app, until
from samples import PAYLOADS

from hub.errors import HubError
from hub.web import signed
from hub.web.access import credentials
from hub.web.access.peer import Peer
from hub.web.hooks import HOOKS
from hub.web.signed import Strangers

SECRET, TASK = b"swordfish", "github:user/shop/9911"
BODY = (PAYLOADS / "github-workflow-run-completed.json").read_bytes()
LONG = 600.0  # seconds: nothing ends of itself while a test runs
SMALL, LARGEST = 16 * 1024, 256 * 1024  # in the place of what a body can have

Ends = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


def signature(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def large(size: int = 100 * 1024) -> bytes:
    return json.dumps({**json.loads(BODY), "pad": "x" * size}).encode()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, auth="token", deadline=LONG) as running:
        running.hub.github_secret = SECRET
        yield running


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """What the test has begun, and not ended."""
    found: Ends = []
    yield found
    for _, writer in found:
        writer.close()


async def begin(
    hub: HubInside, ends: Ends, *given: str, size: int = 4 * 1024 * 1024, sent: bytes = b"{", source: str = "127.0.0.2"
) -> asyncio.StreamReader:
    """Send the beginning of a delivery with these signatures, and what goes with it, to be gone on with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port, local_addr=(source, 0))
    ends.append((reader, writer))
    lines = [f"X-Hub-Signature-256: {each}" for each in given or [signature(b"")]]
    head = ["POST /hooks/github HTTP/1.1", f"Host: 127.0.0.1:{hub.port}", f"Content-Length: {size}", *lines]
    writer.write("\r\n".join([*head, "", ""]).encode() + sent)
    await writer.drain()
    return reader


async def status_of(reader: asyncio.StreamReader) -> int:
    return int((await reader.readline()).split()[1])


async def delivered(hub: HubInside, body: bytes = BODY) -> int:
    headers = {"X-GitHub-Event": "workflow_run", "X-Hub-Signature-256": signature(body)}
    return (await hub.post("hooks/github", body, headers)).status


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of those whose bodies the hub has begun to read."""
    found, read = list[str](), Strangers.read

    async def noted(self: Strangers, request: web.Request) -> bytes:
        found.append(request.remote or "")
        return await read(self, request)

    monkeypatch.setattr(Strangers, "read", noted)
    return found


@pytest.mark.parametrize("weakened", [False, True])
async def test_githubs_signature_stands_for_the_token_there_and_nowhere_else(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = BODY
    right = {"X-GitHub-Event": "workflow_run", "X-Hub-Signature-256": signature(body)}
    wrong = right | {"X-Hub-Signature-256": signature(body, b"other")}
    if weakened:
        monkeypatch.setattr("hub.adapters.github.is_signed", lambda *args: True)
        monkeypatch.setattr("hub.web.signed.is_offered", lambda request: True)
    async with hub_app(tmp_path, auth="token") as hub:
        (await hub.post("hooks/github", body, right)).refused(401, "forbidden")  # there is no secret yet
        hub.hub.github_secret = b"swordfish"
        if weakened:
            assert (await hub.post("hooks/github", body, wrong)).status == 200
            assert (await hub.ask("GET", "api/state", headers=right)).status != 401
            return
        with monkeypatch.context() as patch:
            patch.setattr("hub.web.hooks.read", None)
            (await hub.post("hooks/github", b"{" * 1000, wrong)).refused(401, "forbidden")  # unread
        (await hub.post("hooks/github", body)).refused(401, "forbidden")
        for given in ("Bearer x", "Basic x"):
            (await hub.post("hooks/github", body, right | {"Authorization": given})).refused(401, "forbidden")
        for path in ("hooks/claude-code", "hooks/grafana", "api/events", "api/commands/hub:ping", "ping/x"):
            (await hub.post(path, body, right)).refused(401, "forbidden")
        assert (await hub.ask("GET", "api/state", headers=right)).status in (401, 429)
        assert hub.hub.state.get("task:progress", TASK) is None
        assert (await hub.post("hooks/github", body, right)).json == {}
        assert hub.hub.state.get("task:progress", TASK) is not None
        found = [(await hub.post("hooks/github", body, wrong)).status for _ in range(30)]
        assert found[-1] == 429


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_announces_much_and_sends_nothing_keeps_nobody_out(
    hub: HubInside, ends: Ends, weakened: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(signed, "SECONDS", LONG)
    if weakened:
        read = Strangers.read

        async def by_what_is_announced(self: Strangers, request: web.Request) -> bytes:
            if not self._has_room(("", None), size := request.content_length or 0):
                raise HubError("busy", "Too much is sent at once.", retry_after=1)
            await self._hold(("", None), size)
            return await read(self, request)

        monkeypatch.setattr(Strangers, "read", by_what_is_announced)
    begun: list[str] = request.getfixturevalue("reading")
    for _ in range(20):
        await begin(hub, ends)
    await until(lambda: len(begun) == 20, "all of them are being read")
    assert [await delivered(hub), await delivered(hub, large())] == ([429, 429] if weakened else [200, 200])
    assert (hub.hub.state.get("task:progress", TASK) is None) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_address_has_a_share_of_the_room_however_much_it_sends(
    hub: HubInside, ends: Ends, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed, "SECONDS", LONG)
    if weakened:
        monkeypatch.setattr(signed, "SHARE", 100)
    strangers = hub.app[HOOKS].strangers = Strangers(LARGEST, SMALL)
    body = large(LARGEST - 32 * 1024)
    for _ in range(12):
        await begin(hub, ends, size=LARGEST, sent=b"x" * (LARGEST - 1))
    source = ("127.0.0.1" if weakened else "127.0.0.2", os.geteuid())
    await until(lambda: not strangers._has_room(source, len(body)), "it is full")
    if weakened:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(delivered(hub, body), 0.3)
    else:
        assert await delivered(hub, body) == 200
    for _, writer in ends:
        writer.transport.abort()
    await until(lambda: not strangers._held, "nothing is held for those who have gone")


@pytest.mark.parametrize("weakened", [False, True])
async def test_many_who_send_a_little_take_little_memory_and_keep_nobody_out(
    hub: HubInside, ends: Ends, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed, "SECONDS", LONG)
    monkeypatch.setattr(signed, "MOST", 10_000 if weakened else 8)
    awaited = hub.app[HOOKS].strangers._awaited
    first = await begin(hub, ends, source="127.0.0.3")
    await until(lambda: len(awaited) == 1)
    many = [await begin(hub, ends, sent=b"x" * 20_000) for _ in range(12)]
    others = [await begin(hub, ends, source=f"127.0.1.{n}") for n in range(1, 5)]
    if weakened:
        await until(lambda: len(awaited) == 17, "all of them are held")
    else:
        assert [await status_of(reader) for reader in many[:9]] == [429] * 9  # of the address that has most of them
        assert len(awaited) == 8
        assert await delivered(hub) == 200
        for reader in (first, *others):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(status_of(reader), 0.01)
    for _, writer in ends:
        writer.transport.abort()
    await until(lambda: not awaited, "nothing is left of those who have gone")


@pytest.mark.parametrize("given", ["127.0.0.1", "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1"])
def test_of_ipv6_a_network_has_one_share(given: str) -> None:
    own = signed._source(Peer("2001:db8::2", 1, None, "NONE"))
    assert (signed._source(Peer(given, 1, None, "NONE")) == own) is given.startswith("2001:db8::")


async def test_what_has_no_room_in_time_is_told_to_come_again(
    hub: HubInside, ends: Ends, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signed, "SECONDS", 0.1)
    monkeypatch.setattr(signed, "SHARE", 0)
    for _ in range(2):
        assert await delivered(hub, large()) == 429
    assert await delivered(hub) == 200
    assert hub.counted("hub_hooks_total", "github", "refused") == 2
    assert caplog.text.count("had no room in time; GitHub sends one that was refused again only where") == 1
    assert not hub.counted("hub_connections_refused_total", "token"), "no guess"


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_body_that_does_not_come_counts_as_a_guess(
    hub: HubInside, ends: Ends, leaves: bool, weakened: bool, monkeypatch: pytest.MonkeyPatch, reading: list[str]
) -> None:
    monkeypatch.setattr(credentials, "BLOCK_SECONDS", LONG)
    monkeypatch.setattr(signed, "SECONDS", LONG if leaves else 0.05)
    if weakened:
        monkeypatch.setattr(signed, "_refused", lambda *args: HubError("timeout", "It did not come.", status=408))
    many = [await begin(hub, ends) for _ in range(12)]
    if leaves:
        await until(lambda: len(reading) == 12)
        for _, writer in ends:
            writer.transport.abort()
    else:
        found = sorted([await status_of(reader) for reader in many])
        assert found == ([408] * 12 if weakened else [401] * 10 + [429] * 2)
    if not weakened:
        await until(lambda: hub.counted("hub_connections_refused_total", "guesses") == 2)
    assert hub.counted("hub_connections_refused_total", "token") == (0 if weakened else 10)
    monkeypatch.setattr(signed, "SECONDS", LONG)
    right = await begin(hub, ends, signature(BODY), size=len(BODY), sent=BODY)
    assert await status_of(right) == 200, "it is never kept waiting"
    assert not hub.app[HOOKS].strangers._held


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_comes_has_time(
    hub: HubInside, ends: Ends, weakened: bool, monkeypatch: pytest.MonkeyPatch, reading: list[str]
) -> None:
    monkeypatch.setattr(signed, "SECONDS", 0.2)
    monkeypatch.setattr(signed, "PACE", float("inf") if weakened else 1.0)
    reader = await begin(hub, ends, signature(BODY), size=len(BODY), sent=BODY[:-1])
    await until(lambda: reading)
    answer = asyncio.ensure_future(status_of(reader))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(answer), 0.5)
    ends[0][1].write(BODY[-1:])
    assert await answer == (401 if weakened else 200)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        *(["x"], [""], ["sha1=" + "a" * 40], ["sha256=" + "A" * 64], ["sha256=" + "a" * 63], ["sha256=" + "a" * 65]),
        ["sha256=" + "a" * 64, "sha256=" + "a" * 64],
    ],
)
async def test_what_no_signature_can_be_is_refused_unread(
    hub: HubInside, ends: Ends, given: list[str], weakened: bool, monkeypatch: pytest.MonkeyPatch, reading: list[str]
) -> None:
    monkeypatch.setattr(signed, "SECONDS", LONG)
    if weakened:
        monkeypatch.setattr(signed, "_FORM", re.compile(".*"))
        given = given[:1]
    reader = await begin(hub, ends, *given)
    if weakened:
        await until(lambda: reading)
    else:
        assert await status_of(reader) == 401
        assert not reading


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_secret_that_is_taken_away_meanwhile_lets_nobody_in(
    hub: HubInside, ends: Ends, weakened: bool, monkeypatch: pytest.MonkeyPatch, reading: list[str]
) -> None:
    reader = await begin(hub, ends, signature(b""), size=len(BODY), sent=BODY[:-1])
    await until(lambda: reading)
    hub.hub.github_secret = None
    if weakened:
        monkeypatch.setattr(signed, "is_unproved", lambda request: False)
    ends[0][1].write(BODY[-1:])
    assert await status_of(reader) == (200 if weakened else 401)
    assert (hub.hub.state.get("task:progress", TASK) is not None) is weakened


@pytest.mark.parametrize(("more", "code"), [({"Content-Encoding": "unheard-of"}, 415), ({}, 413)])
async def test_what_need_not_be_read_is_not(
    hub: HubInside, more: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.app[HOOKS].strangers = Strangers(1000, 100)
    headers = {"X-Hub-Signature-256": signature(BODY), **more}
    assert (await hub.post("hooks/github", BODY + b" " * 1000, headers)).status == code
