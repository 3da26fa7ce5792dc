"""What others send, read leniently: what is too deep, too long or odd is cut down, so that the rest of it counts."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

DEEPEST = 100  # levels that are read; what lies deeper is null. Python's parser gives up at a thousand or so
LEVELS, MEMBERS = 6, 32  # of what is kept of a value
KEY = 100  # characters of a key
LINE, INPUT = 200, 2048  # characters of a line for people, bytes of a tool's input
CLEANED = 16 * 1024  # characters of a longer text that are cleaned before it is cut
MOST_CLEANED = 8 * CLEANED  # of all texts of a value
BEHIND = 512  # characters before the end of those, of which nothing is shown: a secret that has blanks is not longer
LONGEST_NUMBER = 18  # digits

_LONG = re.compile(rf"[0-9]{{{LONGEST_NUMBER}}}")
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)  # strings whole, so that their brackets are none


def read(data: bytes) -> Any:
    """The JSON value. Raises ValueError for what is none, or cut off."""
    text = data.decode("utf-8-sig", "replace")
    if text.count("[") + text.count("{") > DEEPEST:
        text = _shallow(text)
    return json.loads(text, parse_int=_int if _LONG.search(text) else None)  # a hook takes longer than a number


def _int(text: str) -> int | None:
    return int(text) if len(text) <= LONGEST_NUMBER else None


def is_deep(data: bytes, most: int) -> bool:
    """Whether there are more levels than that."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    depth = deepest = 0
    for token in _TOKENS.finditer(data.decode("utf-8", "replace")):
        depth += (token[0] in "[{") - (token[0] in "]}")
        deepest = max(deepest, depth)
    return deepest > most


def _shallow(text: str) -> str:
    """The text with null in place of what lies deeper than DEEPEST. Linear, without recursion."""
    parts, depth, kept = list[str](), 0, 0
    for token in _TOKENS.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth == DEEPEST + 1:
                    parts += text[kept : token.start()], "null"
            case "]" | "}":
                if depth == DEEPEST + 1:
                    kept = token.end()
                depth -= 1
    if depth > DEEPEST:  # cut off in there: no JSON in any case
        return ""
    return "".join([*parts, text[kept:]])


# ---- texts


def text(value: Any, most: int = LINE) -> str:
    """A text or a number as a text of so many characters, else an empty one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return shortened(clean(str(value)), most)


def clean(text: str) -> str:
    """The text as UTF-8 can write it: half a surrogate pair is none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def shortened(text: str, most: int) -> str:
    """So many characters at most, without secrets if it is cut; that something is missing shows."""
    if len(text) <= most:
        return text
    found, is_whole = cleaned(text)
    return found if is_whole and len(found) <= most else before(found, most - 1) + "…"


def cleaned(text: str) -> tuple[str, bool]:
    """The beginning of a text without its secrets, as far as it may be shown, and whether that is all of it. Whatever
    is cut is cleaned here before: stops a part of a secret from being left, which nobody knows for one any more.

    Of a long text CLEANED characters are looked at. Nothing is shown of what may be the begin of a secret that ends
    behind them: the last word is left out, however long it is, since a secret without blanks is one word; a member of
    JSON and a key in PEM are known to the end of a text that is cut off; and what else has blanks is not longer than
    BEHIND.
    """
    from ..redaction import redact_text  # here, and below: a hook that cuts nothing has no time for all the patterns

    if len(text) <= CLEANED:
        return redact_text(text), True
    found = redact_text(text[:CLEANED])
    end = max(map(found.rfind, _ENDS_OF_WORDS))
    if end < 0 and (plain := _PLAIN_WORD.match(found)):
        end = plain.end()
    return before(found, min(end, len(found) - BEHIND)), False


_ENDS_OF_WORDS = (" ", "\n", "\t", '"', "<", ">")  # in no secret, but one between quotes
_PLAIN_WORD = re.compile(r"(?:(?!eyJ)[^\W_])*+")  # the begin of no secret that its end makes one


