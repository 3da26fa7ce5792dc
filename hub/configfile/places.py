"""In which line of a TOML text each table, key and element stands, for who reads an error: tomllib does not say."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice

Place = tuple[str | int, ...]  # names of tables and keys, numbers in arrays

_NAME = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*')"""
_DOTTED = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*+"
_TABLE = re.compile(rf"[ \t]*\[(\[?)[ \t]*({_DOTTED})[ \t]*\]")
_KEY = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_PART = re.compile(_NAME)
# What a value is made of: strings, which can hold line breaks, comments, brackets, and what stands between them. A
# string that is not closed goes on to its end.
_TOKEN = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}|\Z)|'''
    r"""'''.*?(?:'{3,5}|\Z)|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?|\#[^\n]*+|[\[\]{},\n]|[^\s\[\]{},\#"']++""",
    re.DOTALL,
)
LONGEST_PATH = 16  # parts of a dotted key that are told apart: no setting has so many


def lines(text: str) -> dict[Place, int]:
    """In which line each table and key of a TOML text stands, and each element of an array; what else stands inside of
    a value is told by the line of its key. Linear; of a text that is no TOML it says something."""
    found: dict[Place, int] = {(): 1}
    table: Place = ()
    counts: dict[Place, int] = {}
    at, number = 0, 1
    while at < len(text):
        if header := _TABLE.match(text, at):
            table = _place(_parts(header[2]), counts)
            if header[1]:
                index = counts[table] = counts.get(table, -1) + 1
                table = (*table, index)
            for length in range(1, len(table) + 1):  # what is only named on the way there, too
                found.setdefault(table[:length], number)
            place, start = table, header.end()
        elif key := _KEY.match(text, at):
            place, start = table, key.end()
            for part in _parts(key[1]):
                place = (*place, part)
                found.setdefault(place, number)
        else:
            place, start = table, at
        at, number = _behind(text, start, number, place, found)
    return found


def deepest(text: str) -> int:
    """The line in which the deepest bracket stands."""
    depth = most = 0
    number = found = 1
    for token in _TOKEN.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > most:
            most, found = depth, number
        number += token[0].count("\n")
    return found


def _behind(text: str, at: int, number: int, place: Place, found: dict[Place, int]) -> tuple[int, int]:
    """Where the next line of a table begins: behind the line break that is in no string and no bracket."""
    depth, outer, index, is_new = 0, "", 0, False
    for token in _TOKEN.finditer(text, at):
        match token[0]:
            case "\n":
                number += 1
                if depth <= 0:
                    return token.end(), number
                continue
            case "]" | "}":
                depth -= 1
                continue
            case "," if depth == 1:
                index, is_new = index + 1, True
                continue
            case remark if remark[0] == "#":
                continue
        if is_new and depth == 1 and outer == "[":
            found.setdefault((*place, index), number)
            is_new = False
        if token[0] in "[{":
            depth += 1
            if depth == 1:
                outer, index, is_new = token[0], 0, True
        else:
            number += token[0].count("\n")
    return len(text), number


def _parts(dotted: str) -> Sequence[str]:
    return [_named(part[0]) for part in islice(_PART.finditer(dotted), LONGEST_PATH)]


def _named(part: str) -> str:
    """The name that a part of a key means."""
    if "\\" in part and part[0] == '"':
        with suppress(tomllib.TOMLDecodeError):
            return str(tomllib.loads(f"name = {part}")["name"])
    return part[1:-1] if part[0] in "\"'" else part


def _place(parts: Sequence[str], counts: Mapping[Place, int]) -> Place:
    """Where a header leads: below an array of tables into its last one."""
    place: Place = ()
    for part in parts[:-1]:
        place = (*place, part)
        if place in counts:
            place = (*place, counts[place])
    return (*place, *parts[-1:])
