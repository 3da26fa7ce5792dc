"""Which keys name a secret, and which only count one, point to a page, or say whether there is one."""

import functools
import re
from typing import Any, Literal

_NAMES = (
    "apikey secret token password passwd authorization cookie privatekey accesstoken refreshtoken clientsecret "
    "credential passphrase pwd secretkey secretaccesskey"
).split()
SECRET_NAMES = frozenset([*_NAMES, *(f"{name}s" for name in _NAMES)])
_LAST_LETTERS = frozenset(letter for name in SECRET_NAMES for letter in (name[-1], name[-1].upper()))
_BEHIND = "0123456789_-. "  # a number, and what parts it from the name
_LONGEST_NAME = max(map(len, SECRET_NAMES))
_LONGEST_KEY = 128  # what stands further before the end of a key does not change what it names

# A capital letter begins a word, so that GITHUBTOKEN and OpenAIAPIKey end in a listed name too.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]|[0-9]+")
_LAST_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)\Z")

# The word before a name that makes it a question, a count, or a position in a list.
_QUESTIONS = frozenset("has have is needs need requires require no without uses use".split())
_COUNTS = frozenset(
    "max min maximum minimum num number of n total count used remaining left avg average mean sum per budget limit "
    "input output prompt completion cached cache reasoning thinking context audio text image generated new stop".split()
)
_POINTERS = frozenset("next prev previous continuation sync resume progress".split())


def names_a_secret(key: str, value: Any = "") -> bool:
    """Whether the whole key, or its last words, is a listed name, its plural or numbered: `x-api-key` and `password2`
    are, `tokens_used`, `max_tokens` and `has_password` are not, and `tokens` only if its value is no number."""
    key = key[-_LONGEST_KEY:].rstrip(_BEHIND)  # what is numbered is looked up once
    if key[-1:] not in _LAST_LETTERS:
        return False
    use = _use(key)
    return use == "secret" or (use == "tokens" and not _is_count(value))


@functools.lru_cache(maxsize=4096)  # bounded: keys come from outside
def _use(key: str) -> Literal["secret", "tokens", "harmless"]:
    """What a key with this end is for, without a number behind it; `tokens` are a secret or a count."""
    ending = ""
    for word in reversed(list(_WORD.finditer(key))):
        ending = word[0].lower() + ending
        if ending in SECRET_NAMES:
            return _use_of(ending, key[: word.start()])
        if len(ending) >= _LONGEST_NAME:
            break
    return "harmless"


def _use_of(name: str, before: str) -> Literal["secret", "tokens", "harmless"]:
    """What a listed name is for behind what stands before it."""
    before, word = _last_word(before)
    if word in _QUESTIONS:
        return "harmless"
    if name in ("token", "tokens"):
        page = word == "page" and _last_word(before)[1] in {"", *_POINTERS}
        if page or word in _POINTERS or (name == "tokens" and word in _COUNTS):
            return "harmless"
    return "tokens" if name == "tokens" else "secret"


def _last_word(text: str) -> tuple[str, str]:
    """What stands before the last word, and the word in lower case; "" if there is none."""
    text = text.rstrip("_-. /:")
    found = _LAST_WORD.search(text)
    return (text[: found.start()], found[0].lower()) if found else ("", "")


def _is_count(value: Any) -> bool:
    if isinstance(value, dict):
        return all(part is None or isinstance(part, int | float) for part in value.values())
    return value is None or isinstance(value, int | float)
