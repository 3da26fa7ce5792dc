"""What the Redis broker does when something comes at an odd moment."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine, Line, broker, weakened_library
from hypothesis import given, settings
from hypothesis import strategies as st
from running import hub_app, talk, until
from stores import PLENTY, Store, draft, passes

from hub import Hub
from hub.errors import HubError, UsageError
from hub.stream.brokers import link as links
from hub.stream.brokers import redis as module
from hub.stream.brokers.broker import Limits, Lost
from hub.stream.brokers.connection import Connection
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Away, Moved, Refused, Server
from hub.wire.names import Cursor

pytestmark = pytest.mark.once


@pytest.fixture
async def it(way: Line) -> AsyncIterator[Store]:
    found = Store(RedisBroker(Server(way.url(prefix=uuid4().hex)), PLENTY, Limits(100, 2**20)))
    await found.open()
    yield found
    await found.broker.close()


async def again(it: Store) -> None:
    await until(lambda: it.broker._link is not None and it.broker.problem is None, "the broker")


async def another_epoch(engine: Engine, it: Store) -> Store:
    """Let another hub find another run of the server; that hub."""
    engine.ask("HSET", it.broker.server.keys[1], "run", "another")
    other = Store(broker(engine, prefix=it.broker.server.prefix))
    await other.open()
    return other


# ---- the stream


async def test_limits_are_those_of_the_stream(
    redis_engine: Engine, it: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = Store(broker(redis_engine, Limits(7, 7, 7.0), prefix=it.broker.server.prefix))
    await other.open()
    assert other.broker.limits == PLENTY
    assert "limits of its own" in caplog.text
    await other.broker.close()


async def test_an_entry_of_another_epoch_is_found_out(redis_engine: Engine, it: Store) -> None:
    await it.put(draft("a"))
    it.broker._look_at = time.monotonic() + 1000  # it does not look
    other = await another_epoch(redis_engine, it)
    await other.put(draft("b"))
    await until(lambda: len(it.pumped) == 2)
    assert it.broker.epoch == other.broker.epoch == it.pumped[1].cursor.epoch != it.pumped[0].cursor.epoch
    assert it.lost == []
    await other.broker.close()


async def test_an_entry_of_another_epoch_is_found_out_among_many(redis_engine: Engine, it: Store) -> None:
    it.broker._running.cancel()
    await asyncio.wait([it.broker._running])
    link = it.broker._link
    link.news.on_cut = lambda reason: None
    link.news.close()
    link.news = await Connection.make(it.broker.server)
    other = await another_epoch(redis_engine, it)
    await other.put(draft("b"))
    with pytest.raises(Moved):
        await it.broker._read_on(link)
    assert it.pumped == []
    link.news.close()
    await other.broker.close()


async def test_a_pump_that_fails_again_and_again_is_told_once(
    it: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.01))
    it.fails += [RuntimeError("oops")] * 5
    with pytest.raises(HubError) as refused:
        await it.put(draft("a"))
    assert "oops" not in str(refused.value)
    await until(lambda: not it.fails)
    await again(it)
    assert (caplog.text.count("bug of the hub; it is tried again"), caplog.text.count("cannot be kept:")) == (1, 1)
    await until(lambda: "can be kept again" in caplog.text)
    assert caplog.text.count("can be kept again") == 1


async def test_another_epoch_is_found_out_where_nothing_can_be_written(
    redis_engine: Engine, it: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await another_epoch(redis_engine, it)
    run = Connection.run

    def full(self: Connection, name: str, *args: Any, **more: Any) -> Any:
        if name == "hub_tidy" and self.server is it.broker.server:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(Refused("It is full.", "OOM"))
            return answer
        return run(self, name, *args, **more)

    monkeypatch.setattr(Connection, "run", full)
    await until(lambda: it.broker.epoch == other.broker.epoch)
    await until(lambda: it.broker.problem == "It is full.")
    await other.broker.close()


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_has_gone_before_a_hub_has_read_it_is_told_without_another_event(
    redis_engine: Engine, tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To its clients, by one gap; and whoever has published there among it waits no longer."""
    looks, skip = list[int](), RedisBroker._skip
    gate, held = asyncio.Event(), asyncio.Event()

    def skipped(self: RedisBroker, *args: Any) -> None:
        looks.append(self.head)
        if not weakened:
            skip(self, *args)

    monkeypatch.setattr(RedisBroker, "_skip", skipped)
    async with hub_app(tmp_path, broker=redis_engine.url(prefix=uuid4().hex)) as hub, talk(hub.url) as client:
        it: Any = hub.hub.broker
        pump = it._pump

        async def holding(events: Any) -> None:
            held.set()
            await gate.wait()
            await pump(events)

        it._pump = holding
        first = asyncio.ensure_future(hub.hub.publish("a:x", 1))
        await held.wait()
        others = [asyncio.ensure_future(hub.hub.publish("a:x", n)) for n in (2, 3, 4)]
        stream, meta = it.server.keys[:2]
        await until(lambda: redis_engine.ask("XLEN", stream) == 4)
        redis_engine.ask("XTRIM", stream, "MINID", "5-0")
        redis_engine.ask("HSET", meta, "tail", 5, "bytes", 0)
        gate.set()
        assert (await client.event())["payload"]["data"] == 1
        await first
        if weakened:
            await until(lambda: len(looks) == 2, "that it has looked twice")
            assert (it.head, [each.done() for each in others]) == (1, [False] * 3)
        else:
            gap = (await client.event())["payload"]
            assert gap["event"] == "hub:gap"
            assert (gap["data"]["after"], gap["data"]["before"]) == (f"{it.epoch}:1", f"{it.epoch}:5")
            assert (gap["data"]["count"], gap["data"]["reason"]) == (3, "slow")
            assert [(await each).cursor.seq for each in others] == [2, 3, 4]
            assert (await hub.hub.publish("a:x", 5)).cursor.seq == 5
            assert (await client.event())["payload"]["data"] == 5
        for each in others:
            each.cancel()


