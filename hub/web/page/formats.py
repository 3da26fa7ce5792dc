"""How values are written for people: numbers, sizes, durations, ages. Filters of the templates.

Times are written as `<time datetime=…>` with a `data-as`: without its script the page shows what stands there, with it
`ages.js` writes them by the reader's clock and goes on counting.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast
from unicodedata import normalize
from urllib.parse import quote

from markupsafe import Markup, escape

from ...wire.texts import seen
from ...wire.timestamps import unix_time

As = Literal["ago", "since", "left", "clock"]

ELLIPSIS = "…"
LONGEST_ID = 60  # characters of a key in an id, before it is quoted
CODE = re.compile(r"`([^`]+)`")
NAMED = re.compile(r"\A(claude-code|codex|copilot|cursor|gemini):([^:/\s]{1,16})(/.*)?\Z", re.DOTALL)  # of another kind
SESSION = re.compile(r"\A([a-z-]+):([0-9a-fA-F]{4})[0-9a-fA-F-]{12,}(/.*)?\Z", re.DOTALL)  # and a subagent's id
BLANK = re.compile(r"[\s\u115f\u1160\u2800\u3164\uffa0]+")  # what is drawn as nothing, although it counts as printable
MOST_BLANKS = 8  # that are written out
LONGEST_PART = 20  # characters of what stands behind a session in an id
AGES = re.compile(r'(<time datetime="([^"<>]{1,40})" data-as="(ago|since|left)" title="[^"<>]*">)[^<]*')
ENDS = re.compile(r"\A\s+|\s+\Z")
JOINING = re.compile("[\u200d\ufe0e\ufe0f]")
OUTLINED = 400  # characters of an outline: what comes from outside may be of any size


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
    if abs(value) >= 2**53:
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
    if 60 <= seconds < 3600 and seconds % 60:
        return f"{seconds // 60} min {seconds % 60} s"
    return span(seconds)


def span(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    whole = max(0, math.floor(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    unit, length, lesser, part = ("h", 3600, "min", 60) if whole < 86400 else ("d", 86400, "h", 3600)
    rest = whole % length // part
    return f"{whole // length} {unit}" + (f" {rest} {lesser}" if rest else "")


def countdown(seconds: float) -> str:
    """Seconds that are left as `7:48`, `2:05:00`; days as `span` says them."""
    whole = max(0, math.ceil(seconds))
    if whole >= 86400:
        return span(whole)
    minutes = f"{whole // 60 % 60:02}" if whole >= 3600 else str(whole // 60)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{minutes}:{whole % 60:02}"


def moment(value: Any, how: As = "ago") -> Markup:
    """A timestamp as `<time>`: how long `ago`, the time `since` then or `left` until then, or by the `clock`.

    The exact time is its title. What is no timestamp stands there as it is.
    """
    then = unix_time(value)
    if then is None:
        return escape(seen(cut(text(value), 40)))
    shown = WRITTEN[how](then)
    exact = clock(then, long=True)
    return Markup(f'<time datetime="{escape(value)}" data-as="{how}" title="{exact}">{shown}</time>')


def retimed(html: str) -> str:
    """The same with its ages and what is left as they are now: it may have been drawn a while ago, and without script
    nothing on the page counts on. Costs some microseconds for each."""
    return AGES.sub(_retimed, html)


def _retimed(found: re.Match[str]) -> str:
    then, how = unix_time(found[2]), cast(As, found[3])
    return found[0] if then is None else f"{found[1]}{WRITTEN[how](then)}"


def clock(then: float, *, long: bool = False) -> str:
    """`14:05:09`, or with the date."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if long else "%H:%M:%S", time.localtime(then))


WRITTEN: Mapping[As, Callable[[float], str]] = {
    "ago": lambda then: f"{span(time.time() - then)} ago",
    "since": lambda then: span(time.time() - then),
    "left": lambda then: countdown(then - time.time()),
    "clock": clock,
}


def words(value: Any) -> str:
    """`waiting_approval` as `waiting approval`."""
    return text(value).replace("_", " ")


def cut(value: str, most: int) -> str:
    """A text of at most so many characters."""
    return value if len(value) <= most else value[: most - 1].rstrip() + ELLIPSIS


def called(*names: str) -> str:
    """The first of these in which something is to be seen; else the last, with its blanks written out. Stops a row
    without a name, which nobody can speak of or press."""
    found = next((name for name in names if name and not BLANK.fullmatch(name)), names[-1])
    return BLANK.sub(lambda blanks: "␣" * min(len(blanks[0]), MOST_BLANKS), found) if BLANK.fullmatch(found) else found


