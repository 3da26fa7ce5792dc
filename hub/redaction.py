"""What must never be written down: secrets are taken out of an event before it is stored, sent, audited or logged.

A value without secrets costs one look at its keys and one search through its texts; the time is linear in its size,
whatever is in it.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from itertools import islice
from json import dumps
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .quoted import REDACTED
from .secretnames import Use, is_secret, use_of
from .sensitive import clean_each, clean_text, is_suspicious

JSON = Any

# Keys seen before and found harmless. Bounded: keys come from outside.
_HARMLESS_LIMIT = 4096
_LONGEST_KEPT_KEY = 64
_harmless: set[str] = set()

# What has no look of its own, and is known to the letter: the tokens of the hubs of this process, by who knows them.
_known: MutableMapping[object, frozenset[str]] = WeakKeyDictionary()
_own: tuple[str, ...] = ()


def hide(holder: object, secrets: Iterable[str]) -> None:
    """Take these texts for secrets from here on, in the place of those that this holder had named before."""
    global _own
    _known[holder] = frozenset(written for text in secrets for written in _as_written(text))
    _own = tuple(set().union(*_known.values()))
    _harmless.clear()  # one of them may have been a key before it was a token


def _as_written(text: str) -> Iterable[str]:
    """The text as it is, in JSON, and in JSON that stands in JSON: nearly always the same."""
    for _ in range(3):
        yield text
        text = dumps(text)[1:-1]


def redact(value: JSON) -> tuple[JSON, int]:
    """The value without its secrets, and how many were taken out.

    The input is never changed. Without a secret in it the very same object comes back. Every part that holds no secret
    is shared with the input. Nesting: at least 32 levels.
    """
    secrets = _secrets_in(value)
    return (value, 0) if secrets is None else _without(value, secrets)


def redact_each(values: list[JSON]) -> tuple[list[JSON], int]:
    """As `redact` for each of these; one look at all of them says what is to be taken out, nearly always nothing."""
    secrets = _secrets_in(values)
    if secrets is None:
        return values, 0
    cleaned = [_without(value, secrets) for value in values]
    return [value for value, _ in cleaned], sum(count for _, count in cleaned)


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret replaced by `[redacted]`."""
    return _clean(text)[0] if _may_hold_one(text) else text


def holds_secret(text: str) -> bool:
    """Whether something in the text looks like a secret."""
    return _may_hold_one(text) and _clean(text)[1] > 0


def _may_hold_one(text: str) -> bool:
    """A cheap first look: False is certain, True is not."""
    if is_suspicious(text):
        return True
    for secret in _own:  # noqa: SIM110 - with `any` it takes three times as long
        if secret in text:
            return True
    return False


def _clean(text: str) -> tuple[str, int]:
    """See `clean_text`. What is known to the letter goes first: what has a look might end within it."""
    found = 0
    for secret in _own:
        if count := text.count(secret):
            text, found = text.replace(secret, REDACTED), found + count
    text, more = clean_text(text)
    return text, found + more


def _clean_each(texts: Sequence[str]) -> dict[str, tuple[str, int]]:
    """See `clean_each`."""
    found = clean_each(texts)
    if _own:
        found |= {text: _clean(text) for text in texts if any(secret in text for secret in _own)}
    return found


class Secrets(NamedTuple):
    """What is to be taken out of a value: the texts and keys that hold a secret, with what is left of each and how many
    it held, and the keys that name one, or may."""

    texts: Mapping[str, tuple[str, int]]
    naming: Mapping[str, Use]


def _secrets_in(value: JSON) -> Secrets | None:
    """Return None if there is certainly nothing to take out: one search through all texts and new keys of the value."""
    texts, keys = _new_texts(value)
    naming = {key: use for key in keys if (use := use_of(key)) != "harmless"} if keys else {}
    suspicious = bool(texts or keys) and _may_hold_one("\n".join([*texts, *keys]))
    if not naming and not suspicious:
        if keys:
            _remember(keys)
        return None
    secrets = _clean_each([*texts, *keys]) if suspicious else {}
    _remember(keys - naming.keys() - secrets.keys())
    return Secrets(secrets, naming)


def _new_texts(value: JSON) -> tuple[list[str], set[str]]:
    """All texts in the value, and all keys that are not known to be harmless."""
    texts: list[str] = []
    keys: set[str] = set()
    todo = [value]
    for item in todo:  # grows while it is read
        kind = type(item)
        if kind not in _PLAIN:
            kind = next((known for known in _CONTAINERS if isinstance(item, known)), kind)
        if kind is str:
            texts.append(item)
        elif kind is dict:
            if not item.keys() <= _harmless and not item.keys() <= keys:
                keys.update(key for key in item if isinstance(key, str) and key not in _harmless)
            for part in item.values():
                kind = type(part)
                if kind is str:
                    texts.append(part)
                elif kind is not int and part is not None:
                    todo.append(part)
        elif kind is list or kind is tuple:
            todo.extend(item)
    return texts, keys


_NUMBERS = (int, float)
_CONTAINERS = (str, dict, list, tuple)  # and what is derived from them, as an application's code may have it
_PLAIN = frozenset({*_CONTAINERS, int, float, bool, type(None)})


def _remember(keys: Iterable[str]) -> None:
    for key in islice(keys, _HARMLESS_LIMIT):
        if len(key) <= _LONGEST_KEPT_KEY:
            if len(_harmless) >= _HARMLESS_LIMIT:
                _harmless.clear()
            _harmless.add(key)


def _without(value: JSON, secrets: Secrets) -> tuple[JSON, int]:
    """A copy of exactly those parts that hold a secret."""
    if isinstance(value, str):
        return secrets.texts.get(value) or (value, 0)
    if isinstance(value, dict):
        return _without_keys(value, secrets)
    if isinstance(value, (list, tuple)):
        return _without_items(value, secrets)
    return value, 0


def _without_items(value: list[JSON] | tuple[JSON, ...], secrets: Secrets) -> tuple[JSON, int]:
    result: list[JSON] = []
    found = 0
    for part in value:
        if part and not isinstance(part, _NUMBERS):
            part, count = _without(part, secrets)
            found += count
        result.append(part)
    return (result, found) if found else (value, 0)


def _without_keys(value: dict[Any, JSON], secrets: Secrets) -> tuple[JSON, int]:
    result: dict[Any, JSON] = {}
    numbers: dict[str, int] = {}
    found, (texts, naming) = 0, secrets
    for key, part in value.items():
        if (use := naming.get(key)) and is_secret(use, part):
            found += 1
            continue
        if cleaned := texts.get(key):
            found += cleaned[1]
            key = _unused(cleaned[0], numbers, value, result)
        if part and not isinstance(part, _NUMBERS):
            part, count = _without(part, secrets)
            found += count
        result[key] = part
    return (result, found) if found else (value, 0)


def _unused(name: str, numbers: dict[str, int], value: dict[Any, JSON], result: dict[Any, JSON]) -> str:
    """The name, numbered if another key has it: two keys that held secrets must not swallow each other's values. Counts
    on from the last number that the name got, so that many such keys take one step each."""
    number = numbers.get(name, 0)
    while True:
        number += 1
        unused = name if number == 1 else f"{name} {number}"
        if unused not in value and unused not in result:
            numbers[name] = number
            return unused
