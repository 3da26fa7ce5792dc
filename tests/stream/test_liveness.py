"""Agents live as long as their processes: real processes, killed while the hub runs."""

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from herds import agent, herd, kill, publish, settled, status, stopped, task, value
from running import HubInside, Talk, environment, hub_app, hub_process, talk, until

from hub.adapters import turns
from hub.errors import HubError
from hub.processes import Process
from hub.stream import liveness, pidfds, pidfile


@pytest.fixture
async def pids() -> AsyncIterator[list[int]]:
    async with herd(4) as found:
        yield found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path / "state") as running:
        yield running


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
