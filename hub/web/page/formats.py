"""How one field of a row is written. The page's script fills rows by the same attributes and formats.

`templates/static/dashboard.js` has the other half of `FORMATS`; a browser test compares what both make of the
same events.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

Row = Mapping[str, Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def text(value: object) -> str:
    """A value as text: nothing for null, lists and objects."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case int() | float():
            return number(value)
    return ""


def number(value: Any) -> str:
    """`1234.5` as `1,234.5`, with at most two decimals."""
    if not _is_number(value):
        return text(value)
    if abs(value) >= 2**53:  # a script has no exact integers beyond
        return f"{float(value):.6e}"
    if value == int(value):
        return f"{int(value):,}"
    whole, rest = divmod(math.floor(abs(value) * 100 + 0.5), 100)
    decimals = f".{rest:02}".rstrip("0") if rest else ""
    return f"{'-' if value < 0 and (whole or rest) else ''}{whole:,}{decimals}"


def percent(value: Any) -> str:
    """`99.6` as `99 %`: rounded down, so that only what is finished reads as 100."""
    return f"{math.floor(value)} %" if _is_number(value) else text(value)


def size(value: Any) -> str:
    """Bytes as `512 B`, `1.5 KiB`, `16.0 MiB`."""
    if not _is_number(value) or value < 0:
        return text(value)
    for unit, power in (("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if value >= 1024**power:
            tenths = math.floor(value * 10 / 1024**power + 0.5)
            return f"{tenths // 10}.{tenths % 10} {unit}"
    return f"{math.floor(value)} B"


def duration(value: Any) -> str:
    """Milliseconds as `350 ms`, `12 s`, `3 min 5 s`, `2 h 1 min`, `4 d 3 h`."""
    if not _is_number(value) or value < 0:
        return text(value)
    if value < 1000:
        return f"{math.floor(value)} ms"
    seconds = math.floor(value / 1000)
    for unit, length, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // part} {lesser}"
    return f"{seconds} s"


def moment(value: Any) -> str:
    """A timestamp as the reader's clock shows it: `14:05:09` today, else `2025-03-01 14:05`."""
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return text(value)
    try:
        then = datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        return value
    today = then.date() == datetime.now().astimezone().date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def words(value: Any) -> str:
    """`waiting_approval` as `waiting approval`."""
    return text(value).replace("_", " ")


def stale(value: Any) -> str:
    """The word for an item that was not published again in time."""
    return "stale" if value is True else ""


def outline(value: Any) -> str:
    """Any JSON as one line: `path: /etc, tries: 3`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {outline(value[key])}" for key in sorted(value, key=code_units))
    if isinstance(value, list):
        return ", ".join(map(outline, value))
    return text(value)


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": text,
    "number": number,
    "percent": percent,
    "size": size,
    "duration": duration,
    "moment": moment,
    "words": words,
    "stale": stale,
    "outline": outline,
    "plain": lambda value: plain(value) or "",
}


def field(
    row: Row,
    name: str,
    *,
    tag: str = "span",
    format: str = "text",
    before: str = "",
    after: str = "",
    **more: Any,
) -> Markup:
    """An element that shows one field of the row; hidden if it shows nothing. `more`: see `element`."""
    shown = FORMATS[format](row.get(name))
    marks = {"data-field": name, "data-format": format, "data-before": before, "data-after": after}
    open_tag = element(row, tag, hidden=not shown, **marks, **more)
    return Markup(f"{open_tag}{escape(before + shown + after) if shown else ''}</{tag}>")


def element(row: Row, tag: str, *, set: str = "", hidden: bool = False, **attributes: Any) -> Markup:
    """An open tag. `set="value:progress title:message"` takes attributes from fields; null gives none."""
    written = [f"<{tag}", _attributes(tuple(attributes.items()))]
    for pair in set.split():
        attribute, _, name = pair.partition(":")
        value = plain(row.get(name))
        if value is not None:
            written.append(f' {attribute}="{escape(value)}"')
    hide = ' hidden=""' if hidden else ""
    return Markup("".join([*written, _attributes((("data-set", set),)), hide, ">"]))


@lru_cache(maxsize=1024)  # nearly all of them are the same for every row
def _attributes(given: tuple[tuple[str, Any], ...]) -> str:
    """The attributes that have a value."""
    written = [(name.replace("_", "-"), value) for name, value in given if value is not None and value != ""]
    return "".join(f' {name}="{escape(value)}"' for name, value in written)


def plain(value: object) -> str | None:
    """A value as an attribute: None (no attribute) for null, False, lists and objects."""
    match value:
        case None | False:
            return None
        case True:
            return ""
        case str():
            return value
        case int() | float() if abs(value) >= 2**53:
            return f"{float(value):.6e}"
        case int():
            return str(value)
        case float():  # four decimals, the way a script writes them
            rounded = math.floor(value * 10_000 + 0.5) / 10_000
            return str(int(rounded)) if rounded.is_integer() else str(rounded)
    return None


def entries(value: object) -> list[dict[str, Any]]:
    """An object's members as rows `{key, value}`, in the order in which a script would sort the keys."""
    if not isinstance(value, Mapping):
        return []
    return [{"key": key, "value": value[key]} for key in sorted(value, key=code_units)]


def code_units(key: str) -> bytes:
    """A sort key that orders texts as JavaScript's `<` does."""
    return key.encode("utf-16-be", "surrogatepass")


def folded(value: object) -> str:
    """A value as JSON for a `data-` attribute, from which the script goes on counting."""
    return json.dumps(value, separators=(",", ":"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
