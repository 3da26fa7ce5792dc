"""What a hub has seen of the stream that it shares with others, to tell whether that was set back.

A server that was restarted says so by its run. Keys that are put back from a copy while it runs do not: the stream is
an older one then, and the same numbers are given again. So a hub says what it has seen each time it comes to the
stream, each second, and with what it publishes; its next start finds it in `stream.seen` in the state directory.

The newest number alone proves little: others may have gone on from the copy, up to there and beyond. So some numbers
before it are remembered, too, the fewer the longer ago, each with when its event was accepted, in milliseconds: no
number is given twice in one. What stands under it now tells whether the stream is the same, and up to where.

What that is worth. A stream that was set back is found out by every hub that has seen an event which it has not, or
has another one in its place, as long as this one would still be kept: before the hub appends anything, and within a
second. The file is behind what was seen by up to a second, and by nothing after a stop; it is never ahead of it, so
nobody is told of a loss that is none. What nobody can know is a copy of the last second before all hubs were killed;
a set-back of which every hub that had seen more is gone for good; and one behind which the stream has gone on for
longer than it keeps its events.
"""

import contextlib
import json
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ...private import Unsafe, open_private, private
from ..events import Event

log = logging.getLogger("hub")

FILE = "stream.seen"
SIZE = 4096  # bytes of it, which a disk writes whole
MARKS = 64  # that are remembered at most; there are some two for each doubling of the time


class Mark(NamedTuple):
    """A number, when its event was accepted (in the server's milliseconds since 1970), and which mark it is."""

    seq: int
    at: str
    place: int


class Witness:
    """What was seen of the stream: its epoch, the newest number, and marks. Without a `directory` it is not kept.

    A state directory that goes from one stream to another costs the clients of that an epoch, and nobody an event.
    """

    def __init__(self, directory: Path | None) -> None:
        self.epoch, self.head = "", 0
        self._marks = list[Mark]()  # newest first
        self._last: Event | None = None
        self._path = None if directory is None else directory / FILE
        self._file, self._noted, self._failing = -1, ("", 0), False

    def load(self) -> None:
        """What the last start has seen. What cannot be read is nothing: it is a safeguard, and no reason not to run."""
        if self._path is None:
            return
        with contextlib.suppress(OSError, Unsafe, ValueError, KeyError, TypeError):
            with private(self._path, os.O_RDWR) as descriptor:
                found = json.loads(os.pread(descriptor, SIZE, 0))
            marks = [Mark(int(seq), str(int(at)), int(place)) for seq, at, place in found["marks"][:MARKS]]
            epoch, head = str(found["epoch"]), int(found["seq"])
            if epoch.isascii() and epoch.isalnum():  # it becomes a part of what the stream says of itself
                self.epoch, self.head, self._marks = epoch, head, marks

    @property
    def words(self) -> list[str | int]:
        """What `judge` in the library is told: the epoch, and numbers, each with when it was accepted, or ''."""
        pairs = [(self.head, self._at()), *((mark.seq, mark.at) for mark in self._marks)]
        return [self.epoch, *(word for pair in pairs for word in pair)]

    @property
    def newest(self) -> tuple[int, str]:
        """What was seen at the last look, which the stream must still have as it was."""
        return self._marks[0][:2] if self._marks else (0, "")

    def begin(self, epoch: str, head: int, same: int) -> None:
        """Another stream, or epoch, is at this number. Of what was seen before, all up to `same` is in it."""
        self._marks = [mark for mark in self._marks if mark.seq <= same]
        self.epoch, self.head, self._last = epoch, head, None

    def see(self, event: Event) -> None:
        """Note that this event, and all before it, have been handed on."""
        self.head, self._last = event.seq, event

    def note(self) -> None:
        """Remember it. Once a second, and at the end; never waits for the disk."""
        if self._last is not None and (not self._marks or self._marks[0].seq < self.head):
            place = self._marks[0].place + 1 if self._marks else 1
            found = [Mark(self.head, self._at(), place), *self._marks]
            self._marks = [mark for mark in found if place - mark.place <= 2 * (mark.place & -mark.place)][:MARKS]
        if self._path is not None and self._noted != (self.epoch, self.head):
            try:
                self._write(self._path)
                self._failing, self._noted = False, (self.epoch, self.head)
            except (OSError, Unsafe) as error:
                if not self._failing:
                    log.warning(
                        "what this hub has seen of the stream could not be noted in %s: %s; it is tried again",
                        self._path,
                        error,
                    )
                self._failing = True

    def close(self) -> None:
        self.note()
        descriptor, self._file = self._file, -1
        if descriptor != -1:
            os.close(descriptor)

    def _write(self, path: Path) -> None:
        if self._file == -1:
            self._file = open_private(path, os.O_RDWR)
        found = {"epoch": self.epoch, "seq": self.head, "marks": self._marks}
        os.pwrite(self._file, json.dumps(found).encode().ljust(SIZE - 1) + b"\n", 0)

    def _at(self) -> str:
        """When the newest was accepted, if this start has seen that."""
        if self._last is None:
            return ""
        return str(round(1000 * datetime.fromisoformat(self._last.timestamp).timestamp()))
