"""Values as code writes them: literals, alone or joined, in brackets, in calls, beside operators.

An expression ends where its language ends it: at a comma, a semicolon, a bracket that closes another, or the end of the
line, but for what stands in its own brackets. It is read once, and no further than `LINES` characters.
"""

import re
from typing import NamedTuple

from .literals import LINES, OPENING, Literal, joined, literal

_TOKEN = re.compile(
    rf"""(?:[ \t\u00a0]++|\\\r?+\n)*+(?:(?P<line>\r?+\n|\\++[nr])|(?P<quote>{OPENING})|(?P<word>[\w$@]++)"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)|(?P<dot>\.++|::|->|\?\.)|(?P<other>[=!<>]=)|(?P<end>[;\0#<>\\=])|(?P<sign>.))"""
)
# A literal; a word in quotes that are not closed, maybe since the text is cut off; or without quotes, and what a shell
# takes for a part of it.
_VALUE = re.compile(
    rf"""(?P<literal>{OPENING})(?P<open>[^\s"'\\\0=]{{6,}}+={{0,2}}+)?+|"""
    r"""(?P<run>[^\s"'`\\\0=&;|<>()\[\]{},]{6,}+={0,2}+)"""
    r"""(?:\\\r?\n(?P<line>[^\s"'\\]++)|(?P<mark>["'])(?P<more>[A-Za-z0-9][^\s"'=:,<>(){}]*+)(?P=mark))?+"""
)
# What a shell takes for a part of the word before it.
ATTACHED = re.compile(r"""[A-Za-z0-9_][^\s"'`\\,;:(){}\[\]<>=&|]*+""")
_BETWEEN = frozenset("or and if else not in is await new".split())  # words that are operators
_OF_A_KEY = re.compile(r"\s{0,64}+(?::|=>)")
_NEAR = re.compile(r"""[^"'`\0]{0,512}+["'`]""")
_CUT_OFF = re.compile(r"""[^\s"'`\\\0]{6,512}+\Z""")
# What takes the name of a value first, and no value.
_LOOKS_UP = re.compile(
    r"(?i)(?:get|env|find|read|load|open|fetch|lookup|ask|input|prompt|config|setting|param|query|select|path|url|header"
    r"|translat|locat|compile|format|print|log)\w*+|\w{0,64}(?:env|environ|get)|_|t|cfg|var"
)
_LOOKUP = "."  # for the brackets of one


Spans = list[tuple[int, int]]


class Value(NamedTuple):
    """A value that is no code: what it says, where it stands, and where the text goes on."""

    text: str
    spans: Spans
    end: int
    is_quoted: bool


class Group(NamedTuple):
    """Literals that are one value together; `is_key` if they name one, as in a lookup."""

    text: str
    spans: Spans  # between the quotes: code without what stands there is code still
    is_key: bool


class Expression(NamedTuple):
    groups: list[Group]
    end: int
    is_plain: bool  # nothing but literals, what joins them, and brackets around them


def expression(text: str, at: int) -> Expression:
    """The expression that begins here; nothing of it is read if no literal is near."""
    return _Reading(text, at).whole() if _NEAR.match(text, at) else Expression([], at, False)


def group(literals: list[Literal], text: str, is_key: bool = False) -> Group:
    """The literals of this text as one value."""
    if len(literals) == 1 and (start := literals[0].start) < (end := literals[0].end):
        return Group(text[start:end], [(start, end)], is_key)
    parts = [(part.start, part.end) for part in literals if part.start < part.end]
    return Group("".join(text[start:end] for start, end in parts), parts, is_key)


def value_at(text: str, at: int) -> Value | None:
    """The literals that stand here, joined; or a word."""
    if (found := _VALUE.match(text, at)) is None:
        return None
    if found["literal"] is None:
        spans = [found.span(part) for part in ("run", "line", "more") if found[part]]
        return Value(found["run"], spans, found.end(), False)
    if first := literal(text, at):
        literals = joined(text, first)
        value, end = group(literals, text), literals[-1].after
        if attached := ATTACHED.match(text, end):
            return _with(attached, value)
        return Value(value.text.strip("\r\n"), value.spans, end, True)
    return Value(found["open"], [found.span("open")], found.end(), True) if found["open"] else None


