"""The audit log when its file fails, is moved away, or its process is killed: what was answered is on record."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from logs import Disk, actions, command, records, until

from hub.audit import commits
from hub.audit import log as audit_log
from hub.audit.log import AuditLog
from hub.audit.rotation import Limits
from hub.audit.verdict import INTACT, TAMPERED
from hub.audit.verify import verify
from hub.audit.writer import LogFile
from hub.errors import HubError

pytestmark = pytest.mark.usefixtures("_soon")


# ---- failing disks


async def session(directory: Path) -> tuple[list[int], list[int]]:
    """A short life of a hub; returns which records were answered as durable, and which were refused."""
    durable, refused = [], []
    log = AuditLog(directory)
    await log.start()
    for number in range(4):
        answer = await asyncio.gather(log.record("x:y", None, "OPERATOR", {"n": number}), return_exceptions=True)
        if answer[0] is None:
            durable.append(number)
        else:
            assert [getattr(error, "code", None) for error in answer] == ["audit_unavailable"]
            refused.append(number)
    await log.stop()
    return durable, refused


async def test_every_call_of_a_run_fails_once(tmp_path: Path, disk: Disk) -> None:
    """As SQLite tests itself: what was answered is there once, what was refused is not, and the chain is whole."""
    failures, refusals, number = 0, 0, 0
    while failures == number:
        number += 1
        directory = tmp_path / str(number)
        written_before = LogFile(directory) if number % 2 else None
        if written_before:  # every second run begins with something to recover
            directory.mkdir()
            disk.failing = 0
            written_before.append([command()])
            written_before.close()
            with (directory / "audit.jsonl").open("ab") as file:
                file.write(b'{"action":"torn')
        disk.calls, disk.failing = 0, number
        durable, refused = await session(directory)
        failures += disk.calls >= number
        refusals += bool(refused)
        found = [record["details"]["n"] for record in records(directory) if record["action"] == "x:y"]
        assert found == durable
        assert sorted(durable + refused) == [0, 1, 2, 3]
        assert len(refused) <= 1  # it recovers by itself
        assert verify(directory).status == INTACT
        if written_before:
            assert (directory / "audit-2.torn").read_bytes().endswith(b'{"action":"torn')
    assert failures > 20
    assert refusals > 8


async def test_a_full_disk_fails_closed_and_recovers_without_a_restart(
    log: AuditLog, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    await log.record("x:y", None, "OPERATOR", {"n": 0})
    before = (tmp_path / "audit.jsonl").read_bytes()
    disk.full = True
    log.note("x:note", None, "OPERATOR", {})
    results = await asyncio.gather(
        *(log.record("x:y", None, "OPERATOR", {"n": n}) for n in range(3)), return_exceptions=True
    )
    assert [getattr(result, "code", None) for result in results] == ["audit_unavailable"] * 3
    assert "No space left" in (log.reason or "")
    assert (log.available, log.valid, log.unrecorded) == (False, True, 1)
    assert (tmp_path / "audit.jsonl").read_bytes() == before  # no partial line
    assert (await log.verify()).status == INTACT
    disk.full = False
    await until(lambda: log.available)  # nobody asked for anything
    assert log.reason is None
    assert records(tmp_path)[-1]["action"] == "audit.recovered"
    assert records(tmp_path)[-1]["details"] == {"what": "could not be written", "refused": 4}
    await log.record("x:y", None, "OPERATOR", {"n": 5})
    assert verify(tmp_path).status == INTACT
    said = [record.message for record in caplog.records]  # once when it begins, and once when it is over
    assert len(said) == 2
    assert said[0].startswith("commands other than reads are refused: ")
    assert said[1].startswith("the audit log can be written again; ")


@pytest.mark.parametrize("weakened", [False, True])
async def test_taking_back_is_what_leaves_no_partial_line(
    weakened: bool, log: AuditLog, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(LogFile, "_take_back", lambda self: None)
    await log.record("x:y", None, "OPERATOR", {})
    disk.full = True
    with pytest.raises(HubError):
        await log.record("x:y", None, "OPERATOR", {})
    assert ((tmp_path / "audit.jsonl").read_bytes()[-1:] != b"\n") is weakened
    disk.full = False


async def test_a_start_on_a_failing_disk_comes_good(tmp_path: Path, disk: Disk) -> None:
    disk.full = True
    log = AuditLog(tmp_path)
    await log.start()
    assert (log.available, log.valid) == (False, True)
    disk.full = False
    await until(lambda: log.available)
    await log.record("x:y", None, "OPERATOR", {})
    await log.stop()
    assert verify(tmp_path).status == INTACT


async def test_more_than_the_disk_can_take_is_refused(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_QUEUE", 0)
    with pytest.raises(HubError, match="overloaded"):
        await log.record("x:y", None, "OPERATOR", {})
    log.note("x:y", None, "OPERATOR", {})
    assert log.unrecorded == 1


async def test_stop_writes_what_waits_and_can_be_called_twice(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    await log.start()
    waiting = [asyncio.ensure_future(log.record("x:y", None, "OPERATOR", {"n": n})) for n in range(50)]
    await asyncio.sleep(0)
    await log.stop()
    await log.stop()
    await asyncio.gather(*waiting)
    assert len(records(tmp_path)) == 50
    with pytest.raises(HubError, match="closed"):
        await log.record("x:y", None, "OPERATOR", {})


# ---- kill -9

VICTIM = """
import asyncio, sys
from pathlib import Path
from typing import Any
from hub.audit.log import AuditLog

