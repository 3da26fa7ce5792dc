"""In which line of a TOML text each table and key stands, for who reads an error: tomllib does not say."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice

Place = tuple[str | int, ...]  # names of tables and keys, numbers in arrays of tables

_TABLE = re.compile(r"[ \t]*\[(\[?)[ \t]*([^\[\]\n]+?)[ \t]*\]")
_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = re.compile(rf"[ \t]*({_NAME}(?:[ \t]*\.[ \t]*{_NAME})*+)[ \t]*=")
_PART = re.compile(_NAME)
# What a value is made of, as far as it can hold line breaks. A string that is not closed goes on to its end.
_TOKEN = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"""|\Z)|'''
    r"""'''.*?(?:'''|\Z)|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?|\#[^\n]*+|[\[\]{}\n]""",
    re.DOTALL,
)
LONGEST_PATH = 16  # parts of a dotted key that are told apart: no setting has so many


def lines(text: str) -> dict[Place, int]:
    """In which line each table and key of a TOML text stands, and each inline table of an array; what else stands
    inside of a value is told by the line of its key. Linear; of a text that is no TOML it says something."""
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
            found.setdefault(table, number)
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


def _behind(text: str, at: int, number: int, place: Place, found: dict[Place, int]) -> tuple[int, int]:
    """Where the next line of a table begins: behind the line break that is in no string and no bracket."""
    depth = tables = 0
    for token in _TOKEN.finditer(text, at):
        match token[0]:
            case "\n":
                number += 1
                if depth <= 0:
                    return token.end(), number
            case "[" | "{":
                if token[0] == "{" and depth == 1:
                    found.setdefault((*place, tables), number)
                    tables += 1
                depth += 1
            case "]" | "}":
                depth -= 1
            case _:
                number += token[0].count("\n")
    return len(text), number


def _parts(dotted: str) -> Sequence[str]:
    found = (part[0].strip("\"'") for part in _PART.finditer(dotted))
    return list(islice(found, LONGEST_PATH))


def _place(parts: Sequence[str], counts: Mapping[Place, int]) -> Place:
    """Where a header leads: below an array of tables into its last one."""
    place: Place = ()
    for part in parts[:-1]:
        place = (*place, part)
        if place in counts:
            place = (*place, counts[place])
    return (*place, *parts[-1:])
