"""The audit log: what is on record and in which form, who else is there, who asks, its beginning and its end."""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from logs import ACTOR, Disk, actions, command, records, until, written

from hub.audit import commits, sums
from hub.audit import verify as verifier
from hub.audit.commits import Commits, Waiting
from hub.audit.files import Stored
from hub.audit.log import AuditLog
from hub.audit.records import Entry
from hub.audit.rotation import Limits
from hub.audit.verdict import INTACT, TAMPERED, UNREADABLE, Verdict
from hub.audit.verify import verify
from hub.audit.writer import LogFile
from hub.errors import HubError
from hub.private import Locked, Unsafe

pytestmark = pytest.mark.usefixtures("_soon")


# ---- what a record is


async def test_a_record_is_durable_and_complete_when_record_returns(log: AuditLog, tmp_path: Path) -> None:
    await log.record("command.called", ACTOR, "OPERATOR", {"id": "1", "args": {"text": "ä\n\x1b\u2028"}})
    line = (tmp_path / "audit.jsonl").read_bytes()
    record = json.loads(line)
    assert (record["action"], record["actor"], record["trust"], record["seq"]) == (
        "command.called",
        ACTOR,
        "OPERATOR",
        1,
    )
    assert record["details"] == {"id": "1", "args": {"text": "ä\n\x1b\u2028"}}
    assert line.isascii()
    assert not any(byte < 32 for byte in line[:-1])  # nothing in a record can forge a line
    assert (log.seq, log.head) == (1, record["hash"])
    assert verify(tmp_path).status == INTACT


async def test_records_of_many_tasks_share_writes_and_keep_one_chain(tmp_path: Path) -> None:
    groups: list[int] = []
    log = AuditLog(tmp_path, on_write=lambda count, seconds: groups.append(count))
    await log.start()
    await asyncio.gather(*(log.record("x:y", None, "OPERATOR", {"n": n}) for n in range(500)))
    assert sum(groups) == 500
    assert len(groups) < 250
    assert [record["details"]["n"] for record in records(tmp_path)] == list(range(500))
    assert await log.verify() == verify(tmp_path)
    assert (log.available, log.valid, log.reason) == (True, True, None)
    await log.stop()


async def test_the_tail_is_newest_records_oldest_first(log: AuditLog) -> None:
    for n in range(5):
        await log.record("x:y", None, "OPERATOR", {"n": n, "long": "x" * 40_000})
    assert [record["details"]["n"] for record in await log.tail(3)] == [2, 3, 4]
    assert len(await log.tail(100)) == 5
    assert await log.tail(0) == []


async def test_details_that_are_not_json_are_the_callers_mistake(log: AuditLog) -> None:
    with pytest.raises(TypeError):
        await log.record("x:y", None, "OPERATOR", {"n": object()})
    with pytest.raises(ValueError, match="JSON"):
        await log.record("x:y", None, "OPERATOR", {"n": float("nan")})
    log.note("x:y", None, "OPERATOR", {"n": object()})
    assert log.unrecorded == 1


async def test_a_cancelled_wait_harms_nobody_else(log: AuditLog, tmp_path: Path) -> None:
    first = asyncio.ensure_future(log.record("x:y", None, "OPERATOR", {}))
    second = asyncio.ensure_future(log.record("x:z", None, "OPERATOR", {}))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert actions(tmp_path) == ["x:y", "x:z"]


# ---- notes


async def test_notes_of_one_key_are_summed_up_beyond_ten_a_second(log: AuditLog, tmp_path: Path) -> None:
    for n in range(35):
        log.note("command.refused", ACTOR, "OPERATOR", {"n": n}, key="a")
        log.note("client.refused", None, "SYSTEM", {"n": n}, key="client.refused")
    log.note("other:thing", None, "SYSTEM", {})
    log._sums.second_over("a")
    log._sums.second_over("client.refused")
    for _ in range(5):
        log.note("client.refused", None, "SYSTEM", {"n": 99}, key="client.refused")
    await log.stop()
    found = [(record["action"], record["details"]) for record in records(tmp_path)]
    commands = [details for action, details in found if action == "command.refused"]
    clients = [details for action, details in found if action == "client.refused"]
    assert commands == [*({"n": n} for n in range(10)), {"n": 10, "count": 25}]
    assert clients == [
        {"n": 0},
        {"n": 1, "count": 34},
        {"n": 99, "count": 5},
    ]  # one a second, the sum included
    assert ("other:thing", {}) in found


