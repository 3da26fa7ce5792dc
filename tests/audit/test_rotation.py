"""Rotation and retention of the audit log: one chain over all files, and a log that says itself what was retired."""

import asyncio
import contextlib
import os
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Disk, command, everything, until

from hub.audit import chain, commits, files, rotation
from hub.audit import verify as verifier
from hub.audit.chain import Link
from hub.audit.files import closed_segments
from hub.audit.log import AuditLog
from hub.audit.recovery import parsed
from hub.audit.rotation import Limits
from hub.audit.verdict import INTACT, SHORTER, TAMPERED, TORN, UNREADABLE
from hub.audit.verify import verify
from hub.audit.writer import LogFile

SMALL = Limits(file_bytes=1000, file_seconds=0, keep_files=0)  # a few records a file


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY", 0.01)
    monkeypatch.setattr(files, "PATIENCE", 0)


def ids(directory: Path) -> list[str]:
    return [record["details"]["id"] for record in everything(directory) if record["action"] == "command.called"]


def filled(directory: Path, count: int, limits: Limits = SMALL) -> LogFile:
    log = LogFile(directory, limits)
    for number in range(count):
        log.append([command(number)])
    return log


def names(directory: Path) -> list[str]:
    return [path.name for path in closed_segments(directory)]


def test_a_full_file_is_closed_and_the_chain_goes_on(tmp_path: Path) -> None:
    log = filled(tmp_path, 20)
    closed = closed_segments(tmp_path)
    assert len(closed) >= 4
    for path in closed:
        first = parsed(path.read_bytes().splitlines(keepends=True)[0])
        assert first is not None
        assert path.name == f"audit-{first['seq']}.jsonl"
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert path.stat().st_size < 1000 + 400
    assert (ids(tmp_path), log.link.seq) == ([str(n) for n in range(20)], 20)
    verdict = verify(tmp_path)
    assert (verdict.status, verdict.records, verdict.reason) == (INTACT, 20, None)
    assert verify(tmp_path, quick=True) == verdict


def test_a_day_closes_a_file_also_across_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 1, Limits()).close()
    log = LogFile(tmp_path)
    log.append([command(1)])
    assert names(tmp_path) == []
    later = time.time() + rotation.DAY
    monkeypatch.setattr(time, "time", lambda: later)
    log.append([command(2)])
    assert names(tmp_path) == ["audit-1.jsonl"]
    assert (verify(tmp_path).status, verify(tmp_path).records) == (INTACT, 3)


def test_a_clock_set_back_closes_nothing_and_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(tmp_path, 2, Limits())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    log.append([command(2)])
    assert (names(tmp_path), ids(tmp_path)) == ([], ["0", "1", "2"])
    assert verify(tmp_path).status == INTACT


@pytest.mark.parametrize(
    "limits", [SMALL._replace(keep_files=2), SMALL._replace(keep_bytes=2500), SMALL._replace(keep_seconds=0.000001)]
)
def test_retention_takes_whole_files_and_leaves_an_anchor(limits: Limits, tmp_path: Path) -> None:
    log = filled(tmp_path, 40, limits)
    left = everything(tmp_path)
    assert 0 < len(left) < 30
    assert len(names(tmp_path)) <= 3
    verdict = verify(tmp_path)
    assert (verdict.status, verdict.records) == (INTACT, len(left))
    assert f"from record {left[0]['seq']} on" in (verdict.reason or "")
    anchors = {(r["details"]["seq"], r["details"]["hash"]) for r in left if r["action"] == "audit.retired"}
    assert (left[0]["seq"] - 1, left[0]["previous_hash"]) in anchors
    log.close()
    again = LogFile(tmp_path, limits)
    again.append([command(99)])
    assert (again.valid, again.link.seq) == (True, log.link.seq + 1)


