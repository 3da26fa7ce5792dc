"""The files of an audit log as they stand on the disk: which there are, opened together, and their lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .chain import MAX_LINE, Link, checked

CURRENT = "audit.jsonl"
HEAD = "audit.head"
CLOSED = re.compile(r"audit-([1-9][0-9]*)\.jsonl")
WORKER = re.compile(r"worker-[1-9][0-9]*")
PATIENCE = 0.02  # seconds until what may change is looked at again; longer than the steps of a file's time stamp


class BadHead(Exception):
    """audit.head is not what the hub writes."""


def read_head(directory: Path) -> Link | None:
    """Return the newest durable record as audit.head has it; None if the file is not there or empty.

    Raises BadHead if it is not what the hub writes, OSError if it cannot be read.
    """
    try:
        with (directory / HEAD).open("rb") as file:
            stored = _settled(file.fileno())
    except FileNotFoundError:
        return None
    if not stored.strip(b"\0 \n"):
        return None
    try:
        head = json.loads(stored)
        return checked(head["seq"], head["hash"])
    except (ValueError, KeyError, TypeError):
        raise BadHead(f"{HEAD} is not what the hub writes") from None


def newer(head: Link | None, durable: Link | None) -> Link | None:
    """Return the newest durable record: as audit.head has it, or as the running log knows it."""
    return durable if durable and durable.seq and durable.seq >= (head.seq if head else 0) else head


def _settled(descriptor: int) -> bytes:
    """Return what the file holds, read twice alike.

    A read beside a write may return a part of either, even within 128 bytes: a number and the half of another hash
    would be called tampered.
    """
    stored = b""
    while (again := os.pread(descriptor, 1024, 0)) != stored:
        stored = again
    return stored


def closed_segments(directory: Path) -> list[Path]:
    """Return the closed segments, oldest first."""
    return sorted(filter(lambda file: CLOSED.fullmatch(file.name), directory.iterdir()), key=first_number)


def logs(directory: Path) -> list[Path]:
    """Return the folders below which there are logs: this one, and those of the workers of one port, `worker-1` first.

    A folder of which that cannot be told counts: whoever reads it says why.
    """
    workers = sorted(filter(WORKER.fullmatch, _names_in(directory)), key=lambda name: (len(name), name))
    return [each for each in (directory, *(directory / name for name in workers)) if _has_log(each)]


def _has_log(directory: Path) -> bool:
    return any(name in (CURRENT, HEAD) or CLOSED.fullmatch(name) for name in _names_in(directory))


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [CURRENT]


def first_number(closed: Path) -> int:
    """Return the number of the first record in a closed segment, as its name says it."""
    match = CLOSED.fullmatch(closed.name)
    assert match is not None
    return int(match[1])


class Stored:
    """The files of one log, opened together: from then on it does not matter what becomes of their names.

    `path` as `verify` takes it; `alone`: of a log only audit.jsonl. `size`: so many bytes of audit.jsonl are durable
    and never change, None if nobody knows. `files` are oldest first. `head`, `head_flaw`: what audit.head says, read
    before the files: a log may grow meanwhile, it never shrinks. `durable` is what the running log knows by itself: an
    older head, put back with an older log, does not hide that records are gone. Raises OSError if a file cannot be
    opened.
    """

    def __init__(
        self, path: Path, *, alone: bool = False, size: int | None = None, durable: Link | None = None
    ) -> None:
        self.path, self.alone, self.size = path, alone, size
        self._durable = durable
        self.files: list[io.FileIO] = []
        self.head: Link | None = None
        self.head_flaw: BadHead | None = None
        try:
            while not self._opened_in_one_step():
                self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()
        self.files = []

    def durable(self) -> int:
        """Return the number of the newest record that is durable by now, as far as audit.head tells."""
        with contextlib.suppress(BadHead, OSError):
            if head := read_head(self.path if self.path.is_dir() else self.path.parent):
                return head.seq
        return 0

    def _opened_in_one_step(self) -> bool:
        """Open every file; False if a running hub has closed or retired one meanwhile."""
        names = self._names()
        try:
            self._open(names)
            return names == self._names() and all(map(is_at, (file.fileno() for file in self.files), names))
        except FileNotFoundError:
            time.sleep(PATIENCE)  # in the middle of a rotation there is no audit.jsonl
            if names == self._names() and not all(map(exists, names)):
                raise
            return False

    def _open(self, names: Sequence[Path]) -> None:
        for path in names:
            self.files.append(io.FileIO(str(path), opener=_without_waiting))
            os.pread(self.files[-1].fileno(), 1, 0)  # all are tried before one is judged: unreadable is the gravest

    def _names(self) -> Sequence[Path]:
        """Return the files to read, in order."""
        path = self.path
        if not (path.is_dir() or path.name == CURRENT):
            return [path]
        directory, current = (path, path / CURRENT) if path.is_dir() else (path.parent, path)
        self.head = self.head_flaw = None
        try:
            self.head = newer(read_head(directory), self._durable)
        except BadHead as flaw:
            self.head_flaw = flaw
        closed = [] if self.alone else closed_segments(directory)
        if path.is_dir() and not exists(current) and (closed or self.head):
            return closed  # audit.jsonl was taken away: the head tells
        return [*closed, current]


def _without_waiting(path: str, flags: int) -> int:
    """Open a file for reading. Stops the planted pipe: opening one waits for its writer, who never comes."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def exists(path: Path) -> bool:
    """Whether there is such a file. Raises OSError if that cannot be told: `Path.exists` would call it missing."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the opened file still has that name."""
    return stands_at(os.fstat(descriptor), path)


def stands_at(facts: os.stat_result, path: Path) -> bool:
    """As `is_at`, of a file that may have been closed since."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(facts, os.stat(path))
    return False


def name(file: io.FileIO) -> str:
    """Return the name under which the file was opened, without its directory."""
    return Path(str(file.name)).name


def lines(file: io.FileIO, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the lines from byte `start` to byte `end` with their newlines, as they are on the disk now."""
    with open(file.fileno(), "rb", closefd=False) as fresh:  # nothing of an earlier look is left in its buffer
        fresh.seek(start)
        while line := fresh.readline(MAX_LINE if end is None else min(end - start, MAX_LINE)):
            start += len(line)
            yield line


def lines_backwards(path: Path, size: int | None = None, block: int = 65536) -> Iterator[bytes]:
    """Yield the lines of a file, last one first, each with its newline if it has one; none if there is no file."""
    with contextlib.suppress(FileNotFoundError), io.FileIO(str(path), opener=_without_waiting) as file:
        yield from backwards(file.fileno(), size, block)


def backwards(descriptor: int, size: int | None = None, block: int = 65536) -> Iterator[bytes]:
    """Yield the lines of an open file, or of its first `size` bytes, last one first."""
    end = os.fstat(descriptor).st_size if size is None else size
    rest: list[bytes] = []  # pieces of a line whose beginning is not read yet, last one first
    while end > 0:
        start = max(0, end - block)
        *whole, last = os.pread(descriptor, end - start, start).split(b"\n")
        end = start
        yield from _joined([*(line + b"\n" for line in whole), last], rest)
    if rest:
        yield b"".join(reversed(rest))


def _joined(pieces: list[bytes], rest: list[bytes]) -> Iterator[bytes]:
    """Yield the lines that a block completes. What it begins with may begin earlier, and waits in `rest`."""
    for piece in filter(None, reversed(pieces)):
        if piece.endswith(b"\n") and rest:
            yield b"".join(reversed(rest))
            rest.clear()
        rest.append(piece)
