"""A call with an idempotency key that comes to several hubs: it runs once on all of them. Two hubs on one Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine
from running import until
from shops import Shop, a_call, running, say

from hub.commands import idempotency
from hub.commands.confirmation import digest
from hub.errors import HubError
from hub.hub import Hub
from hub.stream.brokers import redispeers

pytestmark = pytest.mark.once


@pytest.fixture
async def hubs(redis_engine: Engine, tmp_path: Path, shop: Shop) -> AsyncIterator[list[Hub]]:
    url = redis_engine.url(prefix=uuid4().hex)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(tmp_path / name, shop, broker=url, stop_timeout=0.1))
            for name in ("one", "two")
        ]


async def buy(hub: Hub, **args: Any) -> Any:
    """The result of a call; or of a refusal code and details."""
    found = await say(hub, "order", **args)
    return (found[0], found[2]) if isinstance(found, tuple) else found


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
    await until(lambda: shop.runs["order"] == (2 if weakened else 1))
    if not weakened:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    for each in watched:
        each.cancel()
    shop.gate.set()
    orders = sorted(found["order"] for found in await asyncio.gather(*calls))
    assert orders == ([1, 2] if weakened else [1, 1])
    assert shop.runs["order"] == (2 if weakened else 1)
    if not weakened:
        assert [await buy(hub) for hub in hubs] == [{"order": 1}] * 2
        records = [record["action"] for hub in hubs for record in await hub.audit.tail(1000)]
        assert (records.count("command.called"), records.count("command.finished")) == (1, 1)


async def test_another_call_with_the_key_waits_for_nothing(hubs: list[Hub], shop: Shop) -> None:
    first = begin(hubs[0])
    await until(lambda: shop.runs["order"] == 1)
    code, details = await buy(hubs[1], other=1)
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
    await until(lambda: shop.runs["order"] == 1)
    again = begin(hubs[1])
    await waits(hubs[1])
    await die(hubs[0])
    code, details = await again
    assert (code, details, shop.runs["order"]) == ("command_failed", {"unknown": True}, 1)
    first.cancel()


@pytest.mark.usefixtures("brief")
async def test_what_a_hub_that_died_has_not_begun_runs(hubs: list[Hub], shop: Shop) -> None:
    shop.gate.set()
    place = digest(a_call(hubs[0]).client.account, "k")
    turns = peers(hubs[0]).turns
    assert await turns.take(place, digest("shop:order", {}), False) is None
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
    shop.raises = HubError("busy", "Later.", retry_after=1)
    assert (await buy(hubs[0]))[0] == "busy"
    shop.raises = None
    assert await buy(hubs[1]) == {"order": 2}
    assert await buy(hubs[0]) == {"order": 2}


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("between", [False, True])
async def test_what_a_hub_knows_not_to_have_run_runs_unless_another_had_the_turn(
    hubs: list[Hub], shop: Shop, between: bool
) -> None:
    """What it says of that may get lost with its connection: it says so again. But not if that is no longer true."""
    shop.gate.set()
    shop.raises = HubError("busy", "Later.", retry_after=1)
    turns = peers(hubs[0]).turns
    turns.leave, leave = lambda place, unbegun: None, turns.leave
    assert (await buy(hubs[0]))[0] == "busy"
    turns.leave, shop.raises = leave, None
    link = peers(hubs[0]).link
    peers(hubs[0])._asks.close()
    await until(lambda: peers(hubs[0]).link not in ("", link))
    if between:
        assert await buy(hubs[1]) == ("command_failed", {"unknown": True})
        assert await buy(hubs[0]) == ("command_failed", {"unknown": True})
    else:
        assert await buy(hubs[0]) == {"order": 2}
        assert await buy(hubs[1]) == {"order": 2}


async def test_without_the_others_nothing_with_a_key_runs(hubs: list[Hub], shop: Shop) -> None:
    await die(hubs[0])
    assert (await buy(hubs[0]))[0] == "broker_unavailable"
    assert shop.runs["order"] == 0
