"""Epochs: when the numbers of a store may mean other events than somebody has seen, and up to which number they do not.

An epoch ends when events that somebody may have seen can be gone. Three things tell: what the store says of its last
end, and two files beside it. `events.head` has the newest number that anybody can have seen; `events.home` is made once
and never touched again, and who copies it back cannot help that the system notes when. A file system that is set back
as a whole, by a snapshot, cannot be told from a restart.

Another epoch costs a client nothing but what is gone: with the lineage its cursor goes on. So in doubt one begins.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...private import open_private, private, write_all
from ...wire.names import Cursor

HEAD, HOME = "events.head", "events.home"
BOOT = Path("/proc/sys/kernel/random/boot_id")
EARLIER = 32  # epochs that are remembered
SIZE = 128  # bytes of events.head, which a disk writes whole
WORDS = b"By the time of its last change the hub knows that its events were not put back from a copy.\n"


class Epochs:
    """The epoch of the store in `directory`, and the `lineage` before it. `changed` says why another one has begun."""

    def __init__(self, directory: Path) -> None:
        self.epoch, self.lineage = "", dict[str, int]()  # oldest first, with the last number that is the same
        self.changed: str | None = None
        self._directory = directory
        self._head = HeadNote(directory / HEAD)

    def judge(self, meta: Mapping[str, Any], head: int, store: Path) -> None:
        """Go on in the epoch of a store that ends with the number `head`, or begin another behind it. `meta` is what
        the store says of itself: nothing, if it is new."""
        self.epoch, self.lineage = meta.get("epoch", ""), dict(json.loads(meta.get("lineage", "{}")))
        self.changed = self._broken(meta, head, store) if meta else None
        if self.changed or not meta:
            self.begin(head)

    def begin(self, head: int) -> None:
        """Begin another epoch; what is there up to `head` is the same in the one before."""
        before = {**self.lineage, self.epoch: head} if self.epoch else {}
        self.lineage = {epoch: min(last, head) for epoch, last in list(before.items())[-EARLIER:]}
        self.epoch = os.urandom(4).hex()

    def _broken(self, meta: Mapping[str, Any], head: int, store: Path) -> str | None:
        """Why events that somebody may have seen can be gone; None if none can."""
        boot = _boot()
        if not meta["clean"] and not meta["full"] and (not boot or meta["boot"] != boot):
            return "the machine went down under the last hub" if boot else "nobody knows whether the machine went down"
        if "place" not in meta:
            return "a hub of an older version has kept the store"
        if meta["place"] != self._place(store):
            return "the store was put back from a copy"
        noted = self._head.read()
        if noted is None:
            return f"{HEAD} is not as the last hub has left it"
        if noted.epoch == self.epoch:
            return f"the newest events, up to {noted.seq}, are missing" if noted.seq > head else None
        return None if noted.epoch in self.lineage else "the store is an older one than before"

    def facts(self, store: Path) -> dict[str, Any]:
        """What the store is to say of itself, durably, before anything else."""
        return {
            "epoch": self.epoch,
            "lineage": json.dumps(self.lineage),
            "boot": _boot(),
            "place": self._place(store),
        }

    def _place(self, store: Path) -> str:
        """What a copy of the store, or of its whole directory, has otherwise; whatever it was copied with.

        The number of a file that was removed may be given out again, so it is not enough.
        """
        with contextlib.suppress(OSError):
            home = os.stat(self._home())
            return f"{home.st_ino} {home.st_ctime_ns} {os.stat(store).st_ino}"
        return ""

    def _home(self) -> Path:
        home = self._directory / HOME
        with private(home, os.O_RDWR) as descriptor:
            if not os.fstat(descriptor).st_size:
                write_all(descriptor, WORDS)
        return home

    def open(self, head: int) -> None:
        """Be ready to note numbers, `head` first. Raises OSError, or Unsafe for a planted file."""
        self._head.open(self.epoch, head)

    def note(self, seq: int) -> None:
        """Note the number of an event that is committed, before anybody sees it."""
        self._head.write(seq)

    def close(self) -> None:
        self._head.close()


class HeadNote:
    """events.head: the newest number that anybody can have seen, and its epoch.

    It is written behind the commit and before anybody hears of the event: never ahead of the store, and never behind
    what was seen, also after `kill -9`. It is not synced: after the machine went down, the store is judged by that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._text = b""

    def read(self) -> Cursor | None:
        """Return what the last hub has noted; None if it is not there, or somebody has put it back."""
        try:
            with private(self._path, os.O_RDWR) as descriptor:
                facts, noted = os.fstat(descriptor), json.loads(os.pread(descriptor, SIZE, 0))
            return Cursor(noted["epoch"], noted["seq"]) if _is_as_written(facts) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def open(self, epoch: str, seq: int) -> None:
        self.close()
        self._text = b'{"epoch":"%b","seq":%%d}' % epoch.encode()
        self._file = open_private(self._path, os.O_RDWR)
        self.write(seq)

    def write(self, seq: int) -> None:
        os.pwrite(self._file, (self._text % seq).ljust(SIZE - 1) + b"\n", 0)

    def close(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor != -1:
            os.close(descriptor)


def _is_as_written(facts: os.stat_result) -> bool:
    """Whether nobody has set the file's times, as one does who puts it back with the old ones."""
    return facts.st_mtime_ns == facts.st_ctime_ns


def _boot() -> str:
    """Return which start of the machine this is; nothing if the system does not say: then every end that was not clean
    may have been the machine's."""
    with contextlib.suppress(OSError, ValueError):
        return BOOT.read_text().strip()
    return ""
