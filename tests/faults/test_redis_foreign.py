"""Other programs write into the keys of the hubs, or delete there. What is no event is passed over, what is missing is
told, publishing goes on, and the numbers stay those that they were."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from engines import Engine, Weaken, broker, weakened_library
from running import HubInside, Start, seq, starting, talk, until
from stores import PLENTY, STATE, Store, draft

from hub.errors import HubError, UsageError
from hub.stream.brokers import link
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Server

pytestmark = pytest.mark.once

Open = Callable[..., Awaitable[Store]]
LIKE_AN_EVENT = "1700000000000 {epoch} 100 0 12 a:x\n\nforged\n1"  # an entry as a hub writes it


@pytest.fixture(params=["redis_engine", "valkey_engine"])
def server(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def start(server: Engine, prefix: str, tmp_path: Path) -> AsyncIterator[Start]:
    async with starting(tmp_path, server.url(prefix=prefix)) as found:
        yield found


@pytest.fixture
async def opened(server: Engine, prefix: str) -> AsyncIterator[Open]:
    """Opens hubs' brokers of one stream."""
    found = list[Store]()

    async def one(state: Limits = STATE) -> Store:
        found.append(Store(broker(server, state=state, prefix=prefix)))
        await found[-1].open()
        return found[-1]

    yield one
    for store in found:
        await store.broker.close()


def key(hub: HubInside, name: str) -> str:
    found: str = hub.hub.broker.server.key(name)  # type: ignore[attr-defined]
    return found


def epoch(hub: HubInside) -> str:
    return hub.hub.broker.epoch


async def history(hub: HubInside, **words: Any) -> Any:
    answer = await hub.get("api/events", **words)
    assert answer.status == 200, answer.text
    return answer.json


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


# ---- entries that no hub has written