@pytest.mark.parametrize("weakened", [False, True])
def test_deleting_the_oldest_files_is_no_retention(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a record of the chain can say that records were retired."""
    filled(tmp_path, 20).close()
    closed_segments(tmp_path)[0].unlink()
    if weakened:
        monkeypatch.setattr(verifier._Reading, "compare_with_beginning", lambda self: None)
    assert (verify(tmp_path).status == INTACT) is weakened
    assert (verify(tmp_path, quick=True).status == INTACT) is weakened
    log = LogFile(tmp_path, SMALL)
    log.append([])
    assert log.valid is weakened


def test_one_more_file_than_the_log_says_is_missing(tmp_path: Path) -> None:
    filled(tmp_path, 40, SMALL._replace(keep_files=3)).close()
    closed_segments(tmp_path)[0].unlink()
    assert verify(tmp_path).status == verify(tmp_path, quick=True).status == TAMPERED


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_start_looks_at_the_ends_of_every_file(place: str, tmp_path: Path) -> None:
    filled(tmp_path, 20).close()
    path = closed_segments(tmp_path)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.chmod(0o600)
    path.write_bytes(b"".join(lines[1:] if place == "first" else lines[:-1]))
    log = LogFile(tmp_path, SMALL)
    log.append([])
    assert log.valid is False


@pytest.mark.parametrize("weakened", [False, True])
def test_a_start_reads_one_file_and_verify_all(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 60).close()
    looked = 0
    real = chain.follow

    def follow(line: bytes, link: Link) -> Link:
        nonlocal looked
        looked += 1
        return real(line, link)

    monkeypatch.setattr(verifier, "follow", follow)
    if weakened:  # a start that looks closely
        monkeypatch.setattr(verifier._Reading, "skim", lambda reading, file: reading.read(file))
    LogFile(tmp_path, SMALL).append([])
    assert (looked <= 2 * len(names(tmp_path)) + 4) is not weakened
    looked = 0
    assert verify(tmp_path).status == INTACT
    assert looked == 60


def test_an_edit_inside_a_closed_file_is_what_verify_is_for(tmp_path: Path) -> None:
    filled(tmp_path, 20).close()
    path = closed_segments(tmp_path)[1]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"id":"5"', b'"id":"6"'))
    assert verify(tmp_path).status == TAMPERED
    assert path.name in (verify(tmp_path).reason or "")


@pytest.mark.parametrize("weakened", [False, True])
def test_damage_that_a_start_found_stays_known_and_is_never_retired(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SMALL._replace(keep_files=1)
    path = filled(tmp_path, 3, limits).directory / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"id":"1"', b'"id":"7"'))
    for start in range(3):
        log = LogFile(tmp_path, limits)
        if weakened:
            monkeypatch.setattr(verifier, "_refuse_recorded_damage", lambda line, link: None)
        for number in range(8):
            log.append([command(number)])
        log.close()
        assert log.valid is (weakened and start > 0)
    assert (verify(tmp_path).status == INTACT) is weakened  # retired with the file that was damaged
    assert ("audit-1.jsonl" in names(tmp_path)) is not weakened


def test_the_head_inside_a_closed_file_is_compared(tmp_path: Path) -> None:
    filled(tmp_path, 20).close()
    middle = everything(tmp_path)[1]
    for hash, status in ((middle["hash"], INTACT), ("0" * 64, TAMPERED)):
        (tmp_path / "audit.head").write_text(f'{{"hash":"{hash}","seq":{middle["seq"]}}}')
        assert verify(tmp_path, quick=True).status == verify(tmp_path).status == status


def test_a_name_that_is_taken_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "audit-1.jsonl").mkdir()
    log = LogFile(tmp_path, SMALL)
    with pytest.raises(OSError, match="read"):
        log.append([command()])
    (tmp_path / "audit-1.jsonl").rmdir()
    log.append([command()])
    (tmp_path / "audit-1.jsonl").write_bytes(b"theirs")
    for number in range(9):
        log.append([command(number)])
    assert (tmp_path / "audit-1.jsonl").read_bytes() == b"theirs"
    assert verify(tmp_path).status == TAMPERED


async def test_verify_and_tail_while_files_are_closed_and_retired(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, limits=SMALL._replace(keep_files=3))
    await log.start()
    writing = asyncio.gather(*(log.record("x:y", None, "OPERATOR", {"n": n}) for n in range(20)))
    for number in range(60):
        await log.record("x:y", None, "OPERATOR", {"number": number})
        verdict, tail = await asyncio.gather(log.verify(), log.tail(4))
        assert verdict.status == INTACT, verdict
        assert [record["seq"] for record in tail] == list(range(tail[0]["seq"], tail[0]["seq"] + len(tail)))
    await writing
    assert log.valid
    await log.stop()


async def session(directory: Path, limits: Limits) -> tuple[list[int], list[int]]:
    """A life of a hub in which files are closed and retired; which records were durable, and which refused."""
    durable: list[int] = []
    refused: list[int] = []
    log = AuditLog(directory, limits=limits)
    await log.start()
    for number in range(12):
        answer = await asyncio.gather(log.record("x:y", None, "OPERATOR", {"n": number}), return_exceptions=True)
        (refused if answer[0] else durable).append(number)
        assert getattr(answer[0], "code", "audit_unavailable") == "audit_unavailable"
    await log.stop()
    return durable, refused


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(Disk, "CALLS", (*Disk.CALLS, "fchmod", "unlink"))
    return Disk(monkeypatch)


@pytest.mark.parametrize("keep", [0, 1])
async def test_every_call_of_a_run_with_rotation_fails_once(keep: int, tmp_path: Path, disk: Disk) -> None:
    limits = SMALL._replace(keep_files=keep, file_bytes=600)
    failures, number = 0, 0
    while failures == number:
        number += 1
        directory = tmp_path / str(number)
        disk.calls, disk.failing = 0, number
        durable, refused = await session(directory, limits)
        failures += disk.calls >= number
        left = everything(directory)
        found = [record["details"]["n"] for record in left if record["action"] == "x:y"]
        assert found == durable[len(durable) - len(found) :]
        assert keep or found == durable
        assert sorted(durable + refused) == list(range(12))
        assert len(refused) <= 1
        assert verify(directory).status == verify(directory, quick=True).status == INTACT, number
        assert len(names(directory)) >= 1 + 2 * (not keep)
    assert failures > 60


def go_on(log: LogFile, written: list[str]) -> None:
    for number in range(4, 30):
        log.append([command(number)])
        written.append(str(number))


@pytest.mark.parametrize("call", ["rename", "unlink", "open"])
def test_a_crash_inside_a_rotation_needs_no_help(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before and behind each step: the next start goes on in one chain, and nothing durable is missing."""

    class Killed(BaseException):
        pass

    limits = SMALL._replace(keep_files=1)
    for behind in (False, True):
        directory = tmp_path / f"{behind}"
        directory.mkdir()
        log = filled(directory, 4, limits)
        real, armed = getattr(os, call), [True]

        def killed(*args: Any, real: Any = real, armed: list[bool] = armed, behind: bool = behind, **more: Any) -> Any:
            mine = call != "open" or str(args[0]).endswith("audit.jsonl")
            if not (mine and armed[0]):
                return real(*args, **more)
            if behind:
                real(*args, **more)
            armed[0] = False
            raise Killed

        written = [str(n) for n in range(4)]
        with monkeypatch.context() as patch:
            patch.setattr(os, call, killed)
            with pytest.raises(Killed):
                go_on(log, written)
        log.close()
        again = LogFile(directory, limits)
        again.append([command(99)])
        found = ids(directory)
        assert again.valid
        assert found[-1] == "99"
        assert set(found[:-1]) >= set(written[-3:])
        assert verify(directory).status == verify(directory, quick=True).status == INTACT
        assert {stat.S_IMODE(path.stat().st_mode) for path in closed_segments(directory)} <= {0o400}


async def test_rotation_is_not_in_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    real = rotation.close_current

    def close_current(directory: Path, first: int, descriptor: int) -> Path | None:
        threads.append(threading.current_thread().name)
        return real(directory, first, descriptor)

    monkeypatch.setattr(rotation, "close_current", close_current)
    log = AuditLog(tmp_path, limits=SMALL)
    await log.start()
    for _ in range(9):
        await log.record("x:y", None, "OPERATOR", {"text": "x" * 300})
    await until(lambda: log.available)
    await log.stop()
    assert threads
    assert set(threads) == {"hub-audit"}


def test_a_record_without_a_time_was_made_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"seq":3,"hash":"%064d"}\n' % 0)
    with path.open("rb") as file:
        assert rotation.beginning(file.fileno()) == (3, 5.0)


