"""In which line of a TOML text each table and key stands, for who reads an error: tomllib does not say."""

import re
from collections.abc import Mapping, Sequence

Place = tuple[str | int, ...]  # names of tables and keys, numbers in arrays of tables

_TABLE = re.compile(r"\s*\[(\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def lines(text: str) -> dict[Place, int]:
    """In which line each table and key of a TOML text stands, as far as that can be told without a parser: what stands
    inside of a value is told by the line of its key."""
    found: dict[Place, int] = {(): 1}
    table: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _TABLE.match(line):
            table = _place(_parts(header[2]), counts)
            if header[1]:
                index = counts[table] = counts.get(table, -1) + 1
                table = (*table, index)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            place = table
            for part in _parts(key[1]):
                place = (*place, part)
                found.setdefault(place, number)
    return found


def _parts(dotted: str) -> Sequence[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _place(parts: Sequence[str], counts: Mapping[Place, int]) -> Place:
    """Where a header leads: below an array of tables into its last one."""
    place: Place = ()
    for part in parts[:-1]:
        place = (*place, part)
        if place in counts:
            place = (*place, counts[place])
    return (*place, *parts[-1:])
