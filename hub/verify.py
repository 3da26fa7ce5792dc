"""The verifier of the audit log: says whether, and where, what is stored is not what the hub wrote.

It shares nothing with the writer (logfile.py) but the constants of this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

CURRENT = "audit.jsonl"
HEAD = "audit.head"
CLOSED = re.compile(r"audit-([1-9][0-9]*)\.jsonl")
MAGIC = b"hub-audit-v1\n"
ZEROS = "0" * 64
KEYS = ["action", "actor", "details", "previous_hash", "seq", "timestamp", "trust"]
MAX_LINE = 1 << 20  # bytes; a file of one endless line must not fill the memory
PATIENCE = 0.02  # seconds until a line without an end is looked at again

INTACT, TAMPERED, TORN, SHORTER, UNREADABLE = range(5)
DAMAGED = (TAMPERED, SHORTER)  # what no crash leaves

TAIL = 1 << 18  # bytes; longer than any record that the hub writes

_HASH_AT = len(',"hash":""}\n') + 64
_BEGINNING = b'{"action":"'
_RETIRED = b'{"action":"audit.retired",'
_TOLD = (_RETIRED, b'{"action":"audit.recovered",')  # what a segment may begin with
_HASH = re.compile(r"[0-9a-f]{64}")
# Keys are sorted at every depth but for a record's own hash: only at its end "trust" stands before "hash".
_END = re.compile(rb'"trust":"(?:[^"\\]|\\.)*","hash":"[0-9a-f]{64}"\}')


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says.

    `status`: 0 intact; 1 tampered (also: another hash at the head's seq); 2 a torn tail only; 3 shorter than its head
    (also: emptied); 4 unreadable. The gravest counts: 4, 1, 3, 2. `valid` is status 0. `records`: how many are good,
    counted from the beginning to the first bad one. `head`: hash of the last good one. `broken_at`: the seq of the
    record that is missing or wrong; in a log of one file that is its line number too. `reason`: one sentence; with
    status 0 only if something could not be checked.
    """

    valid: bool
    records: int
    head: str
    broken_at: int | None
    reason: str | None
    status: int

    def report(self) -> dict[str, Any]:
        """What `audit:verify` answers: `{valid, records, head, broken_at?, reason?}`."""
        report: dict[str, Any] = {"valid": self.valid, "records": self.records, "head": self.head}
        if self.broken_at is not None:
            report["broken_at"] = self.broken_at
        if self.reason is not None:
            report["reason"] = self.reason
        return report


class Link(NamedTuple):
    """A place in the chain: a record's number and its hash. Before the first record: 0 and 64 zeros."""

    seq: int
    hash: str


