"""Herds of processes that agents and tasks name as theirs, and what a hub says of these."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from running import JSON, HubInside, until

from hub.processes import machine
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


async def gone() -> int:
    """The number of a process that has ended."""
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    return process.pid


def of_task(hub: HubInside, id: str = "t") -> Any:
    return value(hub, "task:progress", id)


async def failed(hub: HubInside, id: str = "t") -> None:
    await until(lambda: of_task(hub, id)["status"] == "failed", f"{id} has failed")
