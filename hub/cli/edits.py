"""JSON as a text: what is put into it, and taken out again, leaves the rest as it is, byte for byte.

Whether an object or a list stood there empty before, is told by what stands behind its first bracket: nothing where it
did, a blank or a line break in what was made together with its content.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

BLANKS = re.compile(r"[ \t\n\r]*")
INDENT = re.compile(r"[ \t\n\r]*[{\[][ \t\r]*\n([ \t]+)")
_decode = json.JSONDecoder().raw_decode


class Part(NamedTuple):
    """A member of an object, or an element of a list: its name, and where it, its value and its end are."""

    name: str
    start: int
    value: int
    end: int


class Edit(NamedTuple):
    """What stands from `start` to `end` becomes another text."""

    start: int
    end: int
    text: str = ""


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with these edits, none of which lies in another one."""
    found, at = list[str](), 0
    for edit in sorted(edits):
        found += text[at : edit.start], edit.text
        at = edit.end
    return "".join([*found, text[at:]])


def beginning(text: str) -> int:
    """Where the value begins."""
    return _behind_blanks(text, 0)


def parts(text: str, at: int) -> list[Part]:
    """What the object or the list is made of whose first bracket stands there. The text must be JSON."""
    found, is_object = list[Part](), text[at] == "{"
    at = _behind_blanks(text, at + 1)
    while text[at] not in "}]":
        name, start = "", at
        if is_object:
            name, at = _decode(text, at)
            at = _behind_blanks(text, _behind_blanks(text, at) + 1)
        end = _decode(text, at)[1]
        found.append(Part(name, start, at, end))
        at = _behind_blanks(text, end)
        if text[at] == ",":
            at = _behind_blanks(text, at + 1)
    return found


def _behind_blanks(text: str, at: int) -> int:
    found = BLANKS.match(text, at)
    assert found
    return found.end()


def stood_empty(text: str, at: int, known: Sequence[Part]) -> bool:
    """Whether the object or list there was empty before this was put into it."""
    return not known or known[0].start == at + 1


def without(text: str, at: int, known: Sequence[Part], gone: Sequence[Part]) -> list[Edit]:
    """Take these parts out of the object or list there."""
    if len(gone) == len(known):
        if not known or stood_empty(text, at, known):
            return [Edit(at + 1, known[-1].end)] if known else []
        return [Edit(at + 1, _behind_blanks(text, known[-1].end))]
    first = next(index for index, part in enumerate(known) if part not in gone)
    return [
        Edit(part.start, known[index + 1].start) if index < first else Edit(known[index - 1].end, part.end)
        for index, part in enumerate(known)
        if part in gone
    ]


class Style:
    """How a text is indented, or that it is all on one line."""

    def __init__(self, text: str) -> None:
        found = INDENT.match(text)
        has_lines = "\n" in text.strip()
        self._unit = found[1] if found else "  " if has_lines else None
        self._break = "\r\n" if "\r\n" in text else "\n"

    def line(self, level: int) -> str:
        """What stands before a part on that level."""
        return " " if self._unit is None else self._break + self._unit * level

    def value(self, value: Any, level: int) -> str:
        """A value of which the brackets stand on that level."""
        return json.dumps(value, indent=self._unit, ensure_ascii=False).replace("\n", self.line(level))

    def member(self, name: str, text: str) -> str:
        """A member of an object."""
        return f"{json.dumps(name, ensure_ascii=False)}: {text}"

    def whole(self, brackets: str, texts: Iterable[str], level: int) -> str:
        """An object or a list of these parts, that was not there before."""
        inner = ",".join(self.line(level + 1) + text for text in texts)
        return f"{brackets[0]}{inner}{self.line(level)}{brackets[1]}"

    def added(
        self, at: int, known: Sequence[Part], texts: Sequence[str], level: int, *, is_close: bool = False
    ) -> list[Edit]:
        """Put these parts, on that level, behind those of the object or list there; on the same line, if `is_close`."""
        if not texts:
            return []
        first = " " if is_close else self.line(level)
        more = ("," + self.line(level)).join(texts)
        end = known[-1].end if known else at + 1
        return [Edit(end, end, f",{first}{more}" if known else more)]
