"""A provider whose command another hub's client has taken meanwhile: it is told, and has it again when it is free."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from running import HubInside, Start, Talk, open_streams, refused, talk, until

from hub import HubClient, HubError, ServedCall
from hub.client import connections
from hub.commands.provided import Provider
from hub.stream.brokers import redispeers
from hub.stream.brokers.server import Away

OFFER = [{"name": "jobs:run", "effect": "read"}]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are short, and so are waits before another attempt."""
    monkeypatch.setattr(redispeers, "LEASE", 1.0)
    monkeypatch.setattr(redispeers, "RENEW", 0.1)
    monkeypatch.setattr(connections, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connections, "LONGEST_DELAY", 0.1)


@pytest.fixture
async def there(start: Start) -> HubInside:
    found: HubInside = await start("there")
    return found


@pytest.fixture
async def here(start: Start) -> HubInside:
    found: HubInside = await start("here")
    return found


@asynccontextmanager
async def cut_off(hub: HubInside) -> AsyncIterator[None]:
    """While it is not among the hubs of its stream."""
    peers: Any = hub.hub.broker.peers
    wire = peers._server.wire

    def refuse(patience: float) -> Any:
        raise Away("it is cut off")

    peers._server.wire = refuse
    peers._asks.close()
    await until(lambda: not peers.link, "that it is cut off")
    yield
    peers._server.wire = wire
    await until(lambda: peers.link, "that it is back")


async def take(client: Talk) -> None:
    """Provide it, as soon as the lease of the other hub has ended."""
    async with asyncio.timeout(30):
        while (await client.answer(await client.begin("hub:provide", commands=OFFER)))["type"] == "error":
            pass


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_has_lost_a_name_is_told(
    here: HubInside, there: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Provider, "refuse", lambda self, lost: None)
    quiet = "?topics=no:thing"
    async with talk(there.url, quiet) as loser, talk(here.url, quiet) as winner, talk(there.url, quiet) as other:
        await other.call("hub:provide", commands=[{"name": "c:d"}])
        await loser.call("hub:provide", commands=[*OFFER, {"name": "a:b"}])
        async with cut_off(there):
            await take(winner)
        await until(lambda: names(there) == ["a:b", "c:d"], "that it has lost it")
        if weakened:
            await loser.call("hub:ping")
            assert loser.answers == {}
            return
        error = refused((await loser.answer(None))["payload"], "already_provided")
        assert error["details"] == {"commands": ["jobs:run"]}
        assert [record["details"]["reason"] for record in await there.recorded("provider.left")] == ["already_provided"]
        await loser.fails("hub:provide", "already_provided", commands=OFFER)
        await winner.call("hub:provide", commands=[])
        await take(loser)
        assert names(there) == ["a:b", "c:d", "jobs:run"]
        assert other.answers == {}


def names(hub: HubInside) -> list[str]:
    return sorted(name for client in hub.hub.clients for name in hub.hub.providers.names(client))


async def test_the_client_takes_it_back_when_it_is_free(
    here: HubInside, there: HubInside, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(call: ServedCall) -> str:
        return "done"

    told = list[HubError]()

    def hear(error: HubError) -> None:
        told.append(error)
        raise ZeroDivisionError

    async with HubClient(there.url) as client, talk(here.url, "?topics=no:thing") as other:
        await client.provide("jobs:run", run, effect="read", on_lost=hear)
        await client.provide("a:b", run, effect="read")
        for times in (1, 2):
            async with cut_off(there):
                await take(other)
            await until(lambda times=times: len(told) == times, "that it is told")  # type: ignore[misc]
            assert told[-1].code == "already_provided"
            await until(lambda: "a:b" in here.hub.commands.provided, "that the other one is there")
            assert await other.call("a:b") == "done"  # nothing else is touched
            await until(lambda times=times: caplog.text.count("Trying again in") > 2 * times)  # type: ignore[misc]
            await other.call("hub:provide", commands=[])
            await until(lambda: names(there) == ["a:b", "jobs:run"], "that it has it again")
            await until(lambda: "jobs:run" in here.hub.commands.provided)
            assert await other.call("jobs:run") == "done"
        assert len(told) == 2
        assert "on_lost of jobs:run failed" in caplog.text


async def test_a_client_that_comes_back_provides_what_is_free_meanwhile(here: HubInside, there: HubInside) -> None:
    """Of several names one is another's by now: the others are not to wait for it."""

    async def run(call: ServedCall) -> str:
        return "done"

    told = list[HubError]()
    async with HubClient(there.url) as client, talk(here.url, "?topics=no:thing") as other:
        await client.provide("jobs:run", run, effect="read", on_lost=told.append)
        await client.provide("a:b", run, effect="read")
        (mine,) = [each for each in there.hub.clients if there.hub.providers.names(each)]
        connect, may = client._providing._connect, asyncio.Event()

        async def later(query: Any) -> Any:
            await may.wait()
            return await connect(query)

        client._providing._connect = later
        there.hub.clients.leave(mine, "closed")
        for stream in open_streams(there):
            if stream.client is mine:
                stream.cut()
        await take(other)
        may.set()
        await until(lambda: names(there) == ["a:b"], "that it provides the other one")
        await until(lambda: told, "that it is told")
        await other.call("hub:provide", commands=[])
        await until(lambda: names(there) == ["a:b", "jobs:run"])
