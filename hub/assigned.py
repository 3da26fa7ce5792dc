"""Secrets that a text gives a name: assignments (`GITHUB_TOKEN=…`), options (`--password …`), parameters of URLs, and
header lines (`X-Api-Key: …`). `notations` has what is written in a form of its own.

The name decides as that of a key does, and then the value has to look like one (`secretvalues`). Every pattern begins
with what parts the name from the value, and looks at so much before it; the value is read from there.
"""

import re

from .expressions import Expression, Spans, Value, expression, value_at
from .literals import OPENING
from .notations import IN_HEADERS, IN_NOTATIONS, Form, may_be_noted
from .quoted import REDACTED
from .secretnames import name_before, named_before, use_of
from .secretvalues import PASSWORD, POINTS, is_argument, is_assigned, looks_secret

_BLANKS = r"[ \t\u00a0]{0,64}+"
# Looked at first, since it is nearly never there: a literal, or a value that is long enough; and one with a number.
_LONG = rf"""(?=>?(?:\s|\\[nt]){{0,64}}+(?:{OPENING}|[^\s"'\\=]{{6}}))"""
_TAG = r"(?:!!?+\w{0,32}+[ \t]{1,8}+)?+"  # of YAML
_WITH_NUMBER = rf"""(?=[ \t"'`\\]{_BLANKS}{_TAG}(?:{OPENING}|[^\s"'\\=0-9]{{0,40}}+[0-9]))"""
_ARROW = rf"""(?:>(?={_BLANKS}{OPENING}))?+"""
_NEXT = rf"(?:(?:\s|\\[nt]){{1,64}}+(?={OPENING}))?+"  # also on the next line
# The name, then maybe what ends the key of a form or of a mapping, as in user[password]= and ENV["TOKEN"]=.
_FORMS_OF = "|".join(map(named_before, (r"\]=", r"\[\]=", r"""["']\]=""", r"""\\["']\]=""")))
_IN_URL, _TABBED = named_before("%5[Dd]="), named_before(r"\\t=")
_JOINED = rf"(?:{named_before('=')}|(?<=\]=)(?:{_FORMS_OF})|(?<=5[dD]=){_IN_URL}|(?<=\\t=){_TABBED})"
_MAPPED = "|".join(map(named_before, (r"\] =", r"""["']\] =""", r"""\\["']\] =""", r"\[\] =")))
_QUOTED_NAME, _ESCAPED_NAME = named_before("""["'] ="""), named_before(r"""\\["'] =""")
_SPACED, _DEFINED = named_before("[ \t\u00a0]="), named_before("[ \t][:?]=")
_QUOTED = rf"""(?<=["'] =)(?:{_QUOTED_NAME}|{_ESCAPED_NAME})"""
_APART = rf"(?:(?<=[ \t\u00a0]=)(?:{_SPACED}|{_QUOTED}|(?<=\] =)(?:{_MAPPED}))|(?<=[:?]=){_DEFINED})"
_IS_LAST = r"=(?<=[yYdDtTnNeElLsS0-9\] \t\u00a0:?]=)(?<![ \t\u00a0][ \t\u00a0]=)"
_EQUALS = re.compile(rf"{_IS_LAST}{_LONG}(?:{_JOINED}{_ARROW}|{_APART}{_ARROW}{_BLANKS}){_NEXT}")
_ALIGNED = re.compile(
    rf"""=(?<=[ \t][ \t]=)(?=>?{_BLANKS}(?:{OPENING}|[^\s"'\\=0-9]{{0,40}}+[0-9])){_LONG}{_ARROW}{_BLANKS}{_NEXT}"""
)
_BLANK_COLON = named_before("[ \t]:")
_TOLD = rf"(?:{named_before(':')}|(?<=[ \t]:){_BLANK_COLON})"
_COLON = re.compile(rf""":{_WITH_NUMBER}{_TOLD}(?:[ \t]{{1,64}}+{_TAG}|(?={OPENING}))""")
_COLUMN = re.compile(rf""":(?<=[ \t][ \t]:){_WITH_NUMBER}(?:[ \t]{{1,64}}+|(?={OPENING}))""")
_OPTION = re.compile(
    rf"""--(?<![A-Za-z0-9_-]--)(?P<name>[A-Za-z][A-Za-z0-9_-]{{2,40}}+)(?=[ \t]){_LONG}{named_before("")}"""
    r"[ \t]{1,64}+(?!-)"
)
# Code that is no literal, and may have some: in brackets, in a call, behind an operator.
_CODE = r"""(?=[({]|\[(?!redacted\])|[A-Za-z_$][\w$.]{0,80}+(?:[(\[]|::|->|[ \t]{0,8}+(?:[|?+&]|(?:or|if|else)\b)))"""
# Behind a literal: an operator, and not far from it another literal.
_OPERATOR = re.compile(r"""[ \t]{0,64}+(?:[+%|?]|&&|(?:or|and|if)\b)(?=(?:[^\n"'`;=]|[=!<>]=){0,96}+["'`])""")
_CODE_GIVEN = re.compile(rf"{_IS_LAST}(?=>?\s{{0,64}}+{_CODE})(?:{_JOINED}|{_APART})>?+{_BLANKS}{_CODE}")
_CODE_TOLD = re.compile(rf""":(?=[ \t]{{1,64}}+{_CODE}){named_before(":")}[ \t]{{1,64}}+""")
# A name, its type, and what it gets: `password: str = "…"`.
_TYPE = (
    r"(?:&(?:'[a-z_]{1,16}+ )?+|\*)?+[A-Za-z_][\w.]{0,40}+"
    r"""(?:[\[<][^\]\n"'=<>]{0,40}+[\]>])?+\??(?: ?\| ?[\w.]{1,40}+){0,3}+"""
)
_AS_TYPED = rf"[ \t]{{0,8}}+{_TYPE}[ \t]{{0,8}}+={_BLANKS}(?=[(\[{{]|{OPENING})"
_TYPED = re.compile(rf":(?=[ \t]{{0,8}}+[&*A-Za-z_]){named_before(':')}{_AS_TYPED}")
# Any of them: what is looked for in every text.
_MAY_BE_GIVEN = re.compile(
    rf"""{_IS_LAST}(?:{_JOINED}|{_APART})(?=>?(?:\s|\\[nt]){{0,64}}+(?:{OPENING}|[^\s"'\\=]{{6}}|{_CODE}))"""
)
# Also a block and cookies, which `notations` reads.
_MAY_BE_TOLD = re.compile(
    rf":{_TOLD}(?:{_WITH_NUMBER}|(?=[ \t]{{1,64}}+{_CODE})|(?={_AS_TYPED})"
    r"|(?=[ \t]{1,8}+[|>])|(?=[ \t]{0,8}+[A-Za-z0-9_.-]{1,64}+=))"
)
_BLANK = " \t\u00a0"
_CALLS = ("(", "[")  # behind what is code
_DIGIT = re.compile("[0-9]")
_PASS = re.compile("(?i)pass|pwd")
# `a ? b` before its colon, and so far before that.
_IN_A_CHOICE, _NEAR = re.compile(r"""[\w)\]"'][ \t]{1,8}+\?[ \t]{1,8}+[^\n]{1,96}+(?<=[ \t])\Z"""), 96
_ENDS_COMMAND = re.compile(r"""[ \t]*+(?:\Z|[\n;|&>"'`)]|\\[nr"']|-)""")


