"""A Redis that comes back: with everything, with less, with nothing, with other events. Nobody is left to believe that
nothing was lost."""

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import DURABLE, Engine, engine, redis_program, weakened_library
from running import HubInside, Start, starting, talk, until

from hub.stream.brokers import link
from hub.stream.brokers.link import Link
from hub.stream.brokers.redis import RedisBroker

pytestmark = pytest.mark.once


@pytest.fixture
def server() -> Iterator[Engine]:
    with engine(redis_program(), *DURABLE) as found:
        yield found


@pytest.fixture
async def start(server: Engine, tmp_path: Path) -> AsyncIterator[Start]:
    async with starting(tmp_path, server.url()) as found:
        yield found


def epoch(hub: HubInside) -> str:
    return hub.hub.broker.epoch


async def there_again(*hubs: HubInside) -> None:
    await until(lambda: all(hub.hub.broker.problem is None for hub in hubs), "the broker")


async def comes_back(server: Engine, *hubs: HubInside) -> None:
    """Start the server that was killed, and wait for the hubs."""
    before = [epoch(hub) for hub in hubs]
    server.start()
    await until(lambda: all(epoch(hub) != was for hub, was in zip(hubs, before, strict=True)), "another epoch")


def gap(frame: dict[str, Any]) -> dict[str, Any]:
    assert frame["payload"]["event"] == "hub:gap", frame
    return dict(frame["payload"]["data"])


async def test_a_restart_that_lost_nothing_shows_nobody_a_gap(server: Engine, start: Start) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(5)
    async with talk(one.url) as live, talk(two.url, "?topics=b:*") as narrow:
        await narrow.call("hub:ping")
        await live.call("hub:ping")
        old = epoch(one)
        server.kill()
        await comes_back(server, one, two)
        assert epoch(one) == epoch(two)  # they have seen one loss, and made one epoch of it
        await one.publish(1, "b:x")
        for client in (live, narrow):
            frame = await client.event()
            assert (frame["cursor"], frame["payload"]["event"]) == (f"{epoch(one)}:6", "b:x")
        async with talk(two.url, f"?after={old}:3") as back:
            assert await back.numbers(3) == [4, 5, 6]
        async with talk(two.url, f"?after={old}:6") as beyond:
            assert gap(await beyond.event())["reason"] == "epoch"


async def test_what_a_cut_file_has_lost_is_told_to_those_who_saw_it(server: Engine, start: Start) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(3)
    whole = server.file.stat().st_size
    async with talk(one.url) as beyond, talk(two.url, f"?after={epoch(two)}:0") as other:
        assert await other.numbers(3) == [1, 2, 3]
        await one.hub.publish("task:progress", {"id": "t"})
        await one.publish(1)
        for client in (beyond, other):
            assert await client.numbers(2) == [4, 5]
        old = epoch(one)
        server.kill()
        with server.file.open("r+b") as file:
            file.truncate(whole)
        await comes_back(server, one, two)
        assert epoch(one) == epoch(two)
        assert one.hub.cursor.seq == 3
        assert one.hub.state.get("task:progress", "t") is None
        for client in (beyond, other):
            told = gap(await client.event())
            at = f"{old}:5"
            assert told == {"after": at, "before": f"{epoch(one)}:4", "count": None, "reason": "epoch"}
        await two.publish(1)
        for client in (beyond, other):
            assert (await client.event())["cursor"] == f"{epoch(one)}:4"
        async with talk(one.url, f"?after={old}:2") as within:
            assert await within.numbers(2) == [3, 4]


async def test_an_emptied_server_is_told_within_two_seconds(server: Engine, start: Start) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(3)
    async with talk(one.url) as live, talk(two.url) as other:
        for client in (live, other):
            await client.call("hub:ping")
        old = epoch(one)
        server.ask("FLUSHALL")
        await until(lambda: epoch(one) == epoch(two) != old, "another epoch")
        for client in (live, other):
            told = gap(await client.event())
            assert (told["after"], told["before"], told["reason"]) == (f"{old}:3", f"{epoch(one)}:1", "epoch")
        await one.publish(2)
        for client in (live, other):
            assert await client.numbers(2) == [1, 2]


