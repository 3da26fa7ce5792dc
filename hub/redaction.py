"""What must never be written down: secrets are taken out of an event before it is stored, sent, audited or
logged.

A value without secrets costs one look at its keys and one search through its texts.
"""

from __future__ import annotations

import re
from typing import Any

JSON = Any

REDACTED = "[redacted]"
SECRET_NAMES = frozenset({
    "apikey", "secret", "token", "password", "passwd", "authorization", "cookie", "privatekey", "accesstoken",
    "refreshtoken", "clientsecret", "credential", "credentials",
})  # fmt: skip
_LONGEST_NAME = max(map(len, SECRET_NAMES))

# A capital letter begins a word, so that GITHUBTOKEN and OpenAIAPIKey end in a listed name too.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]|[0-9]+")

# Keys seen before and found harmless. Bounded: keys come from outside.
_HARMLESS_LIMIT = 4096
_LONGEST_KEPT_KEY = 64
_harmless: set[object] = set()

# No pattern below can take more than linear time. Each begins with a literal, repeats one set of characters
# possessively (or up to a literal or the end of the text), and a repeated set cannot run over a second
# beginning of its own pattern and fail again: the look behind, the set, or a length forbids it. The look
# behind stands after the literal, so that the search for the literal stays fast.
_RUN = r"[A-Za-z0-9_-]"
_CREDENTIAL = r"[A-Za-z0-9._~+/=-]"


def _begins(literal: str, length: int, glued: str = r"[A-Za-z0-9]") -> str:
    """The literal where a word begins; a line break that was escaped on the way (``\\n``) begins a word
    too."""
    return rf"{literal}(?:(?<!{glued}.{{{length}}})|(?<=\\[nrt].{{{length}}}))"


# "the bearer of this", "a bearer token is missing": plain words behind "bearer" that are no credential.
_PLAIN = (
    r"(?:(?i:a|an|and|auth|authentication|authorization|bearer|certificates?|credentials?|for|from|has|header|in|is"
    r"|must|of|on|only|or|scheme|the|to|tokens?|type|was|with)[.]?(?!" + _CREDENTIAL + "))"
)
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)", re.DOTALL)
_BEARER = _begins("[Bb][Ee][Aa][Rr][Ee][Rr]", 6) + rf"(?:\s|%20)++(?!{_PLAIN}){_CREDENTIAL}++"
_SK = _begins("sk-", 3) + rf"(?:{_RUN}{{12,}}+|(?=[A-Za-z_-]*+[0-9]){_RUN}{{6,}}+)"
_GITHUB = _begins("gh[opusr]_", 4) + rf"{_RUN}{{4,}}+"
_AWS = _begins("A[KS]IA", 4) + rf"[A-Z0-9]{{12,}}+{_RUN}*+"
# JSON Web Token: the header, then two (signed) to four (encrypted) further parts
_JWT = _begins("eyJ", 3, glued=_RUN) + rf"{_RUN}{{5,}}+(?:\.{_RUN}*+){{2,4}}"
# The user and password of a URL; what stands before and behind stays readable
_USERINFO = r"""://[^\s/?#:"<>\\]*+:[^\s/?#"<>\\]*@"""
_SECRET = re.compile("|".join((_BEARER, _SK, _GITHUB, _AWS, _JWT, _USERINFO)))
_SK_OR_GITHUB = re.compile(f"{_SK}|{_GITHUB}")


def redact(value: JSON) -> tuple[JSON, int]:
    """The value without its secrets, and how many were taken out.

    The input is never changed. Without a secret in it the very same object comes back.
    Every part that holds no secret is shared with the input. Nesting: at least 32 levels.
    """
    if _is_clean(value):
        return value, 0
    return _without(value)


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret replaced by ``[redacted]``."""
    return _without_text(text)[0]


def names_a_secret(key: str) -> bool:
    """Whether the whole key, or its last words, is a listed name: ``x-api-key`` is, ``tokens_used`` is
    not."""
    ending = ""
    for word in reversed(_WORD.findall(key)):
        ending = word.lower() + ending
        if ending in SECRET_NAMES:
            return True
        if len(ending) >= _LONGEST_NAME:
            break
    return False


def _is_clean(value: JSON) -> bool:
    """Whether there is certainly nothing to take out. Every text of the value is searched in one go."""
    texts: list[str] = []
    todo = [value]
    for item in todo:  # grows while it is read
        kind = type(item)
        if kind is str:
            texts.append(item)
        elif kind is dict:
            if not (item.keys() <= _harmless or all(map(_key_is_harmless, item))):
                return False
            for part in item.values():
                kind = type(part)
                if kind is str:
                    texts.append(part)
                elif kind is not int and part is not None:
                    todo.append(part)
        elif kind is list or kind is tuple:
            todo.extend(item)
        elif isinstance(item, (str, dict, list, tuple)):
            return False  # a subclass: the careful way decides
    return not texts or not _is_suspicious("\n".join(texts))


def _is_suspicious(text: str) -> bool:
    """A cheap first look, mostly for plain substrings: False is certain, True is not."""
    return (
        "eyJ" in text
        or "KIA" in text
        or "SIA" in text
        or "-----BEGIN" in text
        or ("://" in text and "@" in text)
        or (("sk-" in text or "gh" in text) and _SK_OR_GITHUB.search(text) is not None)
        or "bearer" in text.lower()
    )


def _key_is_harmless(key: object) -> bool:
    if key in _harmless:
        return True
    if isinstance(key, str) and (names_a_secret(key) or _without_text(key)[1]):
        return False
    if not isinstance(key, str) or len(key) <= _LONGEST_KEPT_KEY:
        if len(_harmless) >= _HARMLESS_LIMIT:
            _harmless.clear()
        _harmless.add(key)
    return True


def _without(value: JSON) -> tuple[JSON, int]:
    """The careful way: a copy of exactly those parts that hold a secret."""
    if isinstance(value, str):
        return _without_text(value)
    if isinstance(value, dict):
        return _without_keys(value)
    if isinstance(value, (list, tuple)):
        parts = [_without(part) for part in value]
        found = sum(count for _, count in parts)
        return ([part for part, _ in parts], found) if found else (value, 0)
    return value, 0


def _without_keys(value: dict[Any, JSON]) -> tuple[JSON, int]:
    result: dict[Any, JSON] = {}
    found = 0
    for key, part in value.items():
        if not _key_is_harmless(key):
            found += 1
            if names_a_secret(key):
                continue
            key = _unused(_without_text(key)[0], value, result)
        part, count = _without(part)
        found += count
        result[key] = part
    return (result, found) if found else (value, 0)


def _unused(key: str, *taken: dict[Any, JSON]) -> str:
    """The key, numbered if another has it: two keys that held secrets must not swallow each other's
    values."""
    name, number = key, 1
    while any(name in keys for keys in taken):
        number += 1
        name = f"{key} {number}"
    return name


def _without_text(text: str) -> tuple[str, int]:
    if not _is_suspicious(text):
        return text, 0
    text, blocks = _PEM.subn(REDACTED, text)  # first: the dashes before BEGIN may hang on another secret
    text, others = _SECRET.subn(_replacement, text)
    return text, blocks + others


def _replacement(match: re.Match[str]) -> str:
    """What stays of a match: the scheme of a credential and the delimiters of a URL's user and password."""
    text = match[0]
    if text.startswith("://"):
        return f"://{REDACTED}@"
    if text[:6].lower() == "bearer":
        return f"{text[:6]} {REDACTED}"
    return REDACTED
