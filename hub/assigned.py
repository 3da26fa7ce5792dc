"""Secrets that a text gives a name: assignments (`GITHUB_TOKEN=…`), options (`--password …`), parameters of URLs, and
header lines (`X-Api-Key: …`, `Cookie: …`).

The name decides as that of a key does, and then the value has to look like one: prose, code and documentation say
`token=`, too. Every pattern begins with what parts the name from the value, and looks at so much before it and behind.
"""

import re
from collections.abc import Callable, Collection

from .quoted import REDACTED
from .secretnames import use_of

_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_LONGEST_NAME = 64
_BLANKS = r"[ \t]{0,64}+"
# How the names of secrets end, by their length: a look behind has one.
_ENDS = (
    "key|pwd",
    "cret|oken|word|sswd|rase|okie|tial|keys|key[0-9]|pwd[0-9]|pass",
    "crets|okens|words|tials|okies",
)
_NUMBERED = "(?:cret|oken|word|okie)[0-9]", "(?:cret|oken|word|okie|_key)[_-][0-9]"
_LAST = "(?<=[yYdDtTnNeElLsS0-9]{mark})"


def _named(mark: str) -> str:
    """Looks behind, over the mark, for how the names of secrets end."""
    behind = "|".join(f"(?<=(?:{end}){mark})" for end in (*_ENDS, *_NUMBERED, "orization", "onfirmation", "ey_base"))
    return _LAST.replace("{mark}", mark) + f"(?i:{behind})"


