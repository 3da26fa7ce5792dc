"""Whose a number is: of a process that has ended, of none that is known here, of another machine, or of a container."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from herds import HERE, agent, failed, gone, herd, kill, of_task, publish, settled, status, stopped, task, value
from running import JSON, HubInside, environment, hub_app, until
from strangers import needs_namespaces

from hub import processes
from hub.cli.http import on_this_machine
from hub.processes import is_new, machine, may_run, namespace, process
from hub.stream import liveness
from hub.stream.eventtypes import LARGEST_PID
from hub.stream.liveness import Liveness


@pytest.fixture
async def pids() -> AsyncIterator[list[int]]:
    async with herd(4) as found:
        yield found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_no_number_of_a_process_is_not_watched(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where an application has a schema of its own; else it is refused. The system takes no such number."""
    if weakened:
        monkeypatch.setattr(liveness, "LARGEST_PID", 2**63)
    async with hub_app(tmp_path, prepare=lambda hub: hub.event_type("task:progress", key="id")) as hub:
        await _numbers(hub, caplog, weakened=weakened)


async def _numbers(hub: HubInside, caplog: pytest.LogCaptureFixture, *, weakened: bool) -> None:
    for number, pid in enumerate((0, 2**31 + 5, 2**40)):
        assert (await hub.post("api/events", task(f"n{number}", pid=pid), HERE)).status == 200
    await settled(hub)
    assert [value(hub, "task:progress", f"n{number}")["status"] for number in range(3)] == ["running"] * 3
    assert (len(hub.hub.liveness) == 0, "OverflowError" in caplog.text) == (not weakened, weakened)


@pytest.fixture
def _sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where these tests run in a container: nobody whom they tell of is outside of it."""
    monkeypatch.setattr(liveness, "sees_all", lambda: True)


@pytest.mark.usefixtures("_sees_all")
async def test_one_that_has_ended_when_its_number_comes_is_stopped(hub: HubInside) -> None:
    await publish(hub, agent(pid=await gone()), task("t"), task("own", agent="b", pid=await gone()))
    await stopped(hub)
    assert value(hub, "agent:status_change", "a")["reason"] == "process ended"
    await until(lambda: value(hub, "task:progress", "own")["status"] == "failed")
    assert value(hub, "task:progress", "t")["error"] == "process ended"
    await publish(hub, task("late"), task("other", agent="b"), task("nobodys", agent=""))
    await until(lambda: value(hub, "task:progress", "late")["status"] == "failed")
    await until(lambda: not len(hub.hub.liveness))
    await publish(hub, agent(), task("again"))
    await settled(hub)
    assert [value(hub, "task:progress", id)["status"] for id in ("other", "nobodys", "again")] == ["running"] * 3
    assert status(hub) == "active", "it has come back"


async def test_weakened_it_would_live_for_ever(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Liveness, "_ended_before", lambda liveness, pid, is_here: None)
    await publish(hub, agent(pid=await gone()), task("t"))
    await settled(hub)
    assert (status(hub), value(hub, "task:progress", "t")["status"]) == ("active", "running")


async def test_one_that_only_waits_to_be_asked_how_it_has_ended_is_stopped(hub: HubInside) -> None:
    code = "import os, time; pid = os.fork() or os._exit(0); print(pid, flush=True); time.sleep(100)"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    while (found := process(pid)) is None or not found.has_ended:
        await asyncio.sleep(0.01)
    await publish(hub, agent(pid=pid))
    await stopped(hub)
    parent.kill()
    await parent.communicate()


def nobodys() -> int:
    """A number that no process has, and none has had just now: as another machine's is, or one that has ended long
    since."""
    most = int(Path(processes.LARGEST).read_text())
    return next(pid for pid in range(processes.RESERVED, most) if process(pid) is None and not is_new(pid))


@pytest.mark.usefixtures("_sees_all")
@pytest.mark.parametrize("weakened", [False, True])
async def test_one_that_was_never_seen_has_not_ended(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that is told of another machine's process would see its task fail at once."""
    if weakened:
        monkeypatch.setattr(liveness, "is_new", lambda pid: True)
    for number, pid in enumerate((nobodys(), LARGEST_PID)):
        of_agent = f"a{number}"
        await publish(hub, agent(of_agent, pid=pid), task(f"t{number}", "b", pid=pid), task(f"u{number}", of_agent))
    await settled(hub)
    found = {value(hub, "task:progress", f"{kind}{number}")["status"] for kind in "tu" for number in range(2)}
    assert found == {"failed" if weakened else "running"}
    assert {status(hub, f"a{number}") for number in range(2)} == {"stopped" if weakened else "active"}