def may_be_assigned(text: str) -> bool:
    """Whether something in the text may be a secret that it gives a name: False is certain."""
    return (
        ("=" in text and _may_be_given(text))
        or (":" in text and _may_be_told(text))
        or ("-" in text and "--" in text and _OPTION.search(text) is not None)
        or may_be_noted(text)
    )


def _may_be_given(text: str) -> bool:
    """A look behind has one length, so the name before some blanks is looked at for each."""
    if _MAY_BE_GIVEN.search(text):
        return True
    is_aligned = "  =" in text or "\t=" in text or "\t =" in text or " \t=" in text
    return is_aligned and any(_assigned(match)[0] for match in _ALIGNED.finditer(text))


def _may_be_told(text: str) -> bool:
    if _MAY_BE_TOLD.search(text):
        return True
    is_aligned = "  :" in text or "\t:" in text or "\t :" in text or " \t:" in text
    return is_aligned and any(_assigned(match)[0] for match in _COLUMN.finditer(text))


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


def _is_literal(match: re.Match[str], name: str, before: str) -> bool:
    return name.startswith("--") or before in ("?", "&", "#") or (name.isupper() and match[0][1:2] != " ")


def _assigned(match: re.Match[str]) -> tuple[Spans, int]:
    """Behind a colon prose stands, too: there a secret has a number, and is longer. Or the rest of `a ? b : c`."""
    text = match.string
    if (value := value_at(text, match.end())) is None:  # first: to find the name takes longer
        return [], match.end()
    name, before = name_before(text, match.start())
    if use_of(name) == "harmless":
        return [], match.end()
    if not value.is_quoted and text.startswith(_CALLS, value.end):
        is_secret = False
    elif match[0][0] == ":":
        is_long = len(value.text) >= (6 if _PASS.search(name) else 8) and _has_number(value.text)
        is_long = is_long and not _IN_A_CHOICE.search(text, max(0, match.start() - _NEAR), match.start())
        is_secret = is_long and looks_secret(name, value.text, before in ("?", "&", "#"))
    else:
        is_secret = is_assigned(name, value.text, _is_literal(match, name, before), value.is_quoted)
    return _and_more(match, (name, before), value, is_secret)