_QUOTE = r"""(?P<quote>\\{0,64}+(?P<mark>["']))?+"""
_ANY = r"""[^\s"'\\\0="""
# Between quotes all of it, also with blanks, if it ends there.
_WHOLE = r"""(?(mark)(?! )(?:(?!(?P=mark))[^\\\0\n]){6,128}+(?=\\{0,64}+(?P=mark))|(?!))"""
_VALUE = (
    rf"""{_QUOTE}(?P<value>(?![$%<{{*(.\[])(?:{_WHOLE}"""
    rf"""|(?:(?(quote){_ANY}]|{_ANY}&;|<>()\[\]{{}},`])){{6,}}+={{0,2}}+))"""
)
# Looked at first, since it is nearly never there: a value that is long enough, and holds a number.
_ENOUGH = r"""(?:"[^"\\\0\n]{6}|'[^'\\\0\n]{6}|["']?[^\s"'\\=]{6})"""
_LONG = rf"(?=>?{_BLANKS}\\{{0,64}}+{_ENOUGH})"
_NUMBER = r"""(?:"[^"\\\0\n0-9]{0,40}+|'[^'\\\0\n0-9]{0,40}+|[^\s"'\\=0-9]{0,40}+)[0-9]"""
_WITH_NUMBER = rf"""(?=[ \t"'\\]{_BLANKS}\\{{0,64}}+{_NUMBER})"""
_ARROW = rf"""(?:>(?={_BLANKS}\\{{0,64}}+["']))?+"""
# The name, then maybe what ends the key of a form or of a mapping, as in user[password]= and ENV["TOKEN"]=.
_FORMS_OF = "|".join(map(_named, (r"\]=", r"\[\]=", r"""["']\]=""", "%5[Dd]=")))
_JOINED = rf"{_named('=')}|(?<=[\]dD]=)(?:{_FORMS_OF})"
_APARTS = "|".join(map(_named, (" =", " :=", r"\] =", r"""["']\] =""")))
_APART = rf"(?<=[ :]=)(?:{_APARTS})"
_EQUALS = re.compile(
    rf"=(?<=[yYdDtTnNeElLsS0-9\] :]=){_LONG}"
    rf"(?:(?:{_JOINED}){_ARROW}(?:(?<=>){_BLANKS})?+|(?:{_APART}){_ARROW}{_BLANKS}){_VALUE}"
)
_ALIGNED = re.compile(
    rf"""=(?<=[ \t][ \t]=)(?=>?{_BLANKS}(?:\\{{0,64}}+["']|[^\s"'\\=0-9]{{0,40}}+[0-9])){_LONG}"""
    rf"{_ARROW}{_BLANKS}{_VALUE}"
)
_COLON = re.compile(rf""":{_WITH_NUMBER}{_named(":")}(?:[ \t]{{1,64}}+|(?=[\\"'])){_VALUE}""")
_OPTION = re.compile(
    rf"""--(?<![A-Za-z0-9_-]--)(?P<name>[A-Za-z][A-Za-z0-9_-]{{2,40}}+)(?=[ \t]{_BLANKS}\\{{0,64}}+{_ENOUGH})"""
    rf"""{_named("")}[ \t]{{1,64}}+(?!-){_VALUE}"""
)
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
# What is no secret, whatever its name; first what may be letters and digits alone.
_USUAL = re.compile(
    r"""(?xi)
    [0-9.,_]++ (?:[kmgt]?i?b|ms|[smhdk%])?      # a number, maybe of something
    | (?:sha|md|base|utf|oauth|bcrypt|argon|hs|rs|es|ed|aes|rsa|http|ipv|python|node) -?[0-9]++ .{0,4}+
    | (?:value|string|param|option|example|field|item|name|user|var|arg|part|line|page|word|test) [_-]?[0-9]{1,3}+
    | x++ | \.++ | -++ | _++
    """
)
_HARMLESS = re.compile(
    r"""(?xi)
    v?[0-9]++ (?:\.[0-9a-z]++)++ (?:[+-][\w.]*+)?  # a version
    | [0-9]{4}-[0-9]{2}-[0-9]{2} .*+            # a date
    | (?:~|\.{1,2})?+ /.*+ | [a-z]:[\\/].*+      # a path
    | [a-z][a-z0-9.-]*+ :// .*+
    | (?=.{1,40}\Z) [a-z_][a-z0-9_]*+ (?:\.[a-z_][a-z0-9_]*+)++  # code
    | .*\. (?:json|ya?ml|toml|ini|cfg|conf|txt|pem|crt|key|pub|env|enc|gpg|py|[cm]?[jt]sx?|go|rs|sh|md|log|html?|zip)
    """
)
_WORDS = frozenset(
    "required optional disabled enabled default include omit same-origin string number boolean undefined missing "
    "invalid prompt unlimited strict random changed rotated expired revoked wrong correct hidden removed value option "
    "options argument arguments parameter parameters requires expects instead without please before twice either "
    "example placeholder redacted masked current account username identifier unknown nothing".split()
)
# In what stands in the place of a password of several words; and in what is said of one.
_INSTEAD = frozenset("your my here enter required missing placeholder example".split())
_TOLD = _INSTEAD | frozenset(
    "a an the at is are was be not no must should may can cannot this that of for from in to and or with least most "
    "characters letters digits field data see has have ask it optional invalid wrong".split()
)
_DIGIT = re.compile("[0-9]")
_LITERAL = re.compile("(?i)pass|pwd|secret|token|key")
_PASSWORD = re.compile("(?i)pass|pwd|secret")
_BLANK, _POINTS = " \t", ".,:;!?"
_CALLS = ("(", "[")  # behind what is code
_CLOSES = "[]:\"'\\"  # between a name and its =
_ENDS_COMMAND = re.compile(r"""[ \t]*+(?:\Z|[\n;|&>"'`)]|\\[nr"']|-)""")
_LONG_ENOUGH = 6


def may_be_assigned(text: str) -> bool:
    """Whether something in the text may be a secret that it gives a name: False is certain."""
    return (
        ("=" in text and (_EQUALS.search(text) is not None or _may_be_aligned(text)))
        or (":" in text and (_COLON.search(text) or _COOKIES.search(text)) is not None)
        or ("-" in text and "--" in text and _OPTION.search(text) is not None)
        or ("z" in text and "uthorization" in text and _AUTHORIZATION.search(text) is not None)
        or ("Z" in text and "UTHORIZATION" in text and _AUTHORIZATION.search(text) is not None)
        or ("<" in text and "</" in text and _ELEMENT.search(text) is not None)
    )


def _may_be_aligned(text: str) -> bool:
    """A look behind has one length, so the name before some blanks is looked at for each."""
    return ("  =" in text or "\t=" in text or "\t =" in text or " \t=" in text) and any(
        map(_is_assigned, _ALIGNED.finditer(text))
    )


