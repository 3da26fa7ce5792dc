"""The last value of each key on disk. It outlives its event: when that is trimmed, it moves to a table of its own."""

import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlite3 import Connection

COLUMNS = "seq, name, id, given, key, ttl, timestamp, size, body"
TABLE = """
CREATE TABLE IF NOT EXISTS state (seq INTEGER NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT NOT NULL, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL,
    stale INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, key))
"""

Place = tuple[str, str]  # name and key


class LastValues:
    """Where the last value of each key is, for at most `most` of them: the one longest unchanged goes first.

    What happens here is noted in memory only. The tables follow inside the transaction that trims events: `move`,
    and `moved` when it has been committed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._live: dict[Place, int] = {}  # the newest event of each key, if it is kept; in their order
        self._saved: dict[Place, int] = {}  # the same, if it is not any more: those that have a row in `state`
        self._dead: list[tuple[str, str, int]] = []  # rows of `state` that something newer has taken the place of
        self._stale: deque[tuple[int, str, str, int]] = deque()  # the kept events hub:stale, and what each has ended

    def load(self, sql: "Connection") -> None:
        """What the tables have."""
        stale = sql.execute("SELECT seq, body FROM events WHERE name = 'hub:stale' ORDER BY seq")
        for seq, body in stale.fetchall():
            self.end(seq, json.loads(body))
        live = "SELECT name, key, max(seq) AS last FROM events WHERE key IS NOT NULL GROUP BY name, key ORDER BY last"
        self._live = {(name, key): seq for name, key, seq in sql.execute(live).fetchall()}
        for name, key, seq in sql.execute("SELECT name, key, seq FROM state ORDER BY seq").fetchall():
            if (name, key) in self._live:
                self._dead.append((name, key, seq))
            else:
                self._saved[name, key] = seq
        self._cap()

    def set(self, name: str, key: str, seq: int) -> None:
        """The event `seq` is the last of this key."""
        place = name, key
        self._live.pop(place, None)  # to the end: they are in their order
        self._live[place] = seq
        if (old := self._saved.pop(place, None)) is not None:
            self._dead.append((*place, old))
        self._cap()

    def end(self, seq: int, data: Mapping[str, Any]) -> None:
        """The event `seq`, hub:stale, says that the lease of an event has ended. A newer one of the key is not meant:
        it was on its way when the lease ended."""
        self._stale.append((seq, data["event"], data["key"], data["seq"]))

    def _cap(self) -> None:
        while len(self._live) + len(self._saved) > self._most:
            if self._saved:
                place = next(iter(self._saved))
                self._dead.append((*place, self._saved.pop(place)))
            else:
                del self._live[next(iter(self._live))]

    def move(self, sql: "Connection", last: int) -> None:
        """Save the values whose events, up to `last`, are about to go. Inside a transaction."""
        sql.executemany("DELETE FROM state WHERE name = ? AND key = ? AND seq = ?", self._dead)
        copy = f"INSERT OR REPLACE INTO state ({COLUMNS}) SELECT {COLUMNS} FROM events WHERE seq = ?"
        sql.executemany(copy, [(seq,) for _, seq in self._until(last)])
        ended = [about for seq, *about in self._stale if seq <= last]
        sql.executemany("UPDATE state SET stale = 1 WHERE name = ? AND key = ? AND seq = ?", ended)

    def moved(self, last: int) -> None:
        """The transaction around `move` has been committed."""
        for place, seq in self._until(last):
            del self._live[place]
            self._saved[place] = seq
        self._dead.clear()
        while self._stale and self._stale[0][0] <= last:
            self._stale.popleft()

    def _until(self, last: int) -> list[tuple[Place, int]]:
        found = []
        for place, seq in self._live.items():
            if seq > last:
                break
            found.append((place, seq))
        return found

    def rows(self, sql: "Connection") -> list[tuple[Any, bool]]:
        """The rows of all of them, longest unchanged first, and whether the end of their lease has been announced."""
        ended = {seq for _, _, _, seq in self._stale}
        rows = []
        for seq in self._live.values():
            row = sql.execute(f"SELECT {COLUMNS} FROM events WHERE seq = ?", (seq,)).fetchone()
            rows.append((row, seq in ended))
        for place, seq in self._saved.items():
            query = f"SELECT stale, {COLUMNS} FROM state WHERE name = ? AND key = ?"
            stale, *row = sql.execute(query, place).fetchone()
            rows.append((row, bool(stale) or seq in ended))
        return sorted(rows, key=lambda pair: pair[0][0])
