"""A call with an idempotency key that comes to several hubs: it runs once on all of them. Two hubs on one Redis."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine
from running import until

from hub.commands import idempotency
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.confirmation import digest
from hub.errors import HubError
from hub.hub import Hub
from hub.stream.brokers import redispeers

pytestmark = pytest.mark.once


class Shop:
    """What the hubs run: noted, held at the gate, and refused if the test says so."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.refusal: HubError | None = None

    async def buy(self, call: Call) -> Any:
        """Buy it."""
        self.runs += 1
        order, refusal = self.runs, self.refusal
        await self.gate.wait()
        if refusal is not None:
            raise refusal
        return {"order": order}


@asynccontextmanager
async def running(directory: Path, url: str, shop: Shop) -> AsyncIterator[Hub]:
    hub = Hub(state_dir=directory, broker=url, stop_timeout=0.1)

    @hub.command("shop:buy")
    async def buy(call: Call) -> Any:
        return await shop.buy(call)

    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    found = Shop()
    yield found
    found.gate.set()


@pytest.fixture
async def hubs(redis_engine: Engine, tmp_path: Path, shop: Shop) -> AsyncIterator[list[Hub]]:
    url = redis_engine.url(prefix=uuid4().hex)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(tmp_path / name, url, shop)) for name in ("one", "two")]


async def buy(hub: Hub, **args: Any) -> Any:
    """The result of a call; or of a refusal code, details and sentence."""
    call = Call(hub, Client("websocket", "127.0.0.1:1", 1000), "1", 0, None, "k")
    try:
        return json.loads(await hub.commands.call(call, "shop:buy", args))
    except HubError as error:
        return error.code, error.details, error.message


def begin(hub: Hub, **args: Any) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(buy(hub, **args))


def peers(hub: Hub) -> Any:
    return hub.broker.peers


async def die(hub: Hub) -> None:
    """Be heard of no more, as after a kill."""
    peers(hub)._running.cancel()
    await until(lambda: not peers(hub).link)


async def waits(hub: Hub) -> None:
    """Return when a call there has found that another hub has the turn."""
    taken: Any = hub.commands._repeats.turns
    found = asyncio.Event()
    take = taken.take

    async def noted(*args: Any) -> Any:
        other = await take(*args)
        if other is not None:
            found.set()
        return other

    taken.take = noted
    async with asyncio.timeout(30):
        await found.wait()


@pytest.mark.parametrize("weakened", [False, True])
async def test_of_two_at_the_same_moment_one_runs(hubs: list[Hub], shop: Shop, weakened: bool) -> None:
    if weakened:
        for hub in hubs:
            hub.commands._repeats.turns = idempotency._Alone(hub.commands._repeats)
    watched = [asyncio.ensure_future(waits(hub)) for hub in hubs]
    calls = [begin(hub) for hub in hubs]
    await until(lambda: shop.runs == (2 if weakened else 1))
    if not weakened:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    for each in watched:
        each.cancel()
    shop.gate.set()
    orders = sorted(found["order"] for found in await asyncio.gather(*calls))
    assert orders == ([1, 2] if weakened else [1, 1])
    assert shop.runs == (2 if weakened else 1)
    if not weakened:
        assert [await buy(hub) for hub in hubs] == [{"order": 1}] * 2
        records = [record["action"] for hub in hubs for record in await hub.audit.tail(1000)]
        assert (records.count("command.called"), records.count("command.finished")) == (1, 1)


async def test_another_call_with_the_key_waits_for_nothing(hubs: list[Hub], shop: Shop) -> None:
    first = begin(hubs[0])
    await until(lambda: shop.runs == 1)
    code, details, _ = await buy(hubs[1], other=1)
    assert (code, details) == ("invalid_args", {"idempotency_key": ["Used for another call."]})
    shop.gate.set()
    assert await first == {"order": 1}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redispeers, "LEASE", 1.0)
    monkeypatch.setattr(redispeers, "RENEW", 0.1)


