"""The files of an audit log as they stand on the disk: which there are, opened together, and their lines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .chain import MAX_LINE, Link, checked

CURRENT = "audit.jsonl"
HEAD = "audit.head"
CLOSED = re.compile(r"audit-([1-9][0-9]*)\.jsonl")
PATIENCE = 0.02  # seconds until a line without an end is looked at again


class BadHead(Exception):
    """audit.head is not what the hub writes."""


def read_head(directory: Path) -> Link | None:
    """The newest durable record as audit.head has it; None if the file is not there or empty.

    Raises BadHead if it is not what the hub writes, OSError if it cannot be read.
    """
    try:
        with (directory / HEAD).open("rb") as file:
            stored = file.read(1024)
    except FileNotFoundError:
        return None
    if not stored.strip(b"\0 \n"):
        return None
    try:
        head = json.loads(stored)
        return checked(head["seq"], head["hash"])
    except (ValueError, KeyError, TypeError):
        raise BadHead(f"{HEAD} is not what the hub writes") from None


def closed_segments(directory: Path) -> list[Path]:
    """The closed segments, oldest first."""
    found = [(int(match[1]), file) for file in directory.iterdir() if (match := CLOSED.fullmatch(file.name))]
    return [file for _, file in sorted(found)]


class Stored:
    """The files of one log, opened. `path` as `verify` takes it; `alone`: of a log only audit.jsonl.

    `head`, `head_flaw`: what audit.head says. It is read before the files: a log may grow meanwhile, it never shrinks.
    """

    def __init__(self, path: Path, alone: bool) -> None:
        self.path, self.alone = path, alone
        self.head: Link | None = None
        self.head_flaw: BadHead | None = None

    def open(self, stack: contextlib.ExitStack) -> list[BinaryIO]:
        """The files, all opened before one is read: the gravest first, and a running hub may rename and retire."""
        while True:
            files = self._names()
            try:
                streams: list[BinaryIO] = [stack.enter_context(file.open("rb")) for file in files]
            except FileNotFoundError:
                if files == self._names():
                    raise
                continue
            for stream in streams:
                stream.read(1)
                stream.seek(0)
            if files == self._names() and all(map(_is_still, streams, files)):
                return streams

    def _names(self) -> Sequence[Path]:
        """The files to read, in order."""
        path = self.path
        if not (path.is_dir() or path.name == CURRENT):
            return [path]
        directory, current = (path, path / CURRENT) if path.is_dir() else (path.parent, path)
        try:
            self.head = read_head(directory)
        except BadHead as flaw:
            self.head_flaw = flaw
        closed = [] if self.alone else closed_segments(directory)
        if path.is_dir() and not current.exists() and (closed or self.head):
            return closed  # audit.jsonl was taken away: the head tells
        return [*closed, current]


def name(file: BinaryIO) -> str:
    return Path(file.name).name


def lines(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """The lines with their newlines. A last line without one is read again: a running hub may be writing it."""
    left = size
    while line := file.readline(MAX_LINE if left is None else min(left, MAX_LINE)):
        if left is not None:
            left -= len(line)
        elif line[-1] != 10 and len(line) < MAX_LINE:
            time.sleep(PATIENCE)
            line += file.readline(MAX_LINE)
        yield line


def _is_still(stream: BinaryIO, path: Path) -> bool:
    """Whether the opened file still has that name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False
