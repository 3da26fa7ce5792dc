"""PROTOCOL 5 over real sockets: how often, how many, how much."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from running import HubInside, Raw, hub_app, refused, talk, until
from sessions import command, fails_without

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


# ---- limits


@pytest.mark.usefixtures("no_token_comes_back")
async def test_over_the_rate_calls_are_refused_with_when_to_come_back(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=5) as hub, talk(hub.url) as client:
        for n in range(10):
            await client.call("hub:ping", f"ok-{n}")
        error = await client.fails("hub:ping", "rate_limited", "too much")
        assert error["retryable"] is True
        assert 0 < error["retry_after"] <= 1
        assert hub.counted("hub_rate_limited_total") == 1
        refusals = await hub.recorded("command.refused")
        assert refusals[0]["details"] == {"id": "too much", "command": "hub:ping", "outcome": "rate_limited"}


@pytest.mark.usefixtures("no_token_comes_back")
async def test_bad_frames_count_against_the_rate(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=5) as hub, talk(hub.url) as client:
        for _ in range(10):
            await client.send("{")
            refused((await client.answer(None))["payload"], "invalid_json")
        await client.send("{")
        refused((await client.answer(None))["payload"], "rate_limited")


async def test_without_a_rate_there_is_no_limit(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=0) as hub, talk(hub.url) as client:
        for _ in range(3000):
            await client.send("{")
        for _ in range(3000):
            refused((await client.answer(None))["payload"], "invalid_json")


async def flood(hub: HubInside, frame: bytes, count: int) -> list[dict[str, Any]]:
    """Send so many frames in one go; what was answered before the connection ended."""
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        writing = asyncio.create_task(raw.write(frame * count))
        answers = []
        while (got := await raw.frame()) is not None:
            if got[0] == CLOSE:
                assert int.from_bytes(got[1][:2]) == 1008
                break
            assert got[0] == TEXT
            answers.append(json.loads(got[1])["payload"])
        else:
            raise AssertionError("the connection ended without a close frame")
        await asyncio.gather(writing, return_exceptions=True)
    return answers


@pytest.mark.parametrize("text", [command("hub:info"), "{"], ids=["calls", "junk"])
async def test_who_goes_on_after_2000_refusals_is_closed_with_1008(tmp_path: Path, text: str) -> None:
    async with hub_app(tmp_path, rate=1) as hub:
        answers = await flood(hub, Raw.packed(TEXT, text.encode()), 2100)
        refusals = [answer for answer in answers if answer.get("code") == "rate_limited"]
        assert len(refusals) >= 2000
        await until(lambda: hub.counted("hub_disconnections_total", "flood") == 1)


async def test_a_flood_is_not_answered_beyond_its_2000_refusals(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=1) as hub:
        answers = await flood(hub, Raw.packed(TEXT, b"{"), 20_000)
        assert len(answers) <= 2010


async def test_a_ping_flood_is_closed_with_1008(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=10) as hub, Raw(hub.port) as raw:
        await raw.upgrade()
        await raw.write(raw.packed(PING, b"") * 5000)
        await raw.send(TEXT, command("hub:ping", "behind the pings").encode())
        while (frame := await raw.frame()) is not None and frame[0] == PONG:
            pass
        assert frame is not None
        assert frame[0] == CLOSE, "5,000 pings at a rate of 10 were all answered, and the client stayed"
        assert int.from_bytes(frame[1][:2]) == 1008


@pytest.mark.parametrize("lines", [("keep-alive", "Upgrade"), ("Upgrade", "keep-alive"), ("keep-alive, Upgrade",)])
async def test_several_lines_of_a_header_are_one_list(hub: HubInside, lines: tuple[str, ...]) -> None:
    """In any order (RFC 9110, 5.3); a proxy may add one."""
    async with Raw(hub.port) as raw:
        await raw.write(
            "\r\n".join(
                [
                    *("GET /ws HTTP/1.1", f"Host: 127.0.0.1:{hub.port}", "Upgrade: websocket"),
                    *(f"Connection: {line}" for line in lines),
                    *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""),
                ]
            ).encode()
        )
        assert (await raw.read()).startswith(b"HTTP/1.1 101 ")


async def test_a_full_hub_refuses_with_503_before_the_upgrade(tmp_path: Path) -> None:
    async with hub_app(tmp_path, max_clients=2) as hub, talk(hub.url) as one, talk(hub.url):
        with pytest.raises(WSServerHandshakeError) as refusal:
            async with talk(hub.url):
                pass
        assert refusal.value.status == 503
        assert refusal.value.headers is not None
        assert int(refusal.value.headers["Retry-After"]) >= 1
        assert hub.counted("hub_connections_refused_total", "too_many") == 1
        await one.ws.close()
        await until(lambda: hub.clients("websocket") == 1)
        async with talk(hub.url) as third:
            await third.call("hub:ping")


async def test_many_at_once_do_not_slip_past_the_limit(tmp_path: Path) -> None:
    async with hub_app(tmp_path, max_clients=3) as hub, ClientSession() as http:
        attempts = [http.ws_connect(hub.url + "ws") for _ in range(20)]
        sockets = await asyncio.gather(*attempts, return_exceptions=True)
        connected = [ws for ws in sockets if not isinstance(ws, BaseException)]
        assert len(connected) == hub.clients("websocket") == 3
        for ws in connected:
            await ws.close()


# ---- weakened builds: the same checks with one mechanism switched off


async def _admit_all(app: object, after: object) -> None:
    """Everybody gets in."""


SWITCHES: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "no rate": (
        test_over_the_rate_calls_are_refused_with_when_to_come_back,
        "hub.commands.ratelimit.Bucket.take",
        lambda bucket: 0.0,
    ),
    "pings are free": (
        test_a_ping_flood_is_closed_with_1008,
        "hub.commands.session.Session.ping",
        lambda session: True,
    ),
    "a flooder may stay": (
        test_a_flood_is_not_answered_beyond_its_2000_refusals,
        "hub.commands.session.Session._count_refusal",
        lambda session: None,
    ),
    "no limit of clients": (
        test_a_full_hub_refuses_with_503_before_the_upgrade,
        "hub.web.streams.admit",
        _admit_all,
    ),
}


@pytest.mark.parametrize(("check", "switch", "off"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_the_check_fails_without_the_mechanism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], Any], switch: str, off: Any
) -> None:
    await fails_without(check, tmp_path, monkeypatch, switch, off)