@pytest.mark.usefixtures("brief")
async def test_what_a_hub_that_died_has_begun_is_unknown(hubs: list[Hub], shop: Shop) -> None:
    first = begin(hubs[0])
    await until(lambda: shop.runs == 1)
    again = begin(hubs[1])
    await waits(hubs[1])
    await die(hubs[0])
    code, details, _ = await again
    assert (code, details, shop.runs) == ("command_failed", {"unknown": True}, 1)
    first.cancel()


@pytest.mark.usefixtures("brief")
async def test_what_a_hub_that_died_has_not_begun_runs(hubs: list[Hub], shop: Shop) -> None:
    shop.gate.set()
    call = Call(hubs[0], Client("websocket", "127.0.0.1:1", 1000), "1", 0, None, "k")
    place = digest(call.client.account, "k")
    turns = peers(hubs[0]).turns
    assert await turns.take(place, digest("shop:buy", {}), False) is None
    again = begin(hubs[1])
    await waits(hubs[1])
    await die(hubs[0])
    assert await again == {"order": 1}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_that_has_lost_its_turn_does_not_run(
    hubs: list[Hub], shop: Shop, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off between taking it and beginning, and another hub has run the call meanwhile."""
    shop.gate.set()
    repeats, record = hubs[0].commands._repeats, hubs[0].audit.record
    if weakened:
        monkeypatch.setattr(
            redispeers.RedisTurns, "begin", lambda self, place, what: repeats.answers.remember(place, what, None)
        )
    came, go_on = asyncio.Event(), asyncio.Event()

    async def held(*args: Any) -> None:
        came.set()
        await go_on.wait()
        await record(*args)

    monkeypatch.setattr(hubs[0].audit, "record", held)
    first = begin(hubs[0])
    await came.wait()
    link = peers(hubs[0]).link
    peers(hubs[0])._asks.close()
    await until(lambda: peers(hubs[0]).link not in ("", link))
    assert await buy(hubs[1]) == {"order": 1}
    go_on.set()
    if weakened:
        assert await first == {"order": 2}
    else:
        assert (await first)[0] == "broker_unavailable"
        assert [await buy(hub) for hub in hubs] == [{"order": 1}] * 2


async def test_what_has_not_run_may_run_on_any_hub(hubs: list[Hub], shop: Shop) -> None:
    shop.gate.set()
    shop.refusal = HubError("busy", "Later.", retry_after=1)
    assert (await buy(hubs[0]))[0] == "busy"
    shop.refusal = None
    assert await buy(hubs[1]) == {"order": 2}
    assert await buy(hubs[0]) == {"order": 2}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("between", [False, True])
async def test_what_a_hub_knows_not_to_have_run_runs_unless_another_had_the_turn(
    hubs: list[Hub], shop: Shop, between: bool
) -> None:
    """What it says of that may get lost with its connection: it says so again. But not if that is no longer true."""
    shop.gate.set()
    shop.refusal = HubError("busy", "Later.", retry_after=1)
    turns = peers(hubs[0]).turns
    turns.leave, leave = lambda place, unbegun: None, turns.leave
    assert (await buy(hubs[0]))[0] == "busy"
    turns.leave, shop.refusal = leave, None
    link = peers(hubs[0]).link
    peers(hubs[0])._asks.close()
    await until(lambda: peers(hubs[0]).link not in ("", link))
    if between:
        assert (await buy(hubs[1]))[:2] == ("command_failed", {"unknown": True})
        assert (await buy(hubs[0]))[:2] == ("command_failed", {"unknown": True})
    else:
        assert await buy(hubs[0]) == {"order": 2}
        assert await buy(hubs[1]) == {"order": 2}


async def test_without_the_others_nothing_with_a_key_runs(hubs: list[Hub], shop: Shop) -> None:
    await die(hubs[0])
    assert (await buy(hubs[0]))[0] == "broker_unavailable"
    assert shop.runs == 0
