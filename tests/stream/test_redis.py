"""Several hubs on one Redis: one stream, of which everybody gets the same."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engines import Engine
from running import HubInside, Start, run_hub, seq, talk, until

from hub.config import Config
from hub.errors import UsageError
from hub.stream.brokers import redis as module
from hub.stream.brokers.connection import Connection
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Server
from hub.wire.names import Cursor


async def test_clients_of_two_hubs_get_the_same_bytes(start: Start) -> None:
    one, two = await start("one"), await start("two")
    async with talk(one.url) as first, talk(two.url) as second:
        for number in range(20):
            await (one, two)[number % 2].hub.publish("a:x", {"n": number})
        frames = [[await client.event() for _ in range(20)] for client in (first, second)]
    assert frames[0] == frames[1]
    assert [frame["payload"]["data"]["n"] for frame in frames[0]] == list(range(20))
    assert [seq(frame) for frame in frames[0]] == list(range(1, 21))


async def test_a_hub_that_comes_later_has_what_was_there(start: Start) -> None:
    one = await start("one")
    await one.publish(30)
    await one.hub.publish("task:progress", {"id": "t", "status": "running"}, ttl=1000)
    two = await start("two", window_events=10)
    assert (two.hub.window.tail, two.hub.window.head) == (22, 31)
    assert [event.json for event in two.hub.window.events()] == [event.json for event in one.hub.window.between(21, 31)]
    assert two.hub.snapshot() == one.hub.snapshot()
    epoch = one.hub.cursor.epoch
    async with talk(two.url, f"?after={epoch}:5") as client:
        assert await client.numbers(26) == list(range(6, 32))
        await one.publish(1)
        assert await client.numbers(1) == [32]


async def test_an_id_is_recognised_by_every_hub(start: Start) -> None:
    one, two = await start("one"), await start("two")
    first = await one.hub.publish("a:x", 1, id="once")
    again = await two.hub.publish("a:x", 1, id="once")
    assert (first.cursor, first.accepted, again.cursor, again.duplicates) == (again.cursor, 1, first.cursor, 1)


async def test_what_several_hubs_have_counted_adds_up(start: Start) -> None:
    """Each event is counted once, by the hub that it was published to."""
    hubs = one, two = await start("one"), await start("two")
    await one.hub.publish("a:x", 1, id="once")
    await two.hub.publish("a:x", 1, id="once")
    await two.hub.publish("task:progress", {"id": "t", "status": "running"}, ttl=0.05)
    await until(lambda: all(hub.hub.state.is_stale("task:progress", "t") for hub in hubs))
    await until(lambda: sum(hub.counted("hub_events_total", "other") for hub in hubs) == 2, "a:x and hub:stale")
    assert [hub.counted("hub_events_total", "task:progress") for hub in hubs] == [0, 1]
    assert [hub.counted("hub_history_events") for hub in hubs] == [3, 3]


async def test_the_end_of_a_lease_is_said_once_by_all_hubs(start: Start) -> None:
    hubs = [await start(name) for name in ("one", "two", "three")]
    await hubs[0].hub.publish("a:x", 1, id="stale-2")  # nobody can keep it from us
    await hubs[0].hub.publish("task:progress", {"id": "t", "status": "running"}, ttl=0.05)
    await until(lambda: all(hub.hub.state.is_stale("task:progress", "t") for hub in hubs))
    await hubs[1].hub.publish("a:y", 1)
    await until(lambda: all(hub.hub.cursor.seq >= 4 for hub in hubs))
    for hub in hubs:
        assert [event.name for event in hub.hub.window.events()] == ["a:x", "task:progress", "hub:stale", "a:y"]
    fourth = await start("four")
    assert fourth.hub.state.is_stale("task:progress", "t")


async def test_the_url_is_never_told(tmp_path: Path) -> None:
    secret = "redis://somebody:oh-so-secret@127.0.0.1:1"
    assert "secret" not in repr(Config(broker=secret))
    file = tmp_path / "url"
    file.write_text(f"{secret}\n")
    file.chmod(0o600)
    status, out, err = await run_hub(tmp_path, "--port", "0", "--broker-file", str(file), "--state-dir", "state")
    assert (status, out) == (2, "")
    assert "127.0.0.1:1 cannot be reached" in err
    assert "secret" not in err
    assert "somebody" not in err
    status, out, err = await run_hub(tmp_path, "--broker", secret)
    assert (status, "HUB_BROKER" in err, "secret" in err) == (2, True, False)


@pytest.mark.parametrize("url", ["redis://[", "redis://host:port", "unix:///s?prefix", "redis://h?no=such"])
async def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="URL of the broker"):
        await Connection.make(Server(url))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        Config(broker_file=str(tmp_path / "none"))


# ---- clients that go from hub to hub


def lag(hub: HubInside, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a hub lag behind the stream, until the gate is open."""
    broker: Any = hub.hub.broker
    hand_on = broker._hand_on

    async def late(rows: Any) -> None:
        await gate.wait()
        await hand_on(rows)

    monkeypatch.setattr(broker, "_hand_on", late)