async def main():
    log = AuditLog(Path(sys.argv[1]))
    await log.start()
    async def client(name):
        for number in range(10**6):
            await log.record("x:y", None, "OPERATOR", {"id": f"{name}-{number}"})
            print(f"{name}-{number}", flush=True)
    await asyncio.gather(*(client(name) for name in "abcdefgh"))

asyncio.run(main())
"""


@pytest.fixture
def root() -> Path:
    return Path(audit_log.__file__).parents[2]


async def test_after_kill_9_every_answered_record_is_there(tmp_path: Path, root: Path) -> None:
    state = tmp_path / "state"
    answered: list[str] = []
    for _ in range(2):
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", VICTIM, str(state), stdout=asyncio.subprocess.PIPE, cwd=root
        )
        assert victim.stdout
        for _ in range(100):
            answered.append((await victim.stdout.readline()).decode().strip())
        victim.send_signal(signal.SIGKILL)
        answered += (await victim.stdout.read()).decode().split("\n")[:-1]
        assert await victim.wait() == -signal.SIGKILL
    log = AuditLog(state)
    await log.start()
    assert (log.valid, log.available) == (True, True)
    await log.stop()
    found = [record["details"].get("id") for record in records(state)]
    assert len(answered) >= 200
    assert all(found.count(one) >= answered.count(one) for one in set(answered))
    assert verify(state).status == INTACT


# ---- a file that is moved away under the running hub


@pytest.mark.parametrize("weakened", [False, True])
async def test_nothing_is_called_durable_in_a_file_that_was_moved_away(
    weakened: bool, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a log rotation does by default. Refused once, with a sentence; then it goes on, and says what is missing."""
    if weakened:
        monkeypatch.setattr(LogFile, "_must_be_in_place", lambda file: None)
    await log.record("x:y", None, "OPERATOR", {"n": 1})
    path = tmp_path / "audit.jsonl"
    before = path.read_bytes()
    path.rename(tmp_path / "audit.jsonl.1")
    if weakened:
        await log.record("x:y", None, "OPERATOR", {"n": 2})
        assert b'"n":2' in (tmp_path / "audit.jsonl.1").read_bytes()  # and in no log
        return
    with pytest.raises(HubError, match="moved or replaced"):
        await log.record("x:y", None, "OPERATOR", {"n": 2})
    assert (tmp_path / "audit.jsonl.1").read_bytes() == before
    await until(lambda: log.available)
    await log.record("x:y", None, "OPERATOR", {"n": 3})
    assert [record["details"].get("n", record["details"].get("what")) for record in records(tmp_path)] == [
        "damage",
        "could not be written",
        3,
    ]
    assert (log.valid, (await log.verify()).status, verify(tmp_path).status) == (False, TAMPERED, TAMPERED)


async def test_a_file_that_is_put_back_is_gone_on_with(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log._commits.close()  # the writing is ours now, so that nothing is tried meanwhile
    await log._commits._ended.wait()
    log._file.append([command(1)])
    path.rename(tmp_path / "moved")
    with pytest.raises(OSError, match="moved or replaced"):
        log._file.append([command(2)])
    (tmp_path / "moved").rename(path)
    log._file.append([command(3)])
    log._file.close()
    assert [record["details"].get("id") for record in records(tmp_path)] == ["1", None, "3"]
    assert (log.valid, verify(tmp_path).status) == (True, INTACT)


@pytest.mark.parametrize("put_back", [True, False])
def test_what_is_put_back_before_anything_was_written_was_no_damage(
    put_back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found missing, and nothing could be written about it; then it was there again, and full: a new one began.

    Told there, at the beginning of a segment, it would be damage for every later start, and none for `verify`.
    """
    file, path = LogFile(tmp_path, Limits(file_bytes=1)), tmp_path / "audit.jsonl"
    file.append([command(1)])
    path.rename(tmp_path / "moved")
    with pytest.raises(OSError, match="moved or replaced"):
        file.append([command(2)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda descriptor: os.close(-1))
        with pytest.raises(OSError, match="Bad file"):
            file.append([command(3)])
    if put_back:
        (tmp_path / "moved").replace(path)
    file.append([command(4)])
    file.close()
    assert verify(tmp_path, quick=True).status == verify(tmp_path).status == (INTACT if put_back else TAMPERED)
    assert any(record["details"].get("what") == "damage" for record in records(tmp_path)) is not put_back


def test_a_full_file_that_was_replaced_is_not_closed_in_anothers_place(tmp_path: Path) -> None:
    file = LogFile(tmp_path, Limits(file_bytes=1))
    file.append([command(1)])
    (tmp_path / "audit.jsonl").rename(tmp_path / "moved")
    (tmp_path / "audit.jsonl").write_bytes(b"")
    with pytest.raises(OSError, match="moved or replaced"):
        file.append([command(2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.head", "audit.jsonl", "moved"]
    file.close()


async def test_a_file_with_a_second_name_is_written_on(log: AuditLog, tmp_path: Path) -> None:
    """Some backups link instead of copying."""
    await log.record("x:y", None, "OPERATOR", {})
    os.link(tmp_path / "audit.jsonl", tmp_path / "backup")
    await log.record("x:z", None, "OPERATOR", {})
    assert (log.valid, actions(tmp_path), verify(tmp_path).status) == (True, ["x:y", "x:z"], INTACT)


async def test_a_head_that_is_moved_away_is_made_anew(log: AuditLog, tmp_path: Path) -> None:
    await log.record("x:y", None, "OPERATOR", {})
    (tmp_path / "audit.head").rename(tmp_path / "moved")
    await log.record("x:y", None, "OPERATOR", {})
    assert json.loads((tmp_path / "audit.head").read_bytes()) == {"hash": log.head, "seq": 2}