def unfolded(value: str, most: int) -> str:
    """The text of a question, as it is drawn line by line: where much of it is empty, how much. Stops what is to be
    allowed from standing where nobody looks; what is left out is said."""
    lines = re.sub(r"\n(?:[^\S\n]*\n){2,}", lambda found: f"\n⏎ × {found[0].count(chr(10))}\n", seen(value))
    shown = re.sub(r"[^\S\n]{9,}", lambda found: f" ␣ × {len(found[0])} ", lines)
    left = len(shown) - most
    return shown if left <= 0 else f"{shown[:most]} {ELLIPSIS} ({left} more characters are not shown)"


def outline(value: object, most: int = OUTLINED) -> str:
    """Any JSON as one line: `path: /etc, tries: 3`. No more of it is looked at than is shown."""
    written: list[str] = []
    _outline(value, written, most)
    return cut(seen("".join(written)), most)


def _outline(value: object, into: list[str], most: int) -> int:
    """Return how many characters are left."""
    pairs: Any = ()
    if isinstance(value, Mapping):
        pairs = ((f"{cut(text(key), most)}: ", one) for key, one in value.items())
    elif isinstance(value, list):
        pairs = (("", one) for one in value)
    else:
        into.append(text(value)[: most + 1])
        return most - len(into[-1])
    for count, (label, one) in enumerate(pairs):
        into.append((", " if count else "") + label)
        most = _outline(one, into, most - len(into[-1]))
        if most <= 0:
            break
    return most


def rooted(html: Markup, root: str) -> Markup:
    """The same with its links to the page's own address, for a page that stands below it."""
    return Markup(html.replace(Markup('href="./'), Markup(f'href="{escape(root)}./'))) if root else html


def labelled(options: Sequence[str]) -> list[tuple[str, str]]:
    """Options, each with what stands on its button: itself, blanks at its ends as `␣`. If two would look the same, all
    of them as JSON in ASCII. Stops a press on another option than the one that was meant."""
    labels = [ENDS.sub(lambda blanks: "␣" * len(blanks[0]), seen(option)) for option in options]
    looks = {normalize("NFC", JOINING.sub("", " ".join(label.split()))) for label in labels}
    if len(looks) < len(labels):
        labels = [re.sub(" {2,}", lambda blanks: "␣" * len(blanks[0]), json.dumps(option)) for option in options]
    return [*zip(options, labels, strict=True)]


def slug(value: object) -> str:
    """A text as a part of an id: no spaces, and no longer than is useful."""
    whole = text(value)
    written = quote(whole[:LONGEST_ID], safe="")
    return written if len(whole) <= LONGEST_ID else f"{written}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def agent(value: Any) -> str:
    """An agent's id as it is called: `claude-code:7c1b4a52-0d3e-…` as `claude-code 7c1b`, and the id of a turn of it as
    `claude-code 7c1b/c0ff`; any other as it is."""
    return seen(called(NAMED.sub(_session, SESSION.sub(_session, text(value)))))


def _session(found: re.Match[str]) -> str:
    part = found[3] or ""
    return f"{found[1]} {found[2]}{part[:5] if len(part) > LONGEST_PART else part}"


def subagent(row: Any) -> str:
    """A subagent below its agent's row: what it is, and the begin of its own part of the id, which tells it apart."""
    own = row.key.removeprefix(f"{row.parent}/")
    return f"↳ {called(row.type, 'subagent')} {cut(seen(own), 8)}"


def folder(value: Any) -> str:
    """The last part of a path."""
    return text(value).rstrip("/").rpartition("/")[2] or text(value)


def coded(value: Any) -> Markup:
    """A sentence of a docstring: what stands in `backticks` as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(seen(text(value))))))


def plural(count: int, one: str, many: str = "") -> str:
    """`1 task`, `3 tasks`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "text": text,
    "number": number,
    "percent": percent,
    "size": size,
    "duration": duration,
    "span": span,
    "moment": moment,
    "words": words,
    "cut": lambda value, most: cut(text(value), most),
    "outline": outline,
    "plural": plural,
    "agent": agent,
    "called": lambda value: seen(called(text(value))),
    "subagent": subagent,
    "folder": folder,
    "coded": coded,
    "slug": slug,
    "labelled": labelled,
    "rooted": rooted,
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