@pytest.mark.parametrize("weakened", [False, True])
async def test_one_that_is_said_to_be_of_here_has_ended_whatever_its_number(hub: HubInside, weakened: bool) -> None:
    """By `hub run` and `hub hook`: their number may be as old as an agent that was killed as its hook began."""
    answer = await hub.post("api/events", task("t", pid=nobodys()), JSON if weakened else HERE)
    assert answer.status == 200
    if not weakened:
        await failed(hub)
    await settled(hub)
    assert of_task(hub)["status"] == ("running" if weakened else "failed")


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_number_of_another_machine_is_nobodys_here(hub: HubInside, pids: list[int], weakened: bool) -> None:
    """It has come through a tunnel, and looks like what comes from here."""
    elsewhere = f"{processes.boot()[::-1]}/{namespace()}"
    headers = JSON if weakened else {**JSON, "Hub-Machine": elsewhere}
    body = {"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": "Go", "prompt_id": "p"}
    await hub.post("api/events", task("t", pid=pids[0]), headers)
    await hub.post("hooks/claude-code", json.dumps(body).encode(), {"Hub-Pid": str(pids[0]), **headers})
    assert len(hub.hub.liveness) == (2 if weakened else 0)
    kill(pids[0])
    await settled(hub)
    assert of_task(hub)["status"] == ("failed" if weakened else "running")
    assert status(hub, "claude-code:s") == ("stopped" if weakened else "active")


async def test_a_number_that_was_given_out_just_now_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_new(await gone())
    last, most = tmp_path / "loadavg", tmp_path / "pid_max"
    monkeypatch.setattr(processes, "NEWEST", str(last))
    monkeypatch.setattr(processes, "LARGEST", str(most))
    assert not is_new(5000), "the system does not say"
    most.write_text("32768\n")
    last.write_text("0.10 0.10 0.10 1/100 5000\n")
    asked = (4744, 4745, 5000, 5001, 32767, 2**31 - 1)
    assert [is_new(pid) for pid in asked] == [False, True, True, False, False, False]
    last.write_text("0.10 0.10 0.10 1/100 310\n")  # it has begun again from 300
    assert [is_new(pid) for pid in (300, 310, 311, 32522, 32523, 32767)] == [True, True, False, False, True, True]


def test_which_machine_this_is_is_not_said_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine() == f"{processes.boot()}/{namespace()}"
    monkeypatch.setattr(processes, "BOOT", "/proc/no/such/file")
    assert (processes.boot(), machine(), on_this_machine()) == ("", "", {})


@pytest.mark.usefixtures("_sees_all")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_number_from_within_a_container_ends_nobody(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    pid = await gone()
    monkeypatch.setattr(liveness, "inner_numbers", lambda: frozenset() if weakened else frozenset({pid}))
    await publish(hub, agent(pid=pid))
    await settled(hub)
    assert status(hub) == ("stopped" if weakened else "active")


CONTAINED = """
from hub.stream import liveness

def setup(hub):
    if {weakened}:
        liveness.sees_all, liveness.is_new = lambda: True, lambda pid: True
"""


@needs_namespaces
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_hub_in_a_container_ends_nobody_outside_of_it(tmp_path: Path, pids: list[int], weakened: bool) -> None:
    """With the host's network, and processes of its own: the number of one outside is nobody's in there."""
    (tmp_path / "contained.py").write_text(CONTAINED.format(weakened=weakened))
    serve = f"{sys.executable} -m hub --port 0 --state-dir {tmp_path / 'state'} --load contained"
    inside = f"sleep 1000 >/dev/null & exec {serve}"
    words = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "/bin/sh", "-c", inside)
    container = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, env=environment(), stdout=-1, stderr=-3)
    assert container.stdout
    try:
        async with aiohttp.ClientSession((await container.stdout.readline()).decode().split()[-1]) as http:
            hub_itself = _child_of(container.pid)
            sleeper = _child_of(hub_itself)
            given = [agent(pid=pids[0]), agent("inner", pid=_inner(sleeper))]
            async with http.post("api/events", json=given) as answer:
                assert answer.status == 200
            kill(sleeper)
            while (found := await _statuses(http))["inner"] != "stopped":
                pass
            assert found["a"] == ("stopped" if weakened else "active")
    finally:
        container.kill()
        await container.communicate()


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])


def _inner(pid: int) -> int:
    """The number of a process in its container."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])


async def _statuses(http: aiohttp.ClientSession) -> dict[str, str]:
    async with http.get("api/state", params={"topics": "agent:status_change"}) as answer:
        return {item["key"]: item["data"]["status"] for item in (await answer.json())["items"]}


@pytest.mark.usefixtures("_sees_all")
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_late_word_of_the_process_before_ends_nobody(
    hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(liveness, "is_running", lambda known: True)
    before = await gone()
    await publish(hub, agent(pid=pids[0]))
    await publish(hub, agent(pid=before))
    await settled(hub)
    assert status(hub) == ("stopped" if weakened else "active")
    if not weakened:
        kill(pids[0])
        await stopped(hub)


@needs_namespaces
async def test_who_is_in_a_container_may_run_as_long_as_somebody_does(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sleep", "600"]
    outer = await asyncio.create_subprocess_exec(*command)
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    await until(lambda: children.read_text(), "it is in there")
    inner = _child_of(outer.pid)
    there = namespace(inner)
    assert there not in (0, namespace())
    assert may_run(there)
    kill(inner)
    await outer.wait()
    assert not may_run(there)
