"""Files that nobody else can read, write or plant: the state directory, its lock, and what is in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import Occupied, UsageError

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "lock"
# By one of these a state directory is known.
SETTINGS = "hub.toml"  # what a person has written for a hub, before there is one
LEFT = (LOCK, "audit.jsonl", "audit.head", "events.sqlite", "server.json", "token", "token.read")
# Of these, as a start makes them before it keeps anything, and of what is empty, nothing is worth keeping.
UNUSED = {LOCK, "audit.head", "audit.tmp", "token"}
FILE, DIRECTORY = 0o600, 0o700  # what others have no right to: anything
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what a file system answers that has no fsync for directories


class Locked(RuntimeError):
    """Another hub has this state directory; the sentence names the directory and the process."""


class Unsafe(RuntimeError):
    """The state directory, or a file in it, is not the hub's alone; the sentence says which and why."""


def open_private(path: Path, flags: int = os.O_RDWR | os.O_APPEND, folder: int | None = None) -> int:
    """Open or create a file that is this account's alone (0600); in an open `folder`, if that is given, by its name.
    Raises Unsafe for anything else at that place.

    Stops the planted link: whoever can make `audit.jsonl` a link to another file of the operator's has the hub write
    there, or reads the log at the other end. A file that another account owns, or a pipe, is the same attack.
    """
    try:
        return _open(path, flags, folder)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE, dir_fd=folder)


def read_private(path: str | Path, most: int, folder: int | None = None) -> bytes:
    """What is in a file that is this account's alone. Raises FileNotFoundError, and Unsafe as `open_private`."""
    descriptor = _open(path, os.O_RDONLY, folder)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def _open(path: str | Path, flags: int, folder: int | None) -> int:
    guarded = flags | os.O_NOFOLLOW | os.O_NONBLOCK  # no link is followed, no pipe waited for
    try:
        descriptor = os.open(path, guarded, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe(f"{path} is a symbolic link; the hub does not follow links") from None
        raise
    try:
        _make_private(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_private(descriptor: int, path: str | Path) -> None:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        raise Unsafe(f"{path} is not a regular file of this account")
    if facts.st_mode & 0o077 & ~FILE:
        os.fchmod(descriptor, FILE)


def seal(path: Path) -> None:
    """Make a file of this account read-only (0400); what is not a regular file of this account is left alone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) != 0o400:
            os.fchmod(descriptor, 0o400)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def private(path: Path, flags: int = os.O_RDWR | os.O_APPEND, folder: int | None = None) -> Iterator[int]:
    """`open_private`, closed at the end."""
    descriptor = open_private(path, flags, folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def private_folder(path: Path) -> Iterator[int]:
    """A folder that is there and this account's alone, open for the functions that take one; closed at the end. Raises
    Unsafe for any other, and OSError.

    Stops the planted link, and the folder that is somebody's of the same name: what the hub writes and removes in a
    folder is in this very one, whatever the path becomes meanwhile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Unsafe(f"{path} is a symbolic link, or no folder") from None
        raise
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise Unsafe(f"{path} is not a folder of this account alone")
        yield descriptor
    finally:
        os.close(descriptor)


def prepare_directory(directory: Path) -> None:
    """Create the state directory (0700), or close it to others.

    Raises Unsafe if another account owns it, or if it is open to others and something else than a state directory:
    `/tmp` closed because of a mistyped word would be missed by everybody.
    Whoever owns the directory can exchange every file in it, whatever the mode of the file.
    """
    directory.mkdir(mode=DIRECTORY, parents=True, exist_ok=True)
    if check_directory(directory) & 0o077 & ~DIRECTORY:
        directory.chmod(DIRECTORY)


def check_directory(directory: Path) -> int:
    """The mode of a state directory that is there. Raises Unsafe if a hub would not take it, FileNotFoundError."""
    facts = directory.stat()
    if facts.st_uid != os.geteuid():
        raise Unsafe(f"The state directory {directory} belongs to another account")
    if facts.st_mode & 0o077 & ~DIRECTORY and not _is_for_a_hub(directory, facts.st_mode):
        is_meant = (directory / SETTINGS).exists() and not facts.st_mode & (stat.S_IWOTH | stat.S_ISVTX)
        close = f"close it with chmod 700 {directory} if it is for a hub alone, or " * is_meant
        raise Unsafe(f"{directory} is open to other accounts and not a hub's; {close}name a new or an empty folder")
    return facts.st_mode


def _is_for_a_hub(directory: Path, mode: int) -> bool:
    """Whether nothing is in it yet, or what a hub has left there."""
    names = os.listdir(directory)
    return not names or (not mode & (stat.S_IWOTH | stat.S_ISVTX) and any(name in names for name in LEFT))


@contextlib.contextmanager
def unused_removed(*directories: Path, always: bool = False) -> Iterator[None]:
    """Around a start: of the state directories that it has made, those in which nothing was kept are gone again when it
    fails (`always`: at its end, too), and so are folders above that were made for them."""
    made = {each for directory in directories for each in (directory, *directory.parents) if not each.exists()}
    has_failed = True
    try:
        yield
        has_failed = False
    finally:
        for directory in sorted(made, key=lambda each: len(each.parts), reverse=True) * (has_failed or always):
            with contextlib.suppress(OSError, Locked, Unsafe):
                _remove_unused(directory)


def _remove_unused(directory: Path) -> None:
    """Remove a folder that is empty, or holds what a hub makes before it keeps anything. Raises OSError, and Locked if
    another hub has come meanwhile."""
    files = list(directory.iterdir())
    if directory / LOCK in files and all(file.name in UNUSED or not file.stat().st_size for file in files):
        held = lock(directory)
        try:
            for file in files:
                file.unlink()
        finally:
            os.close(held)
    directory.rmdir()


def cannot_take(directory: Path, error: Exception) -> UsageError:
    """What to say when a state directory could not be prepared, or locked."""
    if isinstance(error, Locked):
        return Occupied(f"{error}.")
    if isinstance(error, Unsafe):
        return UsageError(f"{error}.")
    return UsageError(f"The state directory {directory} cannot be used: {error}.")


def lock(directory: Path) -> int:
    """Take the lock of a state directory; held until the descriptor is closed. Raises Locked if another hub has it."""
    descriptor = open_private(directory / LOCK, os.O_RDWR)
    try:
        _take(descriptor, directory)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise Locked(f"Another hub (process {pid}) is using the state directory {directory}") from None
    with contextlib.suppress(OSError):  # the number is only for people
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: one write, or more if the system takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_whole(path: Path, data: bytes, *, durable: bool = True, folder: int | None = None) -> None:
    """Create or replace a private file by renaming: whoever opens it finds all of this, or what was there before; if it
    is not `durable`, a power failure may leave nothing. `folder` as for `open_private`.

    Nothing is written through a link: a planted one is replaced.
    """
    spare = path.with_suffix(".tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(spare, dir_fd=folder)
    with private(spare, folder=folder) as descriptor:
        write_all(descriptor, data)
        if durable:
            os.fdatasync(descriptor)
    os.rename(spare, path, src_dir_fd=folder, dst_dir_fd=folder)


def sync_directory(directory: Path) -> None:
    """Make created and renamed names durable, where the file system can: some network file systems cannot, and say so.

    Raises OSError if the disk failed: only what means "not here, and never" is no failure.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
