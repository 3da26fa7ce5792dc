"""The file of the audit log and its chain, with plain blocking calls: records go in, durable lines come out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ..private import Unsafe, open_private, sync_directory, write_all, write_whole
from ..wire.messages import now
from . import rotation
from .chain import MAGIC, ZEROS, Link
from .files import CURRENT, HEAD
from .recovery import lines_backwards, parsed, recover
from .rotation import Limits
from .verify import DAMAGED

TRUST = "SYSTEM"  # of the records that the log itself writes
MAX_ARGS = 4096  # bytes of JSON; larger args are recorded by size and SHA-256
MAX_DETAILS = 65536  # bytes; the same for any other details

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
_quoted = json.encoder.encode_basestring_ascii


class Entry(NamedTuple):
    """A record but for its place in the chain: the text before `previous_hash` and the text behind `seq`."""

    front: str
    back: str


def entry(action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]) -> Entry:
    """The record as text, stamped now. Raises TypeError or ValueError if the details are not JSON."""
    front = _encode({"action": action, "actor": actor, "details": details})
    if len(front) > MAX_DETAILS:
        front = _encode({"action": action, "actor": actor, "details": _measured(_encode(details))})
    return Entry(front[:-1], f'"timestamp":"{now()}","trust":{_quoted(trust)}}}')


def reduced(args: Any) -> Any:
    """The args for a record, already redacted: themselves up to 4 KiB, else `{"bytes": n, "sha256": hex}` of their
    JSON."""
    text = _encode(args)
    return args if len(text) <= MAX_ARGS else _measured(text)


def _measured(text: str) -> dict[str, Any]:
    return {"bytes": len(text), "sha256": sha256(text.encode()).hexdigest()}


def chained(entries: Sequence[Entry], link: Link) -> tuple[bytes, Link]:
    """The stored lines of these records behind that link, and the link to the last of them."""
    lines = []
    seq, newest = link
    for front, back in entries:
        seq += 1
        body = f'{front},"previous_hash":"{newest}","seq":{seq},{back}'
        newest = sha256(MAGIC + body.encode()).hexdigest()
        lines.append(f'{body[:-1]},"hash":"{newest}"}}\n')
    return "".join(lines).encode(), Link(seq, newest)


class LogFile:
    """audit.jsonl and its chain in one state directory. One thread at a time; every call may block on the disk.

    `link` is the newest durable record, `size` the bytes of audit.jsonl up to its end. `valid` turns False when what is
    found is not what was written, and is False again at every later start; `reason` says why. `rotations` is odd while
    audit.jsonl is being closed, and counts what verify and tail must not read across.
    """

    def __init__(self, directory: Path, limits: Limits = Limits()) -> None:  # noqa: B008 (it is immutable)
        self.directory = directory
        self.limits = limits
        self.rotations = 0
        self._began: tuple[int, float] | None = None  # number and time of the first record in audit.jsonl, once known
        self._retiring = False  # a file was closed: there may be too many
        self.link = Link(0, ZEROS)
        self.size = 0
        self.valid = True
        self.reason: str | None = None
        self._known = False  # link and size are true
        self._left_over = False  # behind `size` there may be bytes of a write that failed
        self._file: int | None = None
        self._head: int | None = None
        self._notices: list[dict[str, Any]] = []  # what the next append has to tell first
        self._refused = 0  # records that could not be kept since the last append that worked

    def append(self, entries: Sequence[Entry]) -> int:
        """Write the records with one write and make them durable; returns how many were written, notices included.

        Raises OSError or Unsafe if they are not durable. None of them is in the file then; a later call tries anew.
        """
        try:
            self.open()
            if self.size:
                self._rotate_if_full()
            retired = list(self._retired())
            told = [entry("audit.recovered", None, TRUST, details) for details in self._told()]
            told += [entry("audit.retired", None, TRUST, details) for _, details in retired]
            if told or entries:
                self._commit([*told, *entries])
        except (OSError, Unsafe):
            self._refused += len(entries)
            self._take_back()
            raise
        self._notices, self._refused, self._retiring = [], 0, False
        for path, _ in retired:  # its end is on record now
            with contextlib.suppress(OSError):  # the next rotation tries again
                path.unlink()
                self.rotations += 2
        return len(told) + len(entries)

    def open(self) -> None:
        """Find the end of the chain and be ready to write behind it. Raises OSError, or Unsafe for a planted file."""
        if self._file is not None and self._head is not None and self._is_untouched(self._file):
            return
        self.close()
        if not self._known:
            self._recover()
        self._file = open_private(self.directory / CURRENT)
        if not self._ends_as_known():
            self.close()
            self._recover()
            self._file = open_private(self.directory / CURRENT)
        self._head = self._open_head()
        sync_directory(self.directory)

    def close(self) -> None:
        """Close the files. Everything appended is durable already."""
        for descriptor in (self._file, self._head):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._file = self._head = None

    def _rotate_if_full(self) -> None:
        """Close audit.jsonl and begin a new one. If it cannot be renamed, it goes on growing and the next append tries.

        From the rename on, a failure is one of this append: nothing is in the new file then.
        """
        current = self.directory / CURRENT
        if self._began is None:
            self._began = rotation.beginning(current)
        first, began = self._began
        if not rotation.is_full(self.size, began, self.limits):
            return
        self.rotations += 1
        try:
            with contextlib.suppress(OSError):
                rotation.close_current(self.directory, first)
                self.size, self._began, self._retiring = 0, None, True
        finally:
            self.rotations += 1
        if self.size == 0:
            self.close()
            self.open()

    def _retired(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """What is to be removed, and what to record about it: the end of each file, where `verify` begins later.

        While the chain is broken nothing goes: damage stays to be seen. Only the first records of a new file say what
        goes, so that a start finds them without reading everything.
        """
        if self._retiring and self.valid:
            for path, last in rotation.too_many(self.directory, self.limits):
                yield path, {"file": path.name, "seq": last["seq"], "hash": last["hash"]}

    def _recover(self) -> None:
        self._known = False
        self._began = None
        self.link, self.size, self._notices, verdict = recover(self.directory)
        self._known = True
        if verdict.status in DAMAGED:
            self.valid, self.reason = False, verdict.reason
        rotation.seal_all(self.directory)

    def _told(self) -> list[dict[str, Any]]:
        refused = [{"what": "could not be written", "refused": self._refused}] if self._refused else []
        return [*self._notices, *refused]

    def _commit(self, entries: Sequence[Entry]) -> None:
        assert self._file is not None
        data, link = chained(entries, self.link)
        self._left_over = True
        write_all(self._file, data)
        os.fdatasync(self._file)
        self._left_over = False
        self.link = link
        self.size += len(data)
        self._write_head()

    def _take_back(self) -> None:
        """After a failed write or fdatasync: nothing of it stays, and what is there is read again.

        A failed fdatasync may have dropped the pages, and calls the next one a success. So the same bytes are never
        synced a second time: they are cut off, and the file is opened anew. If even cutting fails, the next open does
        it.
        """
        if self._file is not None and self._left_over:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
                self._left_over = False
        self.close()

    def _is_untouched(self, descriptor: int) -> bool:
        """Nobody has cut, extended or deleted the file under the running hub (logrotate would)."""
        facts = os.fstat(descriptor)
        return facts.st_size == self.size and facts.st_nlink == 1

    def _ends_as_known(self) -> bool:
        """Cut what a failed write has left; then the newest durable record must be the last."""
        assert self._file is not None
        if self._left_over:
            os.ftruncate(self._file, self.size)
            self._left_over = False
        if not self._is_untouched(self._file):
            return False
        if self.size == 0:
            return True
        last = parsed(next(lines_backwards(self.directory / CURRENT, self.size), b""))
        return last is not None and Link(last["seq"], last["hash"]) == self.link

    def _open_head(self) -> int:
        path = self.directory / HEAD
        if not path.exists():
            write_whole(path, self._head_text())
        return open_private(path, os.O_WRONLY)

    def _write_head(self) -> None:
        """Overwritten in place and not synced, so that a commit costs one fdatasync and no more.

        It is always the same 128 bytes, which a disk writes whole. It is written behind the records that it names:
        after a power cut it may be older than the log, never newer, and recovery takes the log's word for the records
        behind it. If it cannot be written, the records are durable all the same.
        """
        assert self._head is not None
        with contextlib.suppress(OSError):
            os.pwrite(self._head, self._head_text(), 0)

    def _head_text(self) -> bytes:
        return f'{{"hash":"{self.link.hash}","seq":{self.link.seq}}}'.ljust(127).encode() + b"\n"
