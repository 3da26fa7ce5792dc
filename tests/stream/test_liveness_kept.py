"""The processes are known across a restart of the hub, and end nobody else's: killed while it does not run."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from herds import agent, herd, kill, publish, settled, status, stopped, task, value
from running import HubInside, hub_app, hub_process, until

from hub import processes
from hub.processes import FIRST_NAMESPACE
from hub.stream import liveness, pidfds, pidfile


@pytest.fixture
async def pids() -> AsyncIterator[list[int]]:
    async with herd(4) as found:
        yield found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


async def test_another_process_with_the_same_number_is_another(tmp_path: Path, pids: list[int]) -> None:
    """As if the number had been given out again while the hub was down."""
    async with hub_app(tmp_path) as hub:
        await publish(hub, agent(pid=pids[0]))
    file = tmp_path / pidfile.FILE
    (told,) = map(json.loads, file.read_text().splitlines())
    file.write_text(json.dumps(told | {"started": told["started"] - 1}) + "\n")
    async with hub_app(tmp_path) as hub:
        await stopped(hub)


async def test_weakened_the_number_alone_would_do(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "is_running", lambda known: True)
    monkeypatch.setattr(pidfds, "is_running", lambda known: True)
    async with hub_app(tmp_path) as hub:
        await publish(hub, agent(pid=pids[0]))
    file = tmp_path / pidfile.FILE
    file.write_text(file.read_text().replace('"started": ', '"started": 1'))
    async with hub_app(tmp_path) as hub:
        await settled(hub)
        assert status(hub) == "active"


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_hub_that_goes_into_a_container_takes_nobody_living_for_dead(
    tmp_path: Path,
    pids: list[int],
    is_gone: bool,
    weakened: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hub_app(tmp_path) as hub:
        await publish(hub, agent(pid=pids[0]), agent("other", pid=pids[1]))
    file = tmp_path / pidfile.FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # As if noted outside of all containers, or in one that has ended: in this one the numbers are of nobody.
    told = [line | {"namespace": 1 if is_gone else FIRST_NAMESPACE, "started": 1} for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in told))
    monkeypatch.setattr(pidfile, "namespace", lambda: 2)
    if weakened:
        monkeypatch.setattr(pidfile, "may_run", lambda other: False)
    async with hub_app(tmp_path) as hub:
        if is_gone or weakened:
            await stopped(hub)
        else:
            await settled(hub)
            assert (status(hub), status(hub, "other")) == ("active", "active")
            assert "2 agents and tasks are of processes outside of this hub's container" in caplog.text


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_one_that_ended_while_the_hub_was_down(tmp_path: Path, pids: list[int], how: int) -> None:
    async with hub_process(tmp_path, status=-9 if how == signal.SIGKILL else 0) as first:
        events = [agent(pid=pids[0]), task("t"), agent("lives", pid=pids[1]), agent("said", pid=pids[2])]
        async with first.http.post(f"{first.url}api/events", json=events) as answer:
            assert answer.status == 200
        async with first.http.post(f"{first.url}api/events", json=agent("said", "error")) as answer:
            assert answer.status == 200
        first.signal(how)
        await first.ended()
    kill(pids[0])
    kill(pids[2])
    async with hub_app(tmp_path / "state") as hub:
        await stopped(hub)
        await until(lambda: value(hub, "task:progress", "t")["status"] == "failed", "the task has failed")
        await settled(hub)
        assert (status(hub, "lives"), status(hub, "said")) == ("active", "error")
        kill(pids[1])
        await stopped(hub, "lives")


async def test_another_boot_ends_all(tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_app(tmp_path) as hub:
        await publish(hub, agent(pid=pids[0]))
    boot = tmp_path / "boot"
    boot.write_text("another\n")
    monkeypatch.setattr(processes, "BOOT", str(boot))
    async with hub_app(tmp_path) as hub:
        await stopped(hub)


async def test_what_is_on_disk_is_bounded_and_whole_again(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pidfile, "SPARE", 5)
    async with hub_app(tmp_path) as hub:
        for number in range(50):
            await publish(hub, agent(pid=pids[number % 2]))
        lines = (tmp_path / pidfile.FILE).read_text().splitlines()
        assert len(lines) <= 2 * 1 + 5 + 1
        assert json.loads(lines[-1])["pid"] == pids[1]
    with (tmp_path / pidfile.FILE).open("a") as file:
        file.write('{"agent": "a", "pi')  # as a kill leaves it
    async with hub_app(tmp_path) as hub:
        assert len(hub.hub.liveness) == 1
        kill(pids[1])
        await stopped(hub)
        await until(lambda: not len(hub.hub.liveness), "it is known no more")
        assert json.loads((tmp_path / pidfile.FILE).read_text().splitlines()[-1])["pid"] is None


async def test_an_agent_that_was_another_process_since_is_left_alone(tmp_path: Path, pids: list[int]) -> None:
    """As a kill leaves it between the event and the note of its process."""
    async with hub_app(tmp_path) as hub:
        await publish(hub, agent(pid=pids[0]))
        before = (tmp_path / pidfile.FILE).read_bytes()
        await publish(hub, agent(pid=pids[1]))
    (tmp_path / pidfile.FILE).write_bytes(before)
    kill(pids[0])
    async with hub_app(tmp_path) as hub:
        await settled(hub)
        assert status(hub) == "active"
