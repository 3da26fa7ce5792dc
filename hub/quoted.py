"""JSON inside a text: what its escapes stand for, and the values of its members that name a secret.

A text may be JSON, hold some, or be cut off in it, and it may have been quoted several times over: at each level a
quote has more backslashes before it. So it is read here and not by a parser, in time linear in its length.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from .expressions import ATTACHED, expression
from .literals import BEGIN, Literal, joined, literal, string_end
from .secretnames import Use, use_of
from .secretvalues import is_argument, is_check, looks_secret

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
_ARROW = r"""=>(?=\s*+[^\s=>])"""
_MEMBER = re.compile(rf"""(["'])([^"'\\\n]++)(\\*+)\1\s*+(?::|{_ARROW})\s*+""")
# What stands behind "name": as another object's "DB_PASSWORD", and then "value" and its colon.
_NAMED = re.compile(r"""(\\*+)(["'])([^"'\\\n]{1,128}+)\1\2\s*+,\s*+\1(["'])[vV]alue\1\4\s*+:\s*+""")
NAMING = ("name", "key", "Name", "Key", "header", "field")  # the members that name what stands in `value`, or `Value`
# A word that is no code.
_WORD = re.compile(
    r"""(?![A-Za-z$@]{1,2}+\\*+["'`])[^\s,}\])"'`\\(\[]++(?![(\[`]|[ \t]{1,8}+(?:[-+*/%|?&.]|(?:or|and|if|else)\b))"""
)
_NUMBER = re.compile(r"-?[0-9][0-9.eE+-]*+")
_NOTHING = re.compile("true|false|null|None|True|False|nil|undefined")
_PLAIN = re.compile(rf"""(?:{_NOTHING.pattern})(?![\w.(\[])|-?[0-9][^\s,}}\])"'\\]*+""")
# Or nothing but a name that is filled in, maybe behind the scheme of a header.
_EMPTY = re.compile(r"""[A-Za-z]{0,2}+(\\*+["'`])(?:(?i:bearer|basic|token) ++)?+(?:\$?\{[\w.]++\})?+\1""")
_OPENS = re.compile(r"[\[{(\s]++")  # and nothing in it: where a line of code ends
_CHOICE = re.compile(r"[\w)\]] \?\s*\Z")
_OPERATOR = re.compile(r"\s{0,64}+(?:[-+*/%|?&.]|(?:or|and|if)\b)")
_CODE = re.compile(r"[\w$(!~*&@-]")
_BRACKETS = ("[", "{")
_BRACKETS_OR_QUOTES = re.compile(r"""[\[{]++|[\]}]++|["']""")


_QUOTED = re.compile(r"""["']\s*+(?::|=>)""")


def has_members(text: str) -> bool:
    """Whether there may be a member of JSON in the text: False is certain."""
    return ('"' in text or "'" in text) and _QUOTED.search(text) is not None


class Member(NamedTuple):
    """A key that names a secret: the key, what it is for, its quote, and where its value begins."""

    key: str
    use: Use
    quote: str
    at: int


def without_members(text: str) -> tuple[str, int]:
    """The values of the keys that name a secret become `"[redacted]"`, also objects and lists; of code the literals in
    it do."""
    parts: list[str] = []
    done = 0
    has_code = False
    for member in (members := _Members(text)):
        at, quote = member.at, member.quote
        end, is_code = _value_end(text, at, quote)
        has_code = has_code or is_code
        if _is_value(text, member, end):
            parts += (text[done:at], quote, REDACTED, quote)
            done = end
        members.at = end
    found = len(parts) // 4
    text = "".join([*parts, text[done:]]) if parts else text
    if has_code:
        text, more = _without_code(text)
        found += more
    return text, found


def _without_code(text: str) -> tuple[str, int]:
    """A pass of its own: what is quoted in the code of a value may have members, and those are cleaned by now."""
    parts: list[str] = []
    done = found = 0
    for member in (members := _Members(text)):
        if not _value_end(text, member.at, member.quote)[1]:
            continue
        if word := _WORD.match(text, member.at):
            if looks_secret(member.key, word[0], False):
                found += 1
                parts += (text[done : member.at], member.quote, REDACTED, member.quote)
                done = members.at = word.end()
            continue
        code = expression(text, member.at)
        members.at = max(code.end, member.at)
        for value in code.groups:
            is_alone = code.is_plain and not value.is_key and value.text.replace(REDACTED, "") != ""
            if is_alone or (not code.is_plain and not value.is_key and is_argument(member.key, value.text)):
                found += 1
                for start, end in value.spans:
                    parts += (text[done:start], REDACTED)
                    done = end
    return "".join([*parts, text[done:]]) if parts else text, found


class _Members:
    """The members of a text that name a secret, each looked for from `at` on."""

    def __init__(self, text: str) -> None:
        self._text, self.at = text, 0

    def __iter__(self) -> Iterator[Member]:
        text = self._text
        while match := _MEMBER.search(text, self.at):
            self.at, key = match.end(), match[2]
            use = use_of(key)
            if use != "harmless" and self._is_choice(match):
                continue
            if use == "harmless":
                named = _NAMED.match(text, self.at) if key in NAMING else None
                if named is None or (use := use_of(key := named[3])) == "harmless":
                    continue
                self.at = named.end()
            yield Member(key, use, match[3] + match[1], self.at)

    def _is_choice(self, match: re.Match[str]) -> bool:
        """Whether this is the rest of `show ? 'password' : 'text'`, and no secret whatever it is."""
        if not _CHOICE.search(self._text, max(0, match.start() - 8), match.start()):
            return False
        other = _string(self._text, match.end(), match[3] + match[1])
        return other is not None and not looks_secret(match[2], self._text[other.start : other.end], True)


def _is_value(text: str, member: Member, end: int) -> bool:
    """Whether what stands here is a secret, and was not taken out before."""
    value = text[member.at : end]
    if not value or _EMPTY.fullmatch(value) or _OPENS.fullmatch(value) or _NOTHING.fullmatch(value):
        return False
    if member.use == "tokens" and _NUMBER.fullmatch(value):
        return False
    if REDACTED in value and value == f"{member.quote}{REDACTED}{member.quote}":
        return False
    return not is_check(value)


def _value_end(text: str, at: int, quote: str) -> tuple[int, bool]:
    """Where the value that begins here ends, the end of the text if it is cut off, and whether there is code to be read
    from here."""
    if text[at : at + 1] in _BRACKETS:
        return _bracket_end(text, at, quote[:-1]), False
    if first := _string(text, at, quote):
        end = joined(text, first)[-1].after
        if attached := ATTACHED.match(text, end):  # behind a quote that was escaped, in text that was quoted once more
            end = attached.end() + text.startswith(first.quote, attached.end())
        return end, _OPERATOR.match(text, end) is not None
    if found := _PLAIN.match(text, at):
        return found.end(), False
    return at, _CODE.match(text, at) is not None


def _string(text: str, at: int, quote: str) -> Literal | None:
    """The string that begins here, however long. Python writes strings in either kind of quotes, so the value's need
    not be those of the key, but those of what stands around the key are none of the value's."""
    opening = BEGIN.match(text, at)
    if opening is None:
        return None
    own, start = opening["quote"], opening.end()
    if len(own) != len(quote):
        return literal(text, at) if own[-1] != quote[-1] else None
    if text.startswith(2 * own, start):
        start += 2 * len(own)
        end = text.find(3 * own, start)
        after = end + 3 * len(own) if end >= 0 else len(text)
    else:
        after = string_end(text, start, own, len(text))
        after = after if after >= 0 else len(text)
    return Literal(start, after, after, own)


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
            at = string_end(text, at, level + kind, len(text))
            if at < 0:
                break
    return len(text)
