"""What is wrong with a hub.toml: a sentence for each problem, at its line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..redaction import redact_text
from ..spelling import suggestion
from .places import Place, lines
from .schema import TABLES

TOO_MANY = re.compile(r"Longer than maximum length (\d+)\.")  # the first that is too much is the place


class BadFile(UsageError):
    """hub.toml cannot be used as it is. The sentence is a line for each problem: `FILE:LINE: what is wrong`."""

    by_line = True


class Problems:
    """What is wrong with a file, by line."""

    def __init__(self, text: str, path: Path) -> None:
        self._lines, self._path = lines(text), path
        self._found: set[tuple[int, str]] = set()

    def add(self, place: Place, sentence: str) -> None:
        """Take one more: at the line of this place, or of the nearest table around it."""
        while place and place not in self._lines:
            place = place[:-1]
        self._found.add((self._lines.get(place, 1), sentence))

    def of_fields(self, messages: Mapping[Any, Any], place: Place = ()) -> None:
        """Take what marshmallow reports."""
        for key, inner in messages.items():
            here = place if key == "_schema" else (*place, key)
            if isinstance(inner, Mapping):
                self.of_fields(inner, here)
            else:
                for said in map(str, inner):
                    most = TOO_MANY.fullmatch(said)
                    self.add((*here, int(most[1])) if most else here, _sentence(here, said))

    def end(self) -> None:
        """Raise BadFile if there were any."""
        if self._found:
            raise BadFile("\n".join(f"{self._path}:{line}: {sentence}" for line, sentence in sorted(self._found)))


def _sentence(place: Place, said: str) -> str:
    name = printable(redact_text(".".join(part for part in place if isinstance(part, str))))
    if said == "Unknown field.":
        table = tuple(part for part in place[:-1] if isinstance(part, str))
        schema = TABLES.get(table)
        return f"There is no setting {name}{(schema and suggestion(str(place[-1]), list(schema().fields))) or '.'}"
    if said == "Missing data for required field.":
        return f"{name} is missing."
    return f"{name}: {said}" if name else said


def printable(text: str) -> str:
    """A name of the file's on one line, and not longer than that."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
