"""The hub as an application holds it: what is registered, one start, one stop, nothing left of a start that fails."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from logs import Disk, actions, everything
from running import until

from hub import Call, Event, Hub
from hub.errors import HubError, UsageError
from hub.life import Life


def hub_in(state_dir: Path, **settings: Any) -> Hub:
    return Hub(port=0, state_dir=state_dir, **settings)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hub-")]


async def stands_open_to_the_next(state_dir: Path) -> None:
    """The lock, the threads and the files of a hub are free again."""
    assert threads() == []
    hub = hub_in(state_dir)
    await hub.start()
    assert hub.problems() == {}
    await hub.stop()


class TestLife:
    async def test_a_stop_without_a_start_is_harmless_and_a_start_may_follow(self, tmp_path: Path) -> None:
        hub = hub_in(tmp_path)
        await hub.stop()
        await hub.start()
        assert hub.problems() == {}
        await hub.stop()
        assert actions(tmp_path) == ["hub.started", "hub.stopped"]

    async def test_stops_side_by_side_and_one_after_the_other_are_one(self, tmp_path: Path) -> None:
        hub, told = hub_in(tmp_path), []

        async def on_stop(hub: Hub) -> None:
            await asyncio.sleep(0)
            told.append(1)

        hub.on_stop.append(on_stop)
        await hub.start()
        await asyncio.gather(hub.stop(), hub.stop(), hub.stop())
        await hub.stop()
        assert told == [1]
        assert actions(tmp_path) == ["hub.started", "hub.stopped"]
        assert "hub" in hub.problems()

    @pytest.mark.parametrize("stopped", [False, True])
    async def test_a_hub_runs_once(self, stopped: bool, tmp_path: Path) -> None:
        hub = hub_in(tmp_path)
        await hub.start()
        if stopped:
            await hub.stop()
        with pytest.raises(UsageError, match="make a new one"):
            await hub.start()
        assert (hub.problems() == {}) is not stopped  # the one that runs is not disturbed
        await hub.stop()
        await stands_open_to_the_next(tmp_path)

    async def test_a_stop_goes_on_although_who_waits_for_it_is_cancelled(self, tmp_path: Path) -> None:
        hub, gate, asked = hub_in(tmp_path), asyncio.Event(), asyncio.Event()

        async def on_stop(hub: Hub) -> None:
            asked.set()
            await gate.wait()

        hub.on_stop.append(on_stop)
        await hub.start()
        stopping = asyncio.create_task(hub.stop())
        await asked.wait()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        gate.set()
        await hub.stop()
        await stands_open_to_the_next(tmp_path)

    async def test_a_stop_waits_for_the_start_that_is_under_way(self, tmp_path: Path) -> None:
        hub, gate, asked = hub_in(tmp_path), asyncio.Event(), asyncio.Event()

        async def on_start(hub: Hub) -> None:
            asked.set()
            await gate.wait()

        hub.on_start.append(on_start)
        starting = asyncio.create_task(hub.start())
        await asked.wait()
        stopping = asyncio.create_task(hub.stop())
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(starting, stopping)
        assert "hub" in hub.problems()
        await stands_open_to_the_next(tmp_path)

    @pytest.mark.parametrize("passes", range(30))
    async def test_a_start_that_is_cancelled_at_any_await_undoes_itself(self, passes: int, tmp_path: Path) -> None:
        before = asyncio.all_tasks()
        hub = hub_in(tmp_path)
        starting = asyncio.create_task(hub.start())
        for _ in range(passes):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})
        await hub.stop()
        assert asyncio.all_tasks() == before
        await stands_open_to_the_next(tmp_path)

    @pytest.mark.parametrize("weakened", [False, True])
    async def test_a_step_of_a_stop_that_fails_holds_up_no_other(
        self, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = hub_in(tmp_path)
        await hub.start()
        close = hub.broker.close

        async def broken() -> None:
            await close()
            raise asyncio.CancelledError

        async def trusting(life: Life) -> None:
            while life._ends:
                await life._ends.pop()[1]()

        monkeypatch.setattr(hub.broker, "close", broken)
        if weakened:
            monkeypatch.setattr(Life, "_undo", trusting)
            with pytest.raises(asyncio.CancelledError):
                await hub.stop()
            assert threads() == ["hub-audit"]
            await hub.audit.stop()
        else:
            await hub.stop()
            assert everything(tmp_path)[-1]["action"] == "hub.stopped"
        await stands_open_to_the_next(tmp_path)

    async def test_a_store_that_cannot_be_used_leaves_the_directory_free(self, tmp_path: Path) -> None:
        (tmp_path / "events.sqlite").mkdir()
        with pytest.raises(UsageError, match=r"events\.sqlite"):
            await hub_in(tmp_path).start()
        (tmp_path / "events.sqlite").rmdir()
        await stands_open_to_the_next(tmp_path)

    async def test_a_second_hub_is_refused_and_takes_nothing_from_the_first(self, tmp_path: Path) -> None:
        first, second = hub_in(tmp_path), hub_in(tmp_path)
        await first.start()
        with pytest.raises(UsageError, match="Another hub"):
            await second.start()
        await second.stop()
        await first.publish("a:x", 1)
        assert first.problems() == {}
        await first.stop()

    @pytest.mark.parametrize("ephemeral", [True, False])
    async def test_a_full_disk_is_no_reason_not_to_start(
        self, ephemeral: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = Disk(monkeypatch)
        disk.full = True
        hub = hub_in(tmp_path, ephemeral=ephemeral)
        await hub.start()
        assert set(hub.problems()) == {"audit"}
        await hub.publish("a:x", 1)
        with pytest.raises(HubError, match="No space left"):
            await hub.audit.record("a", None, "SYSTEM", {})
        disk.full = False
        await until(lambda: hub.problems() == {}, "that it recovers")
        await hub.stop()
        await stands_open_to_the_next(tmp_path)


class TestWhatAnApplicationAdds:
    @pytest.mark.parametrize("name", ["hub:own", "audit:own", "own", "a:b"])
    async def test_a_name_that_is_reserved_or_bad_or_taken(self, name: str, tmp_path: Path) -> None:
        hub = hub_in(tmp_path)

        async def handler(call: Call) -> None:
            """Do nothing."""

        hub.command("a:b")(handler)
        with pytest.raises(ValueError, match=name):
            hub.command(name)(handler)

    async def test_background_work_that_is_added_while_the_hub_runs(self, tmp_path: Path) -> None:
        hub, seen = hub_in(tmp_path), []

        async def work(name: str) -> None:
            seen.append(f"{name} begins")
            try:
                await asyncio.Event().wait()
            finally:
                await hub.publish("a:last", name)  # what it has to say at its end is still heard
                seen.append(f"{name} ends")

        async def on_event(event: Event) -> None:
            seen.append(event.data)

        hub.on("a:last")(on_event)
        hub.spawn(lambda: work("first"))
        await hub.start()
        hub.spawn(lambda: work("second"))
        await until(lambda: len(seen) == 2)
        await hub.stop()
        assert sorted(seen[:2]) == ["first begins", "second begins"]
        assert sorted(seen[2:]) == ["first", "first ends", "second", "second ends"]

    @pytest.mark.parametrize(("name", "why"), [("no.such.module", "No module"), ("json", "no setup")])
    async def test_what_cannot_be_loaded(self, name: str, why: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=why):
            hub_in(tmp_path).load(name)

    async def test_settings_or_a_config_and_nothing_else(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="max_frame"):
            hub_in(tmp_path, max_frame=-1)


async def test_what_an_application_reads_of_a_hub(tmp_path: Path) -> None:
    hub = hub_in(tmp_path)
    hub.event_type("orders:placed", key="order")
    await hub.start()
    published = await hub.publish("orders:placed", {"order": 7}, id="mine")
    assert (published.ids, published.cursor) == (["mine"], hub.cursor)
    assert hub.snapshot()["items"][0]["key"] == "7"
    assert hub.snapshot()["cursor"] == str(hub.cursor)
    assert hub.retention()["events"] == 1
    assert hub.uptime > 0
    await hub.stop()