async def test_what_is_too_old_goes_in_steps(redis_engine: Engine) -> None:
    it = Store(broker(redis_engine, Limits(10_000, 2**24, 0.01), prefix=uuid4().hex))
    await it.open()
    await it.put(*(draft(f"{n}", given=True) for n in range(2500)))
    await until(lambda: it.broker.tail == 2501)
    assert (it.broker.bytes, await it.broker.read(0, 10)) == (0, [])
    assert redis_engine.ask("HLEN", it.broker.server.keys[2]) == 0
    assert await it.put(draft("0", given=True)) == [2501]
    await it.broker.close()


async def test_last_values_are_bounded(redis_engine: Engine) -> None:
    it = Store(broker(redis_engine, state=Limits(3, 1000), prefix=uuid4().hex))
    await it.open()

    async def values() -> list[tuple[int, int]]:
        return [(kept.event.seq, kept.stale) for kept in await it.broker.last_values()]

    for key in ("a", "b", "c", "d\n\0"):
        await it.put(draft(key.strip("\n\0"), name="x:y", key=key))
    assert await values() == [(2, 0), (3, 0), (4, 0)]
    assert (await it.broker.last_values())[-1].event.key == "d\n\0"
    await it.put(draft("more", name="x:y", key="b"))
    assert await values() == [(3, 0), (4, 0), (5, 0)]
    large = draft("large", name="x:y", key="b")
    large.body = b'"%b"' % (b"x" * 2000)
    await it.put(large)
    assert await values() == [(3, 0), (4, 0)]
    large.body, large.key = b'"%b"' % (b"x" * 900), "e"
    await it.put(large)
    assert await values() == [(7, 0)]
    await it.broker.close()


# ---- trouble


