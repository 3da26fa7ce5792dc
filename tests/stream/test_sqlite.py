"""The store on disk: what is answered is kept, in order, for whoever is still there."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from running import until
from stores import draft, kept_in, passes, store

from hub.errors import HubError
from hub.stream.brokers import database
from hub.stream.events import Draft


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
        assert two.broker.bytes == sum(event.size for event in before)
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


async def test_publishers_wait_in_order_while_the_file_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store(tmp_path) as it:
        begun, go, real = threading.Event(), threading.Event(), it.broker._database.checkpoint

        def checkpoint() -> None:
            begun.set()
            assert go.wait(30)
            real()

        monkeypatch.setattr(it.broker._database, "checkpoint", checkpoint)
        it.broker._database.unsaved = 10**6
        it.broker._care.soon()
        await until(begun.is_set, "the checkpoint")
        tasks = [asyncio.create_task(it.put(draft(f"{i}"))) for i in range(10)]
        reading = asyncio.create_task(it.ids())
        await passes()
        assert not any(task.done() for task in (*tasks, reading))
        go.set()
        assert [await task for task in tasks] == [[n] for n in range(1, 11)]
        assert await it.ids() == [f"{i}" for i in range(10)]
        await reading


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


async def test_what_is_not_committed_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store(tmp_path) as it:
        monkeypatch.setattr(database.Database, "_insert", lambda self, rows: None)
        assert await it.put(draft("a")) == [1]
    assert kept_in(tmp_path) == {}