def _with(attached: re.Match[str], value: Group) -> Value:
    """A literal and the word right behind it. Where a shell or JSON has quoted the text once more, that is all of it,
    or the rest behind a quote."""
    if value.text == "\\'":
        return Value(attached[0], [attached.span()], attached.end(), True)
    said = value.text + attached[0] if value.text.endswith("\\") else value.text
    return Value(said.strip("\r\n"), [*value.spans, attached.span()], attached.end(), True)


class _Reading:
    """How far an expression was read. Each step says whether it goes on."""

    _word = ""
    _is_first = _is_plain = True
    _has_operand = _is_ternary = False

    def __init__(self, text: str, at: int) -> None:
        self._text, self._at = text, at
        self._groups: list[Group] = []
        self._open: list[str] = []  # for each bracket that is open what it is, or the name of what is called
        self._levels: dict[str, int] = {}  # of quoting, by the kind of quote: a quote of a lower one ends all

    def whole(self) -> Expression:
        most, next_token = min(len(self._text), self._at + LINES), _TOKEN.match
        while self._at < most and (token := next_token(self._text, self._at)):
            self._at, kind = token.end(), token.lastgroup
            if not (self._name(token["word"]) if kind == "word" else self._step(kind, token)):
                self._at = token.start()
                break
        return Expression(self._groups, self._at, self._is_plain)

    def _step(self, kind: str | None, token: re.Match[str]) -> bool:
        if kind == "quote":
            return self._literal(token)
        if kind == "open":
            return self._opened(token["open"])
        if kind == "close":
            return self._closed()
        if kind == "line":
            return bool(self._open) or not self._has_operand
        if kind in ("dot", "other", "sign"):
            return self._operator(token[kind])
        self._has_operand = self._is_first = False
        return bool(self._open) and "\0" not in token[0]

    def _literal(self, token: re.Match[str]) -> bool:
        mark, level = token[0][-1], token["quote"].count("\\")
        if level < self._levels.setdefault(mark, level) or (self._has_operand and not self._open):
            return False
        first = literal(self._text, token.start("quote"))
        if first is None and (rest := _CUT_OFF.match(self._text, token.end())):
            first = Literal(rest.start(), rest.end(), rest.end(), token[0])
        if first is None:
            return False
        literals = joined(self._text, first)
        self._at = literals[-1].after
        self._groups.append(group(literals, self._text, self._is_key()))
        self._has_operand = True
        return True

    def _is_key(self) -> bool:
        of = self._open[-1] if self._open else ""
        if of == _LOOKUP or (of == "{" and _OF_A_KEY.match(self._text, self._at)):
            return True
        return self._is_first and _LOOKS_UP.fullmatch(of) is not None

    def _name(self, word: str) -> bool:
        if word in _BETWEEN:
            self._has_operand = self._is_plain = False
            return True
        if self._has_operand and not self._open:
            return False
        self._word, self._has_operand = word, True
        if self._is_plain:
            self._is_plain = word.isdecimal()
        return True

    def _opened(self, bracket: str) -> bool:
        if self._has_operand and bracket != "{":
            bracket = self._word or bracket if bracket == "(" else _LOOKUP
        elif self._has_operand and not self._open:
            return False
        self._open.append(bracket)
        self._word, self._has_operand, self._is_first = "", False, True
        return True

    def _closed(self) -> bool:
        if not self._open:
            return False
        self._open.pop()
        self._word, self._has_operand, self._is_first = "", True, False
        return True

    def _operator(self, sign: str) -> bool:
        self._is_ternary = self._is_ternary or sign == "?"
        self._has_operand = False
        return sign != ":" or bool(self._open) or self._is_ternary
