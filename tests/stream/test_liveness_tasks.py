"""Tasks that name their process themselves fail with it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from herds import agent, failed, herd, kill, of_task, publish, settled, stopped, task
from running import HubInside, hub_app

from hub.stream import pidfile


@pytest.fixture
async def pids() -> AsyncIterator[list[int]]:
    async with herd(4) as found:
        yield found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


async def test_a_task_whose_process_ends_has_failed(hub: HubInside, pids: list[int]) -> None:
    same = float(pids[0])  # is an integer, too, for JSON Schema
    await publish(hub, task("t", pid=pids[0], name="make"), task("u", pid=same, status="queued"), task("v"))
    await publish(hub, task("t", message="a line", name="make"))  # a later one without it keeps the watch
    kill(pids[0])
    await failed(hub)
    await failed(hub, "u")
    found = of_task(hub)
    assert found.pop("ended_at")
    assert found == {
        "id": "t",
        "agent": "a",
        "status": "failed",
        "name": "make",
        "message": "a line",
        "error": "process ended",
    }
    assert "pid" not in of_task(hub, "u")
    assert of_task(hub, "v")["status"] == "running"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_a_task_that_has_ended_is_waited_for_no_more(hub: HubInside, pids: list[int], status: str) -> None:
    await publish(hub, task("t", pid=pids[0]))
    assert len(hub.hub.liveness) == 1
    await publish(hub, task("t", status=status, pid=pids[0]))
    assert len(hub.hub.liveness) == 0
    await publish(hub, task("t"))  # anew, by somebody else
    kill(pids[0])
    await settled(hub)
    assert of_task(hub)["status"] == "running"


async def test_an_agent_and_its_task_with_the_same_process_end_once(hub: HubInside, pids: list[int]) -> None:
    await publish(hub, agent(pid=pids[0]), task("t", pid=pids[0]))
    before = hub.hub.cursor.seq
    kill(pids[0])
    await stopped(hub)
    await failed(hub)
    await settled(hub)
    names = [event.key for event in hub.hub.window.events() if event.seq > before and event.name == "task:progress"]
    assert names == ["t"]


async def test_a_task_of_another_publisher_is_not_believed(hub: HubInside, pids: list[int]) -> None:
    for uid in (None, os.geteuid() + 1):
        await hub.hub.accept([task("t", pid=pids[0])], uid)
    assert len(hub.hub.liveness) == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_task_whose_process_ended_while_the_hub_was_down(
    tmp_path: Path, pids: list[int], weakened: bool
) -> None:
    async with hub_app(tmp_path) as hub:
        await publish(hub, task("t", pid=pids[0]), task("lives", pid=pids[1]), task("over", pid=pids[0]))
        await publish(hub, task("over", status="succeeded"))
    if weakened:
        (tmp_path / pidfile.FILE).unlink()
    kill(pids[0])
    async with hub_app(tmp_path) as hub:
        if not weakened:
            await failed(hub)
        await settled(hub)
        statuses = [of_task(hub, id)["status"] for id in ("t", "lives", "over")]
        assert statuses == ["running" if weakened else "failed", "running", "succeeded"]
