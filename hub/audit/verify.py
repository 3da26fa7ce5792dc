"""The verifier of the audit log: says whether, and where, what is stored is not what the hub wrote.

It shares nothing with the writer (writer.py) but the constants of chain.py and files.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .chain import MAX_LINE, RETIRED, TOLD, ZEROS, Flaw, Link, before, follow, looks_torn
from .files import CLOSED, CURRENT, HEAD, Stored, lines, name

INTACT, TAMPERED, TORN, SHORTER, UNREADABLE = range(5)
DAMAGED = (TAMPERED, SHORTER)  # what no crash leaves

TAIL = 1 << 18  # bytes; longer than any record that the hub writes


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
    reading = _Reading(Stored(path, alone), alone or CLOSED.fullmatch(path.name) is not None)
    with contextlib.ExitStack() as stack:
        try:
            streams = reading.files.open(stack)
            whole = next((file for file in reversed(streams) if os.fstat(file.fileno()).st_size), None)
            for file in streams:
                if quick and file is not whole:
                    reading.skim(file)
                else:
                    reading.read(file, size=size if name(file) == CURRENT else None, quick=quick)
            reading.compare_with_beginning()
            reading.compare_with_head()
        except Broken as broken:
            return reading.verdict(broken.status, broken.reason, broken.seq)
        except OSError as error:
            return reading.verdict(UNREADABLE, f"{error.filename or path} cannot be read: {error.strerror}")
    return reading.verdict(INTACT, reading.unsure())


class _Reading:
    """How far a verification has come."""

    def __init__(self, files: Stored, by_itself: bool) -> None:
        self.files = files
        self.by_itself = by_itself  # what is before the first record does not matter
        self.link: Link | None = None  # None: the first record says where it begins
        self.beginning = Link(0, ZEROS)
        self.anchored = False  # a record says that everything up to `beginning` was retired
        self.ends_early = False  # more may be in the file, and in the head, than is looked at
        self.records = 0
        self.at_head: str | None = None  # hash of the record that the head names
        self.torn: bytes | None = None

    def read(self, file: BinaryIO, *, size: int | None = None, quick: bool = False) -> None:
        """Follow the chain through one file; raises Broken at the first line that does not continue it."""
        marked = self.files.head.seq if self.files.head else -1
        leading = quick
        for number, line in enumerate(lines(file, size), 1):
            link = self.link if self.link is not None else self._begin(line)
            try:
                following = follow(line, link)
            except Flaw as flaw:
                self.link = link
                self._stop(file, number, line, str(flaw))
                return
            if line.startswith(RETIRED):
                self._look_for_anchor(line)
            leading = leading and line.startswith(TOLD)
            if leading:
                _refuse_recorded_damage(line, link)
            self.link = following
            self.records += 1
            if following.seq == marked:
                self.at_head = following.hash
        self.ends_early = size is not None and file.tell() >= size

    def skim(self, file: BinaryIO) -> None:
        """Read only how a closed segment begins and ends; all of it if the head names a record inside."""
        first = self._skim_beginning(file)
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        last = file.read().splitlines(keepends=True)[-1:]
        if not last:
            return
        ending = self._skim_end(file, last[0], first)
        head = self.files.head
        if head and (self.link.seq if self.link else 0) < head.seq < ending.seq:
            file.seek(0)
            self.read(file, quick=True)
            return
        self.records += ending.seq - (self.link or self.beginning).seq
        self.link = ending
        if head and head.seq == ending.seq:
            self.at_head = ending.hash

    def _skim_beginning(self, file: BinaryIO) -> Link | None:
        """What the log itself tells there; returns the link that the rest continues, None of an empty file."""
        link = self.link
        for number, line in enumerate(lines(file), 1):
            link = link if link is not None else self._begin(line)
            try:
                following = follow(line, link)
            except Flaw as flaw:
                raise Broken(TAMPERED, f"{name(file)}, line {number}: {flaw}", link.seq + 1) from None
            if not line.startswith(TOLD):
                break
            self._look_for_anchor(line)
            _refuse_recorded_damage(line, link)
            link = following
        return link

    def _skim_end(self, file: BinaryIO, line: bytes, first: Link | None) -> Link:
        try:
            ending = follow(line, before(line))
        except Flaw as flaw:
            raise Broken(TAMPERED, f"{name(file)}, last line: {flaw}") from None
        if first and ending.seq <= first.seq:
            raise Broken(TAMPERED, f"{name(file)}, last line: it is older than the first")
        return ending

    def _begin(self, line: bytes) -> Link:
        self.beginning = before(line)
        return self.beginning

    def _look_for_anchor(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            details = json.loads(line)["details"]
            self.anchored |= Link(details["seq"], details["hash"]) == self.beginning

    def _stop(self, file: BinaryIO, number: int, line: bytes, reason: str) -> None:
        link = self.link or Link(0, ZEROS)
        closed = CLOSED.fullmatch(name(file)) is not None
        if closed or len(line) >= MAX_LINE or not looks_torn(line, link):
            raise Broken(TAMPERED, f"{name(file)}, line {number}: {reason}", link.seq + 1)
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
        if not self.files.head:
            return f"There is no {HEAD} to compare with: a cut tail would not show"
        if self.beginning.seq and not self.by_itself:
            return f"Checked from record {self.beginning.seq + 1} on; those before were retired, as the log itself says"
        return None

    def compare_with_head(self) -> None:
        """Raises Broken unless the log reaches its head, with the same record there, and ends with a whole record."""
        seq = self.link.seq if self.link else 0
        head = self.files.head
        if self.files.head_flaw:
            raise Broken(TAMPERED, str(self.files.head_flaw))
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


def _refuse_recorded_damage(line: bytes, link: Link) -> None:
    """Raises Broken for the record that begins a segment behind damage: a quick look does not see the damage itself."""
    details = json.loads(line)["details"]
    if details.get("what") == "damage" and details.get("file"):
        raise Broken(TAMPERED, f"Damage was found at an earlier start: {details.get('reason')}", link.seq + 1)
