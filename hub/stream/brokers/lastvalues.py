"""The last value of each key on disk. It outlives its event: when that is trimmed, it moves to a table of its own."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .broker import Limits

if TYPE_CHECKING:
    from sqlite3 import Connection

COLUMNS = "seq, name, id, given, key, ttl, timestamp, size, body"
TABLE = """
CREATE TABLE IF NOT EXISTS state (seq INTEGER NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, given INTEGER,
    key TEXT NOT NULL, ttl REAL, timestamp TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL,
    stale INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, key))
"""  # `stale` is the number of the hub:stale that has ended it, 1 in files of older versions

STEP_BYTES = 2 * 1024 * 1024  # that are removed in one go
ROW = 4096  # bytes that a row counts for, however small

Place = tuple[str, str]  # name and key


class Value(NamedTuple):
    """The last event of a key, its bytes as it is sent, and the hub:stale that has ended it, 0 if it holds."""

    seq: int
    size: int
    stale: int = 0

    @property
    def changed(self) -> int:
        return max(self.seq, self.stale)


class LastValues:
    """Where the last value of each key is, within `limits`: the one longest unchanged goes first.

    What happens here is noted in memory only. The tables follow inside a transaction: `move`, and `moved` when it has
    been committed; `unmoved` says that there is something for it to do. Everything that changed last at `gone` or
    before has gone; what the kept events still have of it must not come back.
    """

    def __init__(self, limits: Limits, gone: int = 0) -> None:
        self.gone, self.bytes = gone, 0
        self.limits = limits
        self._values: dict[Place, Value] = {}  # in the order in which they last changed
        self._live: dict[int, Place] = {}  # those whose event is kept, by its number; in their order
        self._dead: list[tuple[Place, Value]] = []  # rows of `state` that something newer has taken the place of
        self._ended: list[tuple[int, str, str, int]] = []  # of `state` too: what hub:stale has ended since

    def load(self, sql: "Connection", largest: int) -> None:
        """What the tables have; a value of more than `largest` bytes could not be sent and is none."""
        live = "SELECT name, key, max(seq), size FROM events WHERE key IS NOT NULL GROUP BY name, key ORDER BY max(seq)"
        for name, key, seq, size in sql.execute(live).fetchall():
            self._values[name, key], self._live[seq] = Value(seq, size), (name, key)
        for name, key, *value in sql.execute("SELECT name, key, seq, size, stale FROM state").fetchall():
            if (name, key) in self._values:
                self._dead.append(((name, key), Value(*value)))
            else:
                self._values[name, key] = Value(*value)
        for seq, body in sql.execute("SELECT seq, body FROM events WHERE name = 'hub:stale' ORDER BY seq").fetchall():
            self.end(seq, json.loads(body))
        self._values = dict(sorted(self._values.items(), key=lambda pair: pair[1].changed))
        self.bytes = sum(value.size for value in self._values.values())
        for place, value in list(self._values.items()):
            if value.changed <= self.gone or value.size > min(largest, self.limits.bytes):
                self._forget(place)
        self._cap()

    def set(self, name: str, key: str, seq: int, size: int) -> None:
        """The event `seq` is the last of this key."""
        place = name, key
        if place in self._values:
            self._forget(place)
        if size > self.limits.bytes:  # it would push all others out, and could not stay itself
            return
        self._values[place] = Value(seq, size)
        self._live[seq] = place
        self.bytes += size
        self._cap()

    def end(self, seq: int, data: Mapping[str, Any]) -> None:
        """The event `seq`, hub:stale, says that the lease of an event has ended. A newer one of the key is not meant:
        it was on its way when the lease ended."""
        place = data["event"], data["key"]
        value = self._values.get(place)
        if value is not None and value.seq == data["seq"]:
            del self._values[place]  # to the end
            self._values[place] = value._replace(stale=seq)
            if value.seq not in self._live:
                self._ended.append((seq, *place, value.seq))

    def _cap(self) -> None:
        while len(self._values) > self.limits.events or self.bytes > self.limits.bytes:
            place = next(iter(self._values))
            self.gone = max(self.gone, self._values[place].changed)
            self._forget(place)

    def _forget(self, place: Place) -> None:
        value = self._values.pop(place)
        self.bytes -= value.size
        if self._live.pop(value.seq, None) is None:
            self._dead.append((place, value))

    # ---- the tables

    def move(self, sql: "Connection", last: int) -> None:
        """Save the values whose events, up to `last`, are about to go, and take out some that have gone. Inside a
        transaction."""
        dead = [(*place, value.seq) for place, value in self._dead[: self._some()]]
        sql.executemany("DELETE FROM state WHERE name = ? AND key = ? AND seq = ?", dead)
        copy = f"INSERT OR REPLACE INTO state ({COLUMNS}, stale) SELECT {COLUMNS}, ? FROM events WHERE seq = ?"
        sql.executemany(copy, [(self._values[place].stale, seq) for seq, place in self._until(last)])
        sql.executemany("UPDATE state SET stale = ? WHERE name = ? AND key = ? AND seq = ?", self._ended)

    def moved(self, last: int) -> None:
        """The transaction around `move` has been committed."""
        for seq, _ in self._until(last):
            del self._live[seq]
        del self._dead[: self._some()]
        self._ended.clear()

    @property
    def unmoved(self) -> bool:
        return bool(self._dead)

    def _some(self) -> int:
        """How many of the dead rows are taken out in one go."""
        size = 0
        for count, (_, value) in enumerate(self._dead, 1):
            size += ROW + value.size
            if size > STEP_BYTES:
                return count
        return len(self._dead)

    def _until(self, last: int) -> list[tuple[int, Place]]:
        found = []
        for seq, place in self._live.items():
            if seq > last:
                break
            found.append((seq, place))
        return found

    def rows(self, sql: "Connection") -> Iterator[tuple[Any, int]]:
        """The rows of all of them, longest unchanged first, and which hub:stale has ended each."""
        for place, value in self._values.items():
            if value.seq in self._live:
                query: tuple[str, Any] = f"SELECT {COLUMNS} FROM events WHERE seq = ?", (value.seq,)
            else:
                query = f"SELECT {COLUMNS} FROM state WHERE name = ? AND key = ?", place
            yield sql.execute(*query).fetchone(), value.stale
