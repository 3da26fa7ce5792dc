"""A HubClient is left: what hangs on it ends in order, within a limit, also for who is cancelled again and again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, open_streams, sockets, until
from scripted import ScriptedHub, Silent

from hub import Hub, HubClient
from hub.client import calls
from hub.client import client as client_room
from hub.client.discovery import Disconnected
from hub.commands.call import Call


class Slow:
    """A command that waits to be cancelled."""

    def __init__(self) -> None:
        self.running = self.cancelled = 0

    def prepare(self, hub: Hub) -> None:
        hub.command("a:slow")(self.handle)

    async def handle(self, call: Call) -> Any:
        """Wait."""
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def hub(tmp_path: Path, slow: Slow) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=slow.prepare, stop_timeout=0.1) as running:
        yield running


async def following(client: HubClient) -> list[Any]:
    return [item async for item in client]


async def begun(client: HubClient, hub: HubInside, slow: Slow) -> tuple["asyncio.Task[Any]", "asyncio.Task[Any]"]:
    """Somebody who follows, and a call that runs."""
    reading, calling = asyncio.create_task(following(client)), asyncio.create_task(client.call("a:slow"))
    await until(lambda: slow.running and len(open_streams(hub)) >= 2)
    return reading, calling


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_call_that_was_cancelled_just_before_is_cancelled_in_the_hub(
    hub: HubInside, slow: Slow, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: calls.Calls) -> None: ...

    if weakened:
        monkeypatch.setattr(calls.Calls, "withdrawn", nothing)
    for _ in range(50 if weakened else 1):  # it may come through all the same
        before = slow.cancelled
        async with HubClient(hub.url) as client:
            _, calling = await begun(client, hub, slow)
            calling.cancel()
        await until(lambda: not open_streams(hub))
        if slow.cancelled == before:
            break
    assert (slow.cancelled == before) is weakened
    assert slow.running == weakened


async def test_what_nobody_cancelled_goes_on_in_the_hub(hub: HubInside, slow: Slow) -> None:
    async with HubClient(hub.url) as client:
        reading, calling = await begun(client, hub, slow)
    with pytest.raises(Disconnected, match=r"The client was closed\."):
        await calling
    assert await reading == []
    assert slow.running == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_is_cancelled_again_and_again_leaves_nothing_behind(
    hub: HubInside, slow: Slow, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anyio's scopes cancel: at every step, until the scope is left."""

    async def at_once(work: Any) -> bool:
        await work
        return False

    if weakened:
        monkeypatch.setattr(client_room, "to_its_end", at_once)
    before, others = sockets(), len(asyncio.all_tasks())

    async def inside() -> None:
        async with HubClient(hub.url) as client:
            await client.provide("a:served", slow.handle)  # type: ignore[arg-type]
            reading, calling = await begun(client, hub, slow)
            calling.cancel()
            entered.set_result((client, reading))
            await asyncio.Event().wait()

    entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(inside())
    client, reading = await entered
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert client._session is None
    if weakened:
        assert (slow.cancelled, reading.done()) == (0, False)
        await client._end()
        return
    assert await reading == []
    await until(lambda: not open_streams(hub) and sockets() == before)
    await until(lambda: len(asyncio.all_tasks()) == others)
    assert slow.cancelled == 1


async def test_entering_that_is_cancelled_leaves_nothing_behind(silent: Silent) -> None:
    client, others = HubClient(silent.url), len(asyncio.all_tasks())
    entering = asyncio.create_task(client.__aenter__())
    await until(lambda: silent.connections)
    while not entering.done():
        entering.cancel()
        await asyncio.sleep(0)
    assert entering.cancelled()
    assert client._session is None
    await until(lambda: len(asyncio.all_tasks()) == others)


@pytest.mark.usefixtures("soon")
async def test_who_waits_for_a_connection_is_told(scripted: ScriptedHub, silent: Silent) -> None:
    async with HubClient(scripted.url) as client:
        client._url = silent.url
        waiting = [asyncio.create_task(work) for work in (client.call("a:b"), client.publish("a:b"))]
        reading = asyncio.create_task(following(client))
        await until(lambda: silent.connections == 2)
    for task in waiting:
        with pytest.raises(Disconnected, match=r"^The client was closed\.$") as left:
            await task
        assert not left.value.retryable
    assert await reading == []
    with pytest.raises(Disconnected, match=r"^The client was closed\.$"):
        await client.call("a:b")


@pytest.mark.usefixtures("soon")
async def test_a_hub_that_does_not_answer_is_not_waited_for(scripted: ScriptedHub) -> None:
    async with HubClient(scripted.url) as client:
        calling = asyncio.create_task(client.call("a:b"))
        peer = await scripted.peer()
        id, _, _ = await peer.command()
        publishing = asyncio.create_task(client.publish("a:b"))
        await peer.command()
        calling.cancel()
    assert (await peer.command())[1:] == ("hub:cancel", {"id": id})
    with pytest.raises(Disconnected, match=r"^The client was closed\.$"):
        await publishing


async def test_a_loop_that_is_closed_takes_it_along(hub: HubInside, slow: Slow) -> None:
    """As `asyncio.run` does it at its end: all tasks are cancelled at once, those of the client included."""
    before = asyncio.all_tasks()

    async def inside() -> None:
        async with HubClient(hub.url) as client:
            await begun(client, hub, slow)
            await asyncio.Event().wait()

    task = asyncio.create_task(inside())
    await until(lambda: slow.running)
    own = [found for found in asyncio.all_tasks() - before if "hub.client" in repr(found) or found is task]
    for found in own:
        found.cancel()
    await asyncio.wait([task])
    await until(lambda: not open_streams(hub))
