"""Literals as code writes them: in any quotes, with any prefix, and joined to others of their kind.

In a text that was quoted, as code in JSON, a quote has backslashes before it, and those belong to it.
"""

import re
from typing import NamedTuple

# Of a literal of Python, C, Rust, C#, SQL, a shell …: right before its quotes.
PREFIX = r"""(?:(?:[bBuUrRfFtTlLcCnNeExX]{1,2}+|u8|\$@?+|@\$?+)(?=\\{0,64}+["'`]))?+"""
OPENING = rf"""{PREFIX}\\{{0,64}}+["'`]"""
BEGIN = re.compile(rf"""{PREFIX}(?P<quote>\\{{0,64}}+["'`])""")
# Of a literal in single quotes, which ends on its line; and of one that may have several lines.
LINE, LINES = 512, 4096
_PLAIN = re.compile(
    PREFIX
    + "(?:"
    + "|".join(rf"{mark}(?!{mark}{mark})((?:[^{mark}\\\n\0]++|\\\r?+\n|\\[^\n\0])*+){mark}" for mark in "\"'`")
    + ")"
)
# What joins two: nothing, an operator, a quote of a shell between them, or a line that is broken.
_GLUE = re.compile(
    r"""(?:[ \t\u00a0]{1,64}+|\\\r?+\n|\\'(?=')|(?:\+|\.{1,2}+|&|\|\||<>)(?:\s{1,64}+)?+"""
    rf"""|(?:\r?+\n|\\{{1,64}}+n)(?=[ \t])){{0,6}}+(?={OPENING})"""
)
_OF_A_KEY = re.compile(r"[ \t]{0,64}+(?::|=)")


class Literal(NamedTuple):
    """Where what stands between the quotes begins and ends, and where the text goes on behind them."""

    start: int
    end: int
    after: int
    quote: str


def literal(text: str, at: int) -> Literal | None:
    """The literal that begins here with its prefix or quotes, if it ends soon enough."""
    if plain := _PLAIN.match(text, at, at + LINE):  # nearly always
        start, end = plain.span(plain.lastindex or 0)
        return Literal(start, end, end + 1, text[end])
    opening = BEGIN.match(text, at)
    assert opening
    quote, start = opening["quote"], opening.end()
    if text.startswith(2 * quote, start):
        start += 2 * len(quote)
        end = text.find(3 * quote, start, start + LINES)
        return Literal(start, end, end + 3 * len(quote), quote) if end >= 0 else None
    after = string_end(text, start, quote, start + LINE) if len(quote) > 1 else -1
    is_closed = after >= 0 and "\n" not in text[start:after]
    return Literal(start, after - len(quote), after, quote) if is_closed else None


def joined(text: str, first: Literal) -> list[Literal]:
    """The literal and those that are joined to it."""
    literals = [first]
    while glue := _GLUE.match(text, at := literals[-1].after):  # nearly never
        found = literal(text, glue.end())
        if found is None or found.quote != first.quote or (glue.end() > at and _OF_A_KEY.match(text, found.after)):
            break
        literals.append(found)
    return literals


def string_end(text: str, at: int, quote: str, most: int) -> int:
    """Behind the quote that ends the string; -1 if none does before `most`. One that belongs to the string has other
    backslashes before it: for a level with n, a backslash of the string itself is written with 2n + 2."""
    level, mark = len(quote) - 1, quote[-1]
    while (found := text.find(mark, at, most)) >= 0:
        backslashes = 0
        if found > at and text[found - 1] == "\\":
            before = text[at:found]
            backslashes = len(before) - len(before.rstrip("\\"))
        if backslashes >= level and (backslashes - level) % (2 * level + 2) == 0:
            return found + 1
        at = found + 1
    return -1
