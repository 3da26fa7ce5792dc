"""PROTOCOL 2 and 3 over real sockets: calls and their answers, refusals, close codes, limits, streams."""

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import running
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from running import HubInside, Raw, Talk, handshake, hub_app, open_streams, refused, run_hub, seq, sockets, talk, until

from hub import Hub
from hub.commands.call import Call
from hub.commands.session import Session
from hub.stream.subscriber import Subscriber

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class Doors:
    """Commands that end when the test says so: `test:wait` with a `door` waits until that is opened."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.inside: set[str] = set()

    def __call__(self, hub: Hub) -> None:
        @hub.command("test:wait")
        async def wait(call: Call) -> Any:
            """Wait until the door is opened."""
            door = call.args["door"]
            self.inside.add(door)
            await self.open.setdefault(door, asyncio.Event()).wait()
            return {"through": door}

    def let(self, door: str) -> None:
        self.open.setdefault(door, asyncio.Event()).set()


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
async def hub(tmp_path: Path, doors: Doors) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=doors, stop_timeout=0.2) as running:
        yield running


@pytest.fixture
async def client(hub: HubInside) -> AsyncIterator[Talk]:
    async with talk(hub.url) as client:
        yield client


def command(name: str, call: str = "1", /, **args: Any) -> str:
    return json.dumps({"type": "command", "id": call, "payload": {"command": name, "args": args}})


# ---- calls


async def test_nothing_is_sent_unasked(client: Talk) -> None:
    await client.call("hub:ping")
    assert client.events == []
    assert client.answers == {}


async def test_answers_carry_type_id_timestamp_payload_and_nothing_else(client: Talk) -> None:
    answer = await client.answer(await client.begin("hub:ping", "my own id", a=1))
    assert set(answer) == {"type", "id", "timestamp", "payload"}
    assert (answer["type"], answer["id"]) == ("response", "my own id")
    assert answer["payload"] == {"pong": True, "args": {"a": 1}}
    assert answer["timestamp"].endswith("Z")


async def test_args_and_timestamp_are_optional(client: Talk) -> None:
    await client.send({"type": "command", "id": "1", "payload": {"command": "hub:ping"}})
    assert (await client.answer("1"))["payload"] == {"pong": True, "args": {}}
    await client.send(
        {"type": "command", "id": "2", "timestamp": "2025-01-01T00:00:00+02:00", "payload": {"command": "hub:ping"}}
    )
    assert (await client.answer("2"))["type"] == "response"


async def test_calls_in_flight_are_answered_in_the_order_they_end(client: Talk, doors: Doors) -> None:
    for door in ("a", "b", "c"):
        await client.begin("test:wait", door, door=door)
    await until(lambda: doors.inside == {"a", "b", "c"})
    for door in ("c", "a", "b"):
        doors.let(door)
        frame = await client.frame()
        assert frame is not None
        assert (frame["id"], frame["payload"]) == (door, {"through": door})


async def test_an_id_that_is_still_running_is_refused_and_free_again_after(client: Talk, doors: Doors) -> None:
    await client.begin("test:wait", "same", door="a")
    await client.fails("hub:ping", "duplicate_id", "same")
    doors.let("a")
    assert (await client.answer("same"))["payload"] == {"through": "a"}
    assert (await client.call("hub:ping", "same"))["pong"] is True


async def test_two_clients_may_use_the_same_id(hub: HubInside, client: Talk, doors: Doors) -> None:
    await client.begin("test:wait", "same", door="a")
    async with talk(hub.url) as other:
        assert (await other.call("hub:ping", "same"))["pong"] is True
    doors.let("a")
    await client.answer("same")


async def test_more_calls_than_allowed_at_once_are_busy(tmp_path: Path, doors: Doors) -> None:
    async with hub_app(tmp_path, prepare=doors, max_calls=3) as hub, talk(hub.url) as client:
        for n in range(3):
            await client.begin("test:wait", f"w{n}", door="a")
        error = await client.fails("hub:ping", "busy")
        assert error["retryable"] is True
        assert error["retry_after"] > 0
        doors.let("a")
        for n in range(3):
            await client.answer(f"w{n}")
        await client.call("hub:ping")


async def test_a_call_over_its_time_is_a_timeout(tmp_path: Path, doors: Doors) -> None:
    async with hub_app(tmp_path, prepare=doors, call_timeout=0.1) as hub, talk(hub.url) as client:
        error = await client.fails("test:wait", "timeout", door="never")
        assert error["retryable"] is True
        await client.call("hub:ping")
        finished = (await hub.records("command.finished"))[0]["details"]
        assert (finished["command"], finished["outcome"]) == ("test:wait", "timeout")


async def test_a_running_call_can_be_cancelled(hub: HubInside, client: Talk, doors: Doors) -> None:
    await client.begin("test:wait", "long", door="never")
    await until(lambda: doors.inside)
    await client.send(command("hub:cancel", "stop", id="long"))
    assert (await client.answer("stop"))["payload"] == {"cancelled": True}
    refused((await client.answer("long"))["payload"], "cancelled")
    await client.send(command("hub:cancel", "again", id="long"))
    assert (await client.answer("again"))["payload"] == {"cancelled": False}


async def test_a_call_can_be_cancelled_right_after_it_was_sent(client: Talk) -> None:
    await client.begin("test:wait", "long", door="never")
    await client.send(command("hub:cancel", "stop", id="long"))
    assert (await client.answer("stop"))["payload"] == {"cancelled": True}
    refused((await client.answer("long"))["payload"], "cancelled")


async def test_nobody_cancels_the_calls_of_others(hub: HubInside, client: Talk, doors: Doors) -> None:
    await client.begin("test:wait", "long", door="a")
    await until(lambda: doors.inside)
    async with talk(hub.url) as other:
        await other.send(command("hub:cancel", "stop", id="long"))
        assert (await other.answer("stop"))["payload"] == {"cancelled": False}
    doors.let("a")
    assert (await client.answer("long"))["payload"] == {"through": "a"}


async def test_a_call_goes_on_when_its_client_has_gone(hub: HubInside, doors: Doors) -> None:
    async with talk(hub.url) as client:
        await client.begin("test:wait", "long", door="a")
        await until(lambda: doors.inside)
    await until(lambda: hub.clients("websocket") == 0)
    doors.let("a")
    await until(lambda: not hub.hub.commands.running)
    done = await hub.recorded("command.finished")
    assert done[0]["details"]["outcome"] == "ok"


# ---- what is refused


BAD_JSON = {
    "no JSON": "{",
    "nothing": "",
    "an array": "[]",
    "a text": '"hub:ping"',
    "null": "null",
    "two objects": "{}{}",
    "NaN": '{"type": NaN}',
    "Infinity": '{"type": -Infinity}',
    "an infinite number": '{"type": 1e999}',
    "an integer of 5,000 digits": '{"type": %s}' % ("1" * 5000),
    "a key twice": '{"type": "command", "type": "command"}',
    "a lone surrogate": '{"type": "\\ud800"}',
    "depth 10,000": "[" * 10_000 + "]" * 10_000,
    "depth 33": '{"type": "command", "id": "1", "payload": {"command": "hub:ping", "args": {"a": %s}}}'
    % ("[" * 30 + "]" * 30),
}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_bad_json_is_refused_and_the_connection_lives(client: Talk, text: str) -> None:
    await client.send(text)
    answer = await client.answer(None)
    assert answer["type"] == "error"
    assert refused(answer["payload"], "invalid_json")["retryable"] is False
    await client.call("hub:ping")


BAD_FRAMES: dict[str, tuple[dict[str, Any], str | None]] = {
    "nothing in it": ({}, None),
    "no id": ({"type": "command", "payload": {"command": "hub:ping"}}, None),
    "an empty id": ({"type": "command", "id": "", "payload": {"command": "hub:ping"}}, None),
    "a long id": ({"type": "command", "id": "x" * 129, "payload": {"command": "hub:ping"}}, None),
    "an id that cannot be printed": ({"type": "command", "id": "a\n", "payload": {"command": "hub:ping"}}, None),
    "a number as id": ({"type": "command", "id": 7, "payload": {"command": "hub:ping"}}, None),
    "no type": ({"id": "1", "payload": {"command": "hub:ping"}}, "1"),
    "an unknown type": ({"type": "order", "id": "1", "payload": {"command": "hub:ping"}}, "1"),
    "no payload": ({"type": "command", "id": "1"}, "1"),
    "a payload that is no object": ({"type": "command", "id": "1", "payload": []}, "1"),
    "no command": ({"type": "command", "id": "1", "payload": {}}, "1"),
    "a command without domain": ({"type": "command", "id": "1", "payload": {"command": "ping"}}, "1"),
    "args that are no object": ({"type": "command", "id": "1", "payload": {"command": "hub:ping", "args": []}}, "1"),
    "args that are null": ({"type": "command", "id": "1", "payload": {"command": "hub:ping", "args": None}}, "1"),
    "an unknown key": ({"type": "command", "id": "1", "payload": {"command": "hub:ping"}, "trust": "ROOT"}, "1"),
    "an unknown payload key": ({"type": "command", "id": "1", "payload": {"command": "hub:ping", "trust": 1}}, "1"),
    "a time without offset": (
        {"type": "command", "id": "1", "timestamp": "2025-01-01T00:00:00", "payload": {"command": "hub:ping"}},
        "1",
    ),
}


@pytest.mark.parametrize(("frame", "id"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_envelope_is_refused_with_its_field_paths(
    client: Talk, frame: dict[str, Any], id: str | None
) -> None:
    await client.send(frame)
    answer = await client.answer(id)
    assert refused(answer["payload"], "invalid_message")["details"]
    await client.call("hub:ping")


@pytest.mark.parametrize("type", ["event", "response", "error"])
async def test_what_answers_nothing_is_unexpected(client: Talk, type: str) -> None:
    await client.send({"type": type, "id": "1", "timestamp": "2025-01-01T00:00:00Z", "payload": {}})
    refused((await client.answer("1"))["payload"], "unexpected_type")
    await client.call("hub:ping")


async def test_every_code_of_a_call_that_cannot_run(client: Talk) -> None:
    await client.fails("no:such", "unknown_command")
    assert (await client.fails("hub:info", "invalid_args", extra=1))["details"] == {"extra": ["Unknown field."]}
    assert "limit" in (await client.fails("hub:history", "invalid_args", limit=0))["details"]
    await client.fails("hub:history", "invalid_args", limit="10")
    await client.fails("hub:subscribe", "invalid_args")
    await client.fails("hub:subscribe", "invalid_args", topics=["agent*"])
    await client.fails("hub:subscribe", "unknown_cursor", topics=["*"], after="nonsense")
    await client.fails("hub:history", "unknown_cursor", after="nonsense")
    await client.fails("hub:publish", "reserved_event", event="hub:stale", data={})
    await client.fails("hub:publish", "invalid_args", event="a:b")
    misfit = await client.fails("hub:publish", "invalid_message", event="task:progress", data={"progress": 101})
    assert set(misfit["details"]["data"]) == {"id", "progress"}


async def test_a_cursor_of_the_future_is_unknown(hub: HubInside, client: Talk) -> None:
    future = f"{hub.hub.cursor.epoch}:1"
    for name in ("hub:subscribe", "hub:history"):
        args = {"topics": ["*"], "after": future}
        await client.fails(name, "unknown_cursor", **args)


@pytest.mark.parametrize(
    "query", ["?after=nonsense", "?after=", "?after=EPOCH:99", "?topics=", "?topics=agent*", "?topics=a:*,,b:*"]
)
async def test_a_bad_query_is_refused_before_the_upgrade(hub: HubInside, query: str) -> None:
    query = query.replace("EPOCH", hub.hub.cursor.epoch)
    with pytest.raises(WSServerHandshakeError) as refusal:
        async with talk(hub.url, query):
            pass
    assert refusal.value.status == 400
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = await hub.ask("GET", "ws" + query, headers={**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    answer.refused(400, "unknown_cursor" if "after" in query else "invalid_args")
    assert hub.clients("websocket") == 0


async def test_a_request_that_is_no_websocket_is_told_so(hub: HubInside) -> None:
    (await hub.get("ws")).refused(400, "invalid_message")


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


# ---- limits


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
        while hub.hub.broadcaster.lagging == 0:
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


# ---- the stream


async def test_a_client_of_the_seed_gets_everything(hub: HubInside, client: Talk) -> None:
    for name in ("agent:a:b", "task:done", "z:z"):
        await hub.hub.publish(name, {"name": name})
    events = [await client.event() for _ in range(3)]
    assert [e["payload"] for e in events] == [
        {"event": n, "data": {"name": n}} for n in ("agent:a:b", "task:done", "z:z")
    ]
    assert [seq(e) for e in events] == [1, 2, 3]
    assert all(set(e) == {"type", "id", "timestamp", "cursor", "payload"} for e in events)


async def test_topics_narrow_and_after_resumes(hub: HubInside) -> None:
    for name in ("agent:x", "task:x", "agents:x", "agent:a:b"):
        await hub.hub.publish(name, None)
    async with talk(hub.url, f"?topics=agent:*,none:*&after={hub.hub.cursor.epoch}:0") as client:
        assert await client.numbers(2) == [1, 4]
        await hub.hub.publish("task:x", None)
        await hub.hub.publish("agent:x", None)
        assert await client.numbers(1) == [6]


async def test_the_first_subscribe_replaces_the_implied_star_and_further_ones_add(hub: HubInside, client: Talk) -> None:
    first = await client.call("hub:subscribe", topics=["a:*"])
    assert (first["topics"], first["cursor"]) == (["a:*"], str(hub.hub.cursor))
    assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["a:*", "b:*"]
    for name in ("c:x", "b:x", "a:x"):
        await hub.hub.publish(name, None)
    assert await client.numbers(2) == [2, 3]
    assert (await client.call("hub:unsubscribe", topics=["a:*", "unknown:*"]))["topics"] == ["b:*"]
    for name in ("a:x", "b:x"):
        await hub.hub.publish(name, None)
    assert await client.numbers(1) == [5]


async def test_topics_of_the_address_are_not_implied(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=a:*") as client:
        assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["a:*", "b:*"]
    async with talk(hub.url, "?topics=*") as client:
        assert (await client.call("hub:subscribe", topics=["b:*"]))["topics"] == ["*", "b:*"]


async def test_unsubscribing_from_what_was_never_asked_for_leaves_the_star_implied(client: Talk) -> None:
    assert (await client.call("hub:unsubscribe", topics=["x:*"]))["topics"] == ["*"]
    assert (await client.call("hub:subscribe", topics=["a:*"]))["topics"] == ["a:*"]


async def test_unsubscribing_from_everything_gives_silence(hub: HubInside, client: Talk) -> None:
    assert (await client.call("hub:unsubscribe", topics=["*"]))["topics"] == []
    await hub.publish(3)
    await client.call("hub:ping")
    assert client.events == []
    await client.call("hub:subscribe", topics=["a:*"])
    await hub.publish(1)
    assert await client.numbers(1) == [4]


async def test_subscribing_with_after_starts_the_stream_again(hub: HubInside, client: Talk) -> None:
    await hub.publish(3)
    assert await client.numbers(3) == [1, 2, 3]
    again = await client.call("hub:subscribe", topics=["a:*"], after=f"{hub.hub.cursor.epoch}:1")
    assert again["cursor"] == f"{hub.hub.cursor.epoch}:1"
    await hub.publish(1)
    assert await client.numbers(3) == [2, 3, 4]


async def test_an_unknown_epoch_is_one_gap_and_then_everything(hub: HubInside) -> None:
    await hub.publish(2)
    async with talk(hub.url, "?after=long-ago:17") as client:
        gap = await client.event()
        assert gap["payload"]["event"] == "hub:gap"
        assert "cursor" not in gap
        epoch = hub.hub.cursor.epoch
        want = {"after": "long-ago:17", "before": f"{epoch}:1", "count": None, "reason": "epoch"}
        assert gap["payload"]["data"] == want
        await hub.publish(1)
        assert await client.numbers(3) == [1, 2, 3]
        assert hub.counted("hub_gaps_total", "epoch") == 1


async def test_what_is_no_longer_kept_is_a_gap_in_its_place(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=5) as hub:
        await hub.publish(12)
        epoch = hub.hub.cursor.epoch
        async with talk(hub.url, f"?after={epoch}:3") as client:
            gap = (await client.event())["payload"]["data"]
            assert gap == {"after": f"{epoch}:3", "before": f"{epoch}:8", "count": 4, "reason": "expired"}
            assert await client.numbers(5) == [8, 9, 10, 11, 12]
        assert hub.counted("hub_missed_events_total") == 4


async def test_a_narrowed_client_is_told_where_it_is(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub, talk(hub.url, "?topics=b:*") as client:
        await hub.publish(3)
        mark = await client.event()
        assert mark["payload"] == {"event": "hub:mark", "data": {"cursor": str(hub.hub.cursor)}}
        assert "cursor" not in mark


async def test_secrets_never_reach_a_client(hub: HubInside, client: Talk) -> None:
    await client.call("hub:publish", event="a:x", data={"deep": [{"github_token": "abc", "max_tokens": 3}]})
    assert (await client.event())["payload"]["data"] == {"deep": [{"max_tokens": 3}]}


async def test_an_id_is_sent_once(hub: HubInside, client: Talk) -> None:
    first = await client.call("hub:publish", event="a:x", data=1, id="once")
    await client.call("hub:publish", event="a:y", data=2)
    again = await client.call("hub:publish", event="a:x", data=1, id="once")
    assert again == first == {"id": "once", "cursor": f"{hub.hub.cursor.epoch}:1"}
    await client.call("hub:ping")
    names = [await client.name() for _ in range(2)]
    assert names == ["a:x", "a:y"]
    assert client.events == []


# ---- slow readers


def judge(frames: list[dict[str, Any]], newest: int) -> int:
    """Everything from 1 to `newest`, in order, each once, or a gap that names exactly what is not there."""
    position, gaps = 0, 0
    for frame in frames:
        if frame["payload"]["event"] == "hub:gap":
            gap = frame["payload"]["data"]
            assert int(gap["after"].rpartition(":")[2]) == position
            before = int(gap["before"].rpartition(":")[2])
            assert gap["count"] == before - position - 1 > 0
            assert gap["reason"] == "slow"
            position, gaps = before - 1, gaps + 1
        else:
            assert seq(frame) == position + 1
            assert frame["payload"]["data"]["n"] == position + 1
            position += 1
    assert position == newest
    return gaps


async def read_to(raw: Raw, newest: int) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1].get("cursor", ":0").rpartition(":")[2] != str(newest):
        got = await raw.frame()
        assert got is not None
        if got[0] == TEXT:
            frames.append(json.loads(got[1]))
    return frames


async def test_a_slow_reader_gets_everything_that_is_still_kept(hub: HubInside) -> None:
    """The window is large enough: it stops reading, starts again, and misses nothing."""
    async with Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        while hub.hub.broadcaster.lagging == 0:
            await hub.publish(10, pad="x" * 50_000)
        await hub.publish(20, pad="x" * 50_000)
        newest = hub.hub.cursor.seq
        assert judge(await read_to(raw, newest), newest) == 0
        await until(lambda: hub.hub.broadcaster.lagging == 0)


async def test_a_reader_slower_than_the_window_is_told_what_it_misses(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, window_events=20) as hub, Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade()
        for _ in range(2):  # it stops and starts twice
            while hub.hub.broadcaster.lagging == 0:
                await hub.publish(10, pad="x" * 50_000)
            await hub.publish(30, pad="x" * 50_000)
            newest = hub.hub.cursor.seq
            if _ == 0:
                first = await read_to(raw, newest)
                await until(lambda: hub.hub.broadcaster.lagging == 0)
        assert judge(first + await read_to(raw, newest), newest) == 2
        assert hub.counted("hub_gaps_total", "slow") == 2


async def test_a_gap_that_is_kept_quiet_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the mechanism switched off: the reader misses events and nobody tells it."""
    monkeypatch.setattr("hub.stream.catchup.CatchUp.tell_gap", lambda *args: None)
    with pytest.raises(AssertionError):
        await test_a_reader_slower_than_the_window_is_told_what_it_misses(tmp_path)