def without_assigned(text: str) -> str:
    """The text with `[redacted]` in the place of the values that have the name of a secret, and look like one."""
    for pattern, is_secret in _FORMS:
        parts, done = list[str](), 0
        for match in pattern.finditer(text):
            if is_secret(match):
                parts += (text[done : match.start("value")], REDACTED)
                done = match.end("value")
        if parts:
            text = "".join([*parts, text[done:]])
    return text


def _is_assigned(match: re.Match[str]) -> bool:
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
    if use_of(name) == "harmless" or text.startswith(_CALLS, match.end()):
        return False
    value = match["value"]
    is_literal = name.startswith("--") or before in ("?", "&", "#") or (name.isupper() and match[0][1:2] != " ")
    if not is_literal and value.isalpha():
        is_literal = match["quote"] is not None and _PASSWORD.search(name) is not None
    return _looks_secret(name, value, is_literal, _INSTEAD if is_literal else _TOLD)


def _is_told(match: re.Match[str]) -> bool:
    return len(match["value"]) >= 8 and _is_assigned(match)


def _is_given(match: re.Match[str]) -> bool:
    """Letters alone only where a command can be seen: what says how it is used has words there, too."""
    text, name, value = match.string, match["name"], match["value"]
    if use_of(name) == "harmless" or text.startswith(_CALLS, match.end()):
        return False
    is_literal = _PASSWORD.search(name) is not None
    if is_literal and match["quote"] is None and ((plain := value.rstrip(_POINTS)).isalpha() or plain.isdecimal()):
        is_literal = plain == value and _ENDS_COMMAND.match(text, match.end()) is not None
    return _looks_secret(name, value, is_literal, _TOLD)


def is_named(name: str, value: str) -> bool:
    """Whether this is the value of an option or a header of this name, where each is a text of its own."""
    if use_of(name) == "harmless" or len(value) < _LONG_ENOUGH or value.startswith(tuple("$%<{*(.[-")):
        return False
    return _looks_secret(name, value, name.startswith("-"), _TOLD)


def _looks_secret(name: str, value: str, is_literal: bool, told: Collection[str]) -> bool:
    """`is_literal`: what stands here is no code, and nearly always the value itself. One of several words is none if
    one of those is `told`."""
    has_digits = _DIGIT.search(value) is not None
    has_letters = value.islower() or value.isupper() or value.lower() != value.upper()
    if has_digits and not has_letters:
        return is_literal and value.isdecimal() and ("pass" in (folded := name.lower()) or "pwd" in folded)
    if _USUAL.fullmatch(value) or (not value.isalnum() and _HARMLESS.fullmatch(value)):
        return False
    if use_of(value.lower()) != "harmless":
        return False
    if " " in value or "\t" in value:
        is_told = "$" in value or "{" in value or any(word.strip(_POINTS).lower() in told for word in value.split())
        return (is_literal or has_digits) and not is_told and _LITERAL.search(name) is not None
    if has_digits:
        return True
    is_word = value.isupper() or value.lower() in _WORDS
    return is_literal and has_letters and not is_word and _LITERAL.search(name) is not None


def _is_element(match: re.Match[str]) -> bool:
    """Between a tag and its end, whatever it is."""
    text, value = match.string, match["value"]
    begin = text[max(0, match.start() - _LONGEST_NAME) : match.start()]
    tag = begin[begin.rfind("<") + 1 :]
    use = use_of(tag)
    if use == "harmless" or not text.startswith(f"{tag}>", match.end()) or value.lower() in _WORDS:
        return False
    return use == "secret" or not value.replace(".", "").isdecimal()


def _are_cookies(match: re.Match[str]) -> bool:
    values = [pair.partition("=")[2] for pair in match["value"].split(";")]
    return any(len(value) >= 6 and value != REDACTED for value in values)


def _is_credential(match: re.Match[str]) -> bool:
    value = match["value"]
    return not value.isalpha() or len(value) >= 20


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    (_AUTHORIZATION, _is_credential),
    (_COOKIES, _are_cookies),
    (_EQUALS, _is_assigned),
    (_ALIGNED, _is_assigned),
    (_COLON, _is_told),
    (_OPTION, _is_given),
    (_ELEMENT, _is_element),
)
