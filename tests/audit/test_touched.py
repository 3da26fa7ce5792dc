"""A log that somebody else changes under the running hub is looked at again; what the hub writes itself is not."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from logs import Disk, until

from hub.audit import log as auditlog
from hub.audit.files import closed_segments
from hub.audit.log import AuditLog
from hub.audit.rotation import Limits
from hub.audit.touched import Touched
from hub.errors import HubError

pytestmark = pytest.mark.usefixtures("_soon")

LIMITS = Limits(2000, 86_400.0, 10, 10**9, 86_400.0)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditlog, "LOOK", 0.01)
    monkeypatch.setattr(auditlog, "REST", 1)


class Watched(AuditLog):
    """One that is watched, and counts how often it was looked at, and how often at all of it."""

    looks = verified = 0

    async def verify(self) -> Any:
        self.verified += 1
        return await super().verify()

    async def looked_again(self) -> None:
        """Wait for two looks that have begun from here on."""
        look, seen = self._file.touched.look, 0

        def counted() -> bool:
            nonlocal seen
            seen += 1
            return look()

        self._file.touched.look = counted  # type: ignore[method-assign]
        await until(lambda: seen > 2)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Watched]:
    log = Watched(tmp_path, limits=LIMITS)
    await log.start()
    watch = asyncio.create_task(log.watch())
    yield log
    watch.cancel()
    await asyncio.wait({watch})
    await log.stop()


def change_a_byte(directory: Path) -> None:
    """In place, so that neither size nor end of the file change."""
    path = directory / "audit.jsonl"
    at = path.read_bytes().index(b'"n":1') + 4
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"7")


async def test_own_writing_is_no_reason_to_look(log: Watched, disk: Disk) -> None:
    for number in range(100):
        await log.record("x:y", None, "OPERATOR", {"n": number})
    disk.failing = disk.calls + 2  # the fdatasync
    with pytest.raises(HubError):
        await log.record("x:y", None, "OPERATOR", {})
    await until(lambda: log.available)
    await log.record("x:y", None, "OPERATOR", {})
    await log.looked_again()
    assert (log.verified, log.valid) == (0, True)
    assert len(closed_segments(log.directory)) > 3, "it was rotated"


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("weakened", ["", "begin", "look"])
async def test_a_byte_that_somebody_else_changes_is_noticed(
    log: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool, weakened: str
) -> None:
    """Also if the hub has written since."""
    if weakened == "begin":
        monkeypatch.setattr(Touched, "begin", lambda touched, facts: None)
    elif weakened:
        monkeypatch.setattr(Touched, "look", lambda touched: False)
    await log.record("x:y", None, "OPERATOR", {"n": 1})
    if is_written:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(Touched, "look", lambda touched: False)  # nobody looks before it is written
            change_a_byte(tmp_path)
            await log.record("x:z", None, "OPERATOR", {})
    else:
        change_a_byte(tmp_path)
    if weakened == "look" or (weakened and is_written):
        await asyncio.sleep(0.1)
        assert log.valid
    else:
        await until(lambda: not log.valid)
        assert "record" in str(log.reason)
        await asyncio.sleep(0.05)
        assert log.verified == 1, "it stays broken"


async def test_what_was_touched_and_is_well_is_looked_at_once(log: Watched, tmp_path: Path) -> None:
    await log.record("x:y", None, "OPERATOR", {"n": 1})
    began, log.looked = log.looked, ""
    os.utime(tmp_path / "audit.jsonl")
    await until(lambda: bool(log.looked))
    assert log.looked >= began
    await log.looked_again()
    await log.record("x:y", None, "OPERATOR", {"n": 2})
    await log.looked_again()
    assert (log.verified, log.valid) == (1, True)


async def test_a_file_that_is_gone_is_noticed_without_a_record(log: Watched, tmp_path: Path) -> None:
    await log.record("x:y", None, "OPERATOR", {"n": 1})
    (tmp_path / "audit.jsonl").unlink()
    await until(lambda: not log.valid)


def test_what_is_being_written_is_the_hubs_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    touched = Touched(path)
    assert not touched.look(), "there is nothing to compare with"
    touched.end(path.stat())
    touched.begin(path.stat())
    path.write_bytes(b"12")
    assert not touched.look()
    well = touched.looking()
    well()
    assert not touched.look()
    touched.end(path.stat())
    assert not touched.look()
    path.write_bytes(b"123")
    assert touched.look()
    touched.begin(path.stat())
    touched.end(path.stat())
    assert touched.look(), "the next write covers nothing up"
    touched.looking()()
    assert not touched.look()
