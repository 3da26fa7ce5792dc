"""PROTOCOL 2 over real sockets: calls and their answers, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from running import HubInside, Talk, hub_app, refused, talk, until
from sessions import Doors, command

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


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