async def storm(hub: HubInside, stuck: int, events: int) -> int:
    """Clients that never read beside a healthy one; returns the most bytes that lay ready for one of them."""
    most = 0
    raws = [Raw(hub.port, buffer=4096) for _ in range(stuck)]
    try:
        for raw in raws:
            await raw.__aenter__()
            await raw.upgrade()
        async with talk(hub.url) as healthy:
            reading = asyncio.create_task(healthy.numbers(events))
            for _ in range(events // 20):
                await hub.publish(20, pad="x" * 50_000)
                ready = [stream.transport.get_write_buffer_size() for stream in open_streams(hub)]
                most = max(most, *ready)
            assert await reading == list(range(1, events + 1))
    finally:
        for raw in raws:
            raw.socket.close()
    return most


async def test_clients_that_never_read_cost_one_write_and_the_healthy_one_nothing(tmp_path: Path) -> None:
    async with hub_app(tmp_path, window_bytes=100_000_000) as hub:
        assert await storm(hub, 50, 2000) < 5_000_000


async def test_a_hub_that_takes_no_notice_of_full_buffers_fills_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the mechanism switched off: what nobody reads piles up."""
    monkeypatch.setattr(Subscriber, "pause", lambda subscriber: None)
    monkeypatch.setattr("hub.web.streams._straight", lambda transport: None)
    async with hub_app(tmp_path, window_bytes=100_000_000) as hub:
        assert await storm(hub, 10, 600) > 15_000_000


async def test_an_application_that_publishes_in_a_loop_starves_nobody(tmp_path: Path) -> None:
    """Far more than the window holds, and nobody reads slowly: so nobody may be told that it did."""
    async with hub_app(tmp_path, window_events=100) as hub, talk(hub.url) as client:
        reading = asyncio.create_task(client.numbers(1000))
        for n in range(1000):
            await hub.hub.publish("a:x", n)
        assert await reading == list(range(1, 1001))


async def test_a_neighbour_of_a_flooder_is_served_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit of the rate helps here: 40,000 frames, all allowed, come at once; answers must not wait for them all."""
    taken = 0

    def ping(session: Session) -> bool:
        nonlocal taken
        taken += 1
        return True

    monkeypatch.setattr(Session, "ping", ping)
    async with hub_app(tmp_path) as hub, talk(hub.url, "?topics=none:*") as neighbour, Raw(hub.port) as raw:
        await raw.upgrade()
        flooding = asyncio.create_task(raw.write(Raw.packed(PONG, b"") * 40_000))
        answers = 0
        while taken < 40_000:
            await neighbour.call("hub:publish", event="a:x", data=answers)
            answers += 1
        await flooding
    assert answers >= 10, f"{answers} answers while 40,000 frames of another client were taken"


async def test_without_turns_the_neighbour_waits_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.web.ws.connection.FAIR", 10**9)
    with pytest.raises(AssertionError, match="answers while"):
        await test_a_neighbour_of_a_flooder_is_served_in_between(tmp_path, monkeypatch)


async def test_all_clients_drop_and_resume_at_once_and_miss_nothing(hub: HubInside) -> None:
    """A thousand, in one process with the hub: so the limit of descriptors must allow two for each."""
    await all_come_back(hub, 1000)


async def test_where_the_cursor_is_not_looked_at_they_miss_what_was_published(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.web.answers.stream_query", lambda request: (None, None))
    monkeypatch.setattr(running, "PATIENCE", 2.0)
    with pytest.raises(TimeoutError):
        await all_come_back(hub, 30)


async def all_come_back(hub: HubInside, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    await hub.publish(5)
    cursor = hub.hub.cursor
    await hub.publish(20)

    async def come_back() -> list[int]:
        async with talk(hub.url, f"?after={cursor}") as client:
            return await client.numbers(21)

    async def meanwhile() -> None:
        await until(lambda: hub.clients("websocket") > 20)
        await hub.publish(1)

    *views, _ = await asyncio.gather(*(come_back() for _ in range(count)), meanwhile())
    assert all(view == list(range(6, 27)) for view in views)


# ---- what the hub says about itself


async def test_info(hub: HubInside, client: Talk) -> None:
    info = await client.call("hub:info")
    assert set(info) == {"version", "protocol", "client", "trust", "cursor", "heartbeat", "limits"}
    assert (info["protocol"], info["trust"], info["cursor"]) == (1, "OPERATOR", str(hub.hub.cursor))


async def test_clients(hub: HubInside) -> None:
    async with talk(hub.url, "?topics=a:*") as client:
        [row] = await client.call("hub:clients")
        assert set(row) == {"client", "transport", "peer", "since", "topics", "lag", "provides"}
        assert row["client"] == (await client.call("hub:info"))["client"]
        assert (row["transport"], row["topics"], row["lag"]) == ("websocket", ["a:*"], 0)


async def test_commands_describe_every_built_in_command(client: Talk) -> None:
    rows = {row["name"]: row for row in await client.call("hub:commands")}
    assert all(set(row) == {"name", "summary", "args", "effect", "provider"} for row in rows.values())
    assert all(row["summary"] for row in rows.values())
    assert {
        *("hub:info", "hub:ping", "hub:subscribe", "hub:unsubscribe", "hub:publish", "hub:history", "hub:state"),
        *("hub:commands", "hub:clients", "hub:stats", "hub:cancel", "audit:tail", "audit:verify"),
    } <= set(rows)
    assert rows["hub:history"]["args"]["properties"].keys() == {"topics", "after", "limit"}


async def test_calls_are_recorded_before_and_after_with_who_called(hub: HubInside, client: Talk) -> None:
    me = (await client.call("hub:info", "first"))["client"]
    [called] = await hub.records("command.called")
    [finished] = await hub.records("command.finished")
    assert called["actor"]["client"] == me
    assert called["actor"]["uid"] == os.geteuid()
    assert called["details"] == {"id": "first", "command": "hub:info", "args": {}}
    assert finished["details"].keys() == {"id", "command", "outcome", "ms"}
    assert finished["details"]["outcome"] == "ok"


async def test_the_answer_to_close_is_a_close(hub: HubInside, client: Talk) -> None:
    await client.ws.close(code=1000)
    assert client.ws.close_code == 1000
    await until(lambda: hub.counted("hub_disconnections_total", "closed") == 1)
    assert (await client.ws.receive()).type is WSMsgType.CLOSED


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
        lambda app, after: None,
    ),
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
    monkeypatch.setattr(running, "PATIENCE", 2.0)
    monkeypatch.setattr(switch, off)
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        await check(tmp_path)