async def test_a_publish_finds_an_emptied_server_out_and_is_kept(server: Engine, start: Start) -> None:
    one = await start()
    await one.publish(3)
    server.ask("FLUSHALL")
    published = await one.hub.publish("a:x", 1)
    assert (published.cursor.seq, published.cursor.epoch) == (1, epoch(one))


async def test_a_copy_that_was_put_back_is_told(server: Engine, start: Start, tmp_path: Path) -> None:
    one = await start()
    await one.publish(3)
    shutil.copytree(server.folder / "appendonlydir", tmp_path / "copy")
    server.restart()
    await until(lambda: one.hub.broker.lineage)
    await one.publish(3)
    old = epoch(one)
    async with talk(one.url, f"?after={old}:0") as client:
        assert await client.numbers(6) == [1, 2, 3, 4, 5, 6]
        server.kill()
        shutil.rmtree(server.folder / "appendonlydir")
        shutil.copytree(tmp_path / "copy", server.folder / "appendonlydir")
        await comes_back(server, one)
        told = gap(await client.event())  # its epoch is not known there any more: it gets everything
        assert (told["after"], told["before"], told["reason"]) == (f"{old}:6", f"{epoch(one)}:1", "epoch")
        assert await client.numbers(3) == [1, 2, 3]


async def test_the_library_that_was_taken_away_comes_back(server: Engine, start: Start) -> None:
    one = await start()
    await one.publish(1)
    server.ask("FUNCTION", "FLUSH")
    await one.publish(2)
    assert [event.seq for event in one.hub.window.events()] == [1, 2, 3]


async def test_weakened_a_hub_that_does_not_look_would_not_notice(
    server: Engine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def blind(self: RedisBroker, link: Link) -> None:
        nonlocal looks
        looks += 1
        self._look_at = time.monotonic() + 0.01

    monkeypatch.setattr(RedisBroker, "_look", blind)
    one = await start()
    await one.publish(3)
    old = epoch(one)
    async with talk(one.url) as client:
        server.ask("FLUSHALL")
        seen = looks
        await until(lambda: looks > seen + 5)
        await client.call("hub:ping")
        assert (client.events, epoch(one)) == ([], old)


# ---- one loss, seen by several


async def lose_the_tail(server: Engine, *hubs: HubInside) -> None:
    """Take the newest event away, as a replica does that has become the master without it, under the same run."""
    server.ask("XDEL", "{hub}:e", "5-0")
    server.ask("EVAL", "redis.call('XTRIM', KEYS[1], 'MAXLEN', 4)", 1, "{hub}:e")
    server.ask("XSETID", "{hub}:e", "4-0")
    server.ask("HSET", "{hub}:m", "seq", "4")
    for hub in hubs:
        hub.hub.broker._link.close()  # type: ignore[attr-defined]


async def epochs_after_a_loss(server: Engine, one: HubInside, two: HubInside) -> int:
    """How many epochs two hubs make of what both have seen go."""
    await one.publish(5)
    await until(lambda: two.hub.cursor.seq == 5)
    old = epoch(one)
    await lose_the_tail(server, one)
    await until(lambda: epoch(one) != old)
    two.hub.broker._link.close()  # type: ignore[attr-defined]
    await until(lambda: epoch(two) != old)
    await one.publish(1)
    await until(lambda: one.hub.broker.head == two.hub.broker.head == 5)
    return len(two.hub.broker.lineage)


async def test_one_loss_is_one_epoch(server: Engine, start: Start) -> None:
    assert await epochs_after_a_loss(server, await start("one"), await start("two")) == 1


async def test_weakened_each_witness_would_make_one(
    server: Engine, start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(link, "resources", weakened_library(tmp_path, "if mine ~= found.epoch then", "if false then"))
    assert await epochs_after_a_loss(server, await start("one"), await start("two")) == 2
