"""audit.jsonl is moved away, and put back over what was written since: that is gone, and never called intact."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from logs import ACTOR, command, everything

from hub.audit import files, recovery, writer
from hub.audit.chain import Link
from hub.audit.records import chained, entry
from hub.audit.verdict import DAMAGED, INTACT
from hub.audit.verify import judged, verify
from hub.audit.writer import LogFile

pytestmark = pytest.mark.once

RECORDS = 20


def moved_away(directory: Path) -> tuple[LogFile, Path]:
    """A log that has noticed that its file was moved, and where that is."""
    file, away = LogFile(directory), directory / "away"
    file.append([command(10 + number) for number in range(RECORDS)])
    (directory / "audit.jsonl").rename(away)
    with pytest.raises(OSError, match="moved or replaced"):
        file.append([command(40)])
    return file, away


def write_as_much(file: LogFile, length: int) -> None:
    """Write until the bytes are a multiple of so many: what is read by number of bytes ends with a whole record."""
    file.append([command(50)])
    empty = len(everything_of([entry("x:y", ACTOR, "OPERATOR", {"pad": ""})]))
    pad = -(file.size + empty) % length
    file.append([entry("x:y", ACTOR, "OPERATOR", {"pad": "x" * pad})])
    assert file.size % length == 0
    assert file.size < RECORDS * length


def everything_of(entries: Any) -> bytes:
    return chained(entries, Link(RECORDS + 3, "0" * 64))[0]


def status(file: LogFile) -> int:
    """As `audit:verify` says it."""
    with contextlib.closing(file.stored()) as stored:
        return judged(stored).status


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("head", ["kept", "put back"])
def test_what_was_destroyed_is_missed(
    head: str, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with an audit.head of that time: the running log knows what it has made durable."""
    old, path = tmp_path / "old", tmp_path / "audit.jsonl"
    file, away = moved_away(tmp_path)
    os.link(tmp_path / "audit.head", old)
    if head == "put back":
        old.unlink()
        old.write_bytes((tmp_path / "audit.head").read_bytes())
    write_as_much(file, away.stat().st_size // RECORDS)
    away.replace(path)
    if head == "put back":
        old.replace(tmp_path / "audit.head")
    if weakened:
        monkeypatch.setattr(writer, "stands_at", lambda facts, path: True)
        monkeypatch.setattr(files, "newer", lambda head, durable: head)
        monkeypatch.setattr(recovery, "newer", lambda head, durable: head)
        assert status(file) == INTACT
        if head == "put back":
            file.append([command(60)])
            assert verify(tmp_path).status == INTACT
        return
    assert status(file) in DAMAGED
    file.append([command(60)])
    assert status(file) in DAMAGED
    file.close()
    for _ in range(2):
        assert verify(tmp_path).status in DAMAGED
        again = LogFile(tmp_path)
        again.append([command(70)])
        assert not again.valid
        again.close()
    kept = [record["details"].get("id") for record in everything(tmp_path)]
    assert {str(10 + number) for number in range(RECORDS)} <= set(kept)


@pytest.mark.parametrize("weakened", [False, True])
def test_what_is_put_over_between_the_look_and_the_opening_is_not_cut_off(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, away = moved_away(tmp_path)
    before, judge = away.read_bytes(), recovery.recover

    def recover(*args: Any) -> Any:
        found = judge(*args)
        away.replace(tmp_path / "audit.jsonl")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(writer, "recover", recover)
        patch.setattr(os, "fdatasync", lambda descriptor: os.close(-1))
        if weakened:
            patch.setattr(LogFile, "_is_untouched", lambda self: True)
        with pytest.raises(OSError, match="Bad file" if weakened else "moved or replaced"):
            file.append([command(50)])
    assert (tmp_path / "audit.jsonl").read_bytes() == (b"" if weakened else before)
    if not weakened:
        file.append([command(60)])
        file.close()
        assert verify(tmp_path).status == INTACT  # it was put back before anything else was kept


@pytest.mark.parametrize("weakened", [False, True])
def test_what_a_failed_write_has_left_is_cut_off_no_other_file(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LogFile(tmp_path)
    file.append([command(10)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda descriptor: os.close(-1))
        patch.setattr(os, "ftruncate", lambda descriptor, size: os.close(-1))
        with pytest.raises(OSError, match="Bad file"):
            file.append([command(20)])
    other = b"another log\n" * 100
    (tmp_path / "audit.jsonl").rename(tmp_path / "away")
    (tmp_path / "audit.jsonl").write_bytes(other)
    with monkeypatch.context() as patch:
        if weakened:
            patch.setattr(os.path, "samestat", lambda one, two: True)
        file.append([command(30)])
    file.close()
    found = [path.read_bytes() for path in tmp_path.glob("audit*.jsonl")]
    assert (other in found) is not weakened
