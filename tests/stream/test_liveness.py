"""Agents live as long as their processes: real processes, killed, while the hub runs and while it does not."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from running import JSON, HubInside, Talk, environment, hub_app, hub_process, talk, until
from strangers import needs_namespaces

from hub import processes
from hub.adapters import turns
from hub.cli.http import on_this_machine
from hub.errors import HubError
from hub.processes import FIRST_NAMESPACE, Process, is_new, machine, may_run, namespace, process
from hub.stream import liveness, pidfds, pidfile
from hub.stream.eventtypes import LARGEST_PID
from hub.stream.liveness import Liveness
from hub.wire.ids import new_id

HERE = {**JSON, "Hub-Machine": machine()}  # as `hub run` and `hub hook` say it

HERD = """
import os, signal, sys
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        signal.pause()
    print(pid, flush=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    signal.pause()
"""


@contextlib.asynccontextmanager
async def herd(count: int) -> AsyncIterator[list[int]]:
    """So many processes that do nothing, and are nobody's children here."""
    pipe = asyncio.subprocess.PIPE
    shepherd = await asyncio.create_subprocess_exec(sys.executable, "-c", HERD, str(count), stdout=pipe)
    assert shepherd.stdout
    pids = [int(await shepherd.stdout.readline()) for _ in range(count)]
    try:
        yield pids
    finally:
        for pid in pids:
            kill(pid)
        shepherd.kill()
        await shepherd.wait()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def pids() -> AsyncIterator[list[int]]:
    async with herd(4) as found:
        yield found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


def agent(name: str = "a", status: str = "active", **more: Any) -> dict[str, Any]:
    return {"event": "agent:status_change", "data": {"id": name, "status": status, **more}}


def task(id: str, agent: str = "a", status: str = "running", **more: Any) -> dict[str, Any]:
    return {"event": "task:progress", "data": {"id": id, "agent": agent, "status": status, **more}}


async def publish(hub: HubInside, *records: dict[str, Any]) -> None:
    answer = await hub.post("api/events", list(records))
    assert answer.status == 200, answer.text


def value(hub: HubInside, event: str, key: str) -> Any:
    found = hub.hub.state.get(event, key)
    return found and found.data


def status(hub: HubInside, name: str = "a") -> Any:
    return (value(hub, "agent:status_change", name) or {}).get("status")


async def stopped(hub: HubInside, name: str = "a") -> None:
    await until(lambda: status(hub, name) == "stopped", f"{name} is stopped")


async def settled(hub: HubInside) -> None:
    """What the kernel has said so far has been published."""
    async with herd(1) as (pid,):
        name = new_id()
        await publish(hub, agent(name, pid=pid))
        kill(pid)
        await stopped(hub, name)


async def test_an_agent_whose_process_ends_is_stopped(hub: HubInside, pids: list[int]) -> None:
    await publish(
        hub, agent(pid=pids[0], type="own"), task("t", name="Build", progress=40), task("done", status="succeeded")
    )
    await publish(
        hub, task("waits", status="waiting_approval"), task("other", agent="b"), task("later", status="queued")
    )
    kill(pids[0])
    await stopped(hub)
    assert value(hub, "agent:status_change", "a") == {"id": "a", "status": "stopped", "reason": "process ended"}
    failed = value(hub, "task:progress", "t")
    assert failed.pop("ended_at")
    assert failed == {
        "id": "t",
        "agent": "a",
        "status": "failed",
        "name": "Build",
        "progress": 40,
        "error": "process ended",
    }
    statuses = {key: value(hub, "task:progress", key)["status"] for key in ("done", "waits", "other", "later")}
    assert statuses == {"done": "succeeded", "waits": "failed", "other": "running", "later": "queued"}


async def test_over_a_websocket_and_from_the_application(hub: HubInside, pids: list[int]) -> None:
    client: Talk
    async with talk(hub.url) as client:
        await client.call("hub:publish", event="agent:status_change", data=agent(pid=pids[0])["data"])
    await hub.hub.publish("agent:status_change", agent("b", pid=pids[1])["data"])
    kill(pids[0])
    kill(pids[1])
    await stopped(hub, "a")
    await stopped(hub, "b")


async def test_a_hook_names_the_process_of_its_agent(hub: HubInside, pids: list[int]) -> None:
    body = json.dumps({"session_id": "s", "hook_event_name": "UserPromptSubmit", "prompt": "Go", "prompt_id": "p"})
    await hub.post("hooks/claude-code", body.encode(), {"Hub-Pid": str(pids[0])})
    kill(pids[0])
    await stopped(hub, "claude-code:s")
    assert value(hub, "task:progress", "claude-code:s/p")["error"] == "process ended"


async def test_what_an_agent_has_said_itself_stays(hub: HubInside, pids: list[int]) -> None:
    await publish(hub, agent(pid=pids[0]), agent("b", pid=pids[1]), task("t"), task("u", "b"))
    await publish(hub, agent(status="error", reason="out of money"), agent("b", status="stopped", reason="exit"))
    kill(pids[0])
    kill(pids[1])
    await until(lambda: not len(hub.hub.liveness), "nobody is watched")
    assert value(hub, "agent:status_change", "a")["reason"] == "out of money"
    assert value(hub, "agent:status_change", "b")["reason"] == "exit"
    left = [value(hub, "task:progress", id) for id in ("t", "u")]
    assert [task["error"] for task in left] == ["process ended"] * 2, "what it has left running has ended with it"


async def test_a_later_event_keeps_the_watch_and_another_process_takes_its_place(
    hub: HubInside, pids: list[int]
) -> None:
    await publish(hub, agent(pid=pids[0]))
    await publish(hub, agent(status="idle"), agent("b", pid=pids[0]), agent(pid=pids[1]), agent(pid=None))
    kill(pids[0])
    await stopped(hub, "b")
    assert status(hub) == "active"
    kill(pids[1])
    await stopped(hub)


async def test_one_that_comes_back_is_active(hub: HubInside, pids: list[int]) -> None:
    await publish(hub, agent(pid=pids[0]))
    kill(pids[0])
    await stopped(hub)
    await publish(hub, agent(pid=pids[1]))
    await settled(hub)
    assert status(hub) == "active"
    kill(pids[1])
    await stopped(hub)


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


async def gone() -> int:
    """The number of a process that has ended."""
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    return process.pid


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


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_session_that_goes_on_in_another_process_outlives_the_first(
    hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(turns, "_moved_on", lambda hook, given, found: [])

    async def hook(event: str, pid: int) -> None:
        body = {"session_id": "s", "hook_event_name": event, "prompt_id": "p", "tool_name": "Bash", "prompt": "Go"}
        await hub.post("hooks/claude-code", json.dumps(body).encode(), {"Hub-Pid": str(pid)})

    await hook("UserPromptSubmit", pids[0])
    await hook("PreToolUse", pids[1])
    assert status(hub, "claude-code:s") == "active"
    kill(pids[0])
    await settled(hub)
    assert status(hub, "claude-code:s") == ("stopped" if weakened else "active")
    if not weakened:
        kill(pids[1])
        await stopped(hub, "claude-code:s")
        assert value(hub, "task:progress", "claude-code:s/p")["error"] == "process ended"


async def test_the_end_is_told_also_of_one_for_which_there_was_no_room(tmp_path: Path, pids: list[int]) -> None:
    async with hub_app(tmp_path, state_items=5) as hub:
        await publish(hub, agent(pid=pids[0]), task("t", "b", pid=pids[0]))
        await publish(hub, *(task(f"t{number}", "c") for number in range(6)))
        assert value(hub, "agent:status_change", "a") is None
        kill(pids[0])
        await stopped(hub)
        assert value(hub, "task:progress", "t")["status"] == "failed"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
async def test_another_accounts_process_is_not_watched(hub: HubInside) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "100", user=65534)
    await publish(hub, agent(pid=stranger.pid))
    assert len(hub.hub.liveness) == 0
    stranger.kill()
    await stranger.wait()


async def test_another_publisher_is_not_believed(hub: HubInside, pids: list[int]) -> None:
    """From elsewhere, or of an account that the kernel does not name."""
    for uid in (None, os.geteuid() + 1):
        await hub.hub.accept([agent(pid=pids[0])], uid)
    assert len(hub.hub.liveness) == 0
    await publish(hub, agent(pid=pids[0]))
    assert len(hub.hub.liveness) == 1
    await hub.hub.accept([agent(pid=pids[1])], None)  # the agent goes on elsewhere
    assert len(hub.hub.liveness) == 0


async def test_weakened_everybody_would_be_believed(
    hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_own", lambda pid: Process(pid, "", "", 0, 1))
    await publish(hub, agent(pid=pids[0]))
    await stopped(hub)  # a process of that number runs, and is another one


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


async def test_a_program_that_is_killed(tmp_path: Path) -> None:
    """With its own words: `hub publish` from a shell that goes on."""
    async with hub_app(tmp_path / "state") as hub:
        line = (
            f"{sys.executable} -m hub publish agent:status_change id=me status=active pid=$$ --url {hub.url}; sleep 99"
        )
        shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", line, env=environment(), cwd=tmp_path, stdout=-3)
        await until(lambda: status(hub, "me") == "active", "it has published")
        shell.kill()
        await shell.wait()
        await stopped(hub, "me")


# ---- tasks that name their process themselves


def of_task(hub: HubInside, id: str = "t") -> Any:
    return value(hub, "task:progress", id)


async def failed(hub: HubInside, id: str = "t") -> None:
    await until(lambda: of_task(hub, id)["status"] == "failed", f"{id} has failed")


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


# ---- what it costs


async def test_many_processes_take_a_descriptor_each_and_nothing_else(hub: HubInside) -> None:
    async with herd(300) as pids:
        await publish(hub, *(agent(f"a{pid}", pid=pid) for pid in pids))
        watched = hub.hub.liveness._pidfds
        assert (len(watched), watched._polled, watched._timer) == (300, {}, None)
        await publish(hub, *(agent(f"b{pid}", pid=pid) for pid in pids), *(task(f"t{pid}", f"b{pid}") for pid in pids))
        assert len(watched) == 300
        for pid in pids:
            kill(pid)
        for pid in pids:
            await stopped(hub, f"a{pid}")
            await stopped(hub, f"b{pid}")
            assert value(hub, "task:progress", f"t{pid}")["status"] == "failed"
        await until(lambda: not len(hub.hub.liveness))
        assert len(watched) == 0


@pytest.mark.parametrize("weak", ["_room", "_opened"])
async def test_without_descriptors_they_are_looked_at(
    hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    monkeypatch.setattr(pidfds, weak, (lambda: 2) if weak == "_room" else (lambda known: None))
    await publish(hub, *(agent(f"a{pid}", pid=pid) for pid in pids))
    assert len(hub.hub.liveness._pidfds._polled) == (2 if weak == "_room" else 4)
    for pid in reversed(pids):
        kill(pid)
        await stopped(hub, f"a{pid}")
    assert hub.hub.liveness._pidfds._timer is None


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


async def test_a_full_disk_ends_no_watch(hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pidfile, "write_all", full)
    monkeypatch.setattr(pidfile, "write_whole", full)
    await publish(hub, agent(pid=pids[0]))
    kill(pids[0])
    await stopped(hub)


async def test_the_hub_takes_the_descriptors_that_it_may_have(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    async with hub_process(tmp_path) as hub:
        soft = resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE)[0]
        assert soft == min(hard, 2**20) if hard != resource.RLIM_INFINITY else 2**20


async def test_a_store_that_is_away_ends_nobody_for_good(
    hub: HubInside, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(hub, agent(pid=pids[0]))
    append, tries = hub.hub.broker.append, 0

    async def away(drafts: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise HubError("broker_unavailable", "The disk is full.")
        return await append(drafts)

    monkeypatch.setattr(liveness, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(hub.hub.broker, "append", away)
    kill(pids[0])
    await stopped(hub)
    assert tries == 3