async def test_while_it_is_away_nothing_can_be_read_and_a_cursor_may_be_known(
    it: Store, way: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.put(draft("a"))
    way.deaf = way.dumb = True
    way.cut()
    await until(lambda: it.broker._link is None)
    for asked in (it.broker.read(0, 1), it.broker.names(0, 1), it.broker.answers.recall(b"a"), it.put(draft("b"))):
        with pytest.raises(HubError) as refused:
            await asked
        assert refused.value.code == "broker_unavailable"
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with pytest.raises(HubError, match="has not come up to"):
        await it.broker.reach(Cursor(it.broker.epoch, 9))
    await it.broker.reach(Cursor(it.broker.epoch, 1))
    way.deaf = way.dumb = False
    way.cut()
    await again(it)


async def test_a_read_that_is_cut_says_so(it: Store, way: Line) -> None:
    way.deaf = True
    reading = asyncio.create_task(it.broker.read(0, 1))
    await passes(5)
    way.deaf = False
    way.cut()
    with pytest.raises(HubError, match="has closed the connection"):
        await reading
    await again(it)


async def test_a_server_that_cannot_begin_an_epoch_is_away(redis_engine: Engine, it: Store) -> None:
    redis_engine.ask("HSET", it.broker.server.keys[1], "run", "another")
    redis_engine.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        it.broker._link.close()
        await until(lambda: "NOREPLICAS" in str(it.broker.problem))
    finally:
        redis_engine.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    await again(it)


async def test_what_waits_while_it_is_attached_anew_is_refused_when_it_is_not(it: Store, way: Line) -> None:
    way.deaf = way.dumb = True
    link = it.broker._link
    it.broker._drop(Moved("The stream is of another epoch now."))
    waiting = asyncio.create_task(it.put(draft("a")))
    gone = asyncio.create_task(it.put(draft("b")))
    await passes(3)
    gone.cancel()
    with pytest.raises(HubError, match="does not answer"):
        await waiting
    way.deaf = way.dumb = False
    way.cut()
    assert link.asks.cut is not None
    await again(it)


async def test_a_listener_that_fails_at_a_loss_is_called_again(
    redis_engine: Engine, it: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await it.put(draft("a"))
    calls = list[Lost]()

    def lost(lost: Lost) -> None:
        calls.append(lost)
        if len(calls) == 1:
            raise RuntimeError("no")

    it.broker._on_lost = lost
    redis_engine.ask("DEL", *it.broker.server.keys)
    await until(lambda: bool(calls))
    await again(it)
    assert (await it.put(draft("b")), it.broker.head) == ([1], 1)


async def test_what_was_answered_and_has_not_been_seen_may_be_gone(it: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def late(rows: Any) -> None:
        await gate.wait()

    monkeypatch.setattr(it.broker, "_hand_on", late)
    putting = asyncio.create_task(it.put(draft("a")))
    await until(lambda: bool(it.broker._appends._passing))
    it.broker._drop(Away("The server has gone."))
    with pytest.raises(HubError, match=r"has gone.*may have been kept"):
        await putting
    gate.set()


async def test_a_cut_before_anything_is_sent_keeps_it_waiting(it: Store) -> None:
    putting = asyncio.create_task(it.put(draft("a")))
    await passes(1)
    it.broker._drop(Moved("The stream is of another epoch now."))
    it.broker._appends._send()
    await again(it)
    assert await putting == [1]


# ---- the start


async def test_two_servers_are_not_one(redis_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ["one", "two"]

    async def run_of(connection: Connection) -> str:
        return runs.pop()

    monkeypatch.setattr(links, "run_of", run_of)
    with pytest.raises(Away, match="being replaced"):
        await links.Link.make(Server(redis_engine.url()))


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hub.stream.brokers.server", None)
    with pytest.raises(UsageError, match=r"needs the extra redis: pip install '\.\[redis\]'"):
        Hub(state_dir=tmp_path, broker="redis://")


async def test_a_start_that_takes_too_long_is_given_up(redis_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(server: Server) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(links.Link, "make", never)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "START", 0.0)
    it = Store(broker(redis_engine))
    with pytest.raises(UsageError, match="does not answer"):
        await it.open()


async def test_one_that_never_began_is_closed_all_the_same(redis_engine: Engine) -> None:
    it = Store(broker(redis_engine, prefix=uuid4().hex))
    await it.broker.open(it.pump)
    await it.broker.close()
    with pytest.raises(HubError, match="stopping"):
        await it.put(draft("a"))


# ---- any publishes at all

IDS = st.sampled_from(["a", "b", "c", "d e", "é\u2028"])
KEYS = st.none() | st.sampled_from(["", "k", "k\n\0k"])
DRAFTS = st.lists(st.tuples(IDS, st.booleans(), KEYS, st.integers(0, 40)), max_size=6, unique_by=lambda one: one[0])


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is over a limit goes at once, however young it is."""
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "resources", weakened_library(folder, "local YOUNG = 1000", "local YOUNG = -1000"))
        yield


@settings(max_examples=25)
@given(
    batches=st.lists(DRAFTS, max_size=10), most=st.integers(1, 20), size=st.integers(1, 3000), again=st.integers(0, 9)
)
async def test_it_keeps_what_memory_keeps(
    redis_engine: Engine, at_once: None, batches: list[Any], most: int, size: int, again: int
) -> None:
    """And the last values of them all, over another start, behind a restart of the server."""
    prefix, last = uuid4().hex, dict[str, tuple[int, str]]()
    model = Store(MemoryBroker(most, size))
    await model.open()
    it = Store(broker(redis_engine, Limits(most, size, 86400.0), prefix=prefix))
    await it.open()
    for number, batch in enumerate(batches):
        if number == again:
            await it.broker.close()
            redis_engine.ask("HSET", it.broker.server.keys[1], "run", "another")
            it = Store(broker(redis_engine, prefix=prefix))
            await it.open()
        drafts = [draft(id, given=given, name="x:y", key=key, ttl=9.0 if key else None) for id, given, key, _ in batch]
        for one, (_, _, _, pad) in zip(drafts, batch, strict=True):
            one.body = b'"%b"' % (b"x" * 10 * pad)
        receipts = await it.broker.append(drafts)
        assert receipts == await model.broker.append(drafts)
        for one, (seq, known) in zip(drafts, receipts, strict=True):
            if one.key is not None and not known:
                last.pop(one.key, None)
                last[one.key] = seq, one.id
        await it.broker._look(it.broker._link)
        facts = [(each.head, each.tail, each.bytes) for each in (it.broker, model.broker)]
        assert facts[0] == facts[1]
        for after, limit in ((0, 50), (3, 2), (17, 4)):
            pages = [await each.read(after, limit) for each in (it.broker, model.broker)]
            seen = [[(e.seq, e.id, e.body, e.key, e.ttl, e.size) for e in page] for page in pages]
            assert seen[0] == seen[1]
            assert await it.broker.names(after, limit) == await model.broker.names(after, limit)
    values = [(kept.event.key, (kept.event.seq, kept.event.id)) for kept in await it.broker.last_values()]
    assert values == list(last.items())
    await it.broker.close()


async def test_a_retention_shorter_than_a_batch_takes_nothing_from_who_is_there(redis_engine: Engine) -> None:
    it = Store(broker(redis_engine, Limits(3, 100, 0.001), prefix=uuid4().hex))
    await it.open()
    for batch in range(5):
        await it.put(*(draft(f"{batch}-{n}") for n in range(20)))
    assert [event.seq for event in it.pumped] == list(range(1, 101))
    await until(lambda: it.broker.tail == 101)
    await it.broker.close()
