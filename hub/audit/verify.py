"""The verifier of the audit log: says whether, and where, what is stored is not what the hub wrote.

It shares nothing with the writer but what a line is (chain.py) and which files there are (files.py). It may run beside
a hub, in its process or in another: what the hub has called durable never changes, and what is behind that is judged
only when nothing has happened to it for a moment.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from . import files
from .chain import MAX_LINE, RETIRED, TOLD, ZEROS, Flaw, Link, before, follow, looks_torn
from .files import CLOSED, CURRENT, HEAD, Stored, lines, name
from .verdict import INTACT, SHORTER, TAMPERED, TORN, UNREADABLE, Broken, Verdict, unreadable

TAIL = 1 << 18  # bytes; longer than any record that the hub writes


class Place(NamedTuple):
    """How far a file was read: bytes and lines of it, and the link and the number of good records there."""

    offset: int
    lines: int
    link: Link | None
    records: int


class Stop(NamedTuple):
    """The line that does not continue the chain: its number in the file, and what is wrong with it."""

    number: int
    line: bytes
    reason: str


def verify(
    path: Path, *, size: int | None = None, alone: bool = False, quick: bool = False, durable: Link | None = None
) -> Verdict:
    """Read a log from its beginning to its end and compare it with its head. Memory stays flat; nothing is written.

    `path` is a state directory (closed segments, then audit.jsonl), its audit.jsonl (the same, closed segments
    included), or one closed segment or copy (by itself, without a head). `size`: look at so many bytes of audit.jsonl
    only, because more is being written. `alone`: only this file and the head, whatever number it begins with. `quick`:
    of all files but the newest only how they hang together, and whether damage was recorded when they were begun; of a
    log that nobody changed it says the same as the whole look. `durable`: as Stored has it.
    """
    path = Path(path)
    try:
        stored = Stored(path, alone=alone, size=size, durable=durable)
    except OSError as error:
        return unreadable(path, error)
    with contextlib.closing(stored):
        return judged(stored, quick=quick)


def judged(stored: Stored, *, quick: bool = False) -> Verdict:
    """Judge the files of a log that were opened together."""
    reading = _Reading(stored, quick)
    try:
        reading.read_all()
        reading.compare_with_beginning()
        reading.compare_with_head()
    except Broken as broken:
        return reading.verdict(broken.status, broken.reason, broken.seq)
    except OSError as error:
        return reading.verdict(UNREADABLE, unreadable(stored.path, error).reason)
    return reading.verdict(INTACT, reading.unsure())


class _Reading:
    """How far a verification has come."""

    def __init__(self, stored: Stored, quick: bool) -> None:
        self.stored = stored
        self.quick = quick
        # what is before the first record does not matter
        self.by_itself = stored.alone or CLOSED.fullmatch(stored.path.name) is not None
        self.link: Link | None = None  # None: the first record says where it begins
        self.beginning = Link(0, ZEROS)
        self.anchored = False  # a record says that everything up to `beginning` was retired
        self.ends_early = False  # more may be in the file, and in the head, than is looked at
        self.records = 0
        self.at_head: str | None = None  # hash of the record that the head names
        self.torn: bytes | None = None

    def read_all(self) -> None:
        """Follow the chain through all files; raises Broken where it breaks."""
        newest = next((file for file in reversed(self.stored.files) if _size(file)), None)
        for file in self.stored.files:
            if self.quick and file is not newest:
                self.skim(file)
            else:
                self.read(file)

    def read(self, file: io.FileIO) -> None:
        """Follow the chain through one file; raises Broken at the first line that does not continue it.

        Behind what is durable a hub may be writing, or taking back a write that failed: a flaw there is believed when
        a second look finds one, and nothing has happened to the file since before it.
        """
        durable = self.stored.head.seq if self.stored.head else 0
        place, seen = Place(0, 0, self.link, self.records), None
        while True:
            place, stop = self._read_on(file, place, durable)
            if stop is None:
                return
            last, seen = seen, _stamp(file)
            if self._is_settled(file) or (self.link or Link(0, ZEROS)).seq < durable or seen == last:
                self._stop(file, stop)
                return
            durable = max(durable, self.stored.durable())
            time.sleep(files.PATIENCE)

    def _read_on(self, file: io.FileIO, place: Place, durable: int) -> tuple[Place, Stop | None]:
        """Follow the chain from there; returns the last place that never changes, and where the chain stops."""
        offset, before_it, self.link, self.records = place
        marked = self.stored.head.seq if self.stored.head else -1
        leading = offset == 0 and not self.by_itself
        end = self._end(file)
        for number, line in enumerate(lines(file, offset, end), before_it + 1):
            link = self.link if self.link is not None else self._begin(line)
            try:
                following = follow(line, link)
            except Flaw as flaw:
                self.link = link
                return place, Stop(number, line, str(flaw))
            if line.startswith(RETIRED):
                self._look_for_anchor(line)
            leading = leading and line.startswith(TOLD)
            if leading:
                _refuse_recorded_damage(line, link)
            self.link = following
            self.records += 1
            offset += len(line)
            if following.seq == marked:
                self.at_head = following.hash
            if following.seq == durable:
                place = Place(offset, number, following, self.records)
        self.ends_early = end is not None and offset >= end
        return place, None

    def _end(self, file: io.FileIO) -> int | None:
        return self.stored.size if name(file) == CURRENT else None

    def _is_settled(self, file: io.FileIO) -> bool:
        """Whether nobody writes what is looked at of this file: a closed one, or the durable bytes of audit.jsonl."""
        return name(file) != CURRENT or self.stored.size is not None

    def skim(self, file: io.FileIO) -> None:
        """Read only how a closed segment begins and ends; all of it if the head names a record inside.

        A segment of nothing but what the log tells itself is all beginning.
        """
        first, told = self._skim_beginning(file)
        if told == _size(file):
            self.read(file)
            return
        ending = self._skim_end(file, first)
        head = self.stored.head
        if head and (self.link.seq if self.link else 0) < head.seq < ending.seq:
            self.read(file)
            return
        self.records += ending.seq - (self.link or self.beginning).seq
        self.link = ending
        if head and head.seq == ending.seq:
            self.at_head = ending.hash

    def _skim_beginning(self, file: io.FileIO) -> tuple[Link, int]:
        """Read what the log itself tells there; returns the link that the rest continues, and the bytes up to it."""
        link, told = self.link, 0
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
            link, told = following, told + len(line)
        return link or self.beginning, told

    def _skim_end(self, file: io.FileIO, first: Link) -> Link:
        start = max(0, _size(file) - TAIL)
        line = os.pread(file.fileno(), TAIL, start).splitlines(keepends=True)[-1]
        try:
            ending = follow(line, before(line))
        except Flaw as flaw:
            raise Broken(TAMPERED, f"{name(file)}, last line: {flaw}") from None
        if ending.seq <= first.seq:
            raise Broken(TAMPERED, f"{name(file)}, last line: it is older than the first")
        return ending

    def _begin(self, line: bytes) -> Link:
        self.beginning = before(line)
        return self.beginning

    def _look_for_anchor(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            details = json.loads(line)["details"]
            self.anchored |= Link(details["seq"], details["hash"]) == self.beginning

    def _stop(self, file: io.FileIO, stop: Stop) -> None:
        link = self.link or Link(0, ZEROS)
        closed = CLOSED.fullmatch(name(file)) is not None
        if closed or len(stop.line) >= MAX_LINE or not looks_torn(stop.line, link):
            raise Broken(TAMPERED, f"{name(file)}, line {stop.number}: {stop.reason}", link.seq + 1)
        self.torn = stop.line

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
        if not self.stored.head:
            return f"There is no {HEAD} to compare with: a cut tail would not show"
        if self.beginning.seq and not self.by_itself:
            return f"Checked from record {self.beginning.seq + 1} on; those before were retired, as the log itself says"
        return None

    def compare_with_head(self) -> None:
        """Raises Broken unless the log reaches its head, with the same record there, and ends with a whole record."""
        seq = self.link.seq if self.link else 0
        head = self.stored.head
        if self.stored.head_flaw:
            raise Broken(TAMPERED, str(self.stored.head_flaw))
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


def _size(file: io.FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _stamp(file: io.FileIO) -> tuple[int, int]:
    """What changes with every write and every cut."""
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


def _refuse_recorded_damage(line: bytes, link: Link) -> None:
    """Raise Broken for the record that begins a segment behind damage: what the log says of itself is never unsaid.

    A quick look may not see the damage, and somebody may have put in order again what was damaged or missing.
    """
    details = json.loads(line)["details"]
    if details.get("what") == "damage":
        raise Broken(TAMPERED, f"Damage was found at an earlier start: {details.get('reason')}", link.seq + 1)
