"""The file and its chain: what a line is, and what is left of a write that failed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from logs import actions, command, records

from hub.audit.log import AuditLog
from hub.audit.records import SMALL, entry, reduced
from hub.audit.verdict import INTACT
from hub.audit.verify import verify
from hub.audit.writer import LogFile
from hub.redaction import redact
from hub.wire.strictjson import loads


def test_large_args_are_recorded_by_size_and_hash(tmp_path: Path) -> None:
    assert reduced({"a": "x" * 4000}) == {"a": "x" * 4000}
    small = reduced({"a": "x" * 5000})
    assert small["bytes"] == len('{"a":""}') + 5000
    assert len(small["sha256"]) == 64
    assert AuditLog.reduced is reduced
    log = LogFile(tmp_path)
    log.append([entry("x:y", None, "OPERATOR", {"a": "x" * 2_000_000})])  # whatever it is, a line stays readable
    assert records(tmp_path)[0]["details"]["bytes"] > 2_000_000


@pytest.mark.parametrize("longest", ["1E15,", '"\U0001f600",', '"\u20ac",', "1e-7,", '"ghp_1234",', '"://:@",', "{},"])
def test_what_has_come_in_a_small_call_is_never_large(longest: str) -> None:
    text = f"[{longest * (SMALL // len(longest))}"[:-1] + "]"
    args = redact(loads(text))[0]
    assert reduced(args, len(text)) == reduced(args) == args


def fails_to_sync(times: int) -> Callable[[int], None]:
    left = iter(range(times))

    def fdatasync(descriptor: int) -> None:
        if next(left, None) is not None:
            raise OSError(5, "Input/output error")

    return fdatasync


def test_bytes_of_a_failed_fdatasync_are_never_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path)
    log.append([command(0)])
    size = (tmp_path / "audit.jsonl").stat().st_size
    monkeypatch.setattr(os, "fdatasync", fails_to_sync(1))
    with pytest.raises(OSError, match="Input/output"):
        log.append([command(1)])
    assert (tmp_path / "audit.jsonl").stat().st_size == size
    assert log.link.seq == 1
    log.append([command(2)])
    assert [record["details"].get("id") for record in records(tmp_path)] == ["0", None, "2"]


def test_what_could_not_be_cut_off_is_cut_off_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path)
    log.append([command(0)])
    with monkeypatch.context() as patch:
        for name in ("fdatasync", "ftruncate"):
            patch.setattr(os, name, lambda *_: fails_to_sync(1)(0))
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                log.append([command(1)])
    log.append([])
    assert actions(tmp_path) == ["command.called", "audit.recovered"]
    assert records(tmp_path)[1]["details"]["refused"] == 3
    assert (verify(tmp_path).status, log.valid) == (INTACT, True)
