"""JSON inside a text: what its escapes stand for, and the values of its members that name a secret.

A text may be JSON, hold some, or be cut off in it, and it may have been quoted several times over: at each level a
quote has more backslashes before it. So it is read here and not by a parser, in time linear in its length.
"""

import functools
import re

from .secretnames import use_of

REDACTED = "[redacted]"

# ---- escapes without need, as `\/` and `\u0061`

# With the backslashes before it, some of which may have been written as `\u005c`, too.
_ESCAPE = re.compile(r"(?<!\\)(?:(\\++(?:u005[Cc]\\*+)*+)(?:u([0-9A-Fa-f]{4})|(/))|(\\++(?:u005[Cc]\\*+)++))")
_PAIR = re.compile(r"(?<!\\)\\++u([Dd][89ABab][0-9A-Fa-f]{2})\\++u([Dd][C-Fc-f][0-9A-Fa-f]{2})")  # one character
_SLASH = re.compile(r"(?<!\\)\\/")  # by far the most, and found without a call for each
_WRITTEN = re.compile("u005[Cc]")
_USUAL = 12  # characters of one that is kept: there are few of these, and they come again and again
_DEEPEST = 4096  # backslashes: a text that is quoted twelve times over. Written as `\u005c` they double at each level.


def has_escapes(text: str) -> bool:
    """Whether something in the text was escaped that need not be."""
    return "\\" in text and _ESCAPE.search(text) is not None


def unescaped(text: str) -> str:
    """The text without escapes that need not be: what was JSON is JSON still, and says the same."""
    return _ESCAPE.sub(_plain, _PAIR.sub(_character, _SLASH.sub("/", text)))


def _character(match: re.Match[str]) -> str:
    return chr(0x10000 + ((int(match[1], 16) & 0x3FF) << 10) + (int(match[2], 16) & 0x3FF))


def _plain(match: re.Match[str]) -> str:
    return _usual(match[0]) if len(match[0]) <= _USUAL else _read(match)


@functools.lru_cache(maxsize=1024)  # bounded: escapes come from outside
def _usual(escape: str) -> str:
    match = _ESCAPE.match(escape)
    assert match
    return _read(match)


def _read(match: re.Match[str]) -> str:
    first, *others = _WRITTEN.split(match[1] or match[4])
    count = len(first)
    for part in others:
        count = _as_backslash(count) + len(part)
        if count > _DEEPEST:
            return match[0]
    character = match[3] or (chr(int(match[2], 16)) if match[2] else "")
    if character == '"' or not character:
        return "\\" * (_before_quote(count) if character else count) + character
    return character if character.isprintable() else match[0]


def _as_backslash(count: int) -> int:
    """How many backslashes as many are that stand before u005c: at each level of quoting two stand for one."""
    return count + 1 if count % 2 else 2 * _as_backslash(count // 2)


def _before_quote(count: int) -> int:
    """How many stand before a quote that is written with as many before u0022."""
    return count if count % 2 else 2 * _before_quote(count // 2) + 1


# ---- members

# A quoted key and its colon; or an arrow, as Ruby, Perl and PHP write it, before another quote.
_ARROW = r"""=>(?=\s*+\\*+["'])"""
_MEMBER = re.compile(rf"""(["'])([^"'\\\n]++)(\\*+)\1\s*+(?::|{_ARROW})\s*+""")
# What stands behind "name": as another object's "DB_PASSWORD", and then "value" and its colon.
_NAMED = re.compile(r"""(\\*+)(["'])([^"'\\\n]{1,128}+)\1\2\s*+,\s*+\1(["'])value\1\4\s*+:\s*+""")
NAMING = ("name", "key")  # the members that name what stands in `value`
_PREFIX = re.compile(r"""[bBfFrRuU]{1,2}+(?=\\*+["'])""")  # of a literal of Python's, as of bytes
_SCALAR = re.compile(r"""[^\s,}\])"'\\]*+""")
_NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*+|true|false|null|None|True|False")
_BRACKETS = frozenset("[{")
_OPENING = _BRACKETS | frozenset("\"'\\")
_BRACKETS_OR_QUOTES = re.compile(r"""[\[{]++|[\]}]++|["']""")


_QUOTED = re.compile(r"""["']\s*+(?::|=>)""")


def has_members(text: str) -> bool:
    """Whether there may be a member of JSON in the text: False is certain."""
    return ('"' in text or "'" in text) and _QUOTED.search(text) is not None


def without_members(text: str) -> tuple[str, int]:
    """The values of the keys that name a secret become `"[redacted]"`, also objects and lists."""
    parts: list[str] = []
    done = at = 0
    while match := _MEMBER.search(text, at):
        at = match.end()
        if (use := use_of(match[2])) == "harmless":
            named = _NAMED.match(text, at) if match[2] in NAMING else None
            if named is None or (use := use_of(named[3])) == "harmless":
                continue
            at = named.end()
        quote = match[3] + match[1]
        end = _value_end(text, at, quote)
        value = text[at:end]
        is_done = REDACTED in value and value == f"{quote}{REDACTED}{quote}"
        if value and not is_done and not (use == "tokens" and _NUMBER.fullmatch(value)):
            parts += (text[done:at], quote, REDACTED, quote)
            done = end
        at = end
    return ("".join([*parts, text[done:]]), len(parts) // 4) if parts else (text, 0)


def _value_end(text: str, at: int, quote: str) -> int:
    """Where the value that begins here ends; the end of the text if it is cut off. Python writes strings in either
    kind of quotes, so the value's need not be those of the key."""
    if prefix := _PREFIX.match(text, at):
        at = prefix.end()
    level, first = quote[:-1], text[at : at + 1]
    if first in _OPENING:
        for kind in "\"'":
            if text.startswith(level + kind, at):
                return _string_end(text, at + len(quote), level + kind)
        if first in _BRACKETS:
            return _bracket_end(text, at, level)
    found = _SCALAR.match(text, at)
    return found.end() if found else at


def _string_end(text: str, at: int, quote: str) -> int:
    """Behind the quote that ends the string. One that belongs to the string has other backslashes before it: for a
    level with n, a backslash of the string itself is written with 2n + 2."""
    level, mark = len(quote) - 1, quote[-1]
    while (found := text.find(mark, at)) >= 0:
        backslashes = 0
        if found > at and text[found - 1] == "\\":
            before = text[at:found]
            backslashes = len(before) - len(before.rstrip("\\"))
        if backslashes >= level and (backslashes - level) % (2 * level + 2) == 0:
            return found + 1
        at = found + 1
    return len(text)


def _bracket_end(text: str, at: int, level: str) -> int:
    """Behind the bracket that closes the one that is here."""
    depth = 0
    while found := _BRACKETS_OR_QUOTES.search(text, at):
        at = found.end()
        kind, count = found[0][0], len(found[0])
        if kind in "[{":
            depth += count
        elif kind in "]}":
            if depth <= count:
                return found.start() + depth
            depth -= count
        else:
            at = _string_end(text, at, level + kind)
    return len(text)
