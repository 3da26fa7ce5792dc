"""The closed segments of the audit log: when one is closed, how it is named and sealed, and which of them may go."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..private import seal
from .chain import MAX_LINE
from .files import CURRENT, closed_segments, exists, is_at, lines_backwards
from .recovery import parsed

DAY = 86400.0  # seconds


class Limits(NamedTuple):
    """When audit.jsonl is closed, and how many closed files are kept. 0: no limit."""

    file_bytes: int = 64 * 1024 * 1024
    file_seconds: float = DAY
    keep_files: int = 10
    keep_bytes: int = 0
    keep_seconds: float = 0.0


def is_full(size: int, began: float, limits: Limits) -> bool:
    """Whether a file of that size, begun at that time (Unix), is to be closed before the next record."""
    return size > 0 and (0 < limits.file_bytes <= size or 0 < limits.file_seconds <= time.time() - began)


def beginning(descriptor: int) -> tuple[int, float]:
    """Return number and time (Unix) of the first record of an open file; raises OSError if it cannot be read."""
    line, newline, _ = os.pread(descriptor, MAX_LINE, 0).partition(b"\n")
    record = parsed(line + newline)
    return (record["seq"], _time(record)) if record else (1, time.time())


def close_current(directory: Path, first: int, descriptor: int) -> Path | None:
    """Give audit.jsonl, which is open there, the name of a closed segment, never that of another.

    Returns that name; None if it keeps its own. What counts is where the file is: a rename that failed may have been
    done all the same, and what was renamed may be another file.
    """
    while exists(closed := directory / f"audit-{first}.jsonl"):
        first += 1
    with contextlib.suppress(OSError):
        os.rename(directory / CURRENT, closed)
    return closed if is_at(descriptor, closed) else None


def seal_all(directory: Path) -> None:
    """Make every closed segment read-only: a crash may have come between its new name and that."""
    for path in closed_segments(directory):
        with contextlib.suppress(OSError):
            seal(path)


def too_many(directory: Path, limits: Limits) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The closed segments that may go, oldest first, each with its last record.

    Ends at one whose last line is no record: what is not understood is not removed.
    """
    closed = closed_segments(directory)
    sizes = [path.stat().st_size for path in closed]
    for index, path in enumerate(closed):
        last = parsed(next(lines_backwards(path), b""))
        if last is None or not (
            0 < limits.keep_files < len(closed) - index
            or 0 < limits.keep_bytes < sum(sizes[index:])
            or 0 < limits.keep_seconds < time.time() - _time(last)
        ):
            return
        yield path, last


def _time(record: dict[str, Any]) -> float:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return datetime.fromisoformat(record["timestamp"]).timestamp()
    return time.time()
