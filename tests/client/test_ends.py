"""The end of a connection: what it means for the stream, for what runs, and for what waits. The first of the tables."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from running import hub_app, open_streams, until
from scripted import Peer, ScriptedHub, error_object, event

from hub import tokens
from hub.client import sockets
from hub.client.client import HubClient
from hub.client.discovery import Disconnected, NoHub
from hub.errors import HubError

pytestmark = pytest.mark.usefixtures("soon")

CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4000)


async def cut(peer: Peer) -> None:
    peer.cut()


async def tear(peer: Peer) -> None:
    peer.tear()


async def speak_as_none(peer: Peer) -> None:
    await peer.send("[1]")


async def go_silent(peer: Peer) -> None:
    """The scripted hub answers no ping."""


def closed(code: int) -> Callable[[Peer], Awaitable[None]]:
    return lambda peer: peer.close(code, b"That was it")


ENDS = [*map(closed, CODES), cut, tear, speak_as_none, go_silent]
NAMES = [*map(str, CODES), "cut", "a torn frame", "a foreign frame", "a black hole"]


@pytest.fixture(params=ENDS, ids=NAMES)
def end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A way in which a connection ends."""
    if request.param is go_silent:
        monkeypatch.setattr(sockets, "HEARTBEAT", 0.1)
    return request.param


async def first(client: HubClient) -> Any:
    return await anext(client)


async def test_the_stream_comes_back_behind_what_it_had(scripted: ScriptedHub, end: Any) -> None:
    async with HubClient(scripted.url) as client:
        waiting = asyncio.create_task(first(client))
        peer = await scripted.peer()
        await peer.send(event(1))
        assert (await waiting).cursor == "e:1"
        await end(peer)
        waiting = asyncio.create_task(first(client))
        peer = await scripted.peer()
        assert peer.query["after"] == "e:1"
        await peer.send(event(2))
        assert (await waiting).cursor == "e:2"


async def test_of_a_running_call_nobody_knows(scripted: ScriptedHub, end: Any) -> None:
    async with HubClient(scripted.url) as client:
        running = asyncio.create_task(client.call("a:b"))
        peer = await scripted.peer()
        await peer.command()
        await end(peer)
        with pytest.raises(Disconnected, match=r"a:b was running; whether it was done is not known\.") as caught:
            await running
        assert caught.value.retryable
        assert scripted.peers.empty()


async def test_a_running_publish_comes_back(scripted: ScriptedHub, end: Any) -> None:
    async with HubClient(scripted.url) as client:
        running = asyncio.create_task(client.publish("a:b"))
        peer = await scripted.peer()
        _, _, before = await peer.command()
        await end(peer)
        peer = await scripted.peer()
        id, _, args = await peer.command()
        assert args == before
        await peer.respond(id, {"id": args["id"], "cursor": "e:1"})
        assert await running == {"id": args["id"], "cursor": "e:1"}


# ---- what keeps a connection from being made

NOT_NOW: dict[str, tuple[list[int], tuple[int, Any]]] = {
    "429": ([429], (200, {"cursor": "e:0"})),
    "503": ([503], (200, {"cursor": "e:0"})),
    "a token that is not found": ([401], (401, error_object("forbidden"))),
    "a stranger": ([404], (404, "<h1>Not Found</h1>")),
    "a stranger that refuses": ([403], (403, "<h1>Forbidden</h1>")),
    "a hub again by now": ([403], (200, {"cursor": "e:0"})),
}


@pytest.mark.parametrize("why", NOT_NOW)
async def test_what_waits_goes_on_waiting(scripted: ScriptedHub, why: str) -> None:
    statuses, page = NOT_NOW[why]
    async with HubClient(scripted.url) as client:
        scripted.handshakes, scripted.page = [*statuses, *statuses, 101], page
        waiting = [asyncio.create_task(work) for work in (client.call("a:b"), client.publish("a:b"))]
        peer = await scripted.peer()
        for _ in waiting:
            await peer.respond((await peer.command())[0], {})
        assert [await task for task in waiting] == [{}, {}]
        scripted.handshakes = [*statuses, *statuses, 101]
        reading = asyncio.create_task(first(client))
        await (await scripted.peer()).send(event(1))
        assert (await reading).cursor == "e:1"


@pytest.mark.parametrize("why", NOT_NOW)
async def test_and_no_longer_than_its_patience(scripted: ScriptedHub, why: str) -> None:
    statuses, page = NOT_NOW[why]
    async with HubClient(scripted.url, patience=0.02) as client:
        scripted.handshakes, scripted.page = statuses * 1000, page
        for work in (client.call("a:b"), client.publish("a:b")):
            with pytest.raises(NoHub):
                await work


@pytest.mark.parametrize("status", [400, 401, 403, 421])
async def test_a_hub_that_says_no_is_final_for_all(scripted: ScriptedHub, status: int) -> None:
    """And of what was sent before, nobody knows."""
    async with HubClient(scripted.url, token="t" * 32) as client:
        running = asyncio.create_task(client.publish("a:b"))
        peer = await scripted.peer()
        await peer.command()
        scripted.handshakes, scripted.page = [status] * 4, (status, error_object("forbidden"))
        peer.cut()
        with pytest.raises(Disconnected, match="not known"):
            await running
        for work in (client.publish("a:b"), client.call("a:b"), first(client)):
            with pytest.raises(HubError, match="The hub says no"):
                await work


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_token_that_is_replaced_is_no_end(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hub token --new` closes with 1008 what the old token has opened; the new one is in the same place."""
    if weakened:
        monkeypatch.setattr(sockets, "Barred", HubError)
    async with hub_app(tmp_path, auth="token") as hub, HubClient(hub.url, state_dir=tmp_path) as client:
        reading = asyncio.create_task(first(client))
        await until(lambda: open_streams(hub))
        tokens.replace(tmp_path)
        await until(lambda: hub.counted("hub_disconnections_total", "token"))
        await client.publish("a:b")
        if weakened:
            with pytest.raises(HubError, match="token was replaced"):
                await reading
        else:
            assert (await reading).name == "a:b"
