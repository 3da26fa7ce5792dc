"""Files of this account alone: nothing is written through a link, to a pipe, or for another account."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import hub_app, run_hub
from strangers import BECOME, needs_root

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


@pytest.mark.parametrize("weakened", [False, True])
def test_a_folder_of_another_account_is_not_opened(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    if not weakened:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    before = os.listdir("/proc/self/fd")
    refused = contextlib.nullcontext() if weakened else pytest.raises(Unsafe, match="of this account alone")
    with refused, private.private_folder(tmp_path / "folder") as folder:
        private.write_whole(Path("whole"), b"text", folder=folder)
        assert private.read_private("whole", 9, folder) == b"text"
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path / "folder") == ["whole"] * weakened


@pytest.fixture
def _no_umask(tmp_path: Path) -> Iterator[None]:
    """Nothing but the hub itself keeps others out."""
    tmp_path.chmod(0o755)
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(params=[False, True], ids=["", "weakened"])
def weakened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(private, "FILE", 0o666)
        monkeypatch.setattr(private, "DIRECTORY", 0o777)
    return bool(request.param)


@pytest.mark.usefixtures("_no_umask")
def test_what_others_could_read_is_closed_to_them(tmp_path: Path, weakened: bool) -> None:
    old, new = tmp_path / "state" / "hub", tmp_path / "new"
    old.mkdir(parents=True, mode=0o755)
    (old / "open").touch(mode=0o644)
    (old / "lock").touch(mode=0o600)
    for directory in (old, new):
        private.prepare_directory(directory)
        for name in ("open", "new"):
            os.close(private.open_private(directory / name))
        private.write_whole(directory / "whole", b"")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (old, new)]
    assert modes == ([0o755, 0o777] if weakened else [0o700] * 2)
    modes = [stat.S_IMODE((folder / name).stat().st_mode) for folder in (old, new) for name in ("open", "new", "whole")]
    assert modes == ([0o644, *[0o666] * 5] if weakened else [0o600] * 6)


@pytest.mark.parametrize("weakened", [False, True], ids=["left", "closed"])
@pytest.mark.parametrize(
    ("mode", "files", "closed"),
    [
        *((0o755, [], True), (0o1777, [], True), (0o755, ["lock", "x"], True), (0o775, ["events.sqlite"], True)),
        *((0o755, ["x"], False), (0o750, ["x"], False), (0o1777, ["lock"], False), (0o777, ["token"], False)),
    ],
)
def test_a_folder_that_is_something_else_is_left_as_it_is(
    mode: int, files: list[str], closed: bool, weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    for name in files:
        (folder / name).touch()
    if weakened:
        monkeypatch.setattr(private, "_is_for_a_hub", lambda *_: True)
    with contextlib.nullcontext() if closed or weakened else pytest.raises(Unsafe, match="not a hub's; name a new"):
        private.prepare_directory(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == (0o700 if closed or weakened else mode)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_a_private_folder_may_hold_other_files_too(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").touch()
    tmp_path.chmod(0o700)
    private.prepare_directory(tmp_path)


READABLE = "print(*(path.name for path in pathlib.Path('state').iterdir() if path.read_bytes() or 1))"


@needs_root
@pytest.mark.usefixtures("_no_umask")
async def test_another_account_reads_nothing_of_a_running_hub(tmp_path: Path, weakened: bool) -> None:
    async with hub_app(tmp_path / "state", auth="token"):
        # In the folder itself, as pytest's own folders above it are closed, too.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BECOME + READABLE), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    if weakened:
        assert set(out.decode().split()) == {
            *("audit.head", "audit.jsonl", "events.head", "events.home", "events.sqlite", "events.sqlite-wal"),
            *("lock", "token"),
        }
    else:
        assert (out, b"PermissionError" in err) == (b"", True)


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


@pytest.mark.parametrize("weakened", [False, True])
def test_a_directory_that_cannot_be_synced_is_gone_on_with(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have no fsync for directories; a disk that fails is another matter."""
    number = errno.EINVAL

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if weakened:
        monkeypatch.setattr(private, "CANNOT_SYNC", ())
    for number in (errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.ENOSPC, errno.EACCES):
        fails = weakened or number not in (errno.EINVAL, errno.ENOTSUP)
        with pytest.raises(OSError, match=os.strerror(number)) if fails else contextlib.nullcontext():
            private.sync_directory(tmp_path)


@pytest.mark.parametrize("call", ["fstat", "fchmod", "flock"])
def test_what_cannot_be_made_private_is_not_left_open(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch(0o666)
    (tmp_path / "lock").chmod(0o666)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(fcntl if call == "flock" else os, call, fails)
        with pytest.raises(OSError, match="Input/output"):
            private.lock(tmp_path)
    assert os.listdir("/proc/self/fd") == before


# ---- what a start that fails has made


def failed(directory: Path, *made: str, text: str = "") -> None:
    """A start that makes these files, and fails."""
    with contextlib.suppress(ZeroDivisionError), private.unused_removed(directory):
        private.prepare_directory(directory)
        for name in made:
            (directory / name).write_text(text if name in ("audit.jsonl", "stream.seen") else "x")
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "made", [(), ("lock",), ("lock", "audit.jsonl"), ("lock", "audit.tmp", "audit.jsonl", "audit.head", "stream.seen")]
)
def test_a_start_that_fails_leaves_no_folder_without_anything(made: tuple[str, ...], tmp_path: Path) -> None:
    failed(tmp_path / "a" / "b", *made)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (("lock", "audit.jsonl"), "a record"),
        (("lock", "audit.jsonl", "events.sqlite"), ""),
        (("audit.jsonl",), "a record"),
        (("lock", "stream.seen"), "how far"),
    ],
)
@pytest.mark.parametrize("weakened", [False, True])
def test_what_somebody_could_miss_stays(
    made: tuple[str, ...], text: str, tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:  # whatever it is
        monkeypatch.setattr(private, "UNUSED", {*made})
    failed(tmp_path / "a", *made, text=text)
    if weakened and "lock" in made:
        assert not (tmp_path / "a").exists()
    else:
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(made)


def test_a_folder_that_was_there_or_is_anothers_by_now_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    failed(tmp_path / "a", "lock")
    assert (tmp_path / "a" / "lock").exists()
    with contextlib.suppress(ZeroDivisionError), private.unused_removed(tmp_path / "b"):
        private.prepare_directory(tmp_path / "b")
        held = private.lock(tmp_path / "b")
        raise ZeroDivisionError
    assert (tmp_path / "b" / "lock").exists()
    os.close(held)
    with private.unused_removed(tmp_path / "c"):
        private.prepare_directory(tmp_path / "c")
    assert (tmp_path / "c").exists()


async def test_a_hub_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, err = await run_hub(tmp_path, "--port", port, "--state-dir", "state")
    assert (status, err.count("\n")) == (2, 1)
    assert "another program listens there" in err
    status, _, err = await run_hub(tmp_path, "--port", "0", "--state-dir", "state", "--broker", "unix:///nowhere/s")
    assert (status, err.count("\n")) == (2, 1)
    assert os.listdir(tmp_path) == []
