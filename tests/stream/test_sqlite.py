"""The store on disk: what is answered is kept, whatever ends the hub; and it keeps to its limits."""

import asyncio
import contextlib
import errno
import json
import os
import resource
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from running import HubProcess, hub_app, hub_process, run_hub, seq, talk, until

from hub import Hub
from hub.errors import HubError, UsageError
from hub.stream.brokers import database
from hub.stream.brokers.broker import Broker, Limits
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.stream.events import Draft, Event
from hub.wire.names import EVERYTHING

PLENTY = Limits(100_000, 2**26, 86400.0)


class Store:
    """A broker that is open, and what came through its pump."""

    def __init__(self, broker: Any) -> None:
        self.broker, self.batches = broker, list[list[Event]]()

    async def pump(self, batch: list[Event]) -> None:
        self.batches.append(batch)

    @property
    def pumped(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    async def put(self, *drafts: Draft) -> list[int]:
        return [receipt.seq for receipt in await self.broker.append(drafts)]

    async def ids(self) -> list[str]:
        return [event.id for event in await self.broker.read(0, 10**6)]


@asynccontextmanager
async def store(path: Path, limits: Limits = PLENTY, *, full: bool = False, items: int = 100) -> AsyncIterator[Store]:
    found = Store(SqliteBroker(path, limits, items, full=full))
    await found.broker.open(found.pump)
    try:
        yield found
    finally:
        await found.broker.close()


def draft(
    id: str, *, given: bool = False, name: str = "a:x", key: str | None = None, ttl: float | None = None
) -> Draft:
    return Draft(name, id, b'{"n":"%b"}' % id.encode(), key, ttl, given)


# ---- keeping


async def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    drafts = [draft("één", given=True), draft("plain"), Draft("t:y", "k", b'{"a":[1,2.5e300,"\\u0000"]}', "key", 7.5)]
    async with store(tmp_path) as one:
        await one.put(*drafts)
        epoch = one.broker.epoch
        before = one.pumped
    async with store(tmp_path) as two:
        assert (two.broker.epoch, two.broker.head, two.broker.tail) == (epoch, 3, 1)
        after = await two.broker.read(0, 10)
        assert [event.json for event in after] == [event.json for event in before]
        assert [(e.key, e.ttl) for e in after] == [(e.key, e.ttl) for e in before]
        assert two.broker.bytes == sum(map(len, before))
        assert await two.put(draft("één", given=True), draft("plain")) == [1, 4]
        assert two.pumped[0].seq == 4


async def test_many_at_once_are_one_stream_in_order(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        numbers = await asyncio.gather(*(it.put(*[draft(f"{i}.{j}") for j in range(i % 7)]) for i in range(700)))
        assert [n for some in numbers for n in some] == list(range(1, it.broker.head + 1))
        assert [event.seq for event in it.pumped] == list(range(1, it.broker.head + 1))
        assert await it.ids() == [event.id for event in it.pumped]


async def test_what_comes_together_is_one_transaction(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        commits: list[str] = []
        it.broker._database._sql.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        await asyncio.gather(*(it.put(draft(f"{i}")) for i in range(50)))
        assert len(commits) == 1  # and the first one alone, which is a transaction by itself
        assert [len(batch) for batch in it.batches] == [1, 49]
        for i in range(5):
            await it.put(draft(f"late {i}"))
        assert len(it.batches) == 7


async def test_a_publisher_that_goes_harms_no_other(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        first, gone, third = (asyncio.create_task(it.put(draft(id))) for id in "abc")
        await asyncio.sleep(0)
        gone.cancel()
        assert (await first, await third) == ([1], [3])
        assert await it.ids() == ["a", "b", "c"]


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


# ---- epochs


def closed_badly(path: Path, boot: str) -> None:
    with sqlite3.connect(path / FILE) as sql:
        sql.execute("UPDATE meta SET value = 0 WHERE name = 'clean'")
        sql.execute("UPDATE meta SET value = ? WHERE name = 'boot'", (boot,))
    sql.close()


@pytest.mark.parametrize(("boot", "full", "same"), [("", False, True), ("x", False, False), ("x", True, True)])
async def test_a_new_epoch_begins_if_commits_may_be_gone(
    tmp_path: Path, boot: str, full: bool, same: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with store(tmp_path, full=full) as one:
        await one.put(draft("a"))
        epoch = one.broker.epoch
    closed_badly(tmp_path, boot or database.BOOT.read_text().strip())
    async with store(tmp_path) as two:
        assert (two.broker.epoch == epoch) is same
        assert ("a new epoch begins" in caplog.text) is not same
        assert [str(event.cursor) for event in await two.broker.read(0, 9)] == [f"{two.broker.epoch}:1"]
    async with store(tmp_path) as three:
        assert three.broker.epoch == two.broker.epoch


# ---- retention


async def test_the_file_gets_smaller(tmp_path: Path) -> None:
    def size() -> int:
        return (tmp_path / FILE).stat().st_size

    async with store(tmp_path) as it:
        for _ in range(10):
            await it.put(*(Draft("a:x", f"{i}", b'"%b"' % (b"x" * 10_000)) for i in range(100)))
    large = size()
    assert large > 10_000_000
    async with store(tmp_path, Limits(50, 2**26, 86400.0)) as it:
        await until(lambda: it.broker.tail == 951, "the trimming")
        await until(lambda: size() < large / 4, "the file's shrinking")
        assert len(await it.ids()) == 50


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    async with store(tmp_path, Limits(100, 2**20, 0.2)) as it:
        await it.put(draft("a", key="k"), draft("b"))
        await until(lambda: it.broker.tail == 3, "the end of their time")
        assert (await it.ids(), it.broker.bytes) == ([], 0)
    async with store(tmp_path) as it:
        assert (it.broker.head, it.broker.tail) == (2, 3)
        assert [kept.event.id for kept in await it.broker.last_values()] == ["a"]
        assert await it.put(draft("c")) == [3]


async def test_a_value_that_was_saved_and_set_again_is_the_new_one(tmp_path: Path) -> None:
    limits = Limits(2, 2**20, 86400.0)
    async with store(tmp_path, limits) as it:
        await it.put(draft("old", key="k"))
        await it.put(draft("b"), draft("c"))  # "old" goes, and is saved
    async with store(tmp_path) as it:
        await it.put(draft("new", key="k"))
    for _ in range(2):
        async with store(tmp_path, limits) as it:
            assert [(k.event.id, k.stale) for k in await it.broker.last_values()] == [("new", False)]
            await it.put(draft("d"), draft("e"))  # "new" goes, and takes the place of "old"


def stale(name: str, key: str, seq: int) -> Draft:
    """The end of the lease of the event `seq`."""
    return Draft("hub:stale", "s", json.dumps({"event": name, "key": key, "seq": seq}).encode())


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.tuples(st.sampled_from("klmno"), st.booleans()), max_size=30), cuts=st.sets(st.integers(0, 29)))
async def test_last_values_outlive_their_events(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, bool]], cuts: set[int]
) -> None:
    path = tmp_path_factory.mktemp("values")
    model, numbers = dict[str, tuple[str, bool]](), dict[str, int]()

    async def check() -> None:
        async with store(path, Limits(3, 2**20, 86400.0), items=3) as it:
            kept = [(k.event.key, (k.event.id, k.stale)) for k in await it.broker.last_values()]
            assert kept == list(model.items())

    context = store(path, Limits(3, 2**20, 86400.0), items=3)
    it = await context.__aenter__()
    for number, (key, ends) in enumerate(keys):
        if number in cuts:
            await context.__aexit__(None, None, None)
            await check()
            context = store(path, Limits(3, 2**20, 86400.0), items=3)
            it = await context.__aenter__()
        if ends and key in model:
            await it.put(stale("a:x", key, numbers[key]))
            model[key] = (model[key][0], True)
        else:
            [numbers[key]] = await it.put(draft(f"{number}", key=key))
            model.pop(key, None)
            model[key] = (f"{number}", False)
            if len(model) > 3:
                del model[next(iter(model))]
    await context.__aexit__(None, None, None)
    await check()


# ---- on to the disk


class Disk:
    """Stands in the way of fdatasync: holds it up until `go`, or makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.fails, self.rounds = threading.Event(), False, 0
        self.go.set()
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def fdatasync(self, descriptor: int) -> None:
        self.rounds += 1
        assert self.go.wait(5)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def passes(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_with_sync_full_nothing_goes_on_before_the_disk_has_it(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, full=True) as it:
        disk.go.clear()
        waiting = [asyncio.create_task(it.put(draft(f"{i}", given=True))) for i in range(3)]
        await passes()
        again = asyncio.create_task(it.put(draft("0", given=True)))  # known, but not on the disk yet
        more = [asyncio.create_task(it.put(draft(f"more {i}"))) for i in range(20)]
        await passes()
        assert not any(task.done() for task in (*waiting, again, *more))
        assert (it.pumped, await it.ids(), it.broker.head) == ([], [], 0)
        disk.go.set()
        assert [await task for task in waiting] == [[1], [2], [3]]
        assert await again == [1]
        assert [await task for task in more] == [[n] for n in range(4, 24)]
        assert disk.rounds <= 3  # not one for each
        assert [event.seq for event in it.pumped] == list(range(1, 24))


async def test_a_known_event_is_answered_when_the_disk_has_the_first(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, Limits(1, 2**20, 86400.0), full=True) as it:
        disk.go.clear()
        first = asyncio.create_task(it.put(draft("a", given=True), draft("b")))
        await until(lambda: disk.rounds == 1, "the first round")
        again = asyncio.create_task(it.put(draft("a", given=True)))
        await passes()
        assert not again.done()
        assert it.broker._database.tidy(it.broker.head) is False  # nothing goes that nobody has seen
        disk.go.set()
        assert (await first, await again) == ([1, 2], [1])
        assert len(it.batches) == 1


async def test_a_publisher_of_a_round_that_fails_may_have_gone(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with store(tmp_path, full=True) as it:
        disk.fails = True
        disk.go.clear()
        gone = asyncio.create_task(it.put(draft("a")))
        await passes()
        gone.cancel()
        await passes()
        disk.go.set()
        await until(lambda: it.broker.problem, "the failure")
        assert "events cannot be kept" in caplog.text
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [1]


async def test_without_sync_nothing_waits_for_the_disk(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        assert disk.rounds == 0


async def test_weakened_without_its_sync_events_would_go_on_too_early(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.Database, "sync", lambda self: None)
    disk.fails = True
    async with store(tmp_path, full=True) as it:
        assert await it.put(draft("a")) == [1]


async def test_what_did_not_reach_the_disk_is_refused_and_taken_back(tmp_path: Path, disk: Disk) -> None:
    async with store(tmp_path, full=True) as it:
        await it.put(draft("kept", key="k"))
        disk.fails = True
        disk.go.clear()
        refused = [asyncio.create_task(it.put(draft(f"{i}", given=True, key="k"))) for i in range(3)]
        await passes()
        refused += [asyncio.create_task(it.put(draft(f"late {i}"))) for i in range(3)]
        await passes()
        disk.go.set()
        errors = await asyncio.gather(*refused, return_exceptions=True)
        assert [(type(e), getattr(e, "code", "")) for e in errors] == [(HubError, "broker_unavailable")] * 6
        assert "Input/output error" in str(it.broker.problem)
        with pytest.raises(HubError):
            await it.put(draft("at once"))
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("0", given=True)) == [2]  # as if it had never come
        assert await it.ids() == ["kept", "0"]
    async with store(tmp_path) as two:
        assert await two.ids() == ["kept", "0"]
        assert [(k.event.key, k.event.id) for k in await two.broker.last_values()] == [("k", "kept")]


async def test_weakened_what_was_refused_would_come_back(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database.Database, "reopen", lambda self, head: None)
    async with store(tmp_path, full=True) as it:
        disk.fails = True
        with pytest.raises(HubError):
            await it.put(draft("refused"))
        disk.fails = False
        await until(lambda: it.broker.problem is None, "recovery")
    assert kept_in(tmp_path) == {1: "refused"}


def journal(folder: Path) -> int:
    return (folder / f"{FILE}-wal").stat().st_size


async def test_the_journal_is_brought_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 50)
    async with store(tmp_path) as it:
        for i in range(40):
            await asyncio.gather(*(it.put(draft(f"{i}.{j}")) for j in range(20)), passes())
            await until(lambda: it.broker._database.unsaved < 50, "the checkpoint")
        assert journal(tmp_path) < 4 * 50 * database.PAGE
        assert [event.seq for event in it.pumped] == list(range(1, 801))
        assert len(await it.ids()) == 800


async def test_weakened_the_journal_would_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 50)
    monkeypatch.setattr(SqliteBroker, "_checkpoint", lambda self: passes())
    async with store(tmp_path) as it:
        for i in range(800):
            await it.put(draft(f"{i}"))
        assert journal(tmp_path) > 4 * 50 * database.PAGE


async def test_a_journal_that_cannot_be_brought_in_only_grows(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.stream.brokers.sqlite.WAL_PAGES", 10)
    disk.fails = True
    async with store(tmp_path) as it:
        for i in range(30):
            await it.put(draft(f"{i}"))
        await until(lambda: "could not be brought into their file" in caplog.text, "the warning")
        assert it.broker.problem is None
        assert await it.put(draft("more")) == [31]


async def test_publishers_wait_in_order_while_the_file_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path) as it:
        go, real = threading.Event(), it.broker._database.checkpoint

        def checkpoint() -> None:
            assert go.wait(5)
            real()

        monkeypatch.setattr(it.broker._database, "checkpoint", checkpoint)
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(it.broker._file.locked, "the checkpoint")
        tasks = [asyncio.create_task(it.put(draft(f"{i}"))) for i in range(10)]
        reading = asyncio.create_task(it.ids())
        await passes()
        assert not any(task.done() for task in (*tasks, reading))
        go.set()
        assert [await task for task in tasks] == [[n] for n in range(1, 11)]
        assert await it.ids() == [f"{i}" for i in range(10)]
        await reading


# ---- what cannot be used


def spoiled(folder: Path) -> None:
    """Ended without a close, and somebody has written into the file."""
    with closing(sqlite3.connect(folder / FILE)) as sql:
        sql.execute("UPDATE meta SET value = 0 WHERE name = 'clean'")
        sql.commit()
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with (folder / FILE).open("r+b") as file:
        file.seek(3 * database.PAGE)
        file.write(b"\x07" * 2000)


def with_a_hole(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as sql:
        sql.execute("DELETE FROM events WHERE seq = 3")
        sql.commit()


@pytest.mark.parametrize(("spoil", "why"), [(spoiled, "age 4"), (with_a_hole, "numbers are missing")])
async def test_a_store_that_was_tampered_with_is_not_used(tmp_path: Path, spoil: Any, why: str) -> None:
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}", key=f"{i}") for i in range(50)))
    spoil(tmp_path)
    with pytest.raises(UsageError) as found:
        async with store(tmp_path):
            pass
    assert str(tmp_path / FILE) in str(found.value)
    assert why in str(found.value)
    assert "move it away" in str(found.value)


@pytest.mark.parametrize("spoil", ["text", "link", "held"])
async def test_a_start_that_cannot_be_is_one_sentence(tmp_path: Path, spoil: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    path, holder = tmp_path / FILE, None
    if spoil == "text":
        path.write_text("nothing that SQLite knows" * 100)
    elif spoil == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    else:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError) as found:
        await Hub(state_dir=tmp_path, port=0).start()
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)
    if holder:
        holder.close()
    status, _, _ = await run_hub(tmp_path, "audit", "verify", str(tmp_path))
    assert status == 0, "the audit log was left open"


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        assert modes(tmp_path) == {FILE: 0o600, f"{FILE}-wal": 0o600}


# ---- a disk that fails


class Failing(sqlite3.Connection):
    """A connection whose writes fail while `why` is set."""

    why = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Failing.why and sql.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN")):
            raise sqlite3.OperationalError(Failing.why)
        return super().execute(sql, *args)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def connect(path: Path, patience: float) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Failing)

    def fail(why: str) -> None:
        monkeypatch.setattr(Failing, "why", why)

    monkeypatch.setattr(database, "connect", connect)
    return fail


async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path, failing: Callable[[str], None]) -> None:
    body = {"event": "a:x", "data": 1}
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        assert (await hub.post("api/events", body)).status == 200
        failing("database or disk is full")
        error = (await hub.post("api/events", body)).refused(503, "broker_unavailable")
        assert error["retry_after"] == 1.0
        assert "disk is full" in error["error"]
        ready = await hub.get("readyz")
        assert ready.status == 503
        assert "disk is full" in ready.text
        page = (await hub.get("")).text
        assert "Events cannot be kept: database or disk is full. Until they can, publishing is refused." in page
        assert hub.counted("hub_broker_up") == 0
        failing("")
        await until(lambda: hub.counted("hub_broker_up") == 1, "recovery without a publisher")
        assert (await hub.get("readyz")).status == 200
        assert "cannot be kept" not in (await hub.get("")).text
        assert (await hub.post("api/events", body)).json["cursor"].endswith(":2")
        assert await client.numbers(2) == [1, 2]


async def test_a_store_that_cannot_be_read_turns_away_who_needs_it(tmp_path: Path) -> None:
    async with hub_app(tmp_path, window_events=30) as hub, talk(hub.url, "?topics=b:*") as level:
        await hub.publish(40)
        assert isinstance(hub.hub.broker, SqliteBroker)
        await hub.publish(1, "b:x")
        broadcaster = hub.hub.broadcaster  # 40 events between two flushes are more than this window: the store has them
        await until(lambda: broadcaster.position == hub.hub.cursor.seq and not broadcaster.lagging, "being level")
        hub.hub.broker._database._sql.close()
        behind = f"?after={hub.hub.cursor.epoch}:0"
        async with talk(hub.url, behind) as client:
            assert await client.end() == 1013
            assert client.events == []  # no gap: what it asked for is kept
        async with hub.http.get(hub.url + "events" + behind) as stream:
            with pytest.raises(ClientError):
                await stream.read()
        (await hub.get("api/events", after=f"{hub.hub.cursor.epoch}:0")).refused(503, "broker_unavailable")
        assert await level.numbers(1) == [41]  # it needs no store
        (await hub.post("api/events", {"event": "a:x", "data": 1})).refused(503, "broker_unavailable")
        await until(lambda: hub.hub.broker.problem is None, "recovery")
        async with talk(hub.url, behind) as client:
            assert await client.numbers(41) == list(range(1, 42))
        assert (await hub.post("api/events", {"event": "a:x", "data": 1})).json["cursor"].endswith(":42")


async def play(folder: Path) -> dict[int, str]:
    """A short life with everything in it: single and many, keys, known ids, trimming, a restart; what was answered."""
    answered: dict[int, str] = {}

    async def put(it: Store, *drafts: Draft) -> None:
        with contextlib.suppress(HubError):
            for number, one in zip(await it.put(*drafts), drafts, strict=True):
                assert answered.setdefault(number, one.id) == one.id, "a number given twice"

    for life in range(2):
        async with store(folder, Limits(20, 2**20, 86400.0)) as it:
            for i in range(6):
                await put(it, draft(f"{life}.{i}", given=i % 3 == 0, key=f"{i % 4}"))
                await put(it, draft(f"{life}.{i}", given=True))
                await put(it, *(draft(f"{life}.{i}.{j}") for j in range(3)))
                await put(it, stale("a:x", f"{i % 4}", it.broker.head - 4))
            await until(lambda it=it: it.broker.problem is None, "recovery")  # type: ignore[misc]
            assert [event.seq for event in it.pumped] == sorted({event.seq for event in it.pumped})
    return answered


async def test_every_statement_of_a_run_failing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite tests itself: whichever write fails, nothing that was answered is missing, and nothing hangs."""
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    counting = Counting(monkeypatch)
    await play(made(tmp_path / "sound"))
    total = counting.seen
    assert total > 100
    for number in range(1, total + 1):
        counting.start(number)
        assert await missing(made(tmp_path / str(number))) == {}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def missing(folder: Path) -> dict[int, str]:
    """What such a life has answered, and does not have."""
    try:
        answered = await play(folder)
    except UsageError:  # it was the start that failed
        return {}
    kept = kept_in(folder)
    tail = min(kept)
    assert sorted(kept) == list(range(tail, tail + len(kept)))
    assert len(kept) >= 20
    return {n: id for n, id in answered.items() if n >= tail and kept.get(n) != id}


async def test_weakened_what_was_not_written_would_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = database.Database._insert

    def hopeful(self: database.Database, rows: Any) -> None:
        with contextlib.suppress(sqlite3.Error):
            real(self, rows)

    monkeypatch.setattr(database.Database, "_insert", hopeful)
    counting = Counting(monkeypatch)
    await play(tmp_path)
    for number in range(counting.seen, 0, -1):
        counting.start(number)
        with contextlib.suppress(AssertionError):  # there is a hole among the numbers
            if not await missing(made(tmp_path / str(number))):
                continue
        return
    pytest.fail("nothing was missing")


class Counting:
    """Counts the statements that write, and lets the one with the number `fatal` fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(0)
        counting, plain = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                counting.count(sql)
                return super().execute(sql, *args)

            def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
                counting.count(sql)
                return super().executemany(sql, *args)

        def connect(path: Path, patience: float) -> sqlite3.Connection:
            return plain(path, isolation_level=None, check_same_thread=False, factory=Connection)

        monkeypatch.setattr(database, "connect", connect)

    def start(self, fatal: int) -> None:
        self.seen, self.fatal = 0, fatal

    def count(self, sql: str) -> None:
        if sql.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")):
            self.seen += 1
            if self.seen == self.fatal:
                raise sqlite3.OperationalError("disk I/O error")


async def test_trimming_that_fails_costs_no_publisher_its_answer(
    tmp_path: Path, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path, Limits(2, 2**20, 86400.0)) as it:
        await it.put(draft("a"), draft("b"))
        monkeypatch.setattr(it.broker._database, "_forget", lambda last: it.broker._database._sql.execute("BOGUS"))
        assert await it.put(draft("c")) == [3]
        assert "syntax error" in str(it.broker.problem)
        monkeypatch.undo()
        await until(lambda: it.broker.problem is None, "recovery")
        await until(lambda: it.broker.tail == 2, "the trimming")
        assert await it.ids() == ["b", "c"]


async def test_a_store_that_stays_away_is_tried_again(
    tmp_path: Path, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.stream.brokers.care.RETRY_SECONDS", 0.01)
    async with store(tmp_path) as it:
        tries: list[int] = []
        real = it.broker._database.reopen

        def reopen(head: int) -> None:
            tries.append(head)
            real(head)

        monkeypatch.setattr(it.broker._database, "reopen", reopen)
        failing("disk I/O error")
        with pytest.raises(HubError):
            await it.put(draft("a"))
        await until(lambda: len(tries) >= 3, "three tries")
        assert caplog.text.count("events cannot be kept") == 1  # told once
        failing("")
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [1]


async def test_much_at_once_is_trimmed_at_once(tmp_path: Path) -> None:
    async with store(tmp_path, Limits(10, 2**20, 86400.0)) as it:
        await it.put(*(draft(f"{i}") for i in range(3000)))
        assert (it.broker.head, it.broker.tail) == (3000, 2991)


async def test_what_lower_limits_leave_over_goes_in_steps(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}") for i in range(3000)))
    async with store(tmp_path, Limits(10, 2**20, 86400.0)) as it:
        await it.put(draft("more"))
        assert it.broker.tail < 1000  # not all in the step of one publisher
        await until(lambda: it.broker.tail == 2992, "the rest")


async def test_a_group_is_refused_as_one(tmp_path: Path, failing: Callable[[str], None]) -> None:
    async with store(tmp_path) as it:
        await it.put(draft("a"))
        failing("database or disk is full")
        await passes()
        it.broker._alone = 0  # it looks whether others come
        tasks = [asyncio.create_task(it.put(draft(f"{i}"))) for i in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in found] == [HubError] * 2 + [asyncio.CancelledError] + [HubError] * 2
        failing("")
        await until(lambda: it.broker.problem is None, "recovery")
        assert await it.put(draft("b")) == [2]


BROKERS: list[Callable[[Path], Broker]] = [
    lambda folder: MemoryBroker(100, 2**20),
    lambda folder: SqliteBroker(folder, PLENTY, 100),
]


@pytest.mark.parametrize("make", BROKERS)
async def test_a_closed_store_takes_nothing_more(tmp_path: Path, make: Callable[[Path], Broker]) -> None:
    it = Store(make(tmp_path))
    await it.broker.open(it.pump)
    for _ in range(2):
        await it.broker.close()
    with pytest.raises(HubError, match="stopping"):
        await it.put(draft("late"))


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


def test_an_unknown_broker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no broker for amqp:"):
        Hub(state_dir=tmp_path, broker="amqp://somewhere")


async def test_a_page_is_no_larger_than_asked_for(tmp_path: Path) -> None:
    async with store(tmp_path) as it:
        await it.put(*(draft(f"{i}") for i in range(20)))
        size = len(it.pumped[0])
        assert [e.seq for e in await it.broker.read(4, 100, 3 * size)] == [5, 6, 7]
        assert [e.seq for e in await it.broker.read(4, 2, 3 * size)] == [5, 6]
        assert [e.seq for e in await it.broker.read(4, 100, 1)] == [5]


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    async with hub_process(tmp_path) as hub:
        pid, (_, hard) = hub.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (400_000, hard))
        answered = await fill(hub)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        async with asyncio.timeout(5):
            while await publish(hub, "x") is None:
                await asyncio.sleep(0.05)
    assert kept_in(hub.state_dir).keys() >= set(answered)


async def fill(hub: HubProcess) -> list[int]:
    """Publish until it is refused; the numbers of what was not."""
    numbers = []
    while (number := await publish(hub, "x" * 20_000)) is not None:
        numbers.append(number)
        assert len(numbers) < 1000, "never refused"
    return numbers


async def publish(hub: HubProcess, data: str) -> int | None:
    async with hub.http.post(hub.url + "api/events", json={"event": "a:x", "data": data}) as response:
        answer = await response.json()
        assert response.status == 200 or answer["code"] == "broker_unavailable", answer
        return seq(answer) if response.status == 200 else None


def kept_in(state_dir: Path) -> dict[int, str]:
    sql = sqlite3.connect(state_dir / FILE)
    try:
        return dict(sql.execute("SELECT seq, id FROM events"))
    finally:
        sql.close()


# ---- kill -9


@pytest.mark.timeout(120)
async def test_nothing_that_was_answered_is_gone_after_kill_9(tmp_path: Path) -> None:
    answered: dict[int, str] = {}
    epochs = set()

    def enough(want: int) -> bool:
        return len(answered) >= want

    async def load(hub: HubProcess, stop: list[bool]) -> None:
        while not stop:
            try:
                async with hub.http.post(hub.url + "api/events", json={"event": "a:x", "data": 1}) as response:
                    answer = await response.json()
            except (ClientError, OSError):  # the hub is gone
                return
            epoch, _, number = answer["cursor"].rpartition(":")
            epochs.add(epoch)
            assert answered.setdefault(int(number), answer["ids"][0]) == answer["ids"][0], "a number given twice"

    for round in range(5):
        async with hub_process(tmp_path, "--rate", "0", status=-signal.SIGKILL) as hub:
            stop: list[bool] = []
            want = len(answered) + 60 + 37 * round
            tasks = [asyncio.create_task(load(hub, stop)) for _ in range(8)]
            await until(partial(enough, want), "the load")
            os.kill(hub.process.pid, signal.SIGKILL)
            await hub.ended()
            stop.append(True)
            await asyncio.gather(*tasks)
    kept = kept_in(tmp_path / "state")
    assert {number: kept.get(number) for number in answered} == answered
    assert sorted(kept) == list(range(1, len(kept) + 1))
    assert len(epochs) == 1


# ---- restart


async def test_everything_goes_on_across_a_restart(tmp_path: Path) -> None:
    progress = {"event": "task:progress", "data": {"id": "build", "progress": 40}, "ttl": 300}
    async with hub_app(tmp_path, keep_events=30) as hub:
        await hub.post("api/events", progress)
        await hub.post("api/events", {**progress, "data": {"id": "gone"}, "ttl": 0.05})
        await until(lambda: hub.hub.cursor.seq == 3, "hub:stale")
        await hub.publish(40)
        middle = f"{hub.hub.cursor.epoch}:35"
        state = (await hub.get("api/state")).json
        history = (await hub.get("api/events")).json
    async with hub_app(tmp_path, keep_events=30) as hub, talk(hub.url, f"?after={middle}") as client:
        assert await client.numbers(8) == list(range(36, 44))
        assert (await hub.get("api/state")).json == state
        assert [item["stale"] for item in state["items"]] == [False, True]
        assert (await hub.get("api/events")).json == history
        assert len(history["events"]) == 30
        assert hub.hub.retention()["max_events"] == 30
        assert (await hub.post("api/events", progress)).json["cursor"].endswith(":44")
        assert await client.numbers(1) == [44], "a stale item was announced again"
        lease = next(item for item in hub.hub.state._items.values() if item.expires)
        assert lease.event.seq == 44


async def test_a_lease_that_ended_while_the_hub_was_away_is_announced(tmp_path: Path) -> None:
    async with hub_app(tmp_path) as hub:
        await hub.hub.publish("task:progress", {"id": "short"}, ttl=1.0)
    with sqlite3.connect(tmp_path / FILE) as sql:
        sql.execute("UPDATE events SET timestamp = '2026-01-01T00:00:00.000Z'")
    sql.close()
    async with hub_app(tmp_path, keep_seconds=1e9) as hub:
        await until(lambda: hub.hub.cursor.seq == 2, "hub:stale")
        assert [item["stale"] for item in hub.hub.state.snapshot(EVERYTHING)] == [True]


# ---- without what protects it


async def test_what_is_not_committed_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store(tmp_path) as it:
        monkeypatch.setattr(database.Database, "_insert", lambda self, rows: None)
        assert await it.put(draft("a")) == [1]
    assert kept_in(tmp_path) == {}


async def test_a_planted_link_would_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "open_private", lambda path: os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    (tmp_path / "other").touch()
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    async with store(tmp_path) as it:
        await it.put(draft("a"))
    assert (tmp_path / "other").stat().st_size > 0


async def test_without_a_new_epoch_a_cursor_would_mean_two_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path) as one:
        await one.put(draft("a"), draft("b"))
        seen = str(one.pumped[-1].cursor)
    closed_badly(tmp_path, "the power failed")
    with sqlite3.connect(tmp_path / FILE) as sql:
        sql.execute("DELETE FROM events WHERE seq = 2")  # as a power failure takes a commit
    sql.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / FILE).write_bytes((tmp_path / FILE).read_bytes())
    async with store(tmp_path) as two:
        await two.put(draft("c"))
        assert str(two.pumped[-1].cursor) != seen
    (tmp_path / "boot").write_text("the power failed")
    monkeypatch.setattr(database, "BOOT", tmp_path / "boot")
    async with store(copy) as three:
        await three.put(draft("c"))
        assert str(three.pumped[-1].cursor) == seen
