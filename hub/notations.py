"""Secrets in notations that name them in a form of their own: headers (`Cookie: …`), elements and attributes of XML,
the arguments of a command and pairs in a list, a block of YAML, and statements of Dockerfiles, C and SQL.

As everywhere, a pattern begins with what is rare, and looks at so much before it and behind.
"""

import re
from collections.abc import Callable

from .expressions import Spans, value_at
from .literals import OPENING, literal
from .quoted import REDACTED
from .secretnames import name_before, named_before, use_of
from .secretvalues import WORDS, is_argument, is_assigned, is_header, is_named, looks_secret

Reader = Callable[[re.Match[str]], tuple[Spans, int]]  # what is to be taken out, and where the text goes on
Form = tuple[re.Pattern[str], Reader]

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
# The end of an element; and the value of an attribute that has its name before it.
_ELEMENT = re.compile(rf"</(?P<tag>[A-Za-z][\w:.-]{{2,63}}+){named_before('')}>")
_QUOTED_NAME, _ESCAPED_NAME = named_before("""["'] value="""), named_before(r"""\\["'] value=""")
_ATTRIBUTE = re.compile(rf"""value=(?<=["'] value=)(?={OPENING})(?:{_QUOTED_NAME}|{_ESCAPED_NAME})""")
_LONGEST_ELEMENT, _LONGEST_TAG = 512, 256
# In a list, behind its name: `"--password", "…"`, `("x-api-key", "…")`.
_QUOTED_ITEM, _ESCAPED_ITEM = named_before("""["'],"""), named_before(r"""\\["'],""")
_BEHIND = re.compile(rf""",(?<=["'],)(?=\s{{0,8}}+{OPENING})(?:{_QUOTED_ITEM}|{_ESCAPED_ITEM})\s{{0,8}}+""")
_PAIR_ENDS = re.compile(r"\s{0,8}+,?+\s{0,8}+[\])]")
_BLOCK = re.compile(
    rf":(?=[ \t]{{1,8}}+[|>]){named_before(':')}[ \t]{{1,8}}+[|>][+0-9-]{{0,2}}+[ \t]{{0,8}}+"
    r"""(?:\r?+\n(?P<indent>[ \t]{1,64}+)(?P<lines>[^\n]++(?:\n(?P=indent)[^\n]*+)*+)"""
    r"""|\\{1,64}+n ++(?P<line>[^\n\\"']++))"""
)
_ENV = re.compile(
    rf"""ENV(?:(?<![^\n"'`]ENV)|(?<=\\nENV))[ \t]{{1,8}}+"""
    rf"(?P<name>[A-Za-z_]\w{{2,63}}+){named_before('')}[ \t]{{1,64}}+"
)
_DEFINE = re.compile(
    rf"define(?<=[# \t]define)[ \t]{{1,8}}+(?P<name>[A-Za-z_]\w{{2,63}}+){named_before('')}[ \t]{{1,64}}+"
)
# The value of what the line before names, in YAML.
_BESIDE = re.compile(r"[vV]alue:[ \t]{1,64}+")
_NAMING_LINE = re.compile(r"""[ \t-]{0,64}+(?:[nN]ame|[kK]ey):[ \t]{1,8}+["']?(?P<name>[\w.-]{1,64}+)["']?\s*\Z""")
_LINE_ENDS = ("\n", r"\n")
_LONGEST_LINES = 192
# What counts where a variable is not set; Go's way to print a map; and a .netrc.
_DEFAULT = re.compile(rf""":[-=](?:{named_before(":-")}|{named_before(":=")})(?P<value>[^\s"'`\\${{}}]{{6,256}}+)\}}""")
_MAP = re.compile(rf":(?=[^\s:\]]{{6,256}}+[ \]]){named_before(':')}(?P<value>[^\s:\]]++)")
_NETRC = re.compile(r"""login[ \t\r\n]{1,8}+\S{1,128}+[ \t\r\n]{1,8}+password[ \t]{1,8}+(?P<value>[^\s\\"']{6,256}+)""")
_SQL = re.compile(r"'(?<=[YyDd] ')(?:(?<=TIFIED BY ')|(?<=tified by ')|(?<=SSWORD ')|(?<=ssword '))")


def may_be_noted(text: str) -> bool:
    """Whether something in the text may be a secret in one of the notations, but for those with a colon: False is
    certain. One character is found faster than several."""
    return (
        ("z" in text and "uthorization" in text and _AUTHORIZATION.search(text) is not None)
        or ("Z" in text and "UTHORIZATION" in text and _AUTHORIZATION.search(text) is not None)
        or ("<" in text and bool(("</" in text and _ELEMENT.search(text)) or _ATTRIBUTE.search(text)))
        or ("'" in text and bool(_SQL.search(text) or ("'," in text and _BEHIND.search(text))))
        or ('"' in text and '",' in text and _BEHIND.search(text) is not None)
        or ("V" in text and "ENV " in text and _ENV.search(text) is not None)
        or ("#" in text and "define" in text and _DEFINE.search(text) is not None)
        or ("alue:" in text and _BESIDE.search(text) is not None)
        or ("$" in text and "${" in text and _DEFAULT.search(text) is not None)
        or ("m" in text and "map[" in text and _MAP.search(text) is not None)
        or ("login" in text and _NETRC.search(text) is not None)
    )


def _cookies(match: re.Match[str]) -> tuple[Spans, int]:
    values = [pair.partition("=")[2] for pair in match["value"].split(";")]
    is_secret = any(len(value) >= 6 and value != REDACTED for value in values)
    return ([match.span("value")] if is_secret else []), match.end()


def _credential(match: re.Match[str]) -> tuple[Spans, int]:
    value = match["value"]
    return ([match.span("value")] if not value.isalpha() or len(value) >= 20 else []), match.end()


