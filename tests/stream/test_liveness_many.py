"""Thousands of agents that end together: each is told of once, with its tasks, and everybody else is served between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, until

from hub.stream import liveness, tasks
from hub.stream.events import Event
from hub.stream.liveness import Liveness
from hub.stream.passes import REST, Passes
from hub.stream.pidfile import STATUS

AGENTS, LEFT = 600, 3  # and tasks of each


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


@contextlib.asynccontextmanager
async def process() -> AsyncIterator[asyncio.subprocess.Process]:
    found = await asyncio.create_subprocess_exec("sleep", "1000")
    try:
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            found.kill()
        await found.wait()


async def publish(hub: HubInside, event: str, *data: dict[str, Any]) -> None:
    for at in range(0, len(data), 1000):
        answer = await hub.post("api/events", [{"event": event, "data": each} for each in data[at : at + 1000]])
        assert answer.status == 200, answer.text


async def agents(hub: HubInside, pid: int, count: int = 1) -> None:
    of = [{"id": f"a{n}", "status": "active", "pid": pid} for n in range(count)]
    await publish(hub, STATUS, *of)


def statuses(hub: HubInside, event: str) -> set[str | None]:
    return {each.data.get("status") for each in hub.hub.state.of(event)}


@pytest.mark.parametrize("weakened", [None, "turn", "look"])
async def test_all_end_in_turns_with_others_and_each_task_is_looked_at_once(
    tmp_path: Path, weakened: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hub_app(tmp_path, ephemeral=True) as hub:  # of a disk it would be counted how long it takes
        await all_end_in_turns(hub, weakened, monkeypatch)


async def all_end_in_turns(hub: HubInside, weakened: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, passes, take, end = 0, 0, tasks.OpenTasks._take, Liveness._end

    def counted(found: tasks.OpenTasks, event: Event, task: str) -> int:
        nonlocal looked
        looked += 1
        return take(found, event, task)

    async def at_once(passes: Passes, *, begun: bool = False) -> None:
        """Nobody else is served before this."""

    async def anew(living: Liveness, found: tasks.OpenTasks) -> None:
        await end(living, tasks.OpenTasks(hub.hub.state))

    monkeypatch.setattr(tasks.OpenTasks, "_take", counted)
    if weakened == "turn":
        monkeypatch.setattr(Passes, "turn", at_once)
    if weakened == "look":
        monkeypatch.setattr(Liveness, "_end", anew)
    async with process() as one:
        await agents(hub, one.pid, AGENTS)
        of = ({"id": f"t{n}", "agent": f"a{n % AGENTS}", "status": "running"} for n in range(AGENTS * LEFT))
        await publish(hub, tasks.EVENT, *of)
    while len(hub.hub.liveness):
        passes += bool(hub.hub.liveness._over)
        await asyncio.sleep(0)
    assert statuses(hub, STATUS) == {"stopped"}
    assert statuses(hub, tasks.EVENT) == {"failed"}
    assert hub.hub.cursor.seq == 2 * AGENTS * (1 + LEFT), "each is told of once"
    batches = AGENTS * (1 + LEFT) / liveness.AT_ONCE
    assert (passes >= batches * REST) is (weakened != "turn")
    assert (looked <= 2 * AGENTS * LEFT) is (weakened != "look")


RUNS = {
    "says nothing": [{}],
    "once said running": [{"status": "running"}, {"progress": 50}],
    "has begun anew": [{"status": "failed"}, {"message": "Again"}],
}


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("said", RUNS.values(), ids=RUNS.keys())
async def test_a_task_that_does_not_say_what_it_does_runs_and_fails_with_its_agent(
    hub: HubInside, said: list[dict[str, Any]], count: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many end at once; and one that comes late, too."""
    if weakened:
        for module in (tasks, liveness):
            monkeypatch.setattr(module, "is_open", lambda task: task.get("status") in tasks.OPEN)
    async with process() as one:
        await agents(hub, one.pid, count)
        await publish(hub, tasks.EVENT, *({"id": "t", "agent": "a0", **each} for each in said))
    await until(lambda: statuses(hub, STATUS) == {"stopped"} and not len(hub.hub.liveness))
    assert (statuses(hub, tasks.EVENT) == {"failed"}) is not weakened
    for late in said:
        await publish(hub, tasks.EVENT, {"id": "late", "agent": "a0", **late})
    if weakened:
        assert statuses(hub, tasks.EVENT) == {None}
    else:
        await until(lambda: statuses(hub, tasks.EVENT) == {"failed"}, "the end of the late one")


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_comes_long_behind_an_agents_end_does_not_end_with_it(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of whom there was an end is not known for ever."""
    monkeypatch.setattr(liveness, "LATE_SECONDS", 1e9 if weakened else 0.0)
    async with process() as one:
        await agents(hub, one.pid, 3)
    await until(lambda: statuses(hub, STATUS) == {"stopped"} and not len(hub.hub.liveness))
    await publish(hub, tasks.EVENT, {"id": "later", "agent": "a2", "status": "running"})
    if weakened:
        await until(lambda: statuses(hub, tasks.EVENT) == {"failed"})
    else:
        assert (statuses(hub, tasks.EVENT), hub.hub.liveness._gone) == ({"running"}, {})


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**63, 10**19])
async def test_what_is_no_number_of_a_process_is_refused(hub: HubInside, pid: int) -> None:
    """Nothing would ever end such an agent."""
    record = {"event": STATUS, "data": {"id": "a", "status": "active", "pid": pid}}
    details = (await hub.post("api/events", record)).refused(422, "invalid_message")["details"]
    assert details == {"data": {"pid": ["Must be greater than or equal to 1 and less than or equal to 2147483647."]}}


async def test_a_hook_without_one_is_taken(hub: HubInside) -> None:
    body = b'{"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": "Go"}'
    assert (await hub.post("hooks/claude-code", body, {"Hub-Pid": "0"})).status == 200
    assert statuses(hub, STATUS) == {"active"}
