"""A real disk that is full, before the hub starts or under it: it starts, can be read, says why, and recovers."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import hub_app, until

from hub.errors import UsageError
from hub.stream.brokers import care
from hub.stream.brokers.storefile import PAGE, StoreFile

EVENT = {"event": "task:progress", "data": {"id": "build"}}


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, path / "state"

    def fill(self, leaving: int) -> int:
        """Write until nothing more fits, and give so much of it back; how much that has written."""
        with (self.path / "full").open("ab", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(b"x" * PAGE):
                    pass
            return file.truncate(max(0, file.tell() - leaving))

    def make_room(self) -> None:
        (self.path / "full").unlink()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(care, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr("hub.audit.commits.RETRY", 0.05)
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], check=True)
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("before", ["nothing", "stopped", "killed"])
async def test_a_full_disk_is_no_reason_not_to_start(
    before: str, weakened: bool, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch, kept = None, 0
    if before != "nothing":
        async with hub_app(disk.state) as hub:
            await hub.post("api/events", EVENT)
            epoch, kept = hub.hub.cursor.epoch, 1
            if before == "killed":
                hub.hub.broker._database.close = hub.hub.broker._database._drop  # type: ignore[attr-defined]
    disk.fill(leaving=0)
    if weakened:
        monkeypatch.setattr("hub.stream.brokers.database.is_held", lambda error: True)
        with pytest.raises(UsageError, match="make room on the disk"):
            async with hub_app(disk.state):
                pass
        return
    async with hub_app(disk.state) as hub:
        page = (await hub.get("api/events")).json
        assert (len(page["events"]), page["complete"]) == (kept, True)
        assert len((await hub.get("api/state")).json["items"]) == kept
        (await hub.post("api/events", EVENT)).refused(503, "broker_unavailable")
        ready = await hub.get("readyz")
        assert ready.status == 503
        assert "disk is full: make room on the disk" in ready.json["reasons"]["broker"]
        disk.make_room()
        await until(lambda: hub.hub.broker.problem is None, "recovery without a publisher")
        assert (await hub.post("api/events", EVENT)).json["cursor"].endswith(f":{kept + 1}")
        assert epoch in (None, hub.hub.cursor.epoch)
        epoch = hub.hub.cursor.epoch
    async with hub_app(disk.state) as hub:
        assert (hub.hub.cursor.epoch, hub.hub.cursor.seq) == (epoch, kept + 1)


@pytest.mark.parametrize("weakened", [False, True])
async def test_events_can_be_kept_again_is_said_when_they_can(
    weakened: bool, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is room for a word, but not for events: something else takes what the store gives back."""
    if weakened:
        monkeypatch.setattr(StoreFile, "_find_room", lambda self: self._note(clean=0))
    tries, real = list[int](), StoreFile._connect

    def connect(self: StoreFile, patience: float) -> None:
        tries.append(disk.fill(leaving=5 * PAGE))
        real(self, patience)

    event = {"event": "a:x", "data": "x" * 40_000}
    async with hub_app(disk.state) as hub:
        await hub.post("api/events", EVENT)
        disk.fill(leaving=0)
        with monkeypatch.context() as patch:
            patch.setattr(StoreFile, "_connect", connect)
            while len(tries) < 5:
                await hub.post("api/events", event)
        assert ("can be kept again" in caplog.text) is weakened
        disk.make_room()
        await until(lambda: hub.hub.broker.problem is None, "recovery")
        assert (await hub.post("api/events", event)).status == 200
        assert "can be kept again" in caplog.text