FOREIGN: dict[str, list[list[str]]] = {
    "the time for a number": [["*", "a", "1"]],
    "the next number": [["4-0", "a", "1"]],
    "the next number, the same field": [["4-0", "d", "garbage"]],
    "between two numbers": [["3-1", "d", "x"], ["3-2", "a", "b", "c", "d"]],
    "the last number that there is": [["18446744073709551615-18446744073709551615", "d", ""]],
    "a copy of an event": [["*", "d", LIKE_AN_EVENT]],
    "another epoch": [["4-0", "d", LIKE_AN_EVENT.replace("{epoch}", "ffffffff")]],
    "many": [["*", "a", "1"]] * 600,
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
async def test_what_no_hub_has_written_is_no_event_and_stops_nothing(
    server: Engine, start: Start, foreign: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(3)
    async with talk(one.url, f"?after={epoch(one)}:0") as first, talk(two.url, f"?after={epoch(one)}:0") as second:
        with server.client() as client:
            for words in foreign:
                client.execute_command("XADD", key(one, "e"), *(w.replace("{epoch}", epoch(one)) for w in words))
        published = [(await hub.hub.publish("a:x", n)).cursor for n, hub in enumerate((one, two, one), 4)]
        assert [str(cursor) for cursor in published] == [f"{epoch(one)}:{n}" for n in (4, 5, 6)]
        for client in (first, second):
            assert await client.numbers(6) == [1, 2, 3, 4, 5, 6]
    await until(lambda: said(caplog, "another program has written into") >= 1, "the log")
    assert said(caplog, "another program has written into") <= 2  # each of the hubs
    assert said(caplog, "bug of the hub") == said(caplog, "another epoch") == 0
    assert said(caplog, "cannot be kept") == said(
        caplog, "does not answer"
    )  # a server that is slow is no fault of theirs
    found = await history(two, after=f"{epoch(one)}:0")
    assert ([seq(event) for event in found["events"]], found["complete"]) == ([1, 2, 3, 4, 5, 6], True)
    await until(lambda: server.ask("XLEN", key(one, "e")) == 6)
    assert (await one.get("readyz")).status == 200


async def test_what_only_looks_like_an_event_is_a_gap(server: Engine, start: Start) -> None:
    """Its number is taken, and nothing can be read there."""
    one = await start("one")
    await one.publish(3)
    at = epoch(one)
    async with talk(one.url) as client:
        await client.call("hub:ping")
        server.ask("XADD", key(one, "e"), "4-0", "d", f"1700000000000 {at} 100 0 3 abc")
        assert (await one.hub.publish("a:x", 1)).cursor.seq == 5
        assert gap(await client.event()) == (f"{at}:3", f"{at}:5", 1)
        assert await client.numbers(1) == [5]
    assert [event.seq for event in await all_events(one)] == [1, 2, 3, 5]


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_like_the_next_event_is_one_to_all(
    server: Engine, start: Start, weaken: Weaken, weakened: bool
) -> None:
    """Hubs hand on what comes next without asking: so it cannot be taken back, nor its number given twice."""
    weaken("if ms and seq < CLOCK and ours[epoch] and", "if false and")
    one, two = await start("one"), await start("two")
    await one.publish(3)
    async with talk(two.url) as client:
        await client.call("hub:ping")
        entry = LIKE_AN_EVENT.replace("{epoch}", epoch(one)).replace("17", "41", 1)  # newer than all others
        server.ask("XADD", key(one, "e"), "4-0", "d", entry)
        assert (await client.event())["id"] == "forged"
        old = epoch(one)
        if weakened:  # it was, and is not: those who have seen it are told of a loss
            await until(lambda: epoch(one) != old, "another epoch")
        else:
            assert str((await two.hub.publish("a:x", 1)).cursor) == f"{old}:5"
            assert await client.numbers(1) == [5]
            assert [event.id for event in await one.hub.broker.read(3, 1)] == ["forged"]


@pytest.mark.parametrize("weakened", ["", "ask", "compare"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("fresh", [False, True])
async def test_a_copy_of_an_event_is_none(
    server: Engine,
    start: Start,
    given: bool,
    fresh: bool,
    weakened: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One id would be sent twice; to who has read the event, and to who has only found it at the start."""
    if weakened == "ask":
        monkeypatch.setattr(RedisBroker, "_is_news", lambda self, events: True)
    elif weakened == "compare":
        monkeypatch.setattr(link, "resources", weakened_library(tmp_path, " and not is_copy(", " or is_copy("))
    one = await start("one")
    for number in range(3):
        await one.hub.publish("a:x", number, id=f"own-{number}" if given else None)
    two = await start("two") if fresh else one
    async with talk(two.url) as client:
        await client.call("hub:ping")
        [(_, fields)] = server.ask("XRANGE", key(one, "e"), "3-0", "3-0")
        copied = fields[b"d"] if isinstance(fields, dict) else fields[1]
        server.ask("XADD", key(one, "e"), "4-0", "d", copied)
        if weakened:  # it is sent again
            assert (await client.event())["cursor"].endswith(":4")
            return
        old = epoch(one)
        await until(lambda: server.ask("XLEN", key(one, "e")) == 3)
        assert str((await one.hub.publish("a:x", "new")).cursor) == f"{old}:4"
        assert (await client.event())["payload"]["data"] == "new"


async def test_weakened_foreign_entries_would_stop_publishing_for_good(
    server: Engine, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = "local function set_last(keys, seq)\n"
    monkeypatch.setattr(link, "resources", weakened_library(tmp_path, off, f"{off}    do return end\n"))
    one = await start("one")
    await one.publish(3)
    server.ask("XADD", key(one, "e"), "*", "a", "1")
    for _ in range(3):
        with pytest.raises(HubError) as refused:
            await one.hub.publish("a:x", 1)
        assert refused.value.code == "broker_unavailable"
    assert "XADD" not in str(refused.value)  # nothing of the server's own words


async def test_where_it_cannot_be_taken_out_it_is_passed_over(server: Engine, start: Start) -> None:
    """A server that takes nothing: the hub looks again a little later, and not at once, for ever."""
    one = await start("one")
    await one.publish(3)
    its: Any = one.hub.broker
    asked, ask = 0, its._link.asks.run

    def counted(name: str, *args: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(name, *args, **more)

    its._link.asks.run = counted
    server.ask("XADD", key(one, "e"), "*", "a", "1")
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        await until(lambda: "NOREPLICAS" in str(one.hub.broker.problem))
        before = asked
        await until(lambda: asked > before + 4, "some more looks")
        assert one.hub.broker.head == 3
    finally:
        server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    await until(lambda: one.hub.broker.problem is None)
    assert (await one.hub.publish("a:x", 1)).cursor.seq == 4


# ---- events that somebody has deleted


def gap(frame: dict[str, Any]) -> tuple[str, str, int]:
    assert frame["payload"]["event"] == "hub:gap", frame
    data = frame["payload"]["data"]
    return data["after"], data["before"], data["count"]


async def test_what_was_deleted_is_a_gap_of_exactly_that(server: Engine, start: Start, tmp_path: Path) -> None:
    one = await start("one", window_events=2)
    await one.publish(10)
    await one.hub.publish("b:x", 1)
    at = epoch(one)
    server.ask("XDEL", key(one, "e"), "3-0", "4-0", "7-0")
    async with talk(one.url, f"?after={at}:0") as client:
        assert await client.numbers(2) == [1, 2]
        assert gap(await client.event()) == (f"{at}:2", f"{at}:5", 2)
        assert await client.numbers(2) == [5, 6]
        assert gap(await client.event()) == (f"{at}:6", f"{at}:8", 1)
        assert await client.numbers(4) == [8, 9, 10, 11]
        await one.publish(1)
        assert await client.numbers(1) == [12]
    for _ in range(2):  # at once, and when it was counted
        for words, numbers, whole in (
            ({"after": f"{at}:0"}, [1, 2], True),
            ({"after": f"{at}:2"}, [5, 6], False),
            ({"after": f"{at}:7"}, [8, 9, 10, 11, 12], True),
            ({"limit": 4}, [9, 10, 11, 12], True),
            ({"limit": 6}, [6, 8, 9, 10, 11, 12], False),
            ({}, [1, 2, 5, 6, 8, 9, 10, 11, 12], False),
            ({"topics": "b:*"}, [11], False),
            ({"topics": "b:*", "limit": 1}, [11], True),
            ({"topics": "a:*", "limit": 2}, [10, 12], True),
            ({"topics": "a:*", "limit": 5}, [6, 8, 9, 10, 12], False),
        ):
            found = await history(one, **words)
            assert ([seq(event) for event in found["events"]], found["complete"]) == (numbers, whole), words
        await until(lambda: server.ask("HGET", key(one, "m"), "holes") == b"3")
    assert one.hub.broker.bytes == sum(event.size for event in await all_events(one))
    two = await start("two")
    assert two.hub.window.head == 12


async def all_events(hub: HubInside) -> list[Any]:
    """All that are kept, over the holes between them."""
    found = list[Any]()
    while page := await hub.hub.broker.read(found[-1].seq if found else 0, 1000):
        found += page
    return found


async def test_weakened_what_was_deleted_would_be_missing_silently(
    server: Engine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlooked(events: Any) -> Any:
        yield events

    monkeypatch.setattr(
        RedisBroker.read.__globals__["unbroken"].__module__ and "hub.stream.brokers.redis.unbroken", unlooked
    )
    one = await start("one", window_events=2)
    await one.publish(10)
    server.ask("XDEL", key(one, "e"), "3-0")
    found = await history(one, after=f"{epoch(one)}:0")
    assert ([seq(event) for event in found["events"]], found["complete"]) == ([1, 2, *range(4, 11)], True)


async def test_what_was_deleted_before_a_hub_has_read_it_is_told_to_its_clients(server: Engine, start: Start) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(2)
    await until(lambda: two.hub.cursor.seq == 2)
    its: Any = two.hub.broker
    async with talk(two.url) as client:
        await client.call("hub:ping")
        with server.client() as asking, asking.pipeline() as together:  # in one step, in whose middle no hub reads
            for number in range(6):
                words = epoch(one), 2 + number, b"100 0 9 a:x\n\nid%d\n{}" % number, ""
                together.execute_command("FCALL", "hub_append", len(its.server.keys), *its.server.keys, *words)
            for number in (3, 4, 7, 8):
                together.execute_command("XDEL", key(one, "e"), f"{number}-0")
            together.execute()
        at = epoch(two)
        assert gap(await client.event()) == (f"{at}:2", f"{at}:5", 2)
        assert await client.numbers(2) == [5, 6]
        assert gap(await client.event()) == (f"{at}:6", f"{at}:9", 2)
        await one.publish(1)
        assert await client.numbers(1) == [9]


async def test_a_stream_that_was_deleted_goes_on_with_the_next_number(server: Engine, start: Start) -> None:
    one = await start("one", window_events=1)
    await one.publish(5)
    at = epoch(one)
    server.ask("DEL", key(one, "e"))
    for words in ({"after": f"{at}:0"}, {}, {"topics": "a:*"}):
        found = await history(one, **words)
        assert (found["events"], found["complete"], found["cursor"]) == ([], False, f"{at}:5")
    async with talk(one.url, f"?after={at}:2") as client:
        assert gap(await client.event()) == (f"{at}:2", f"{at}:5", 2)
        assert await client.numbers(1) == [5]  # from memory
        assert (await one.hub.publish("a:x", 1)).cursor.seq == 6
        assert await client.numbers(1) == [6]
    await until(lambda: one.hub.broker.tail == 6)
    assert one.hub.broker.bytes == sum(event.size for event in await all_events(one))


# ---- what the stream says of itself


async def put_all(it: Store) -> None:
    await it.put(*(draft(f"{n}", given=True) for n in range(600)))
    await it.put(draft("k", name="x:y", key="k"))
    await it.broker.answers.remember(b"place", b"what", b"answer")


DAMAGE = [
    ["DEL", "m"],
    ["HSET", "m", "seq", "garbage"],
    ["HDEL", "m", "bytes", "epoch"],
    ["HSET", "m", "seconds", "x"],
    ["HSET", "m", "lineage", "x"],
    ["HSET", "m", "tail", "999"],
    ["HSET", "m", "epoch", "zz zz"],
    ["HSET", "m", "epoch", "z" * 65],
    ["HSET", "m", "seq", "inf"],
]


@pytest.mark.parametrize("damage", DAMAGE, ids=[" ".join(words) for words in DAMAGE])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_stream_that_says_nothing_of_itself_is_counted_anew(
    server: Engine, opened: Open, damage: list[str], weaken: Weaken, weakened: bool
) -> None:
    weaken("if redis.call('EXISTS', keys[1]) == 0 then", "if true then")
    it = await opened()
    await put_all(it)
    old, size = it.broker.epoch, it.broker.bytes
    command, name, *words = damage
    server.ask(command, it.broker.server.key(name), *words)
    await until(lambda: it.broker.epoch != old, "another epoch")
    if weakened:
        assert (it.broker.head, [lost.kept for lost in it.lost]) == (0, [0])
    else:
        assert (it.broker.head, it.broker.tail, it.broker.bytes, it.lost) == (601, 1, size, [])
        assert it.broker.lineage == {old: 601}
        assert await it.put(draft("599", given=True), draft("new")) == [600, 602]
        assert [kept.event.id for kept in await it.broker.last_values()] == ["k"]
        assert await it.broker.answers.told(b"place") == b"answer"
        assert len(await it.broker.read(0, 10**6)) == 602


async def test_a_stream_of_an_older_version_is_counted_once_and_is_the_same(server: Engine, opened: Open) -> None:
    it = await opened()
    await put_all(it)
    old, size = it.broker.epoch, it.broker.bytes
    await it.broker.close()
    meta = it.broker.server.key("m")
    server.ask("HDEL", meta, "holes", "known", "foreign")
    it = await opened()
    await it.broker._look(it.broker._link)
    assert server.ask("HMGET", meta, "holes", "known", "foreign") == [b"0", b"600", b"0"]
    assert (it.broker.epoch, it.broker.head, it.broker.tail, it.broker.bytes) == (old, 601, 1, size)


async def test_a_number_that_was_set_back_takes_no_event_away(server: Engine, opened: Open) -> None:
    it = await opened()
    await put_all(it)
    server.ask("HSET", it.broker.server.key("m"), "seq", "5")
    assert await it.put(draft("new")) == [602]
    assert [event.seq for event in await all_of(it)] == list(range(1, 603))


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_number_that_was_set_forward_and_then_back(
    server: Engine, start: Start, weaken: Weaken, weakened: bool
) -> None:
    """All is trimmed when it is set forward: the oldest number that is kept, too, is beyond what it is set back to."""
    weaken("        and found.tail <= found.seq + 1\n", "")
    one = await start("one")
    await one.publish(3)
    async with talk(one.url) as client:
        await client.call("hub:ping")
        server.ask("HSET", key(one, "m"), "seq", "500000")
        assert gap(await client.event())[1] == f"{epoch(one)}:500001"
        await until(lambda: one.hub.broker.tail == 500001)
        old = epoch(one)
        server.ask("HSET", key(one, "m"), "seq", "2")
        await until(lambda: epoch(one) != old, "another epoch")
        if weakened:
            assert one.hub.broker.head == 2  # and what is published next gets a number that clients had long ago
            return
        assert (await client.event())["payload"]["event"] == "hub:gap"
        assert (await one.hub.publish("a:x", 1)).cursor.seq == 500001
        assert await client.numbers(1) == [500001]


@pytest.mark.parametrize("weakened", [False, True])
async def test_bytes_that_are_none_are_counted_anew(
    server: Engine, opened: Open, weaken: Weaken, weakened: bool
) -> None:
    weaken(" or found.bytes < 0 then", " then")
    it = await opened()
    await put_all(it)
    size, old = it.broker.bytes, it.broker.epoch
    server.ask("HSET", it.broker.server.key("m"), "bytes", "-5")
    await it.broker._look(it.broker._link)
    assert (it.broker.bytes, it.broker.epoch) == (-5 if weakened else size, old)


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_was_written_and_deleted_in_one_step_is_nothing(
    redis_engine: Engine, prefix: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that waits is answered with no rows, by Redis; Valkey lets it wait."""
    it = Store(broker(redis_engine, prefix=prefix))
    await it.open()
    await it.put(draft("a"))
    answered, its = 0, it.broker._next

    def next_of(rows: Any) -> Any:
        nonlocal answered
        answered += not rows
        return rows[0] if weakened else its(rows)

    monkeypatch.setattr(it.broker, "_next", next_of)
    link = it.broker._link
    step = "return redis.call('XDEL', KEYS[1], redis.call('XADD', KEYS[1], '*', 'a', 'b'))"

    def is_answered() -> bool:
        redis_engine.ask("EVAL", step, "1", it.broker.server.key("e"))
        return answered > 0

    await until(is_answered, "an answer without rows")
    if weakened:
        await until(lambda: it.broker._link is not link, "a bug of the hub")
    else:
        assert await it.put(draft("b")) == [2]
        assert (it.broker._link, it.broker.problem, [event.seq for event in it.pumped]) == (link, None, [1, 2])
    await it.broker.close()


async def all_of(it: Store) -> list[Any]:
    found: list[Any] = await it.broker.read(0, 10**6)
    return found


async def test_epochs_are_counted_anew_from_what_there_is(server: Engine, opened: Open) -> None:
    it = await opened()
    await it.put(draft("a"), draft("b"))
    first = it.broker.epoch
    server.ask("HSET", it.broker.server.key("m"), "run", "another")
    it.broker._link.close()
    await until(lambda: it.broker.epoch != first)
    second = it.broker.epoch
    await it.put(draft("c"))
    server.ask("XDEL", it.broker.server.key("e"), "1-0", "3-0")
    server.ask("XADD", it.broker.server.key("e"), "*", "a", "1")
    server.ask("DEL", it.broker.server.key("m"))
    await until(lambda: it.broker.epoch not in (first, second))
    assert (it.broker.head, it.broker.tail) in [(3, 2), (2, 2)]
    assert it.broker.lineage[first] == 2


async def test_a_trimmed_stream_that_is_counted_anew_gives_no_number_again(server: Engine, opened: Open) -> None:
    it = await opened()
    await it.put(draft("a"), draft("b"), draft("c"))
    old = it.broker.epoch
    with server.client() as client, client.pipeline() as together:
        together.xdel(it.broker.server.key("e"), "1-0", "2-0", "3-0")
        together.delete(it.broker.server.key("m"))
        together.execute()
    await until(lambda: it.broker.epoch != old)
    assert (it.broker.head, await it.put(draft("d"))) == (3, [4])


@pytest.mark.parametrize("weakened", [False, True])
async def test_ids_that_were_deleted_are_known_again(
    server: Engine, opened: Open, weaken: Weaken, weakened: bool
) -> None:
    weaken(" or known ~= found.known", "")
    it = await opened()
    await put_all(it)
    server.ask("DEL", it.broker.server.key("i"))
    await it.broker._look(it.broker._link)
    assert await it.put(draft("7", given=True)) == ([602] if weakened else [8])


async def test_last_values_that_were_deleted_are_none(server: Engine, opened: Open) -> None:
    it = await opened(STATE._replace(events=2))
    for name in "abc":
        await it.put(draft(name, name="x:y", key=name))
    server.ask("HDEL", it.broker.server.key("v"), "x:y\0b")
    assert [kept.event.id for kept in await it.broker.last_values()] == ["c"]
    server.ask("HSET", it.broker.server.key("v"), "x:y\0c", "garbage")
    assert await it.broker.last_values() == []
    server.ask("DEL", it.broker.server.key("v"), it.broker.server.key("z"))
    server.ask("HSET", it.broker.server.key("m"), "filled", 2**40)
    await it.put(draft("d", name="x:y", key="d"))
    assert server.ask("HGET", it.broker.server.key("m"), "filled") == b"0"
    await it.put(draft("e", name="x:y", key="e"))
    assert [kept.event.id for kept in await it.broker.last_values()] == ["e"]


async def test_the_stream_of_others_put_in_its_place_is_no_event(server: Engine, prefix: str) -> None:
    """Entries of an epoch that was never of this stream."""
    it, other = Store(broker(server, prefix=prefix)), Store(broker(server, prefix=uuid4().hex))
    await it.open()
    await other.open()
    await other.put(*(draft(f"{n}") for n in range(3)))
    await it.put(draft("a"))
    copied = server.ask("DUMP", other.broker.server.key("e"))
    with server.client() as client, client.pipeline() as together:
        together.execute_command("RESTORE", it.broker.server.key("e"), 0, copied, "REPLACE")
        together.execute_command("HSET", it.broker.server.key("m"), "seq", 3)
        together.execute()
    await until(lambda: it.broker.head == 3)
    assert [event.id for event in it.pumped] == ["a"]
    assert [lost.kept for lost in it.lost][:1] == [1]
    await it.put(draft("b"))
    assert [event.seq for event in it.pumped] == [1, 4]
    for each in (it, other):
        await each.broker.close()


# ---- keys that are another program's


@pytest.mark.parametrize("name", "emivxzabcdlpoq")
async def test_a_key_of_another_program_is_named(server: Engine, start: Start, name: str, tmp_path: Path) -> None:
    one = await start("one")
    await one.publish(1)
    server.ask("SET", key(one, name), "x")
    with pytest.raises(UsageError) as told:
        await RedisBroker(Server(one.hub.config.broker), PLENTY, STATE).open(Store(None).pump)
    assert f"something of another program in {key(one, name)}, a key of the hubs: type DEL {key(one, name)}" in str(
        told.value
    )
    if name in "emivxz":
        with pytest.raises(HubError) as refused:
            await publish_many(one)
        assert refused.value.code == "broker_unavailable"
        await until(lambda: f"type DEL {key(one, name)}" in str(one.hub.broker.problem))
        server.ask("DEL", key(one, name))
        await until(lambda: one.hub.broker.problem is None)
        assert (await one.hub.publish("task:progress", {"id": "t"}, id="new")).accepted == 1


async def publish_many(hub: HubInside) -> None:
    """Until it is refused."""
    while True:
        await hub.hub.publish("task:progress", {"id": "t", "status": "running"}, id=uuid4().hex)
