"""How far a call is, over real sockets: for whoever called, while the call runs, and no more than it reads."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, Raw, hub_app, open_streams, refused, talk, until
from sessions import command

from hub import Hub
from hub.commands import supervised
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.load import UNREAD
from hub.wire.strictjson import LARGEST, LARGEST_EVENT

TEXT = 0x1


class Telling:
    """Commands that say how far they are; `calls` are those that began, `gate` lets them end."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.start, self.gate = asyncio.Event(), asyncio.Event()
        self.told = 0

    def prepare(self, hub: Hub) -> None:
        @hub.command("test:tell")
        async def tell(call: Call) -> Any:
            """Say each of these."""
            for data in call.args["each"]:
                await call.progress(data)
            return "done"

        @hub.command("test:odd")
        async def odd(call: Call) -> None:
            """Say what is no JSON."""
            await call.progress({"what": object()})

        @hub.command("test:large")
        async def large(call: Call) -> None:
            """Say so many characters."""
            await call.progress("x" * call.args["size"])

        @hub.command("test:wait")
        async def wait(call: Call) -> Any:
            """Wait for the test."""
            self.calls.append(call)
            await self.gate.wait()
            return "done"

        @hub.command("test:stubborn")
        async def stubborn(call: Call) -> None:
            """Do not let go."""
            self.calls.append(call)
            while not self.gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.gate.wait()

        @hub.command("test:much")
        async def much(call: Call) -> Any:
            """Say much, for long."""
            self.calls.append(call)
            await self.start.wait()
            for number in range(60):
                await call.progress([number, "x" * 400_000])
                self.told += 1
            await self.gate.wait()
            return "done"


@pytest.fixture
async def telling() -> Telling:
    return Telling()


@pytest.fixture
async def hub(tmp_path: Path, telling: Telling) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=telling.prepare) as running:
        yield running
        telling.gate.set()


async def test_the_caller_gets_it_before_the_answer_and_nobody_else(hub: HubInside) -> None:
    said = [{"percent": 40}, 7, None, ["a"], "text", {"call": "another", "data": 1}, {}]
    async with talk(hub.url, "?topics=none:*") as client, talk(hub.url) as other:
        await client.send(command("test:tell", "mine", each=said))
        for data in (
            {"call": "mine", "percent": 40},
            {"call": "mine", "data": 7},
            {"call": "mine", "data": None},
            {"call": "mine", "data": ["a"]},
            {"call": "mine", "data": "text"},
            {"call": "mine", "data": 1},
            {"call": "mine"},
        ):
            frame = await client.frame()
            assert frame
            assert sorted(frame) == ["id", "payload", "timestamp", "type"]
            assert frame["type"] == "event"
            assert frame["payload"] == {"event": "hub:progress", "data": data}
        frame = await client.frame()
        assert frame
        assert (frame["id"], frame["payload"]) == ("mine", "done")
        await other.call("hub:ping")
        assert other.events == []
    assert hub.hub.cursor.seq == 0


async def test_secrets_are_taken_out(hub: HubInside) -> None:
    async with talk(hub.url) as client:
        await client.send(command("test:tell", "1", each=[{"apiKey": "x", "note": "Bearer " + "a1b2c3d4" * 5}]))
        data = (await client.event())["payload"]["data"]
        assert sorted(data) == ["call", "note"]
        assert "a1b2" not in data["note"]


async def test_over_http_it_is_nothing(hub: HubInside) -> None:
    async with talk(hub.url) as client:
        assert (await hub.post("api/commands/test:tell", {"each": [1, 2]})).json == "done"
        await client.call("hub:ping")
        assert client.events == []


async def test_what_cannot_be_said_is_refused(hub: HubInside) -> None:
    """A frame is never larger than what every client takes."""
    async with talk(hub.url) as client:
        await client.fails("test:odd", "invalid_message")
        await client.fails("test:large", "too_large", size=LARGEST)
        await client.fails("test:large", "too_large", size=LARGEST_EVENT - 100)
        assert client.events == []
        id = "\U0001f600" * 128
        await client.send(command("test:large", id, size=LARGEST_EVENT - 800))
        frame = await client.frame()
        assert frame
        assert frame["payload"]["data"]["call"] == id
        assert len(json.dumps(frame, ensure_ascii=False).encode()) < LARGEST


@pytest.mark.parametrize("weakened", [False, True])
async def test_nothing_comes_behind_the_answer(
    hub: HubInside, telling: Telling, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Call, "_runs", lambda self: True)
    async with talk(hub.url) as client:
        await client.begin("test:wait", "1")
        await until(lambda: telling.calls)
        await telling.calls[0].progress(1)  # whoever says it
        telling.gate.set()
        assert (await client.answer("1"))["payload"] == "done"
        await telling.calls[0].progress(2)
        await client.call("hub:ping")
        assert [event["payload"]["data"]["data"] for event in client.events] == ([1, 2] if weakened else [1])


async def test_a_call_that_was_ended_says_nothing_more(
    hub: HubInside, telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was given up, and while it is asked to let go."""
    monkeypatch.setattr(supervised, "GRACE", 0.05)
    async with talk(hub.url) as client:
        await client.begin("test:stubborn", "1")
        await until(lambda: telling.calls)
        assert (await client.call("hub:cancel", id="1")) == {"cancelled": True}
        await telling.calls[0].progress(1)
        refused((await client.answer("1"))["payload"], "cancelled")
        await telling.calls[0].progress(2)
        await client.call("hub:ping")
        assert client.events == []


async def test_nothing_is_written_to_a_client_that_has_gone(hub: HubInside, telling: Telling) -> None:
    async with talk(hub.url) as client:
        await client.begin("test:wait", "1")
        await until(lambda: telling.calls)
    await until(lambda: not hub.clients("websocket"))
    (call,) = telling.calls
    for number in range(100):
        await call.progress(number)
    assert call.client.load.unread == 0
    telling.gate.set()


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_client_that_does_not_read_fills_no_memory(
    tmp_path: Path, telling: Telling, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Ten calls of it at once: what it has no room for is dropped. It hears of the end all the same."""
    if weakened:
        monkeypatch.setattr(Client, "has_room", lambda self: True)
    async with hub_app(tmp_path, prepare=telling.prepare) as hub, Raw(hub.port, buffer=4096) as raw:
        await raw.upgrade("?topics=none:*")
        await raw.write(b"".join(Raw.packed(TEXT, command("test:much", str(n)).encode()) for n in range(10)))
        await until(lambda: len(telling.calls) == 10)
        telling.start.set()
        await until(lambda: telling.told == 600)
        [stream] = open_streams(hub)
        size = stream.transport.get_write_buffer_size()
        assert size > 100 * UNREAD if weakened else size < 4 * UNREAD
        async with talk(hub.url) as neighbour:
            assert (await neighbour.call("hub:ping"))["pong"]
        telling.gate.set()
        if weakened:
            return
        answered = set[str]()
        while len(answered) < 10:
            frame = await raw.frame()
            assert frame
            said = json.loads(frame[1])
            if said["type"] == "response":
                answered.add(said["id"])
