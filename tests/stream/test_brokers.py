"""What every broker promises, of each of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import broker
from hypothesis import given, settings
from hypothesis import strategies as st
from running import PATIENCE, until
from stores import STATE, Store, draft, store

from hub import Hub
from hub.errors import HubError, UsageError
from hub.stream.brokers.broker import Broker, Limits, Outlet, Receipt
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.brokers.sqlite import SqliteBroker
from hub.stream.events import Draft, Event
from hub.wire.names import Cursor


def reads(broker: Broker) -> Any:
    return asyncio.gather(*(broker.read(after, limit) for after in (0, 3, 17) for limit in (1, 4, 50)))


IDS = st.sampled_from("abcdefgh")


BATCHES = st.lists(st.lists(st.tuples(IDS, st.booleans()), max_size=5, unique_by=lambda pair: pair[0]), max_size=12)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None)
@given(batches=BATCHES, most=st.integers(1, 20), most_bytes=st.integers(1, 3000), restarts=st.sets(st.integers(0, 11)))
async def test_it_keeps_what_the_memory_broker_keeps(
    tmp_path_factory: pytest.TempPathFactory, batches: Any, most: int, most_bytes: int, restarts: set[int]
) -> None:
    path = tmp_path_factory.mktemp("model")
    model = Store(MemoryBroker(most, most_bytes))
    await model.broker.open(model.pump)
    limits = Limits(most, most_bytes, 86400.0)
    context = store(path, limits)
    it = await context.__aenter__()
    try:
        for number, batch in enumerate(batches):
            if number in restarts:
                await context.__aexit__(None, None, None)
                context = store(path, limits)
                it = await context.__aenter__()
            drafts = [draft(id, given=chosen) for id, chosen in batch]
            assert await it.broker.append(drafts) == await model.broker.append(drafts)
            while it.broker._database.trim(it.broker.head):  # to the last one; it leaves a little for later
                pass
            it.broker._count()
            want = (model.broker.head, model.broker.tail, model.broker.bytes)
            assert (it.broker.head, it.broker.tail, it.broker.bytes) == want
            for mine, other in zip(await reads(it.broker), await reads(model.broker), strict=True):
                assert [(e.seq, e.id) for e in mine] == [(e.seq, e.id) for e in other]
    finally:
        await context.__aexit__(None, None, None)


SOME = Limits(100, 2**20, 86400.0)
BROKERS: dict[str, Callable[[Path], Broker]] = {
    "memory": lambda folder: MemoryBroker(100, 2**20),
    "normal": lambda folder: SqliteBroker(folder, SOME, STATE),
    "full": lambda folder: SqliteBroker(folder, SOME, STATE, full=True),
}


@pytest.fixture(params=[*BROKERS, "redis_engine", "valkey_engine"])
async def it(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param in BROKERS:
        found = Store(BROKERS[request.param](tmp_path))
    else:
        found = Store(broker(request.getfixturevalue(request.param), SOME, prefix=uuid4().hex))
    await found.open()
    yield found
    await found.broker.close()


class TestBroker:
    """What the hub relies on, of each broker alike."""

    async def test_it_begins_empty(self, it: Store) -> None:
        broker = it.broker
        assert (broker.head, broker.tail, broker.bytes, broker.problem) == (0, 1, 0, None)
        assert (len(broker.epoch), broker.limits.events) == (8, 100)
        assert (await broker.last_values(), await broker.read(0, 10)) == ([], [])

    async def test_events_are_numbered_kept_and_handed_on_in_order(self, it: Store) -> None:
        assert await it.put(draft("a")) == [1]
        assert await it.put(draft("b"), draft("c")) == [2, 3]
        assert [(e.seq, e.id) for e in it.pumped] == [(1, "a"), (2, "b"), (3, "c")]
        assert [e.json for e in await it.broker.read(0, 10)] == [e.json for e in it.pumped]
        assert {e.cursor.epoch for e in it.pumped} == {it.broker.epoch}
        assert (it.broker.head, it.broker.tail) == (3, 1)
        assert it.broker.bytes == sum(event.size for event in it.pumped)

    async def test_whoever_is_answered_finds_the_event_behind_the_pump(self, it: Store) -> None:
        async def put(id: str) -> None:
            [number] = await it.put(draft(id))
            assert it.pumped[number - 1].id == id

        await asyncio.gather(*(put(f"{i}") for i in range(50)))
        assert [event.seq for event in it.pumped] == list(range(1, 51))

    async def test_nothing_is_no_batch(self, it: Store) -> None:
        assert await it.put() == []
        assert it.batches == []

    async def test_an_id_that_the_publisher_chose_is_accepted_once(self, it: Store) -> None:
        first = await it.broker.append([draft("a", given=True), draft("b", given=True)])
        again = await it.broker.append([draft("c"), draft("a", given=True), draft("d", given=True)])
        assert first == [Receipt(1, False), Receipt(2, False)]
        assert again == [Receipt(3, False), Receipt(1, True), Receipt(4, False)]
        assert await it.broker.append([draft("e", given=True), draft("e", given=True)]) == [(5, False), (5, True)]
        assert await it.put(draft("c"), draft("c")) == [6, 7]  # the hub chose it: nobody asks again
        assert await it.ids() == ["a", "b", "c", "d", "e", "c", "c"]

    async def test_a_page(self, it: Store) -> None:
        await it.put(*(draft(f"{i:2}") for i in range(20)))
        size = it.pumped[0].size

        async def page(*args: int) -> list[int]:
            return [event.seq for event in await it.broker.read(*args)]

        assert await page(4, 3) == [5, 6, 7]
        assert await page(18, 10) == [19, 20]
        assert await page(20, 10) == await page(99, 10) == []
        assert await page(4, 100, 3 * size) == [5, 6, 7]
        assert await page(4, 2, 3 * size) == [5, 6]
        assert await page(4, 100, 3 * size + 1) == [5, 6, 7, 8]
        assert await page(4, 100, 1) == [5]  # one at least, or nobody would get on

    async def test_names_are_those_of_a_page(self, it: Store) -> None:
        await it.put(*(draft(str(number), name=f"a:{number % 3}") for number in range(9)))
        for after in (0, 4, 9):
            for limit in (1, 3, 100):
                page = await it.broker.read(after, limit)
                assert await it.broker.names(after, limit) == [(event.seq, event.name) for event in page]

    async def test_it_keeps_to_its_limits(self, it: Store) -> None:
        for i in range(300):
            await it.put(draft(f"{i}", given=True))
        await until(lambda: it.broker.head - it.broker.tail < 101, "the trimming")
        kept = await it.broker.read(0, 1000)
        assert [event.seq for event in kept] == list(range(it.broker.tail, 301))
        assert it.broker.bytes == sum(event.size for event in kept)
        assert await it.put(draft("0", given=True)) == [301]  # an id is remembered as long as its event

    async def test_a_publisher_that_goes_harms_no_other(self, it: Store) -> None:
        first, gone, third = (asyncio.create_task(it.put(draft(id))) for id in "abc")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([first, gone, third])
        assert [(await it.ids())[number - 1] for [number] in (await first, await third)] == ["a", "c"]

    async def test_a_pump_that_fails_is_said_and_gets_it_again(self, it: Store) -> None:
        await it.put(draft("a"))
        it.fails.append(RuntimeError("no"))
        with pytest.raises(HubError) as refused:
            await it.put(draft("b", given=True))
        assert (refused.value.code, refused.value.retry_after) == ("broker_unavailable", 1.0)
        assert "no" in str(it.broker.problem)
        await until_it_takes(it, draft("c"))
        assert it.broker.problem is None
        assert [(e.seq, e.id) for e in it.pumped] == [(1, "a"), (2, "b"), (3, "c")]
        assert await it.put(draft("b", given=True)) == [2]

    async def test_what_is_published_while_events_are_handed_on_comes_behind_them(self, it: Store) -> None:
        nested = list[asyncio.Task[list[int]]]()

        def heard(batch: list[Event]) -> None:
            if batch[0].id == "first":
                nested.append(asyncio.create_task(it.put(draft("nested"))))

        it.heard = heard
        assert await it.put(draft("first"), draft("second")) == [1, 2]
        assert await nested[0] == [3]
        assert [event.id for event in it.pumped] == ["first", "second", "nested"]

    async def test_closed_it_takes_nothing_more(self, it: Store) -> None:
        accepted = asyncio.create_task(it.put(draft("accepted")))
        await asyncio.sleep(0)
        for _ in range(2):
            await it.broker.close()
        with pytest.raises(HubError, match="stopping"):
            await it.put(draft("late"))
        assert await accepted == [1]
        assert [event.id for event in it.pumped] == ["accepted"]


async def until_it_takes(it: Store, one: Draft) -> None:
    """Publish until it is not refused."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await it.put(one)
                return
            except HubError:
                await asyncio.sleep(0.005)


async def test_what_is_published_while_events_are_handed_on_comes_behind_them() -> None:
    broker, seen = MemoryBroker(100, 2**20), list[str]()

    async def pump(batch: list[Event]) -> None:
        for event in batch:
            seen.append(event.id)
            if event.id == "first":
                await broker.append([draft("nested")])

    await broker.open(pump)
    await broker.append([draft("first"), draft("second")])
    assert seen == ["first", "second", "nested"]


def test_a_hole_is_refused() -> None:
    async def pump(batch: list[Event]) -> None:
        raise AssertionError

    outlet = Outlet(pump, 4)
    with pytest.raises(RuntimeError, match="the event 6 came behind 4"):
        outlet.take([Event(draft("x"), Cursor("e", 6), "t", 0.0)])


def test_an_unknown_broker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no broker for amqp:"):
        Hub(state_dir=tmp_path, broker="amqp://somewhere")
