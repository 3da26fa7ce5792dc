"""What a verification of the audit log comes to: a status, and one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chain import ZEROS

INTACT, TAMPERED, TORN, SHORTER, UNREADABLE = range(5)
DAMAGED = (TAMPERED, SHORTER)  # what no crash leaves
GRAVEST = (UNREADABLE, TAMPERED, SHORTER, TORN, INTACT)


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

    @property
    def is_unreadable(self) -> bool:
        """Whether nothing is said of the log, but that it could not be read."""
        return self.status == UNREADABLE

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


def gravest(statuses: Iterable[int]) -> int:
    """Return the status that counts, of several logs."""
    return min(statuses, key=GRAVEST.index)


def unreadable(path: Path, error: OSError) -> Verdict:
    """Return the verdict about a log that cannot be opened."""
    return Verdict(False, 0, ZEROS, None, f"{error.filename or path} cannot be read: {error.strerror}", UNREADABLE)
