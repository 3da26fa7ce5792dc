"""A whole hub on its store: a disk that is full, a file that may not grow, kill -9, a restart."""

import asyncio
import os
import resource
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientError
from running import HubProcess, hub_app, hub_process, seq, talk, until
from stores import kept_in

from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.wire.names import EVERYTHING


async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path, failing: Callable[[str], None]) -> None:
    body = {"event": "a:x", "data": 1}
    async with hub_app(tmp_path) as hub, talk(hub.url) as client:
        assert (await hub.post("api/events", body)).status == 200
        assert "cannot be kept" not in (await hub.get("")).text  # what is drawn now is drawn anew below
        failing("database or disk is full")
        error = (await hub.post("api/events", body)).refused(503, "broker_unavailable")
        assert error["retry_after"] == 1.0
        assert "disk is full" in error["error"]
        ready = await hub.get("readyz")
        assert ready.status == 503
        assert "disk is full" in ready.text
        page = (await hub.get("")).text
        assert "Events cannot be kept: database or disk is full." in page
        assert "1 problem" in page
        assert hub.counted("hub_broker_up") == 0
        failing("")
        await until(lambda: hub.counted("hub_broker_up") == 1, "recovery without a publisher")
        assert (await hub.get("readyz")).status == 200
        while "cannot be kept" in (await hub.get("")).text:  # it is drawn once a second at most
            await asyncio.sleep(0.05)
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
        [(_, lease)] = hub.hub.state._leases._running.values()
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