@pytest.mark.parametrize("weakened", [False, True])
async def test_the_sum_is_what_keeps_a_flood_out_of_the_log(
    weakened: bool, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(sums, "LIMIT", 10**9)
    for _ in range(1000):
        log.note("command.refused", ACTOR, "OPERATOR", {}, key="a")
    await log.stop()
    assert (len(records(tmp_path)) > 11) is weakened


async def test_the_keys_that_are_watched_are_bounded(log: AuditLog) -> None:
    for n in range(sums.MAX_KEYS + 50):
        log.note("command.refused", None, "OPERATOR", {}, key=str(n))
    assert len(log._sums._sums) <= sums.MAX_KEYS + 1


async def test_a_note_never_raises_and_is_counted_if_it_is_lost(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.note("x:y", None, "OPERATOR", {}, key="a")
    with pytest.raises(HubError, match="not started"):
        await log.record("x:y", None, "OPERATOR", {})
    assert (log.unrecorded, log.available) == (1, False)


# ---- who else is there


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_second_hub_is_refused(
    weakened: bool, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = AuditLog(tmp_path)
    if weakened:
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        await second.start()
        await second.stop()
        return
    with pytest.raises(Locked, match=rf"process {os.getpid()}\b.*{tmp_path}"):
        await second.start()
    await log.stop()
    await second.start()
    await second.stop()


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_directory_that_was_removed_belongs_to_the_next_hub(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(LogFile, "_must_hold_the_directory", lambda file: None)
    first, second = AuditLog(tmp_path / "state"), AuditLog(tmp_path / "state")
    await first.start()
    await first.record("x:y", None, "OPERATOR", {})
    shutil.rmtree(tmp_path / "state")
    await second.start()
    await second.record("x:y", None, "OPERATOR", {})
    with contextlib.nullcontext() if weakened else pytest.raises(HubError, match="removed or replaced"):
        await first.record("x:z", None, "OPERATOR", {})
    await first.stop()
    await second.stop()
    assert (verify(tmp_path / "state").status == INTACT) is not weakened


async def test_everything_is_the_operators_alone(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "hub"
    directory.mkdir(parents=True, mode=0o755)
    (directory / "audit.jsonl").touch(mode=0o644)
    log = AuditLog(directory)
    await log.start()
    await log.record("x:y", None, "OPERATOR", {})
    await log.stop()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {file.name for file in directory.iterdir()} == {"audit.jsonl", "audit.head", "lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("name", ["audit.jsonl", "audit.head", "lock", "audit.tmp"])
async def test_a_planted_link_is_not_followed(
    name: str, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(victim)
    if weakened:
        monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    log = AuditLog(directory)
    if weakened or name == "audit.tmp":  # this one the hub makes anew
        await log.start()
        await log.record("x:y", None, "OPERATOR", {})
        await log.stop()
        assert bool(victim.read_bytes()) is (weakened and name != "audit.tmp")
        return
    with pytest.raises(Unsafe, match="symbolic link"):
        await log.start()
    assert victim.read_bytes() == b""


async def test_a_file_that_is_cut_or_deleted_under_the_running_hub_is_noticed(tmp_path: Path) -> None:
    for harm in (lambda path: os.truncate(path, 0), os.unlink):
        log = AuditLog(tmp_path)
        await log.start()
        await log.record("x:y", None, "OPERATOR", {})
        harm(tmp_path / "audit.jsonl")
        await log.record("x:z", None, "OPERATOR", {})
        assert (log.valid, actions(tmp_path)) == (False, ["audit.recovered", "x:z"])
        assert (await log.verify()).status == TAMPERED
        await log.stop()


# ---- the rest of it


async def test_an_end_without_the_loop_says_a_last_word(log: AuditLog, tmp_path: Path) -> None:
    for number in range(12):
        log.note("client.refused", None, "NONE", {"number": number}, key="client.refused")
    await asyncio.to_thread(log.end, "hub.stopped", {"forced": True})
    log.end("hub.stopped", {"forced": True})  # a second time it says nothing
    assert actions(tmp_path) == ["client.refused", "client.refused", "hub.stopped"]
    assert verify(tmp_path).status == INTACT


async def test_a_key_that_has_nothing_more_to_tell_is_forgotten(log: AuditLog, tmp_path: Path) -> None:
    log.note("a:b", None, "NONE", {}, key="a")
    log._sums.second_over("a")
    log._sums.second_over("a")
    assert log._sums._sums == {}
    await log.stop()
    assert actions(tmp_path) == ["a:b"]


async def test_a_commit_has_a_bound(log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_GROUP", 2)
    groups: list[int] = []
    log.on_write = lambda count, seconds: groups.append(count)
    await asyncio.gather(*(log.record("x:y", None, "SYSTEM", {}) for _ in range(7)))
    assert sum(groups) == 7
    assert max(groups) == 2


async def test_a_bug_of_the_writer_is_a_failure_like_any_other(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def append(file: LogFile, entries: object) -> int:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "append", append)
        with pytest.raises(HubError, match="a bug"):
            await log.record("x:y", None, "SYSTEM", {})
    await until(lambda: log.available)
    await log.record("x:y", None, "SYSTEM", {})


async def test_who_waits_no_longer_is_not_told(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, append = threading.Event(), LogFile.append

    def slow(file: LogFile, entries: Sequence[Entry]) -> int:
        gate.wait()
        return append(file, entries)

    monkeypatch.setattr(LogFile, "append", slow)
    one, other = (asyncio.create_task(log.record("x:y", None, "SYSTEM", {})) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait({one})
    gate.set()
    await other
    assert one.cancelled()
    assert log.seq == 2  # it may be written all the same


async def test_the_tail_leaves_out_what_is_no_record(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"junk\n" + lines[2])
    log = AuditLog(tmp_path)
    await log.start()
    assert [record["action"] for record in await log.tail()] == ["command.called"] * 2 + ["audit.recovered"]
    await log.stop()


# ---- many who ask


async def test_one_verification_runs_for_all_who_ask_and_the_tail_waits_for_none(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.record("x:y", None, "OPERATOR", {})
    gate, runs, real = threading.Event(), 0, verifier.judged

    def judged(stored: Stored) -> Verdict:
        nonlocal runs
        runs += 1
        gate.wait()
        return real(stored)

    monkeypatch.setattr(verifier, "judged", judged)
    asking = [asyncio.create_task(log.verify()) for _ in range(64)]
    await until(lambda: runs > 0)
    asking[0].cancel()  # who asked first does not take it away from the others
    assert len(await log.tail()) == 1
    await log.record("x:y", None, "OPERATOR", {})
    gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert ({getattr(answer, "status", answer) for answer in answers[1:]}, runs) == ({INTACT}, 1)
    assert ((await log.verify()).records, runs) == (2, 2)


async def test_a_verification_that_fails_fails_for_all_and_the_next_runs(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(stored: Stored) -> Verdict:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(verifier, "judged", judged)
        answers = await asyncio.gather(log.verify(), log.verify(), return_exceptions=True)
    assert [type(answer) for answer in answers] == [MemoryError, MemoryError]
    assert (await log.verify()).status == INTACT


async def test_a_log_that_cannot_be_opened_is_unreadable(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").rename(tmp_path / "moved")
    (tmp_path / "audit.jsonl").symlink_to("audit.jsonl")
    assert (await log.verify()).status == UNREADABLE
    assert log.valid


def test_the_tail_opens_no_more_files_than_its_records_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path, Limits(file_bytes=1))
    for number in range(9):
        file.append([command(number)])
    opened: list[str] = []
    real = io.FileIO

    def opening(path: str, **more: Any) -> io.FileIO:
        opened.append(path)
        return real(path, **more)

    monkeypatch.setattr(io, "FileIO", opening)
    assert [record["details"]["id"] for record in file.tail(3)] == ["6", "7", "8"]
    assert len(opened) <= 3
    file.close()


def test_the_tail_of_what_was_moved_away_is_what_is_left(tmp_path: Path) -> None:
    file = LogFile(tmp_path, Limits(file_bytes=1))
    file.append([command(1)])
    file.append([command(2)])
    (tmp_path / "audit.jsonl").unlink()
    assert [record["details"]["id"] for record in file.tail(3)] == ["1"]
    file.close()


def test_the_tail_before_a_record(tmp_path: Path) -> None:
    """Of the files only those that hold it; lines that are no records do not count."""
    file = LogFile(tmp_path, Limits(file_bytes=2000))
    for number in range(1, 31):
        file.append([command(number)])
    with (tmp_path / "audit.jsonl").open("ab") as current:
        current.write(b"no record\n" * 3)
    file.size += 30
    assert len(list(tmp_path.glob("audit-*.jsonl"))) > 2
    for before in range(1, file.link.seq + 2):
        assert [record["seq"] for record in file.tail(4, before)] == list(range(max(1, before - 4), before))
    assert [record["seq"] for record in file.tail(9, 20, 1)] == [19], "one, however large it is"
    file.close()


async def test_sums_are_written_when_asked_for(log: AuditLog, tmp_path: Path) -> None:
    for number in range(3):
        log.note("client.refused", None, "NONE", {"number": number}, key="client.refused")
    log.sum_up()
    await log.record("x:y", None, "OPERATOR", {})
    assert [record["details"].get("count") for record in records(tmp_path)] == [None, 2, None]


# ---- the beginning and the end


def held(directory: Path) -> list[str]:
    """Threads and descriptors of a log."""
    found = [thread.name for thread in threading.enumerate() if thread.name == "hub-audit"]
    paths = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return found + [path for path in paths if os.path.lexists(path) and str(directory) in os.readlink(path)]


async def test_a_stop_without_a_start_and_many_at_once_are_no_error(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    await log.stop()
    for _ in range(2):
        await log.start()
        waiting = asyncio.create_task(log.record("x:y", None, "SYSTEM", {}))
        await asyncio.sleep(0)
        await asyncio.gather(log.stop(), log.stop())
        await asyncio.gather(waiting, log.stop())
        assert held(tmp_path) == []
    assert len(records(tmp_path)) == 2


async def test_a_stop_ends_also_while_nothing_can_be_written(log: AuditLog, tmp_path: Path, disk: Disk) -> None:
    disk.full = True
    log.note("x:y", None, "SYSTEM", {})
    waiting = asyncio.create_task(log.record("x:y", None, "SYSTEM", {}))
    await asyncio.sleep(0)
    await log.stop()
    with pytest.raises(HubError, match="No space left"):
        await waiting
    assert (held(tmp_path), log.unrecorded, log.reason) == ([], 1, "The audit log is closed")


async def test_a_cancelled_stop_closes_all_the_same(log: AuditLog, tmp_path: Path) -> None:
    stopping = asyncio.create_task(log.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})
    await log.stop()
    assert held(tmp_path) == []


@pytest.mark.parametrize("passes", range(4))
async def test_a_start_that_is_cancelled_leaves_nothing_behind(passes: int, tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    starting = asyncio.create_task(log.start())
    for _ in range(passes):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    if not starting.cancelled():  # it was faster
        await log.stop()
    assert held(tmp_path) == []
    other = AuditLog(tmp_path)
    await other.start()
    await other.record("x:y", None, "SYSTEM", {})
    await other.stop()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), RuntimeError("a bug")])
@pytest.mark.parametrize("call", ["flock", "mkdir", "Thread.start"])
async def test_a_start_that_fails_leaves_nothing_behind(
    call: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    log = AuditLog(tmp_path / "state")
    with monkeypatch.context() as patch:
        places: dict[str, Any] = {"flock": fcntl, "mkdir": os, "Thread.start": threading.Thread}
        patch.setattr(places[call], call.rpartition(".")[2], fails)
        with pytest.raises(type(error)):
            await log.start()
        await log.stop()
    assert held(tmp_path) == []
    await log.start()
    await log.record("x:y", None, "SYSTEM", {})
    await log.stop()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("a bug")])
async def test_a_start_on_a_disk_that_fails_late_is_a_start(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    log = AuditLog(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        await log.start()
        assert not log.available
        before = len(held(tmp_path))
        with pytest.raises(HubError):
            await log.record("x:y", None, "SYSTEM", {})
        assert len(held(tmp_path)) == before  # a retry keeps nothing open
    await until(lambda: log.available)
    await log.stop()
    assert held(tmp_path) == []


async def test_what_comes_in_behind_the_end_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends by itself, which is a bug, leaves nobody waiting."""
    gate = threading.Event()

    def next_group(commits: Commits) -> tuple[list[Waiting], bool]:
        gate.wait()
        raise SystemExit

    monkeypatch.setattr(Commits, "_next_group", next_group)
    log = AuditLog(tmp_path)
    await log.start()
    asyncio.get_running_loop().call_soon(gate.set)
    with pytest.raises(HubError):
        await asyncio.gather(*(log.record("x:y", None, "SYSTEM", {}) for _ in range(3)))
    with pytest.raises(HubError, match="closed"):
        await log.record("x:y", None, "SYSTEM", {})
    await log.stop()
    assert held(tmp_path) == []


async def test_a_broken_chain_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(tmp_path)
    await log.start()
    for n in range(3):
        await log.record("x:y", None, "OPERATOR", {"n": n})
    await log.stop()
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))
    again = AuditLog(tmp_path)
    await again.start()
    await again.stop()
    assert not again.valid
    assert "the chain of the audit log is broken: audit.jsonl, line 2" in caplog.text


async def test_a_log_that_is_closed_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(tmp_path)
    await log.start()
    await log.record("x:y", None, "OPERATOR", {})
    await log.stop()
    with pytest.raises(HubError):
        await log.record("x:y", None, "OPERATOR", {})
    assert caplog.messages == []
