"""What the hubs of one stream rely on, each with what happens where it is off."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import DURABLE, Engine, Weaken, engine, line, redis_program
from running import until
from stores import PLENTY, Store, draft, passes, stale

from hub.errors import HubError
from hub.stream.brokers import appends, connection, entries
from hub.stream.brokers import link as links
from hub.stream.brokers import redis as module
from hub.stream.brokers import server as servers
from hub.stream.brokers.appends import Appends
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.connection import Connection
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Away, Server
from hub.wire.names import Cursor

pytestmark = pytest.mark.once

Open = Callable[..., Awaitable[Store]]
both = pytest.mark.parametrize("weakened", [False, True])


@pytest.fixture
def server() -> Iterator[Engine]:
    """One of its own: a library is everybody's."""
    with engine(redis_program(), *DURABLE) as found:
        yield found


@pytest.fixture
async def opened(server: Engine) -> AsyncIterator[Open]:
    """Opens hubs' brokers of one stream."""
    found = list[Store]()

    async def one(limits: Limits = PLENTY, url: str = "", directory: Path | None = None) -> Store:
        its = RedisBroker(Server(url or server.url()), limits, Limits(100, 2**20), "", directory)
        found.append(Store(its))
        await found[-1].open()
        return found[-1]

    yield one
    for store in found:
        await store.broker.close()


# ---- publishing


