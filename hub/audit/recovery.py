"""The start of the audit log: what a crash, or somebody else, has left is judged and made ready to go on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..private import private, write_all
from . import verify as verifier
from .chain import MAX_LINE, ZEROS, Link
from .files import CURRENT, HEAD, BadHead, closed_segments, exists, lines_backwards, newer, read_head
from .verdict import DAMAGED, UNREADABLE, Verdict


class Recovered(NamedTuple):
    """Where the chain goes on, the size of the whole records there, what to record about it, and the verdict."""

    link: Link
    size: int
    notices: list[dict[str, Any]]
    verdict: Verdict


def recover(directory: Path, durable: Link) -> Recovered:
    """Judge what is there and make it ready to go on. Nothing is deleted; what is bad stays visible to `verify`.

    `durable`: the newest record that this process has written, if it has: there may be less. Raises OSError if it
    cannot be read, or not be made ready. It may be interrupted anywhere and called again.
    """
    current = directory / CURRENT
    verdict = verifier.verify(directory, quick=True, durable=durable)  # a start reads one file, however many there are
    holds = exists(current) and current.stat().st_size > 0
    if (holds or closed_segments(directory)) and verdict.status == UNREADABLE:
        raise OSError(errno.EIO, verdict.reason)
    link = _newest_record(directory)
    head, notices = _head_of(directory, link)
    head = newer(head, durable)
    if verdict.status in DAMAGED and _goes_on_damaged(current, holds, durable):
        closed = _close_segment(current) if holds else None
        notices.append({"what": "damage", "reason": verdict.reason, "file": closed})
        # Behind damage the chain continues the head: should the log contradict it, the break stays for ever.
        link = Link(max(link.seq, head.seq), head.hash) if head else link
        return Recovered(link, 0, notices, verdict)
    size, torn = _set_torn_aside(current, link.seq + 1) if holds else (0, [])
    return Recovered(link, size, [*notices, *torn], verdict)


def _goes_on_damaged(current: Path, holds: bool, durable: Link) -> bool:
    """Whether what is written next stands behind damage, now that a bad head is set aside.

    If not, the damage is in the closed segments, where it stays to be seen.
    """
    path = current if holds else current.parent
    own = verifier.verify(path, alone=holds, quick=not holds, durable=durable)
    return own.status in DAMAGED


def _newest_record(directory: Path) -> Link:
    """The last line that can be read as a record, in the newest file that has one."""
    for path in (directory / CURRENT, *reversed(closed_segments(directory))):
        for line in lines_backwards(path):
            if (record := parsed(line)) is not None:
                return Link(record["seq"], record["hash"])
    return Link(0, ZEROS)


def _head_of(directory: Path, newest: Link) -> tuple[Link | None, list[dict[str, Any]]]:
    """The head, and what to record if it is missing or unreadable; an unreadable one is set aside."""
    try:
        head = read_head(directory)
    except BadHead as flaw:
        name = f"audit-{newest.seq + 1}.torn"
        _keep(directory / name, (directory / HEAD).read_bytes())
        (directory / HEAD).unlink()
        return None, [{"what": "head", "reason": str(flaw), "file": name}]
    missing = head is None and newest.seq > 0
    return head, [{"what": "head", "reason": f"{HEAD} was missing"}] if missing else []


def _set_torn_aside(path: Path, seq: int) -> tuple[int, list[dict[str, Any]]]:
    """Move the bytes behind the last whole record to a file of their own; returns the size that is left."""
    with private(path) as descriptor:
        size = os.fstat(descriptor).st_size
        torn = next(lines_backwards(path), b"")
        if not torn or torn.endswith(b"\n"):
            return size, []
        name = f"audit-{seq}.torn"
        _keep(path.with_name(name), torn)
        os.ftruncate(descriptor, size - len(torn))
        os.fdatasync(descriptor)
    return size - len(torn), [{"what": "torn tail", "bytes": len(torn), "file": name}]


def _keep(path: Path, data: bytes) -> None:
    with private(path) as descriptor:
        write_all(descriptor, data)
        os.fdatasync(descriptor)


def _close_segment(path: Path) -> str:
    """Rename a damaged segment, as it is, after the record that it begins with."""
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE), b"")
        found = ((number, parsed(line)) for number, line in enumerate(lines))
        first = next((max(1, record["seq"] - number) for number, record in found if record), 1)
    while exists(closed := path.with_name(f"audit-{first}.jsonl")):
        first += 1
    os.rename(path, closed)
    return closed.name


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a stored line, if it is one."""
    try:
        record = json.loads(line)
        if type(record["seq"]) is int and len(record["hash"]) == len(ZEROS) and line.endswith(b"\n"):
            return dict(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
