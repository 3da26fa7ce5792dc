"""A WebSocket over a real socket: frames, heartbeat, its end, and how it leaves the hands of aiohttp."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from running import HubInside, Raw, Talk, handshake, hub_app, open_streams, refused, run_hub, sockets, talk, until
from sessions import Doors, command, fails_without

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


# ---- frames


async def test_a_binary_frame_closes_with_1003(hub: HubInside, client: Talk) -> None:
    await client.ws.send_bytes(b"{}")
    assert await client.end() == 1003
    await until(lambda: hub.counted("hub_disconnections_total", "binary") == 1)


async def test_bad_utf8_closes_with_1007(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        await raw.send(TEXT, b'{"a": "\xff"}')
        assert await raw.close_code() == 1007
    await until(lambda: hub.counted("hub_disconnections_total", "utf8") == 1, "that it is counted")


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_message_of_64_kib_is_served_and_one_byte_more_is_1009(hub: HubInside, pieces: int) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        for size, id in ((65536, "just"), (65537, "over")):
            text = command("hub:ping", id, pad="").encode()
            text = text.replace(b'"pad": ""', b'"pad": "%b"' % (b"x" * (size - len(text))))
            assert len(text) == size
            part = -(-size // pieces)
            for n in range(pieces):
                opcode = TEXT if n == 0 else 0x0
                with contextlib.suppress(ConnectionError):  # it may close before it has read the last piece
                    await raw.send(opcode, text[n * part : (n + 1) * part], n == pieces - 1)
            if id == "just":
                frame = await raw.frame()
                assert frame is not None
                assert json.loads(frame[1])["type"] == "response"
        assert await raw.close_code() == 1009
    await until(lambda: hub.counted("hub_disconnections_total", "too_large") == 1)


async def test_a_declared_length_is_refused_before_the_bytes_come(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        await raw.write(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + bytes(4))
        assert await raw.close_code() == 1009


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10], ids=["compressed", "rsv2", "rsv3"])
async def test_reserved_bits_are_a_protocol_error(hub: HubInside, bits: int) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        await raw.send(TEXT | bits, b"{}")
        assert await raw.close_code() == 1002


async def test_bytes_that_trickle_in_are_served(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        for byte in raw.packed(TEXT, command("hub:ping").encode()):
            await raw.write(bytes([byte]))
        frame = await raw.frame()
        assert frame is not None
        assert json.loads(frame[1])["payload"]["pong"] is True


async def test_pings_are_answered(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        await raw.upgrade()
        await raw.send(PING, b"are you there")
        assert await raw.frame() == (PONG, b"are you there")


# ---- heartbeat


async def test_a_client_is_pinged_and_one_that_never_pongs_is_gone(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.2) as hub, Raw(hub.port) as raw, talk(hub.url) as healthy:
        receiving = asyncio.create_task(healthy.event())  # aiohttp's client pongs while it receives
        await raw.upgrade()
        frame = await raw.frame()
        assert frame is not None
        assert frame[0] == PING
        while await raw.frame() is not None:
            pass
        await until(lambda: hub.counted("hub_disconnections_total", "heartbeat") == 1)
        await until(lambda: hub.clients("websocket") == 1)
        await hub.publish(1)
        assert (await receiving)["payload"]["event"] == "a:x"


async def test_a_client_that_pongs_stays(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub, Raw(hub.port) as raw:
        await raw.upgrade()
        for _ in range(4):
            frame = await raw.frame()
            assert frame is not None
            assert frame[0] == PING
            await raw.send(PONG, frame[1])
        assert hub.clients("websocket") == 1


async def test_half_open_peers_go_also_with_full_buffers(tmp_path: Path) -> None:
    """It stopped reading in a storm, so that not even a ping reaches it. Nothing of it may stay with the hub."""
    async with hub_app(tmp_path, heartbeat=0.3) as hub, Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        both_ends = sockets()
        while hub.hub.broadcaster.lagging == 0 and hub.clients("websocket"):  # else it has gone in the middle of it
            await hub.publish(10, pad="x" * 50_000)
        await until(lambda: hub.clients("websocket") == 0, "that the client is gone")
        await until(lambda: sockets() < both_ends, "that its socket is closed")


async def test_half_open_peers_go_also_when_they_have_unread_answers(tmp_path: Path) -> None:
    """It sends calls and never reads an answer: the hub waits for room, but not beyond the heartbeat."""
    async with hub_app(tmp_path, heartbeat=0.3, rate=0) as hub, Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        both_ends = sockets()
        frame = raw.packed(TEXT, command("hub:ping", pad="x" * 60_000).encode())

        async def send() -> None:
            while True:
                await raw.write(frame)

        [client] = hub.hub.clients
        subscriber = client.subscriber
        assert subscriber is not None
        sending = asyncio.create_task(send())
        try:
            await until(lambda: subscriber.paused, "that buffers are full")
            await until(lambda: hub.clients("websocket") == 0, "that the client is gone")
            await until(lambda: sockets() < both_ends, "that its socket is closed")
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


# ---- the end


async def test_at_the_end_of_the_hub_clients_get_1001(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        ending = asyncio.create_task(client.end())
        await hub.runner.cleanup()
        assert await ending == 1001


async def test_calls_that_run_at_the_end_are_answered_before_1001(tmp_path: Path, doors: Doors) -> None:
    async with hub_app(tmp_path, prepare=doors) as hub, talk(hub.url) as client:
        await client.begin("test:wait", "long", door="a")
        await until(lambda: doors.inside)
        stopping = asyncio.create_task(hub.runner.cleanup())
        await until(lambda: hub.hub.commands.stopping)
        doors.let("a")
        assert await client.end() == 1001
        assert client.answers["long"]["payload"] == {"through": "a"}
        await stopping


async def test_calls_that_do_not_end_are_told_that_the_hub_stops(tmp_path: Path, doors: Doors) -> None:
    async with hub_app(tmp_path, prepare=doors, stop_timeout=0.1) as hub, talk(hub.url) as client:
        await client.begin("test:wait", "long", door="never")
        await until(lambda: doors.inside)
        stopping = asyncio.create_task(hub.runner.cleanup())
        assert await client.end() == 1001
        error = refused(client.answers["long"]["payload"], "shutting_down")
        assert error["retryable"] is True
        await stopping
    status, out, _ = await run_hub(tmp_path, "audit", "verify", str(tmp_path / "audit.jsonl"))
    assert (status, out.split()[0]) == (0, "intact:")


# ---- out of aiohttp's hands: what `take_over` leans on


async def test_what_comes_with_the_upgrade_request_is_not_lost(hub: HubInside) -> None:
    async with Raw(hub.port) as raw:
        early = raw.packed(TEXT, command("hub:ping", "early").encode())
        await raw.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            + early
        )
        received = b""
        while b'"id":"early"' not in received:
            data = await raw.read()
            assert data, received
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # the example of RFC 6455, 1.3
        assert rest[:1] == b"\x81"


async def test_aiohttp_forgets_the_connection_and_does_not_close_it(hub: HubInside, client: Talk) -> None:
    assert hub.runner.server is not None
    (connection,) = open_streams(hub)
    assert connection.transport.get_protocol() is connection
    assert not [h for h in hub.runner.server.connections if h.transport is connection.transport]
    assert (await client.call("hub:ping"))["pong"] is True


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, 400),
        ({"Sec-WebSocket-Version": ""}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "not base64 at all ======"}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "keep-alive"}, 400),
    ],
    ids=str,
)
async def test_a_handshake_that_is_wrong_is_refused_and_the_connection_lives(
    hub: HubInside, change: dict[str, str], status: int
) -> None:
    headers = {
        "Host": f"127.0.0.1:{hub.port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **change,
    }
    request = "GET /ws HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    async with Raw(hub.port) as raw:
        await raw.write(request.encode())
        assert (await raw.read()).startswith(f"HTTP/1.1 {status} ".encode())
    assert open_streams(hub) == []


async def test_http_1_0_has_no_websocket(hub: HubInside) -> None:
    """RFC 6455, 4.2.1. A proxy that speaks 1.0 to the hub would pass no frame on."""
    async with Raw(hub.port) as raw:
        await raw.write(handshake(hub.port).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await raw.read()).startswith(b"HTTP/1.0 400 ")
    assert open_streams(hub) == []


# ---- weakened builds: the same checks with one mechanism switched off


SWITCHES: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "no heartbeat": (
        test_half_open_peers_go_also_when_they_have_unread_answers,
        "hub.web.streams.Stream.beat",
        lambda connection, now, heartbeat: False,
    ),
    "no goodbye": (test_at_the_end_of_the_hub_clients_get_1001, "hub.web.streams.goodbye", AsyncMock()),
}


@pytest.mark.parametrize(("check", "switch", "off"), SWITCHES.values(), ids=SWITCHES.keys())
async def test_the_check_fails_without_the_mechanism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Callable[[Path], Any], switch: str, off: Any
) -> None:
    await fails_without(check, tmp_path, monkeypatch, switch, off)
