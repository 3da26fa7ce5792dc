"""The start on what a crash or somebody else has left: a crash needs no help, damage is never hidden."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import actions, command, records, until, written

from hub.audit import commits, files, recovery
from hub.audit import verify as verifier
from hub.audit.chain import Link
from hub.audit.files import closed_segments, lines_backwards
from hub.audit.log import AuditLog
from hub.audit.records import chained
from hub.audit.recovery import parsed
from hub.audit.verdict import INTACT, SHORTER, TAMPERED, UNREADABLE, Verdict
from hub.audit.verify import verify
from hub.audit.writer import LogFile


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY", 0.01)
    monkeypatch.setattr(files, "PATIENCE", 0)


def left_where_it_is(path: Path, seq: int) -> tuple[int, list[dict[str, Any]]]:
    return path.stat().st_size, []


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("tail", [b'{"action":"comm', bytes(300), b'{"action":"x' + bytes(9), b"{"])
async def test_a_torn_tail_is_set_aside_and_recorded(
    tail: bytes, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.audit.recovery._set_torn_aside", left_where_it_is)
    path = written(tmp_path, 3)
    path.write_bytes(path.read_bytes() + tail)
    log = AuditLog(tmp_path)
    await log.start()
    await log.record("x:y", None, "OPERATOR", {})
    assert (log.valid, log.available, log.seq) == (True, True, 4 if weakened else 5)
    await log.stop()
    if weakened:  # a crash has become damage
        assert verify(tmp_path).status == TAMPERED
        return
    assert (tmp_path / "audit-4.torn").read_bytes() == tail
    assert actions(tmp_path)[3:] == ["audit.recovered", "x:y"]
    assert records(tmp_path)[3]["details"] == {
        "what": "torn tail",
        "bytes": len(tail),
        "file": "audit-4.torn",
    }
    assert verify(tmp_path).status == INTACT


async def test_a_crash_between_the_log_and_its_head_needs_no_help(tmp_path: Path) -> None:
    log = LogFile(tmp_path)
    log.append([command()])
    head = (tmp_path / "audit.head").read_bytes()
    log.append([command(1)])
    log.close()
    (tmp_path / "audit.head").write_bytes(head)
    again = AuditLog(tmp_path)
    await again.start()
    await again.stop()
    assert (again.valid, actions(tmp_path)) == (True, ["command.called"] * 2)


def edited(log: bytes) -> bytes:
    return log.replace(b'"id":"2"', b'"id":"3"')


def deleted(log: bytes) -> bytes:
    lines = log.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


def cut(log: bytes) -> bytes:
    return b"".join(log.splitlines(keepends=True)[:-2])


def emptied(log: bytes) -> bytes:
    return b""


def replaced(log: bytes) -> bytes:
    """An old copy put back, and a forged chain written on from there, longer than the true one."""
    first = log.splitlines(keepends=True)[0]
    return first + chained([command(9)] * 9, Link(1, json.loads(first)["hash"]))[0]


def first_lines_gone(log: bytes) -> bytes:
    return b"".join(log.splitlines(keepends=True)[2:])


@pytest.mark.parametrize("damage", [edited, deleted, cut, emptied, replaced, first_lines_gone])
async def test_damage_is_never_hidden(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """The hub goes on, says so, and `verify` says 1 for ever: after this start, and after any other."""
    path = written(tmp_path, 5)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert verify(tmp_path).status == (SHORTER if damage in (cut, emptied) else TAMPERED)
    for _ in range(3):
        log = AuditLog(tmp_path)
        await log.start()
        await log.record("x:y", None, "OPERATOR", {})
        assert (log.valid, log.available) == (False, True)
        assert log.reason
        await log.stop()
        assert verify(tmp_path).status == verify(path).status == TAMPERED
    everything = b"".join(file.read_bytes() for file in [*closed_segments(tmp_path), path])
    assert everything.startswith(damaged)
    assert everything.count(b'"action":"audit.recovered"') >= (damage is not first_lines_gone)
    assert everything.count(b'"action":"x:y"') == 3
    assert len(closed_segments(tmp_path)) <= 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_going_on_from_the_head_is_what_keeps_a_cut_tail_visible(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 5)
    path.write_bytes(cut(path.read_bytes()))
    if weakened:
        monkeypatch.setattr(recovery, "DAMAGED", ())
    log = AuditLog(tmp_path)
    await log.start()
    await log.record("x:y", None, "OPERATOR", {})
    await log.stop()
    assert (verify(tmp_path).status == INTACT) is weakened


async def test_a_missing_or_foreign_head_is_recorded(tmp_path: Path) -> None:
    written(tmp_path, 2)
    (tmp_path / "audit.head").unlink()
    log = AuditLog(tmp_path)
    await log.start()
    await log.stop()
    (tmp_path / "audit.head").write_bytes(b"nonsense")
    log = AuditLog(tmp_path)
    await log.start()
    assert log.valid is False
    await log.stop()
    assert [record["details"]["what"] for record in records(tmp_path)[2:]] == ["head", "head"]
    assert (tmp_path / "audit-4.torn").read_bytes() == b"nonsense"


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_log_that_cannot_be_read_is_not_written_over(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading may fail where writing would work: then nothing is known about the end of the chain."""
    path = written(tmp_path, 3)
    real = verifier.verify

    def unreadable(*args: Any, **options: Any) -> Verdict:
        return Verdict(False, 0, "", None, "audit.jsonl cannot be read", UNREADABLE)

    monkeypatch.setattr(verifier, "verify", real if weakened else unreadable)
    log = AuditLog(tmp_path)
    await log.start()
    assert log.available is weakened
    monkeypatch.setattr(verifier, "verify", real)
    await until(lambda: log.available)
    await log.record("x:y", None, "OPERATOR", {})
    await log.stop()
    assert (len(path.read_bytes().splitlines()), verify(path).status) == (4, INTACT)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=st.binary(max_size=40).map(lambda data: data.replace(b"x", b"\n")), block=st.integers(1, 50), cut=st.booleans()
)
def test_lines_backwards_are_the_lines(text: bytes, block: int, cut: bool, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(text)
    size = len(text) // 2 if cut else None
    lines = text[:size].split(b"\n")
    expected = [*(line + b"\n" for line in lines[:-1]), *filter(None, lines[-1:])]
    assert list(lines_backwards(tmp_path / "log", size, block)) == expected[::-1]
    assert list(lines_backwards(tmp_path / "nothing")) == []


def test_a_damaged_file_takes_no_others_name(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    other = tmp_path / "audit-1.jsonl"
    other.write_bytes(path.read_bytes())
    path.write_bytes(edited(path.read_bytes()).replace(b'"id":"1"', b'"id":"9"'))
    damaged = path.read_bytes()
    log = LogFile(tmp_path)
    log.append([command()])
    log.close()
    assert (other.read_bytes() != damaged, (tmp_path / "audit-2.jsonl").read_bytes()) == (True, damaged)
    assert verify(tmp_path).status == TAMPERED


@pytest.mark.parametrize("line", [b"", b"[]\n", b'{"seq":1,"hash":"x"}\n', b'{"seq":"1","hash":"%064d"}\n' % 0])
def test_what_is_no_record(line: bytes) -> None:
    assert parsed(line) is None