def before(text: str, end: int) -> str:
    """The text before that place; nothing of the word that stands for a secret, where it would be cut."""
    from ..quoted import REDACTED

    end = max(0, end)
    begin = text.find(REDACTED, max(0, end - len(REDACTED) + 1), end + len(REDACTED) - 1)
    return text[: end if begin < 0 else begin]


def first_line(value: Any, most: int = LINE) -> str:
    """The first line with anything in it."""
    if not isinstance(value, str) or not (whole := clean(value.strip())):
        return ""
    found, is_whole = cleaned(whole) if len(whole) > most or not whole.isprintable() else (whole, True)
    line = (found.splitlines() or [""])[0]
    if line == found and not is_whole:
        line += "…"
    return shortened("".join(c if c.isprintable() else " " for c in before(line, 4 * most)).strip(), most)


def identity(value: Any, most: int = 100) -> str:
    """A text that can be part of an id: printable, without blanks at its ends."""
    named = text(value, most)
    if not named.isprintable():  # what is left out may be what parts a secret from the word before it
        named, _ = cleaned(named)
    return "".join(c for c in named if c.isprintable()).strip()


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one for whatever else stands there."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | int | None:
    """A number of milliseconds or the like, not below 0; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number and value >= 0 else None


def moment(value: Any) -> str | None:
    """A point in time, from milliseconds since 1970 or RFC 3339, as the hub writes it; None for what is none."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
        elif number(value):
            at = datetime.fromtimestamp(value / 1000, UTC)
        else:
            return None
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def between(begin: Any, end: Any) -> int | None:
    """The milliseconds between two points in time, None if one is not known or they stand the wrong way round."""
    if not (isinstance(begin, str) and isinstance(end, str)):
        return None
    try:
        took = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (ValueError, TypeError):
        return None
    return round(took * 1000) if took >= 0 else None


# ---- values


def cut(value: Any, room: int = INPUT) -> Any:
    """As much of a value as `room` bytes of JSON hold; a value of other form than a text may become one."""
    small = pruned(value, LEVELS, room // 4)
    if len((written := _dumps(small)).encode()) <= room:
        return small
    found, _ = cleaned(written)
    return before(found, len(found.encode()[: room - 6].decode("utf-8", "ignore"))) + "…"


def pruned(value: Any, levels: int, longest: int) -> Any:
    """The value with so many levels, and texts of so many characters, and MEMBERS members of each list and object. Of
    long texts MOST_CLEANED characters are cleaned in all, however large the value is; what comes behind is left out."""
    return _pruned(value, levels, longest, [MOST_CLEANED])


def _pruned(value: Any, levels: int, longest: int, left: list[int]) -> Any:
    match value:
        case str() if len(value) > longest:
            left[0] -= min(len(value), CLEANED)
            return text(value, longest) if left[0] >= 0 else "…"
        case str():
            return text(value, longest)
        case dict() | list() if levels == 0:
            return "…"
        case dict():
            some = islice(value.items(), MEMBERS)
            return {_key(name): _pruned(part, levels - 1, longest, left) for name, part in some}
        case list():
            return [_pruned(part, levels - 1, longest, left) for part in value[:MEMBERS]]
        case float() if not math.isfinite(value):
            return None
    return value


def _key(name: Any) -> str:
    """A key, short. One that names a secret still does, by its end."""
    if isinstance(name, str) and len(name) > KEY:
        from ..secretnames import use_of

        if use_of(name) != "harmless":
            return f"…{clean(name[1 - KEY :])}"
    return text(name, KEY)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_NAMED = ("command", "file_path", "path", "notebook_path", "pattern", "query", "url", "prompt", "description")


def summary(given: Any, most: int = LINE) -> str:
    """What a tool is asked to do, in a line: the member of its input that says so."""
    found = next((part for name in _NAMED if isinstance(part := mapping(given).get(name), str) and part.strip()), None)
    if found is None:
        found = given if isinstance(given, str) else _dumps(cut(given, most)) if given else ""
    whole, is_whole = cleaned(clean(found)) if len(found) > most or not found.isprintable() else (found, True)
    flat = " ".join(before(whole, 4 * most).split())
    return shortened(flat if is_whole and len(whole) <= 4 * most else flat + "…", most)