def _element(match: re.Match[str]) -> tuple[Spans, int]:
    """Between a tag and its end, whatever it is."""
    text, end = match.string, match.start()
    least = max(0, end - _LONGEST_ELEMENT)
    if text.startswith("]]>", end - 3) and (start := text.rfind("<![CDATA[", least, end)) >= 0:
        opening, start, end = start, start + len("<![CDATA["), end - len("]]>")
    else:
        opening = start = text.rfind(">", least, end) + 1
    tag = text.rfind("<", max(0, opening - _LONGEST_TAG), opening) + 1
    value, use = text[start:end].strip(), use_of(match["tag"])
    if use == "harmless" or not opening or not text.startswith(match["tag"], tag) or not _is_content(value):
        return [], match.end()
    is_secret = use == "secret" or not value.replace(".", "").isdecimal()
    return ([(start, end)] if is_secret else []), match.end()


def _is_content(value: str) -> bool:
    return value != "" and value[0] not in "$%{*[" and not set(value) & {"<", "\0"} and value.lower() not in WORDS


def _attribute(match: re.Match[str]) -> tuple[Spans, int]:
    name, _ = name_before(match.string, match.start())
    value = value_at(match.string, match.end())
    if value is None or use_of(name) == "harmless" or not is_assigned(name, value.text, False, True):
        return [], match.end()
    return value.spans, value.end


def _behind(match: re.Match[str]) -> tuple[Spans, int]:
    text, comma = match.string, match.start()
    value = value_at(text, match.end())
    quote = text[comma - 1]
    before = text[max(0, comma - 96) : comma - 1].rstrip("\\")
    before, _, name = before.rpartition(quote)
    if value is None or use_of(name) == "harmless":
        return [], match.end()
    if not name.startswith("--") and (not _PAIR_ENDS.match(text, value.end) or not _is_pair(before, name, value.text)):
        return [], value.end
    return (value.spans if is_named(name, value.text) else []), value.end


def _is_pair(before: str, name: str, value: str) -> bool:
    """Whether a list begins with this name that is no list of words, or a call that gets something of this name."""
    before = before.rstrip("\\").rstrip("bBuUrR")
    if before.endswith("("):
        return is_argument(name, value) or is_header(name)
    is_one_of_many = before[:-1].rstrip()[-1:] in ("[", "(", ",")
    return before.endswith("[") and (is_one_of_many or not (name.isalpha() and name.islower()))


def _block(match: re.Match[str]) -> tuple[Spans, int]:
    name, _ = name_before(match.string, match.start())
    part = "lines" if match["lines"] else "line"
    is_secret = use_of(name) != "harmless" and any(
        looks_secret(name, line.strip(), True) for line in match[part].split("\n")
    )
    return ([match.span(part)] if is_secret else []), match.end()


def _statement(match: re.Match[str]) -> tuple[Spans, int]:
    text, name = match.string, match["name"]
    if use_of(name) == "harmless" or (value := value_at(text, match.end())) is None:
        return [], match.end()
    is_literal = value.is_quoted or match[0].startswith("ENV")
    is_code = not value.is_quoted and text.startswith(("(", "["), value.end)
    is_secret = not is_code and is_assigned(name, value.text, is_literal, value.is_quoted)
    return (value.spans if is_secret else []), value.end


def _sql(match: re.Match[str]) -> tuple[Spans, int]:
    text, start = match.string, match.start()
    value = literal(text, start)
    if value is None or not looks_secret("password", text[value.start : value.end], text[start - 2].isupper()):
        return [], match.end()
    return [(value.start, value.end)], value.after


def _beside(match: re.Match[str]) -> tuple[Spans, int]:
    if (naming := _naming_line(match.string, match.start())) is None or use_of(naming["name"]) == "harmless":
        return [], match.end()
    if (value := value_at(match.string, match.end())) is None:
        return [], match.end()
    is_secret = is_assigned(naming["name"], value.text, True, value.is_quoted)
    return (value.spans if is_secret else []), value.end


def _naming_line(text: str, start: int) -> re.Match[str] | None:
    """The line before this one, if it gives a name."""
    before = text[max(0, start - _LONGEST_LINES) : start].rstrip(" \t-")
    end = next((end for end in _LINE_ENDS if before.endswith(end)), None)
    return _NAMING_LINE.match(before[: -len(end)].rpartition(end)[2]) if end else None


def _default(match: re.Match[str]) -> tuple[Spans, int]:
    name, _ = name_before(match.string, match.start())
    is_secret = use_of(name) != "harmless" and looks_secret(name, match["value"], name.isupper())
    return ([match.span("value")] if is_secret else []), match.end()


def _printed(match: re.Match[str]) -> tuple[Spans, int]:
    name, before = name_before(match.string, match.start())
    is_secret = before in ("[", " ") and use_of(name) != "harmless" and looks_secret(name, match["value"], False)
    return ([match.span("value")] if is_secret else []), match.end()


def _netrc(match: re.Match[str]) -> tuple[Spans, int]:
    is_secret = looks_secret("password", match["value"], True)
    return ([match.span("value")] if is_secret else []), match.end()


IN_HEADERS: tuple[Form, ...] = ((_AUTHORIZATION, _credential), (_COOKIES, _cookies))
IN_NOTATIONS: tuple[Form, ...] = (
    (_ELEMENT, _element),
    (_ATTRIBUTE, _attribute),
    (_BEHIND, _behind),
    (_BLOCK, _block),
    (_ENV, _statement),
    (_DEFINE, _statement),
    (_SQL, _sql),
    (_BESIDE, _beside),
    (_DEFAULT, _default),
    (_MAP, _printed),
    (_NETRC, _netrc),
)
