"""Files of this account alone: nothing is written through a link, to a pipe, or for another account."""

import os
import stat
from pathlib import Path

import pytest

from hub import private
from hub.private import Locked, Unsafe


@pytest.mark.parametrize("weakened", [False, True])
def test_a_planted_link_is_not_opened(weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    if weakened:
        monkeypatch.setattr(os, "O_NOFOLLOW", 0)
        with private.private(tmp_path / "link") as descriptor:
            assert os.read(descriptor, 9) == b"secret"
        return
    with pytest.raises(Unsafe, match="symbolic link"):
        private.open_private(tmp_path / "link")


def test_a_pipe_or_a_foreign_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "audit.head")
    (tmp_path / "audit.head").chmod(0o600)
    (tmp_path / "theirs").touch()
    with pytest.raises(Unsafe, match="regular"):
        private.open_private(tmp_path / "audit.head")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Unsafe, match="of this account"):
        private.open_private(tmp_path / "theirs")
    with pytest.raises(Unsafe, match="another account"):
        private.prepare_directory(tmp_path)


def test_what_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "hub"
    directory.mkdir(parents=True, mode=0o755)
    (directory / "open").touch(mode=0o644)
    private.prepare_directory(directory)
    for name in ("open", "new"):
        os.close(private.open_private(directory / name))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}


def test_a_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    held = private.lock(tmp_path)
    with pytest.raises(Locked, match=rf"process {os.getpid()}\b.*{tmp_path}"):
        private.lock(tmp_path)
    os.close(held)
    os.close(private.lock(tmp_path))


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    for text in (b"long " * 100_000, b"short"):
        private.write_whole(path, text)
        assert path.read_bytes() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "server.json"
    private.write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            private.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    private.write_whole(path, b"new")  # what the failed one left is not in the way
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["server.json", "server.tmp"])
def test_a_planted_link_is_replaced_not_written_through(name: str, tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / name).symlink_to(tmp_path / "victim")
    private.write_whole(tmp_path / "server.json", b"text")
    assert (tmp_path / "victim").read_bytes() == b""
    assert (tmp_path / "server.json").read_bytes() == b"text"
    assert not (tmp_path / "server.json").is_symlink()