async def test_a_hub_that_lags_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await start("one"), await start("two")
    gate = asyncio.Event()
    lag(two, gate, monkeypatch)
    await one.publish(3)
    cursor = str(one.hub.cursor)
    asked = [
        asyncio.create_task(two.get("api/events", after=cursor)),
        asyncio.create_task(two.get("api/state", after=cursor)),
    ]
    async with talk(one.url) as client:
        await client.call("hub:ping")
    assert not any(task.done() for task in asked)
    assert two.hub.cursor.seq == 0
    gate.set()
    assert {(await task).status for task in asked} == {200}
    async with talk(two.url, f"?after={cursor}") as client:
        await one.publish(1)
        assert await client.numbers(1) == [4]
        beyond = await two.get("api/events", after=f"{cursor[:8]}:5")
        beyond.refused(400, "unknown_cursor")


async def test_a_hub_that_lags_too_long_is_unavailable(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await start("one"), await start("two")
    gate = asyncio.Event()
    lag(two, gate, monkeypatch)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    await one.publish(1)
    (await two.get("api/events", after=str(one.hub.cursor))).refused(503, "broker_unavailable")
    gate.set()


async def test_weakened_a_client_that_moves_would_be_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(self: RedisBroker, cursor: Cursor) -> None:
        pass

    monkeypatch.setattr(RedisBroker, "reach", at_once)
    one, two = await start("one"), await start("two")
    gate = asyncio.Event()
    lag(two, gate, monkeypatch)
    await one.publish(1)
    (await two.get("api/events", after=str(one.hub.cursor))).refused(400, "unknown_cursor")
    gate.set()


async def test_an_epoch_that_a_hub_has_not_learned_is_asked_for(
    start: Start, redis_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start("one"), await start("two")
    await one.publish(3)
    await until(lambda: two.hub.cursor.seq == 3)
    gate, broker = asyncio.Event(), two.hub.broker
    look = broker._look

    async def late(link: Any) -> None:
        await gate.wait()
        await look(link)

    monkeypatch.setattr(broker, "_look", late)
    server, old = one.hub.broker.server, one.hub.cursor.epoch
    redis_engine.ask("HSET", server.keys[1], "run", "another")
    one.hub.broker._link.close()
    await until(lambda: one.hub.cursor.epoch != old)
    asking = asyncio.create_task(two.get("api/events", after=str(one.hub.cursor)))
    async with talk(one.url) as client:
        await client.call("hub:ping")
    assert not asking.done()
    gate.set()
    assert (await asking).status == 200
    assert two.hub.cursor == one.hub.cursor


async def test_a_hub_that_was_given_a_name_has_it_in_its_log_and_among_the_others(start: Start) -> None:
    hub = await start("one", hub_id="attic.1")
    [record] = await hub.records("hub.started")
    assert record["details"]["hub_id"] == "attic.1"
    assert hub.hub.broker.peers
    assert hub.hub.broker.peers.id.startswith("attic.1-")


@pytest.mark.parametrize("name", ["a b", "x" * 65, "{a}", "a:b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="hub_id must be up to 64"):
        Config(hub_id=name)