class Broken(Exception):
    """The log is not what the hub wrote; the message says how."""

    def __init__(self, status: int, reason: str, seq: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.seq = seq


def verify(path: Path, *, size: int | None = None, alone: bool = False, quick: bool = False) -> Verdict:
    """Read a log from its beginning to its end and compare it with its head. Memory stays flat; nothing is written.

    `path` is a state directory (closed segments, then audit.jsonl), its audit.jsonl (the same, closed segments
    included), or one closed segment or copy (by itself, without a head). `size`: look at so many bytes of audit.jsonl
    only, because more is being written. `alone`: only this file and the head, whatever number it begins with. `quick`:
    of all files but the newest only how they hang together, and whether damage was recorded when they were begun.
    """
    path = Path(path)
    reading = _Reading(alone or CLOSED.fullmatch(path.name) is not None)
    with contextlib.ExitStack() as stack:
        try:
            streams = reading.open(path, alone, stack)
            whole = next((file for file in reversed(streams) if os.fstat(file.fileno()).st_size), None)
            for file in streams:
                if quick and file is not whole:
                    reading.skim(file)
                else:
                    reading.read(file, size=size if _name(file) == CURRENT else None, quick=quick)
            reading.compare_with_beginning()
            reading.compare_with_head()
        except Broken as broken:
            return reading.verdict(broken.status, broken.reason, broken.seq)
        except OSError as error:
            return reading.verdict(UNREADABLE, f"{error.filename or path} cannot be read: {error.strerror}")
    return reading.verdict(INTACT, reading.unsure())


def read_head(directory: Path) -> Link | None:
    """The newest durable record as audit.head has it; None if the file is not there or empty.

    Raises Broken if it is not what the hub writes, OSError if it cannot be read.
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
        link = Link(head["seq"], head["hash"])
        if type(link.seq) is int and link.seq >= 0 and _HASH.fullmatch(link.hash):
            return link
    except (ValueError, KeyError, TypeError):
        pass
    raise Broken(TAMPERED, f"{HEAD} is not what the hub writes")


def closed_segments(directory: Path) -> list[Path]:
    """The closed segments, oldest first."""
    found = [(int(match[1]), file) for file in directory.iterdir() if (match := CLOSED.fullmatch(file.name))]
    return [file for _, file in sorted(found)]


class _Reading:
    """How far a verification has come."""

    def __init__(self, by_itself: bool) -> None:
        self.by_itself = by_itself  # what is before the first record does not matter
        self.link: Link | None = None  # None: the first record says where it begins
        self.beginning = Link(0, ZEROS)
        self.anchored = False  # a record says that everything up to `beginning` was retired
        self.ends_early = False  # more may be in the file, and in the head, than is looked at
        self.records = 0
        self.head: Link | None = None
        self.head_flaw: Broken | None = None
        self.at_head: str | None = None  # hash of the record that the head names
        self.torn: bytes | None = None

    def open(self, path: Path, alone: bool, stack: contextlib.ExitStack) -> list[BinaryIO]:
        """The files, all opened before one is read: the gravest first, and a running hub may rename and retire."""
        while True:
            files = self.prepare(path, alone)
            try:
                streams: list[BinaryIO] = [stack.enter_context(file.open("rb")) for file in files]
            except FileNotFoundError:
                if files == self.prepare(path, alone):
                    raise
                continue
            for stream in streams:
                stream.read(1)
                stream.seek(0)
            if files == self.prepare(path, alone) and all(map(_is_still, streams, files)):
                return streams

    def prepare(self, path: Path, alone: bool) -> Sequence[Path]:
        """The files to read, in order. The head is read before them: a log may grow meanwhile, it never shrinks."""
        if not (path.is_dir() or path.name == CURRENT):
            return [path]
        directory, current = (path, path / CURRENT) if path.is_dir() else (path.parent, path)
        try:
            self.head = read_head(directory)
        except Broken as broken:
            self.head_flaw = broken
        closed = [] if alone else closed_segments(directory)
        if path.is_dir() and not current.exists() and (closed or self.head):
            return closed  # audit.jsonl was taken away: the head tells
        return [*closed, current]

    def read(self, file: BinaryIO, *, size: int | None = None, quick: bool = False) -> None:
        """Follow the chain through one file; raises Broken at the first line that does not continue it."""
        marked = self.head.seq if self.head else -1
        leading = quick
        for number, line in enumerate(_lines(file, size), 1):
            link = self.link if self.link is not None else self._begin(line)
            reason = flaw(line, link)
            if reason is not None:
                self.link = link
                self._stop(file, number, line, reason)
                return
            if line.startswith(_RETIRED):
                self._look_for_anchor(line)
            leading = leading and line.startswith(_TOLD)
            if leading:
                _refuse_recorded_damage(line, link)
            self.link = link = Link(link.seq + 1, line[-67:-3].decode())
            self.records += 1
            if link.seq == marked:
                self.at_head = link.hash
        self.ends_early = size is not None and file.tell() >= size

    def skim(self, file: BinaryIO) -> None:
        """Read only how a closed segment begins and ends; all of it if the head names a record inside."""
        link = self.link
        for number, line in enumerate(_lines(file, None), 1):
            link = link if link is not None else self._begin(line)
            reason = flaw(line, link)
            if reason is not None:
                self.link = link
                self._stop(file, number, line, reason)
            if not line.startswith(_TOLD):
                break
            self._look_for_anchor(line)
            _refuse_recorded_damage(line, link)
            link = Link(link.seq + 1, line[-67:-3].decode())
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        last = file.read().splitlines(keepends=True)[-1:]
        before = _before(last[0]) if last else Link(0, ZEROS)
        if last and ((reason := flaw(last[0], before)) or (link and before.seq < link.seq)):
            raise Broken(TAMPERED, f"{_name(file)}, last line: {reason or 'it is older than the first'}")
        if last and self.head and (self.link.seq if self.link else 0) < self.head.seq <= before.seq:
            file.seek(0)
            self.read(file, quick=True)
        elif last:
            self.records += before.seq + 1 - (self.link or self.beginning).seq
            self.link = Link(before.seq + 1, last[0][-67:-3].decode())
            if self.head and self.head.seq == self.link.seq:
                self.at_head = self.link.hash

    def _begin(self, line: bytes) -> Link:
        self.beginning = _before(line)
        return self.beginning

    def _look_for_anchor(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            details = json.loads(line)["details"]
            self.anchored |= Link(details["seq"], details["hash"]) == self.beginning

    def _stop(self, file: BinaryIO, number: int, line: bytes, reason: str) -> None:
        link = self.link or Link(0, ZEROS)
        closed = CLOSED.fullmatch(_name(file)) is not None
        if closed or len(line) >= MAX_LINE or not looks_torn(line, link):
            raise Broken(TAMPERED, f"{_name(file)}, line {number}: {reason}", link.seq + 1)
        self.torn = line

    def compare_with_beginning(self) -> None:
        """Raises Broken unless the log begins with record 1, or says itself that what was before was retired.

        That is a record of the chain. Stops who deletes the oldest files, or leaves a note that they were retired.
        """
        if self.beginning.seq and not (self.by_itself or self.anchored):
            reason = f"Record 1 should be the first, this is {self.beginning.seq + 1}, and no record says why"
            self.records, self.link = 0, Link(0, ZEROS)
            raise Broken(TAMPERED, reason, 1)

    def unsure(self) -> str | None:
        """What could not be checked, in one sentence."""
        if not self.head:
            return f"There is no {HEAD} to compare with: a cut tail would not show"
        if self.beginning.seq and not self.by_itself:
            return f"Checked from record {self.beginning.seq + 1} on; those before were retired, as the log itself says"
        return None

    def compare_with_head(self) -> None:
        """Raises Broken unless the log reaches its head, with the same record there, and ends with a whole record."""
        seq = self.link.seq if self.link else 0
        head = self.head
        if self.head_flaw:
            raise self.head_flaw
        if head and head.seq > seq and not self.ends_early:
            if self.torn and b"\0" in self.torn:
                reason = f"Record {seq + 1} was durable and is overwritten with zeros"
                raise Broken(TAMPERED, reason, seq + 1)
            raise Broken(SHORTER, f"The log ends with record {seq}, its head is record {head.seq}", seq + 1)
        if head and self.at_head and self.at_head != head.hash:
            raise Broken(TAMPERED, f"Record {head.seq} has another hash than {HEAD} says", head.seq)
        if self.torn is not None:
            reason = f"The last {len(self.torn)} bytes are only a part of record {seq + 1}"
            raise Broken(TORN, reason, seq + 1)

    def verdict(self, status: int, reason: str | None, broken_at: int | None = None) -> Verdict:
        newest = self.link.hash if self.link else ZEROS
        return Verdict(status == INTACT, self.records, newest, broken_at, reason, status)


def flaw(line: bytes, link: Link) -> str | None:
    """Why this line is not the record behind that link; None if it is."""
    body = line[:-_HASH_AT] + b"}"
    ending = line[-_HASH_AT:]
    if ending[:9] != b',"hash":"' or ending[-3:] != b'"}\n':
        return "this is not a whole audit record"
    if ending[9:-3] != sha256(MAGIC + body).hexdigest().encode():
        return "the record is not the one that its hash was made of"
    try:
        record: Any = _decode(body.decode("ascii"))
    except (ValueError, RecursionError):
        return "the record is not JSON as the hub writes it"
    if type(record) is not dict or list(record) != KEYS or type(record["seq"]) is not int:
        return "the record does not have the members of an audit record"
    if record["seq"] != link.seq + 1:
        return f"record {link.seq + 1} should be here, this is {record['seq']}"
    if record["previous_hash"] != link.hash:
        return "the record does not continue the one before it"
    return None


def looks_torn(line: bytes, link: Link) -> bool:
    """Whether this can be what a crash leaves of the record behind that link: its beginning, zeros, or both."""
    text = line.rstrip(b"\0")
    if line.endswith(b"\n") or not (text.startswith(_BEGINNING) or _BEGINNING.startswith(text)):
        return False
    if not text.isascii() or not text.decode().isprintable():
        return False
    end = _END.search(text)
    return end is None or (end.end() == len(text) and flaw(text + b"\n", link) is None)


def _refuse_recorded_damage(line: bytes, link: Link) -> None:
    """Raises Broken for the record that begins a segment behind damage: a quick look does not see the damage itself."""
    details = json.loads(line)["details"]
    if details.get("what") == "damage" and details.get("file"):
        raise Broken(TAMPERED, f"Damage was found at an earlier start: {details.get('reason')}", link.seq + 1)


def _name(file: BinaryIO) -> str:
    return Path(file.name).name


def _is_still(stream: BinaryIO, path: Path) -> bool:
    """Whether the opened file still has that name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


def _before(line: bytes) -> Link:
    """What the first record of a segment says it continues; a line that says nothing is judged as record 1."""
    try:
        record = json.loads(line)
        link = Link(record["seq"] - 1, record["previous_hash"])
        if type(link.seq) is int and link.seq >= 0 and _HASH.fullmatch(link.hash):
            return link
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return Link(0, ZEROS)


def _lines(file: BinaryIO, size: int | None) -> Iterator[bytes]:
    """The lines with their newlines. A last line without one is read again: a running hub may be writing it."""
    left = size
    while line := file.readline(MAX_LINE if left is None else min(left, MAX_LINE)):
        if left is not None:
            left -= len(line)
        elif line[-1] != 10 and len(line) < MAX_LINE:
            time.sleep(PATIENCE)
            line += file.readline(MAX_LINE)
        yield line


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_decode = json.JSONDecoder(parse_constant=_refuse).decode
