"""`hub audit verify`: which logs there are, what each comes to, and the status that counts."""

import os
from pathlib import Path

import pytest
from logs import written

from hub.audit import files
from hub.audit.files import logs
from hub.audit.verdict import INTACT, SHORTER, TAMPERED, TORN, UNREADABLE, gravest
from hub.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state directory of two workers, and what else may stand there."""
    for name in ("worker-2", "worker-10", "worker-1", "worker-3", "worker-x", "tickets"):
        (tmp_path / name).mkdir()
    for name in ("worker-10", "worker-2", "worker-x"):
        written(tmp_path / name, 3)
    (tmp_path / "worker-4").touch()
    (tmp_path / "lock").touch()
    return tmp_path


def test_the_log_of_each_worker_is_one(folder: Path) -> None:
    assert [each.name for each in logs(folder)] == ["worker-2", "worker-10"]
    written(folder, 1)  # of before, when it was one hub
    assert [each.name for each in logs(folder)] == [folder.name, "worker-2", "worker-10"]
    assert logs(folder / "worker-1") == logs(folder / "nowhere") == logs(folder / "lock") == []


def test_a_closed_file_and_a_head_are_a_log(tmp_path: Path) -> None:
    """Somebody has taken the rest away: that is for the verifier to say."""
    for name in ("audit-7.jsonl", "audit.head"):
        (tmp_path / name).touch()
        assert logs(tmp_path) == [tmp_path]
        (tmp_path / name).unlink()


def test_what_cannot_be_looked_into_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(os, "listdir", refuse)
    assert logs(tmp_path) == [tmp_path]


def test_the_gravest_counts() -> None:
    order = [UNREADABLE, TAMPERED, SHORTER, TORN, INTACT]
    assert [gravest(order[number:]) for number in range(5)] == order


def test_each_is_told_and_the_gravest_is_the_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "verify", "--state-dir", str(folder)]
    assert main(words) == INTACT
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("worker-2: intact: 3 records, head ")
    assert second.startswith("worker-10: intact: 3 records, head ")
    log = folder / "worker-10" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"OPERATOR", b"OBSERVER", 1))
    assert main(words) == TAMPERED
    assert [line[:22] for line in capsys.readouterr().out.splitlines()] == [
        "worker-2: intact: 3 re", "worker-10: not intact:"
    ]  # fmt: skip


def test_weakened_a_worker_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "worker-2" / "audit.jsonl").write_text("{}\n")
    assert main(["audit", "verify", str(folder)]) == TAMPERED
    monkeypatch.setattr(files, "logs", lambda directory: [directory / "worker-10"])
    assert main(["audit", "verify", str(folder)]) == INTACT


@pytest.mark.parametrize("name", ["worker-1", "nowhere", "lock/there"])
def test_no_log_is_not_a_broken_one(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", "--state-dir", str(folder / name)]) == UNREADABLE
    out, err = capsys.readouterr()
    said = f"hub: There is no audit log in {folder / name}; --state-dir names the folder of a hub.\n"
    assert (out, err) == ("", said)


def test_what_cannot_be_read_is_not_called_tampered_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    assert main(["audit", "verify", str(tmp_path)]) == UNREADABLE
    assert capsys.readouterr().out.startswith("not checked: ")
