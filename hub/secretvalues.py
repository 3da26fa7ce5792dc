"""What a value looks like that stands behind the name of a secret: prose, code and documentation say `token=`, too."""

import re
from collections.abc import Collection

from .secretnames import use_of

# What is no secret, whatever its name; first what may be letters and digits alone.
_USUAL = re.compile(
    r"""(?xi)
    [0-9.,_]++ (?:[kmgt]?i?b|ms|[smhdk%])?      # a number, maybe of something
    | (?:sha|md|base|utf|oauth|bcrypt|argon|hs|rs|es|ed|aes|rsa|http|ipv|python|node) -?[0-9]++ .{0,4}+
    | (?:latin|iso|cp|windows|gpt) -?[0-9]++ (?:-[0-9]{1,4})?+
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
    | (?P<joins>[+.,]) .*+ (?<=(?P=joins))          # code between two literals
    | .*\. (?:json|ya?ml|toml|ini|cfg|conf|txt|pem|crt|key|pub|env|enc|gpg|py|[cm]?[jt]sx?|go|rs|sh|md|log|html?|zip)
    """
)
WORDS = frozenset(
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
# In a value in quotes that something gets: no sentence, but maybe what is to stand there.
_ASKED = _INSTEAD | frozenset(
    "least most characters letters digits must should may can cannot not no optional invalid wrong".split()
)
# What a field is checked with, and a schema: `required|min:8`, `{"type": "string"}`.
_CHECK = (
    "(?:type|format|string|number|integer|boolean|array|object|null|required|optional|nullable|sometimes|confirmed"
    "|password|description|title|default|true|false|items|(?:min|max)(?:Length|imum)?+)(?::[0-9]{1,4}+)?+"
)
_RULES = re.compile(rf"{_CHECK}(?:\|{_CHECK})++")
_SCHEMA = re.compile(
    rf"""[\[{{](?:[\s,:\[\]{{}}]|=>|(?<![0-9])[0-9]{{1,3}}+(?![0-9])|(?<!\w)\\*+["']?{_CHECK}\\*+["']?(?!\w))++"""
)
_DIGIT = re.compile("[0-9]")
_LITERAL = re.compile("(?i)pass|pwd|secret|token|key")
PASSWORD = re.compile("(?i)pass|pwd|secret")
_MIXED = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]{0,64}+[0-9])(?=[0-9]{0,64}+[A-Za-z])[A-Za-z0-9]{8}")
_OPAQUE = re.compile(r"[A-Za-z0-9+/=_.~!@#$%^&*-]{6,}+")
_PART = "(?:[a-z]{1,16}+[0-9]{0,2}+|[0-9]{1,4}+[a-z]?)"
_A_NAME = re.compile(rf"(?i:{_PART}(?:[-_.]{_PART})*+)|[A-Za-z]++[0-9]")  # `oauth2_token`, and not `hunter2secret`
_SLUG = re.compile(rf"{_PART}(?:[-_.]{_PART})++")
_AWS_KEY = re.compile("[A-Za-z0-9+/]{40}")
POINTS = ".,:;!?"
_LONG_ENOUGH = 6
_NO_VALUE = tuple("$%<{*(.[ ")  # how begins what stands in the place of a value


def is_named(name: str, value: str) -> bool:
    """Whether this is the value of an option or a header of this name, where each is a text of its own."""
    if use_of(name) == "harmless" or value.startswith("-"):
        return False
    in_header = _IN_HEADER.search(name)
    if in_header and (_is_cookie(value) if in_header["cookie"] else _CREDENTIALS.fullmatch(value)):
        return True
    return looks_secret(name, value, name.startswith("-"))


def is_paired(name: str, value: str) -> bool:
    """Whether this is the value of a name in a list of pairs of them, where a password may be words."""
    return is_named(name, value) or (
        use_of(name) != "harmless" and PASSWORD.search(name) is not None and is_assigned(name, value, False, True)
    )


def is_header(name: str) -> bool:
    """Whether a header whose value is a secret has this name, wherever it stands."""
    return FLAT.fullmatch(f"\n{name}\n") is not None


def _is_cookie(value: str) -> bool:
    return any(len(pair.partition("=")[2]) >= _LONG_ENOUGH for pair in value.split(";", 64)[:64])


FLAT = re.compile(r"\n(?i:(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]{0,32}(?:key|token|secret))\n")
# The header that has it; and its scheme, and a credential or parameters (RFC 9110, section 11.4).
_IN_HEADER = re.compile("(?i)authorization|(?P<cookie>cookies?)[0-9]?")
_CREDENTIALS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9_-]{0,30}+[ ]++)?(?:[A-Za-z_-]{1,30}+=.{6,}+|(?=[^0-9]*+[0-9])[^\s]{6,}+|[^\s]{20,}+)"
    r"|(?i:basic)[ ]++[^\s]{4,}+"
)


def is_assigned(name: str, value: str, is_literal: bool, is_quoted: bool) -> bool:
    """Whether something of this name gets a secret: with `=`, and in quotes it is no sentence."""
    told: Collection[str] = _INSTEAD if is_literal else _TOLD
    if is_quoted and (is_literal or PASSWORD.search(name)):
        told = () if _MIXED.search(value) else _INSTEAD if is_literal else _ASKED
        is_literal = True
    return looks_secret(name, value, is_literal, told)


def is_argument(name: str, value: str) -> bool:
    """Whether this literal in the code of a value is a secret. Names and formats stand there, too: it is not of letters
    alone, nor of words and their numbers."""
    return _OPAQUE.fullmatch(value) is not None and not _SLUG.fullmatch(value) and looks_secret(name, value, False)


def is_check(value: str) -> bool:
    """Whether this says what a value may be, and is none: rules in quotes, or a schema."""
    return _SCHEMA.fullmatch(value) is not None or _RULES.fullmatch(value.strip("\"'")) is not None


def looks_secret(name: str, value: str, is_literal: bool, told: Collection[str] | None = None) -> bool:
    """Whether the value looks like one. `is_literal`: what stands here is no code, and nearly always the value itself.
    One of several words is none if one of those is `told`."""
    told = _TOLD if told is None else told
    if len(value) < _LONG_ENOUGH or value.startswith(_NO_VALUE):
        return False
    has_digits = _DIGIT.search(value) is not None
    has_letters = value.islower() or value.isupper() or value.lower() != value.upper()
    if has_digits and not has_letters:
        is_long = len(value) >= 8 or "pass" in (folded := name.lower()) or "pwd" in folded
        return is_literal and value.isdecimal() and is_long
    if _USUAL.fullmatch(value) or (not value.isalnum() and _is_harmless(name, value)):
        return False
    if use_of(value.lower()) != "harmless" and (not has_digits or _A_NAME.fullmatch(value)):
        return False  # code hands one on: `password=db_password`
    if " " in value or "\t" in value:
        is_told = "$" in value or "{" in value or any(word.strip(POINTS).lower() in told for word in value.split())
        return (is_literal or has_digits) and not is_told and _LITERAL.search(name) is not None
    if has_digits:
        return True
    is_word = value.isupper() or value.lower() in WORDS
    return is_literal and has_letters and not is_word and _LITERAL.search(name) is not None


def _is_harmless(name: str, value: str) -> bool:
    if _AWS_KEY.fullmatch(value) and "access" in name.lower():  # no path, with all its slashes
        return False
    return _HARMLESS.fullmatch(value) is not None or _RULES.fullmatch(value) is not None
