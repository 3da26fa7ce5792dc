"""Secrets that a text gives a name: assignments (`GITHUB_TOKEN=…`), options (`--password …`), parameters of URLs, and
header lines (`X-Api-Key: …`, `Cookie: …`).

The name decides as that of a key does, and then the value has to look like one (`secretvalues`). Every pattern begins
with what parts the name from the value, and looks at so much before it; the value is read from there.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from .expressions import expression, group
from .literals import OPENING, joined, literal
from .quoted import REDACTED
from .secretnames import use_of
from .secretvalues import PASSWORD, POINTS, WORDS, is_argument, is_assigned, looks_secret

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_LONGEST_NAME = 64
_BLANKS = r"[ \t\u00a0]{0,64}+"
# How the names of secrets end, by their length: a look behind has one.
_ENDS = (
    "key|pwd",
    "cret|oken|word|sswd|rase|okie|tial|keys|key[0-9]|pwd[0-9]|pass",
    "crets|okens|words|tials|okies",
)
_NUMBERED = "(?:cret|oken|word|okie)[0-9]", "(?:cret|oken|word|okie|_key)[_-][0-9]"
# The last two letters of all those: looked at before the rest, since it is nearly never there.
_LAST = "[eE][yY]|[wWrR][dD]|[eE][tT]|[eEoO][nN]|[sSiI][eE]|[aA][lL]|[yYdDtTnNeElLsS][sS]|[yYdDtTnNeE_-][0-9]"


def _named(mark: str) -> str:
    """Looks behind, over the mark, for how the names of secrets end."""
    behind = "|".join(f"(?<=(?:{end}){mark})" for end in (*_ENDS, *_NUMBERED, "orization", "onfirmation", "ey_base"))
    return f"(?<=(?:{_LAST}){mark})(?i:{behind})"


# Looked at first, since it is nearly never there: a literal, or a value that is long enough; and one with a number.
_LONG = rf"""(?=>?\s{{0,64}}+(?:{OPENING}|[^\s"'\\=]{{6}}))"""
_TAG = r"(?:!!?+\w{0,32}+[ \t]{1,8}+)?+"  # of YAML
_WITH_NUMBER = rf"""(?=[ \t"'`\\]{_BLANKS}{_TAG}(?:{OPENING}|[^\s"'\\=0-9]{{0,40}}+[0-9]))"""
_ARROW = rf"""(?:>(?={_BLANKS}{OPENING}))?+"""
_NEXT = rf"(?:\s{{1,64}}+(?={OPENING}))?+"  # also on the next line
# The name, then maybe what ends the key of a form or of a mapping, as in user[password]= and ENV["TOKEN"]=.
_FORMS_OF = "|".join(map(_named, (r"\]=", r"\[\]=", r"""["']\]=""", r"""\\["']\]=""", "%5[Dd]=")))
_JOINED = rf"(?:{_named('=')}|(?<=[\]dD]=)(?:{_FORMS_OF}))"
_APARTS = "|".join(map(_named, ("[ \t\u00a0]=", "[ \t][:?]=", r"\] =", r"""["']\] =""", r"""\\["']\] =""", r"\[\] =")))
_APART = rf"(?<=[ \t\u00a0:?]=)(?:{_APARTS})"
_IS_LAST = r"=(?<=[yYdDtTnNeElLsS0-9\] \t\u00a0:?]=)"
_EQUALS = re.compile(rf"{_IS_LAST}{_LONG}(?:{_JOINED}{_ARROW}|{_APART}{_ARROW}{_BLANKS}){_NEXT}")
_ALIGNED = re.compile(
    rf"""=(?<=[ \t][ \t]=)(?=>?{_BLANKS}(?:{OPENING}|[^\s"'\\=0-9]{{0,40}}+[0-9])){_LONG}{_ARROW}{_BLANKS}{_NEXT}"""
)
_COLON = re.compile(rf""":{_WITH_NUMBER}{_named(":")}(?:[ \t]{{1,64}}+{_TAG}|(?={OPENING}))""")
_OPTION = re.compile(
    rf"""--(?<![A-Za-z0-9_-]--)(?P<name>[A-Za-z][A-Za-z0-9_-]{{2,40}}+)(?=[ \t]){_LONG}{_named("")}"""
    r"[ \t]{1,64}+(?!-)"
)
# Code that is no literal, and may have some: in brackets, in a call, behind an operator.
_CODE = r"""(?=[({]|\[(?!redacted\])|[A-Za-z_$][\w$.]{0,80}+(?:[(\[]|::|->|[ \t]{0,8}+(?:[|?+&]|(?:or|if|else)\b)))"""
# Behind a literal: an operator, and not far from it another literal.
_OPERATOR = re.compile(r"""[ \t]{0,64}+(?:[+%|?]|&&|(?:or|and|if)\b)(?=(?:[^\n"'`;=]|[=!<>]=){0,96}+["'`])""")
_CODE_GIVEN = re.compile(rf"{_IS_LAST}(?=>?\s{{0,64}}+{_CODE})(?:{_JOINED}|{_APART})>?+{_BLANKS}{_CODE}")
_CODE_TOLD = re.compile(rf""":(?=[ \t]{{1,64}}+{_CODE}){_named(":")}[ \t]{{1,64}}+""")
# A name, its type, and what it gets: `password: str = "…"`.
_TYPE = (
    r"(?:&(?:'[a-z_]{1,16}+ )?+|\*)?+[A-Za-z_][\w.]{0,40}+"
    r"""(?:[\[<][^\]\n"'=<>]{0,40}+[\]>])?+\??(?: ?\| ?[\w.]{1,40}+){0,3}+"""
)
_AS_TYPED = rf"[ \t]{{0,8}}+{_TYPE}[ \t]{{0,8}}+={_BLANKS}(?=[(\[{{]|{OPENING})"
_TYPED = re.compile(rf":(?=[ \t]{{0,8}}+[&*A-Za-z_]){_named(':')}{_AS_TYPED}")
# Any of them: what is looked for in every text.
_MAY_BE_GIVEN = re.compile(
    rf"""{_IS_LAST}(?:{_JOINED}|{_APART})(?=>?\s{{0,64}}+(?:{OPENING}|[^\s"'\\=]{{6}}|{_CODE}))"""
)
_MAY_BE_TOLD = re.compile(rf":{_named(':')}(?:{_WITH_NUMBER}|(?=[ \t]{{1,64}}+{_CODE})|(?={_AS_TYPED}))")
_ELEMENT = re.compile(rf">{_named('>')}(?P<value>(?![$%{{*\s\[])[^<>\0\n]{{1,128}}+)</")
_COOKIES = re.compile(
    r""":(?:(?<=ookie:)|(?<=OOKIE:))[ \t]{0,8}+(?P<value>[A-Za-z0-9_.-]{1,64}+=[^\s;"'\\,\0]*+"""
    r"""(?:;[ \t]?[A-Za-z0-9_.-]{1,64}+(?:=[^\s;"'\\,\0]*+)?+)*+)"""
)
_AUTHORIZATION = re.compile(
    r"""(?:[Aa]uthorization|AUTHORIZATION)[\\"']{0,16}+[ \t]?[:=][ \t]{0,8}+[\\"']{0,16}+(?!(?i:bearer|basic)\b)"""
    r"""(?P<scheme>[A-Za-z][A-Za-z0-9_-]{1,30}+)[ \t]{1,8}+(?P<value>"""
    r"""[A-Za-z_-]{1,30}+=(?:\\{0,64}+"[^"\\\n\0]*+\\{0,64}+"|[^\s,"'\\\0=]{1,300}+)"""
    r"""(?:,[ \t]{0,8}+[A-Za-z_-]{1,30}+=(?:\\{0,64}+"[^"\\\n\0]*+\\{0,64}+"|[^\s,"'\\\0=]{1,300}+))++"""
    r"""|[A-Za-z0-9._~+/=-]{8,}+)"""
)
# A literal; a word in quotes that are not closed, maybe since the text is cut off; or without quotes, and what a shell
# takes for a part of it.
_VALUE = re.compile(
    rf"""(?P<literal>{OPENING})(?P<open>[^\s"'\\\0=]{{6,}}+={{0,2}}+)?+|"""
    r"""(?P<run>[^\s"'`\\\0=&;|<>()\[\]{},]{6,}+={0,2}+)"""
    r"""(?:\\\r?\n(?P<line>[^\s"'\\]++)|(?P<mark>["'])(?P<more>[A-Za-z0-9][^\s"'=:,<>(){}]*+)(?P=mark))?+"""
)
# What a shell takes for a part of the word before it.
_ATTACHED = re.compile(r"""[A-Za-z0-9_][^\s"'`\\,;:(){}\[\]<>=&|]*+""")
_BLANK = " \t\u00a0"
_CALLS = ("(", "[")  # behind what is code
_CLOSES = "[]:?\"'\\"  # between a name and its =
_DIGIT = re.compile("[0-9]")
_ENDS_COMMAND = re.compile(r"""[ \t]*+(?:\Z|[\n;|&>"'`)]|\\[nr"']|-)""")

Spans = list[tuple[int, int]]


class Value(NamedTuple):
    """A value that is no code: what it says, where it stands, and where the text goes on."""

    text: str
    spans: Spans
    end: int
    is_quoted: bool


def may_be_assigned(text: str) -> bool:
    """Whether something in the text may be a secret that it gives a name: False is certain."""
    return (
        ("=" in text and _may_be_given(text))
        or (":" in text and (_MAY_BE_TOLD.search(text) or _COOKIES.search(text)) is not None)
        or ("-" in text and "--" in text and _OPTION.search(text) is not None)
        or ("z" in text and "uthorization" in text and _AUTHORIZATION.search(text) is not None)
        or ("Z" in text and "UTHORIZATION" in text and _AUTHORIZATION.search(text) is not None)
        or ("<" in text and "</" in text and _ELEMENT.search(text) is not None)
    )


def _may_be_given(text: str) -> bool:
    """A look behind has one length, so the name before some blanks is looked at for each."""
    if _MAY_BE_GIVEN.search(text):
        return True
    is_aligned = "  =" in text or "\t=" in text or "\t =" in text or " \t=" in text
    return is_aligned and any(_assigned(match)[0] for match in _ALIGNED.finditer(text))


def without_assigned(text: str) -> str:
    """The text with `[redacted]` in the place of the values that have the name of a secret, and look like one."""
    for pattern, read in _FORMS:
        parts, done, at = list[str](), 0, 0
        while match := pattern.search(text, at):
            spans, at = read(match)
            for start, end in spans:
                parts += (text[done:start], REDACTED)
                done = end
        if parts:
            text = "".join([*parts, text[done:]])
    return text


def _value(text: str, at: int) -> Value | None:
    """The literals that stand here, joined; or a word."""
    if (found := _VALUE.match(text, at)) is None:
        return None
    if found["literal"] is None:
        spans = [found.span(part) for part in ("run", "line", "more") if found[part]]
        return Value(found["run"], spans, found.end(), False)
    if first := literal(text, at):
        literals = joined(text, first)
        value, end = group(literals, text), literals[-1].after
        if attached := _ATTACHED.match(text, end):
            return Value(value.text.strip("\r\n"), [*value.spans, attached.span()], attached.end(), True)
        return Value(value.text.strip("\r\n"), value.spans, end, True)
    return Value(found["open"], [found.span("open")], found.end(), True) if found["open"] else None


def _name(match: re.Match[str]) -> tuple[str, str]:
    """The name that stands before this, and the character before it."""
    text, end = match.string, match.start()
    whole = text[max(0, end - _LONGEST_NAME) : end]
    if whole[-1:] in _BLANK:
        whole = text[max(0, end - 2 * _LONGEST_NAME) : end].rstrip(_BLANK)
    if whole[-1:] in _CLOSES:
        whole = whole.rstrip(_CLOSES + _BLANK)
    elif whole.endswith(("%5D", "%5d")):
        whole = whole[:-3]
    before = whole.rstrip(_NAME)
    name, before = whole[len(before) :], before[-1:]
    if before == "\\" and name[:1] in ("n", "r", "t"):  # a line that was escaped
        name = name[1:]
    return name, before


def _is_literal(match: re.Match[str], name: str, before: str) -> bool:
    return name.startswith("--") or before in ("?", "&", "#") or (name.isupper() and match[0][1:2] != " ")


def _assigned(match: re.Match[str]) -> tuple[Spans, int]:
    text = match.string
    name, before = _name(match)
    if use_of(name) == "harmless" or (value := _value(text, match.end())) is None:
        return [], match.end()
    is_code = not value.is_quoted and text.startswith(_CALLS, value.end)
    is_secret = not is_code and is_assigned(name, value.text, _is_literal(match, name, before), value.is_quoted)
    return _and_more(match, (name, before), value, is_secret)


def _told(match: re.Match[str]) -> tuple[Spans, int]:
    """Behind a colon prose stands, too: with a number, and longer."""
    text = match.string
    name, before = _name(match)
    if use_of(name) == "harmless" or (value := _value(text, match.end())) is None:
        return [], match.end()
    is_code = len(value.text) < 8 or (not value.is_quoted and text.startswith(_CALLS, value.end))
    is_secret = not is_code and _has_number(value.text) and looks_secret(name, value.text, before in ("?", "&", "#"))
    return _and_more(match, (name, before), value, is_secret)


def _and_more(match: re.Match[str], named: tuple[str, str], value: Value, is_secret: bool) -> tuple[Spans, int]:
    """The value, if it is a secret, and what an operator joins to it."""
    spans = value.spans if is_secret else []
    operator = _OPERATOR.match(match.string, value.end) if value.is_quoted else None
    if operator is None:
        return spans, value.end
    more, end = _in_code(match, operator.end(), *named)
    return [*spans, *more], end


def _given(match: re.Match[str]) -> tuple[Spans, int]:
    """Letters alone only where a command can be seen: what says how it is used has words there, too."""
    text, name = match.string, match["name"]
    if use_of(name) == "harmless" or (value := _value(text, match.end())) is None:
        return [], match.end()
    is_literal = PASSWORD.search(name) is not None
    if is_literal and not value.is_quoted and ((plain := value.text.rstrip(POINTS)).isalpha() or plain.isdecimal()):
        is_literal = plain == value.text and _ENDS_COMMAND.match(text, value.end) is not None
    is_code = not value.is_quoted and text.startswith(_CALLS, value.end)
    return (value.spans if not is_code and looks_secret(name, value.text, is_literal) else []), value.end


def _computed(match: re.Match[str]) -> tuple[Spans, int]:
    """The literals in the code of a value."""
    name, before = _name(match)
    return ([], match.end()) if use_of(name) == "harmless" else _in_code(match, match.end(), name, before)


def _in_code(match: re.Match[str], at: int, name: str, before: str) -> tuple[Spans, int]:
    found = expression(match.string, at)
    is_equal = match[0][0] == "=" or match[0].rstrip(_BLANK)[-1] == "="
    is_literal = is_equal and _is_literal(match, name, before)
    spans: Spans = []
    for value in found.groups:
        if not found.is_plain or value.is_key:
            is_secret = not value.is_key and is_argument(name, value.text)
        else:
            is_secret = (is_equal or _has_number(value.text)) and is_assigned(name, value.text, is_literal, True)
        spans += value.spans if is_secret else []
    return spans, found.end


def _has_number(value: str) -> bool:
    return _DIGIT.search(value) is not None


def _is_element(match: re.Match[str]) -> bool:
    """Between a tag and its end, whatever it is."""
    text, value = match.string, match["value"]
    begin = text[max(0, match.start() - _LONGEST_NAME) : match.start()]
    tag = begin[begin.rfind("<") + 1 :]
    use = use_of(tag)
    if use == "harmless" or not text.startswith(f"{tag}>", match.end()) or value.lower() in WORDS:
        return False
    return use == "secret" or not value.replace(".", "").isdecimal()


def _are_cookies(match: re.Match[str]) -> bool:
    values = [pair.partition("=")[2] for pair in match["value"].split(";")]
    return any(len(value) >= 6 and value != REDACTED for value in values)


def _is_credential(match: re.Match[str]) -> bool:
    value = match["value"]
    return not value.isalpha() or len(value) >= 20


Reader = Callable[[re.Match[str]], tuple[Spans, int]]


def _where(is_secret: Callable[[re.Match[str]], bool]) -> Reader:
    return lambda match: ([match.span("value")] if is_secret(match) else [], match.end())


_FORMS: tuple[tuple[re.Pattern[str], Reader], ...] = (
    (_AUTHORIZATION, _where(_is_credential)),
    (_COOKIES, _where(_are_cookies)),
    (_EQUALS, _assigned),
    (_ALIGNED, _assigned),
    (_COLON, _told),
    (_OPTION, _given),
    (_ELEMENT, _where(_is_element)),
    (_CODE_GIVEN, _computed),
    (_CODE_TOLD, _computed),
    (_TYPED, _computed),
)
