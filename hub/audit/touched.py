"""Whether somebody else has changed audit.jsonl under the running hub: by what the file system says of it, for nearly
nothing. Only a look at all of it then says whether the chain still holds."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

Facts = tuple[int, int, int, int]


class Touched:
    """How the hub's own writing has left the file. `begin` and `end` are the writer's, in its thread; the rest may be
    called from any other.

    The time that is compared is the one of the last change of anything (ctime), which no program can set.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: Facts | None = None  # None: there is nothing to compare with
        self._writing = False
        self._is_touched = False  # since all of it was looked at

    def begin(self, facts: os.stat_result) -> None:
        """The hub is about to write into the file, which is so now. Stops its own next record from covering up what
        another has changed before."""
        self._is_touched = self.is_touched(_facts(facts))
        self._writing = True

    def end(self, facts: os.stat_result | None) -> None:
        """The hub has left the file so; None: there is none, or another one will be begun."""
        self._left = None if facts is None else _facts(facts)
        self._writing = False

    def is_touched(self, found: Facts | None) -> bool:
        return self._is_touched or (self._left is not None and found != self._left)

    def look(self) -> bool:
        """Return whether somebody else has changed the file; what is being written in this moment is the hub's own.
        Costs one question to the file system."""
        left = self._left
        is_touched = self.is_touched(self._found())
        return self._is_touched or (is_touched and not self._writing and left is self._left)

    def looking(self) -> Callable[[], None]:
        """From here on all of the file is looked at. Call what is returned if all was well: as it is now is right then,
        unless the hub has written since, which has said so itself."""
        self._is_touched = False
        left, found = self._left, self._found()

        def well() -> None:
            if self._left is left and not self._writing:
                self._left = found

        return well

    def _found(self) -> Facts | None:
        with contextlib.suppress(OSError):
            return _facts(os.stat(self._path))
        return None


def _facts(facts: os.stat_result) -> Facts:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_ctime_ns