@pytest.mark.parametrize("ending", ["junk", "an older record"])
def test_a_start_looks_at_the_end_of_a_closed_file(ending: str, tmp_path: Path) -> None:
    filled(tmp_path, 20).close()
    first, second = closed_segments(tmp_path)[:2]
    older = first.read_bytes().splitlines(keepends=True)[-1]
    second.chmod(0o600)
    second.write_bytes(second.read_bytes() + (b"junk\n" if ending == "junk" else older))
    assert verify(tmp_path, quick=True).status == TAMPERED
    assert "last line" in (verify(tmp_path, quick=True).reason or "")


# ---- while a running hub closes and retires files


@pytest.mark.parametrize("what", ["retired", "closed", "gone"])
def test_files_that_change_while_they_are_opened_are_opened_again(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 20).close()
    closed, calls = closed_segments(tmp_path), 0

    def seen(directory: Path) -> list[Path]:
        nonlocal calls
        calls += 1
        if what == "gone" and calls == 2:
            (tmp_path / "audit.jsonl").unlink()
        if calls == 1 and what != "gone":
            return [tmp_path / "audit-0.jsonl", *closed] if what == "retired" else closed[:-1]
        return closed

    monkeypatch.setattr(files, "closed_segments", seen)
    verdict = verify(tmp_path / "audit.jsonl")
    assert calls > 2
    assert verdict.status == (UNREADABLE if what == "gone" else INTACT)


