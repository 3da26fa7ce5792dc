"""A thousand clients across restarts of the hub: every event once, in order, with no gap."""

import asyncio
import contextlib
import json
import os
import resource
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from running import JSON, HubProcess, hub_process, talk

CLIENTS = 1000
END = "a:end"


@dataclass
class Viewer:
    """A client that comes back with the last cursor it has seen."""

    cursor: str = ""
    numbers: list[int] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    done: bool = False

    async def follow(self, hub: HubProcess) -> None:
        """Read to the end of the connection, or of everything."""
        with contextlib.suppress(ConnectionError):  # the hub is killed under this
            async with talk(hub.url, f"?after={self.cursor}" if self.cursor else "") as client:
                while not self.done and (frame := await client.frame()):
                    self.take(frame)

    def take(self, frame: dict[str, object]) -> None:
        payload = frame["payload"]
        assert isinstance(payload, dict)
        if payload["event"] == "hub:gap":
            self.gaps.append(payload["data"]["reason"])
        else:
            self.cursor = str(frame["cursor"])
            self.numbers.append(int(self.cursor.rpartition(":")[2]))
            self.done = payload["event"] == END


async def publish(hub: HubProcess, count: int, event: str = "a:x") -> None:
    body = json.dumps({"event": event, "data": 1})
    for _ in range(count):
        async with hub.http.post(hub.url + "api/events", data=body, headers=JSON) as response:
            assert response.status == 200


async def connected(hub: HubProcess, count: int) -> None:
    """Return when so many clients have joined the stream."""
    while True:
        async with hub.http.post(hub.url + "api/commands/hub:stats", data="{}", headers=JSON) as response:
            if json.loads(await response.text())["hub_clients"].get("websocket") == count:
                return
        await asyncio.sleep(0.05)


async def live(tmp_path: Path, end: signal.Signals, viewers: list[Viewer], *flags: str) -> None:
    """One life of a hub, which publishes before, while and after everybody comes back, and ends with a signal."""
    status = -end if end == signal.SIGKILL else 0
    async with hub_process(tmp_path, "--rate", "0", *flags, status=status) as hub, asyncio.TaskGroup() as following:
        for viewer in viewers:
            following.create_task(viewer.follow(hub))
        if viewers[0].cursor:
            await publish(hub, 10)
        await connected(hub, len(viewers))
        await publish(hub, 10)
        os.kill(hub.process.pid, end)
        await hub.ended()


async def views(tmp_path: Path, count: int, *flags: str) -> list[Viewer]:
    """What so many clients see of three lives of a hub."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    viewers = [Viewer() for _ in range(count)]
    await live(tmp_path, signal.SIGTERM, viewers, *flags)
    await live(tmp_path, signal.SIGKILL, viewers, *flags)
    async with hub_process(tmp_path, "--rate", "0", *flags) as hub:
        await publish(hub, 10)
        await publish(hub, 1, END)
        await asyncio.gather(*(viewer.follow(hub) for viewer in viewers))
    return viewers


@pytest.mark.timeout(180)
async def test_a_thousand_clients_miss_nothing_across_restarts(tmp_path: Path) -> None:
    for viewer in await views(tmp_path, CLIENTS):
        assert (viewer.numbers, viewer.gaps) == (list(range(1, 42)), [])


async def test_weakened_without_the_store_they_are_told_that_they_miss_something(tmp_path: Path) -> None:
    [viewer] = await views(tmp_path, 1, "--ephemeral")
    assert viewer.gaps == ["epoch", "epoch"]
    assert viewer.numbers != list(range(1, 42))
