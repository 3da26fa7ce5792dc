"""Notes that come in floods: so many of a key are written each second, the rest becomes one sum."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Args = tuple[str, Mapping[str, Any] | None, str, Mapping[str, Any]]  # action, actor, trust, details

MAX_KEYS = 1024  # keys watched at a time
LIMIT = 10  # notes of one key a second
LIMITS = {"client.refused": 1}
SECOND = 1.0


@dataclass(slots=True)
class Sum:
    """The notes of one key in the running second: how many were written, and what was not."""

    timer: asyncio.TimerHandle
    written: int = 0
    count: int = 0
    first: Args | None = None


class Sums:
    """The running second of each key. `put` writes a note; all methods are called in the event loop."""

    def __init__(self, put: Callable[..., None]) -> None:
        self._put = put
        self._sums: dict[str, Sum] = {}

    def add(self, key: str, limit: int | None, note: Args) -> None:
        """Write the note, or count it if the second has had its share (`limit`, else LIMITS[key], else LIMIT)."""
        if key not in self._sums and len(self._sums) >= MAX_KEYS:
            key = ""  # keys may come from outside: beyond this many, one sum for all
        total = self._sums.get(key) or self._open(key)
        if total.written < (limit or LIMITS.get(key, LIMIT)):
            total.written += 1
            self._put(*note)
        else:
            total.count += 1
            action, actor, trust, details = note
            total.first = total.first or (action, actor, trust, dict(details))

    def write(self) -> None:
        """Write what has been summed up so far, without waiting for the second to be over."""
        for key in list(self._sums):
            self._close(key)

    def _open(self, key: str, written: int = 0) -> Sum:
        timer = asyncio.get_running_loop().call_later(SECOND, self.second_over, key)
        self._sums[key] = Sum(timer, written)
        return self._sums[key]

    def second_over(self, key: str) -> None:
        """Write the key's sum, which counts for the next second; a key that has none is forgotten."""
        if self._close(key):
            self._open(key, written=1)

    def _close(self, key: str) -> bool:
        """Write what was summed up, if anything was."""
        total = self._sums.pop(key, None)
        if total is None:
            return False
        total.timer.cancel()
        if total.first is None:
            return False
        action, actor, trust, details = total.first
        self._put(action, actor, trust, {**details, "count": total.count})
        return True