# ---- a start and verify say the same


def said_only_by_the_log(directory: Path) -> None:
    """A segment that is closed with nothing in it but what the log told at its beginning."""
    log = filled(directory, 3, SMALL._replace(file_bytes=1, keep_files=1))
    log.append([])
    log.append([])
    log.close()


@pytest.mark.parametrize("weakened", [False, True])
def test_a_segment_of_nothing_but_what_the_log_tells_is_whole(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verifier._Reading._skim_beginning
    if weakened:  # as if a record of another kind always followed
        monkeypatch.setattr(verifier._Reading, "_skim_beginning", lambda *args: (real(*args)[0], -1))
    said_only_by_the_log(tmp_path)
    told = [parsed(path.read_bytes().splitlines(keepends=True)[-1]) for path in closed_segments(tmp_path)]
    assert "audit.retired" in [record["action"] for record in told if record]
    assert verify(tmp_path).status == INTACT
    assert (verify(tmp_path, quick=True).status == INTACT) is not weakened
    log = LogFile(tmp_path, SMALL)
    log.append([command()])
    log.close()
    assert log.valid is not weakened


class Killed(BaseException):
    """The process is no more."""


class Process:
    """Lives of a hub on one directory, each of which may end before or behind any call, or in the middle of a write."""

    CALLS = ("write", "pwrite", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "fchmod", "open")

    def __init__(self, directory: Path, limits: Limits, patch: pytest.MonkeyPatch) -> None:
        self.directory, self.limits = directory, limits
        self.left, self.how = 0, "before"
        self.log: LogFile | None = None
        self.number = 0
        self.durable: list[str] = []
        for name in self.CALLS:
            patch.setattr(os, name, self._in_the_way(name, getattr(os, name)))

    def _in_the_way(self, name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left != 0:
                return real(*args, **more)
            if self.how == "half" and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            elif self.how == "behind":
                real(*args, **more)
            raise Killed

        return call

    def live(self, records: int, left: int, how: str) -> None:
        """Write so many records (none: look whether there is something to tell), then end, or be killed before."""
        self.left, self.how = left, how
        log = LogFile(self.directory, self.limits)
        try:
            log.append([])
            for _ in range(records):
                self.number += 1
                log.append([command(self.number)])
                self.durable.append(str(self.number))
        except Killed:
            pass
        self.left = 0
        log.close()


lives = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 40), st.sampled_from(["before", "behind", "half"])),
    min_size=1,
    max_size=7,
)


