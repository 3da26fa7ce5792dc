"""Calls with an idempotency key over real sockets: one run for all connections of an account, and bounded answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asked import JSON
from running import HubInside, Raw, Talk, hub_app, open_streams, refused, talk, until
from sessions import Doors

from hub import Hub
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.idempotency import Turn
from hub.commands.load import UNREAD

TEXT = 0x1
CALLS, SIZE = 60, 400_000


def frame(id: str, name: str, key: str, **args: Any) -> str:
    payload = {"command": name, "args": args, "idempotency_key": key}
    return json.dumps({"type": "command", "id": id, "payload": payload})


async def say(client: Talk, id: str, name: str, key: str, **args: Any) -> Any:
    await client.send(frame(id, name, key, **args))
    return (await client.answer(id))["payload"]


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
async def hub(tmp_path: Path, doors: Doors) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=doors, stop_timeout=0.2) as running:
        yield running


async def test_whoever_sends_it_again_waits_and_gets_the_answer(hub: HubInside, doors: Doors) -> None:
    """On the same connection, on another one, and over HTTP; also when the first has gone."""
    headers = {**JSON, "Idempotency-Key": "k"}
    async with talk(hub.url) as client, talk(hub.url) as other:
        async with talk(hub.url) as gone:
            await gone.send(frame("0", "test:wait", "k", door="a"))
            await until(lambda: doors.inside)
        await client.send(frame("1", "test:wait", "k", door="a"))
        await client.send(frame("2", "test:wait", "k", door="a"))
        posted = asyncio.create_task(hub.post("api/commands/test:wait", {"door": "a"}, headers))
        refused(await say(other, "3", "test:wait", "k", door="b"), "invalid_args")
        await client.send(json.dumps({"type": "command", "id": "4", "payload": {"command": "hub:ping"}}))
        assert (await client.answer("4"))["payload"]["pong"]
        doors.let("a")
        assert (await client.answer("1"))["payload"] == (await client.answer("2"))["payload"] == {"through": "a"}
        assert (await posted).json == {"through": "a"}
        assert await say(other, "5", "test:wait", "k", door="a") == {"through": "a"}
    called = [record["details"]["command"] for record in await hub.records("command.called")]
    assert called.count("test:wait") == 1


async def test_who_waits_for_another_can_cancel_that(hub: HubInside, doors: Doors) -> None:
    async with talk(hub.url) as client, talk(hub.url) as other:
        await client.send(frame("1", "test:wait", "k", door="a"))
        await until(lambda: doors.inside)
        await other.send(frame("2", "test:wait", "k", door="a"))
        while not (await other.call("hub:cancel", id="2"))["cancelled"]:
            pass
        refused((await other.answer("2"))["payload"], "cancelled")
        doors.let("a")
        assert (await client.answer("1"))["payload"] == {"through": "a"}


async def test_a_provider_is_asked_once(hub: HubInside) -> None:
    """Also where it goes in the middle: then nobody knows how far it came, and the next one is not asked."""
    async with talk(hub.url) as client:
        async with talk(hub.url) as provider:
            await provide(provider, "work:do")
            await client.send(frame("1", "work:do", "k", n=1))
            asked = await provider.answer("call-1")
            await client.send(frame("2", "work:do", "k", n=1))
            await provider.send(
                {"type": "response", "id": asked["id"], "payload": {"n": asked["payload"]["args"]["n"]}}
            )
            for id in ("1", "2"):
                assert (await client.answer(id))["payload"] == {"n": 1}
            assert await say(client, "3", "work:do", "k", n=1) == {"n": 1}
            await client.send(frame("4", "work:do", "l", n=2))
            await provider.answer("call-2")
        refused((await client.answer("4"))["payload"], "provider_gone")
        for id, key in (("5a", "l"), ("5b", "new")):  # what is known of a call is told without a provider, too
            refused(await say(client, id, "work:do", key, n=2), "provider_gone" if key == "l" else "unknown_command")
        assert await say(client, "5c", "work:do", "k", n=1) == {"n": 1}
        async with talk(hub.url) as provider:
            await provide(provider, "work:do")
            error = refused(await say(client, "6", "work:do", "l", n=2), "provider_gone")
            assert error["details"] == {"unknown": True}
            assert await say(client, "7", "work:do", "k", n=1) == {"n": 1}
            await provider.call("hub:ping")
            assert provider.answers == {}


@pytest.mark.parametrize("weakened", [False, True])
async def test_all_who_wait_for_a_provider_that_goes_hear_the_same(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """And who asks later, when it is back: one answer, which does not say that asking again helps."""
    if weakened:
        monkeypatch.setattr(Turn, "told", lambda self, error: error)
        monkeypatch.setattr(Turn, "end", lambda self, answer: asyncio.sleep(0))
    async with talk(hub.url) as client, talk(hub.url) as other:
        async with talk(hub.url) as provider:
            await provide(provider, "work:do")
            await client.send(frame("1", "work:do", "k"))
            await provider.answer("call-1")
            await other.send(frame("2", "work:do", "k"))
            await until(lambda: len(hub.hub.commands.running) == 2, "the other waits")
        told = [(await who.answer(id))["payload"] for who, id in ((client, "1"), (other, "2"))]
        async with talk(hub.url) as provider:
            await provide(provider, "work:do")
            told.append(await say(other, "3", "work:do", "k"))
            posted = await hub.post("api/commands/work:do", {}, {**JSON, "Idempotency-Key": "k"})
            told.append(posted.json)
            assert provider.answers == {}
        assert (told.count(told[0]) == len(told)) is not weakened
        if not weakened:
            error = refused(told[0], "provider_gone")
            assert (error["retryable"], error["details"], posted.status) == (False, {"unknown": True}, 503)


async def provide(provider: Talk, name: str) -> None:
    assert (await provider.call("hub:provide", commands=[{"name": name}]))["provides"] == [name]


async def test_every_connection_provides_for_itself(hub: HubInside) -> None:
    """A key does not answer that another one does."""
    async with talk(hub.url) as one, talk(hub.url) as other:
        commands = [{"name": "work:do"}]
        assert (await say(one, "1", "hub:provide", "k", commands=commands))["provides"] == ["work:do"]
        refused(await say(other, "1", "hub:provide", "k", commands=commands), "already_provided")


@pytest.mark.parametrize("weakened", [False, True])
async def test_answers_that_nobody_reads_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """As those of calls that run: a large one is asked for again and again, and not taken."""
    if weakened:

        async def room(client: Client) -> None:
            """Whoever asks is let in."""

        monkeypatch.setattr(Client, "room", room)

    def prepare(hub: Hub) -> None:
        @hub.command("test:large")
        async def large(call: Call) -> Any:
            """Answer with much."""
            return "x" * SIZE

    async with hub_app(tmp_path, prepare=prepare, rate=0) as hub, Raw(hub.port, buffer=4096) as raw:
        async with talk(hub.url) as client:
            assert len(await say(client, "0", "test:large", "k")) == SIZE
        await raw.upgrade("?topics=none:*")
        frames = [Raw.packed(TEXT, frame(str(n), "test:large", "k").encode()) for n in range(CALLS)]
        await raw.write(b"".join(frames))
        size = await at_rest(hub)
        assert size > 12 * UNREAD if weakened else size < 2 * UNREAD
        for number in range(CALLS):
            found = await raw.frame()
            assert found
            assert json.loads(found[1])["id"] == str(number)


async def at_rest(hub: HubInside) -> int:
    """Return how many bytes wait for the client when the hub does nothing more by itself."""
    before, same = -1, 0
    while same < 40:
        await asyncio.sleep(0.005)
        [stream] = open_streams(hub)
        now = stream.transport.get_write_buffer_size() + stream.client.load.unread
        before, same = now, same + 1 if now == before and now > 0 else 0
    return before