def _and_more(match: re.Match[str], named: tuple[str, str], value: Value, is_secret: bool) -> tuple[Spans, int]:
    """The value, if it is a secret, and what an operator joins to it."""
    spans = value.spans if is_secret else []
    operator = _OPERATOR.match(match.string, value.end) if value.is_quoted else None
    if operator is None:
        return spans, value.end
    found = expression(match.string, operator.end())
    return [*spans, *_in_code(match, found, *named)], found.end


def _given(match: re.Match[str]) -> tuple[Spans, int]:
    """Letters alone only where a command can be seen: what says how it is used has words there, too."""
    text, name = match.string, match["name"]
    if use_of(name) == "harmless" or (value := value_at(text, match.end())) is None:
        return [], match.end()
    is_literal = PASSWORD.search(name) is not None
    if is_literal and not value.is_quoted and ((plain := value.text.rstrip(POINTS)).isalpha() or plain.isdecimal()):
        is_literal = plain == value.text and _ENDS_COMMAND.match(text, value.end) is not None
    is_code = not value.is_quoted and text.startswith(_CALLS, value.end)
    return (value.spans if not is_code and looks_secret(name, value.text, is_literal) else []), value.end


def _computed(match: re.Match[str]) -> tuple[Spans, int]:
    """The literals in the code of a value."""
    found = expression(match.string, match.end())
    if not found.groups:  # first, as above
        return [], max(found.end, match.end())
    name, before = name_before(match.string, match.start())
    if use_of(name) == "harmless":
        return [], match.end()
    return _in_code(match, found, name, before), found.end


def _in_code(match: re.Match[str], found: Expression, name: str, before: str) -> Spans:
    is_equal = match[0][0] == "=" or match[0].rstrip(_BLANK)[-1] == "="
    is_literal = is_equal and _is_literal(match, name, before)
    spans: Spans = []
    for value in found.groups:
        if not found.is_plain or value.is_key:
            is_secret = not value.is_key and is_argument(name, value.text)
        else:
            is_secret = (is_equal or _has_number(value.text)) and is_assigned(name, value.text, is_literal, True)
        spans += value.spans if is_secret else []
    return spans


def _has_number(value: str) -> bool:
    return _DIGIT.search(value) is not None


_FORMS: tuple[Form, ...] = (
    *IN_HEADERS,
    (_EQUALS, _assigned),
    (_ALIGNED, _assigned),
    (_COLON, _assigned),
    (_COLUMN, _assigned),
    (_OPTION, _given),
    (_CODE_GIVEN, _computed),
    (_CODE_TOLD, _computed),
    (_TYPED, _computed),
    *IN_NOTATIONS,
)