@settings(deadline=None, max_examples=150)
@given(lives=lives, size=st.sampled_from([1, 500, 1200]), keep=st.integers(0, 2))
def test_a_start_and_verify_say_the_same(lives: list[tuple[int, int, str]], size: int, keep: int) -> None:
    """Whatever was written, closed, retired and killed in the middle: nobody has touched this log."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PATIENCE", 0)
        process = Process(Path(folder), SMALL._replace(file_bytes=size, keep_files=keep), patch)
        for records, left, how in [*lives, (1, 0, "")]:
            process.live(records, left, how)
            if everything(process.directory):
                quick, whole = verify(process.directory, quick=True), verify(process.directory)
                assert (quick.status, quick.broken_at) == (whole.status, whole.broken_at)
                assert whole.status in (INTACT, TORN)
        assert whole.status == INTACT
        found = ids(process.directory)
        assert found == sorted(set(found), key=int)
        assert [n for n in process.durable if int(n) >= int(found[0])] == [n for n in found if n in process.durable]
        assert keep or set(process.durable) <= set(found)


@pytest.mark.parametrize("weakened", [False, True])
def test_no_file_goes_before_an_older_one(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be removed stays, and with it the younger ones: a gap would be damage."""
    filled(tmp_path, 20).close()
    first, real = closed_segments(tmp_path)[0], Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == first:
            raise OSError(16, "Device or resource busy")
        real(path, missing_ok)

    def each_for_itself(log: LogFile, paths: list[Path]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()

    log = LogFile(tmp_path, SMALL._replace(keep_files=1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        if weakened:
            patch.setattr(LogFile, "_remove", each_for_itself)
        for number in range(9):
            log.append([command(number)])
    assert (verify(tmp_path).status == INTACT) is not weakened
    if not weakened:
        for number in range(9):
            log.append([command(number)])
        assert first not in closed_segments(tmp_path)
        assert verify(tmp_path).status == verify(tmp_path, quick=True).status == INTACT


@pytest.mark.parametrize("weakened", [False, True])
async def test_verify_beside_a_retirement_is_not_told_of_damage(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader stops between the size and the files; meanwhile a file is retired, if nothing holds that off."""
    log = AuditLog(tmp_path, limits=SMALL._replace(keep_files=1))
    await log.start()
    real, retired = files.Stored.__init__, threading.Event()
    if weakened:
        monkeypatch.setattr(log._file, "_names", contextlib.nullcontext())

    def stored(self: files.Stored, *args: Any, **more: Any) -> None:
        retired.wait(5.0 if weakened else 0.2)  # held off, it does not come
        real(self, *args, **more)

    async def retire() -> None:
        for number in range(20):
            await log.record("x:y", None, "OPERATOR", {"number": number, "pad": "x" * 500})
        retired.set()

    await log.record("x:y", None, "OPERATOR", {})  # shorter than what is recorded about a file that is retired
    monkeypatch.setattr(files.Stored, "__init__", stored)
    verdict, _ = await asyncio.gather(log.verify(), retire())
    assert (verdict.status == INTACT, log.valid) == (not weakened, not weakened)
    await log.stop()


@pytest.mark.parametrize("weakened", [False, True])
def test_a_file_that_cannot_be_looked_at_is_not_missing(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 2, Limits()).close()
    real = os.stat

    def stat(path: Any, **more: Any) -> Any:
        if str(path).endswith("audit.jsonl"):
            raise OSError(5, "Input/output error")
        return real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    if weakened:
        monkeypatch.setattr(files, "exists", lambda path: False)
    assert verify(tmp_path).status == (SHORTER if weakened else UNREADABLE)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_rename_that_failed_may_have_been_done(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing more is written into the closed segment: what is left of a failed write would be damage there."""
    log = filled(tmp_path, 1, SMALL._replace(file_bytes=1))
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        real(source, target)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", rename)
    if weakened:
        monkeypatch.setattr(rotation, "is_at", lambda descriptor, path: False)
    with contextlib.suppress(OSError):
        log.append([command(1)])
    assert (ids(tmp_path) == ["0", "1"]) is not weakened
    log.close()


@pytest.mark.parametrize("weakened", [False, True])
def test_damage_that_is_on_record_is_never_unsaid(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file was missing and the hub went on without it; put back later, it makes the chain whole, not the log."""
    filled(tmp_path, 2, Limits()).close()
    (tmp_path / "audit.jsonl").rename(tmp_path / "moved")
    filled(tmp_path, 2, Limits()).close()
    (tmp_path / "moved").rename(tmp_path / "audit-1.jsonl")
    if weakened:
        monkeypatch.setattr(verifier, "_refuse_recorded_damage", lambda line, link: None)
    assert (verify(tmp_path).status == INTACT) is weakened
    assert (verify(tmp_path, quick=True).status == INTACT) is weakened
    for _ in range(2):  # a start does not add to it
        filled(tmp_path, 1, Limits()).close()
    assert names(tmp_path) == ["audit-1.jsonl"]