@both
async def test_whoever_is_answered_finds_the_event_behind_the_pump(
    opened: Open, server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, gate = await opened(), asyncio.Event()
    hand_on = it.broker._hand_on

    async def late(events: Any) -> None:
        await gate.wait()
        await hand_on(events)

    monkeypatch.setattr(it.broker, "_hand_on", late)
    passed = Appends.passed
    if weakened:
        monkeypatch.setattr(Appends, "passed", lambda self, head: passed(self, 10**6))
    publishing = asyncio.ensure_future(it.put(draft("a")))
    await until(lambda: server.ask("XLEN", it.broker.server.keys[0]) == 1)
    await until(lambda: bool(it.broker._appends._passing) or publishing.done())
    await passes()
    assert publishing.done() == weakened
    assert it.pumped == []
    gate.set()
    await publishing


@both
async def test_an_id_is_accepted_once_by_all(opened: Open, weaken: Weaken, weakened: bool) -> None:
    weaken("firsts[id] = redis.call('HGET', ids, id) or nil", "firsts[id] = nil")
    one, two = await opened(), await opened()
    assert await one.put(draft("a", given=True)) == [1]
    assert await two.put(draft("a", given=True)) == [2 if weakened else 1]


@both
async def test_an_id_is_accepted_once_in_one_call(opened: Open, weaken: Weaken, weakened: bool) -> None:
    weaken("firsts[id] = seq\n", "")
    it = await opened()
    published = await asyncio.gather(*(it.put(draft("a", given=True)) for _ in range(2)))
    assert published == [[1], [2 if weakened else 1]]


@both
async def test_what_is_wrong_with_one_key_is_found_before_anything_is_written(
    opened: Open, server: Engine, weaken: Weaken, weakened: bool
) -> None:
    """An error in the middle is not taken back: half of a call would be kept that was refused."""
    weaken("for place, expected in pairs(keyed and EXPECTED or {}) do", "for place, expected in pairs({}) do")
    it = await opened()
    server.ask("SET", it.broker.server.key("v"), "x")
    with pytest.raises(HubError):
        await it.put(draft("plain"), draft("keyed", name="x:y", key="k"))
    assert (server.ask("XLEN", it.broker.server.keys[0]) > 0) == weakened
    server.ask("DEL", it.broker.server.key("v"))


@both
async def test_a_last_value_is_kept_with_its_entry(opened: Open, weaken: Weaken, weakened: bool) -> None:
    weaken("if does == 107 then", "if false then")
    one = await opened()
    await one.put(draft("a", name="x:y", key="k"))
    values = [kept.event.id for kept in await (await opened()).broker.last_values()]
    assert values == ([] if weakened else ["a"])


@both
async def test_what_comes_in_one_pass_goes_in_calls_of_so_much(
    opened: Open, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call holds the server for as long as it takes."""
    it, calls = await opened(), list[int]()
    run = it.broker._link.asks.run

    def counted(name: str, *args: Any, **more: Any) -> Any:
        if name == "hub_append":
            calls.append((len(args) - 2) // 2)
        return run(name, *args, **more)

    monkeypatch.setattr(it.broker._link.asks, "run", counted)
    if weakened:
        monkeypatch.setattr(appends, "MOST_EVENTS", 10**9)
    await asyncio.gather(*(it.put(*(draft(f"{n}-{m}") for m in range(400))) for n in range(5)))
    assert max(calls) == (2000 if weakened else 800)


# ---- what goes


@both
async def test_what_is_young_stays_until_every_hub_has_read_it(opened: Open, weaken: Weaken, weakened: bool) -> None:
    weaken("local YOUNG = 1000", "local YOUNG = -1000")
    one, two = await opened(Limits(3, 10**6, 86400.0)), await opened()
    two.broker._running.cancel()  # it is slow
    await asyncio.wait([two.broker._running])
    for batch in range(5):
        await one.put(*(draft(f"{batch}-{n}") for n in range(20)))
    left = len(await one.broker.read(0, 1000))
    assert left == (20 if weakened else 100)  # what comes in one call is not trimmed by it


@both
async def test_what_is_over_the_limits_goes(
    opened: Open, server: Engine, weaken: Weaken, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 1000.0)  # nobody looks, which would trim, too
    weaken("if found.seq - found.tail + 1 > most + slack or found.bytes > weight * 1.01 then", "if false then")
    it = await opened(Limits(10, 10**6, 86400.0))
    for batch in range(6):  # more than all that may be young
        await it.put(*(draft(f"{batch}-{n}") for n in range(1000)))
    assert (server.ask("XLEN", it.broker.server.keys[0]) > 3000) == weakened


# ---- leases


@both
async def test_the_end_of_a_lease_is_said_once(opened: Open, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hub says it, by the same id."""
    if weakened:
        packed = entries.packed

        def unknown(one: Any) -> Any:
            entry, does = packed(one)
            weight, length, head, rest = entry.split(b" ", 3)
            return b"%b 0 %b %b" % (weight, head, rest[int(length) :]), does

        monkeypatch.setattr(appends, "packed", unknown)
    hubs = [await opened() for _ in range(3)]
    [seq] = await hubs[0].put(draft("a", name="x:y", key="k", ttl=1.0))
    ends = [await hub.put(stale("x:y", "k", seq)) for hub in hubs]
    assert ends == ([[2], [3], [4]] if weakened else [[2]] * 3)


@both
async def test_the_end_of_a_lease_is_that_of_one_event(opened: Open, weaken: Weaken, weakened: bool) -> None:
    """A newer one of its key was on its way."""
    weaken("tonumber(changed) == tonumber(ended)", "true")
    it = await opened()
    [seq] = await it.put(draft("a", name="x:y", key="k", ttl=1.0))
    await it.put(draft("b", name="x:y", key="k", ttl=1.0))
    await it.put(stale("x:y", "k", seq))
    assert [kept.stale for kept in await it.broker.last_values()] == [3 if weakened else 0]


# ---- epochs


@both
async def test_another_run_of_the_server_is_another_epoch(
    opened: Open, server: Engine, weaken: Weaken, weakened: bool
) -> None:
    """What was lost with the one before nobody here may have seen; but a client may."""
    weaken("ends = found.seq, found.run ~= run", "ends = found.seq, false")
    one = await opened()
    await one.put(draft("a"))
    whole, old = server.file.stat().st_size, one.broker.epoch
    await one.put(draft("lost"))
    await one.broker.close()
    server.kill()
    with server.file.open("r+b") as file:
        file.truncate(whole)
    server.start()
    two = await opened()
    assert await two.put(draft("new")) == [2]
    assert (two.broker.epoch == old) == weakened  # and then the cursor means two events
    assert two.broker.lineage == ({} if weakened else {old: 1})


@both
async def test_a_cursor_of_an_earlier_epoch_is_good_as_far_as_that_is_the_same(
    opened: Open, server: Engine, weaken: Weaken, weakened: bool
) -> None:
    weaken("'run', run, 'lineage', lineage", "'run', run, 'lineage', ''")
    it = await opened()
    await it.put(draft("a"), draft("b"))
    old = it.broker.epoch
    server.restart()
    await until(lambda: it.broker.epoch != old)
    assert it.broker.lineage == ({} if weakened else {old: 2})
    assert [lost.kept for lost in it.lost] == ([0] if weakened else [])  # everybody would be told of a loss


@both
async def test_an_epoch_that_it_has_not_learned_is_asked_for(
    opened: Open, server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await opened(), await opened()
    if weakened:
        monkeypatch.setattr(two.broker, "_may_reach", lambda cursor: asyncio.sleep(0, result=False))
    two.broker._look_at = float("inf")
    await one.put(draft("a"))
    await until(lambda: two.broker.head == 1)
    server.ask("HSET", one.broker.server.key("m"), "run", "another")
    old = one.broker.epoch
    one.broker._link.close()
    await until(lambda: one.broker.epoch != old)
    reaching = asyncio.ensure_future(two.broker.reach(Cursor(one.broker.epoch, 1)))
    await until(lambda: reaching.done() or two.broker._look_at == float("inf"))
    if not weakened:
        two.broker._link.close()  # it would have looked by now
    await reaching
    assert (two.broker.epoch == one.broker.epoch) != weakened


# ---- the reader, and its connections


@both
async def test_it_goes_on_where_it_was_when_it_was_cut(
    opened: Open, server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await opened()
    async with line(server) as way:
        two = await opened(url=way.url())
        await one.put(draft("a"))
        await until(lambda: two.broker.head == 1)
        way.deaf = way.dumb = True
        way.cut()
        await until(lambda: two.broker._link is None)
        await one.put(draft("b"), draft("c"))
        if weakened:
            go_on = two.broker._go_on

            async def from_the_head(link: Any, stream: Any) -> None:
                two.broker.head = stream.head
                await go_on(link, stream)

            monkeypatch.setattr(two.broker, "_go_on", from_the_head)
        way.deaf = way.dumb = False
        way.cut()
        await until(lambda: two.broker.head == 3)
        assert [event.id for event in two.pumped] == (["a"] if weakened else ["a", "b", "c"])
        await two.broker.close()


@both
async def test_what_the_server_cannot_do_has_a_name(
    opened: Open, server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(servers, "MEANINGS", {})
    it = await opened()
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(HubError) as refused:
        await it.put(draft("a"))
    assert ("has not enough replicas to take anything (NOREPLICAS)" in str(refused.value)) != weakened
    server.ask("CONFIG", "SET", "min-replicas-to-write", "0")


@both
async def test_a_server_that_says_nothing_is_away_in_time(
    server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[float]()
    look = Connection._look

    def looked(self: Connection, due: float) -> None:
        looks.append(due)
        if weakened:
            self._timer = self._loop.call_later(0.05, self._look, self._loop.time() + 0.05)
        else:
            look(self, due)

    monkeypatch.setattr(Connection, "_look", looked)
    found = await Connection.make(Server(server.url()))
    monkeypatch.setattr(connection, "PATIENCE", 0.05)
    server.send_signal(signal.SIGSTOP)
    try:
        answer = found.send("PING")
        await until(lambda: answer.done() or len(looks) > 5)
        assert answer.done() != weakened
        if not weakened:
            with pytest.raises(Away, match="does not answer"):
                await answer
    finally:
        server.send_signal(signal.SIGCONT)
    found.close()


@both
async def test_two_connections_to_two_servers_are_no_link(
    server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one takes the place of the other: what is published would be lost to who reads."""
    runs = ["same", "same"] if weakened else ["one", "two"]

    async def run_of(found: Connection) -> str:
        return runs.pop()

    monkeypatch.setattr(links, "run_of", run_of)
    if weakened:
        (await links.Link.make(Server(server.url()))).close()
    else:
        with pytest.raises(Away, match="being replaced"):
            await links.Link.make(Server(server.url()))


@both
async def test_its_two_connections_end_together(
    opened: Open, server: Engine, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one on which nothing is asked would be waited for, and what it had to say be missed."""
    it = await opened()
    link = it.broker._link
    if weakened:
        link.asks.on_cut = link.news.on_cut = lambda reason: None
    link.asks.close()
    assert (link.news.cut is not None) != weakened
    link.close()
    await until(lambda: it.broker._link not in (link, None))


@both
async def test_a_publish_of_an_epoch_that_is_over_is_sent_to_the_one_that_is(
    opened: Open, server: Engine, weaken: Weaken, weakened: bool
) -> None:
    """It would be kept in one that its hub does not know, which could not say under which cursor."""
    weaken("found.epoch ~= args[1] or", "")
    one, two = await opened(), await opened()
    await one.put(draft("a"))
    await until(lambda: two.broker.head == 1)
    two.broker._look_at = float("inf")
    server.ask("HSET", one.broker.server.key("m"), "run", "another")
    old = one.broker.epoch
    one.broker._link.close()
    await until(lambda: one.broker.epoch != old)
    if weakened:
        with pytest.raises(HubError, match="may have been kept"):
            await two.put(draft("b"))
    else:
        assert (await two.put(draft("b")), two.broker.epoch) == ([2], one.broker.epoch)
