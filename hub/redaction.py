"""What must never be written down: secrets are taken out of an event before it is stored, sent, audited or logged.

A value without secrets costs one look at its keys and one search through its texts; the time is linear in its size,
whatever is in it.
"""

from typing import Any

from .secretnames import names_a_secret
from .sensitive import clean_text, is_suspicious

JSON = Any

# Keys seen before and found harmless. Bounded: keys come from outside.
_HARMLESS_LIMIT = 4096
_LONGEST_KEPT_KEY = 64
_harmless: set[str] = set()


def redact(value: JSON) -> tuple[JSON, int]:
    """The value without its secrets, and how many were taken out.

    The input is never changed. Without a secret in it the very same object comes back. Every part that holds no secret
    is shared with the input. Nesting: at least 32 levels.
    """
    if _is_clean(value):
        return value, 0
    return _without(value)


def redact_each(values: list[JSON]) -> tuple[list[JSON], int]:
    """As `redact` for each of these; where there is nothing to take out, one look at all of them says so."""
    if _is_clean(values):
        return values, 0
    cleaned = [redact(value) for value in values]
    return [value for value, _ in cleaned], sum(count for _, count in cleaned)


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret replaced by `[redacted]`."""
    return clean_text(text)[0]


def holds_secret(text: str) -> bool:
    """Whether something in the text looks like a secret."""
    return is_suspicious(text) and clean_text(text)[1] > 0


def _is_clean(value: JSON) -> bool:
    """Whether there is certainly nothing to take out. Every new key and text of the value is searched in one go."""
    texts: list[str] = []
    keys: list[str] = []
    todo = [value]
    for item in todo:  # grows while it is read
        kind = type(item)
        if kind is str:
            texts.append(item)
        elif kind is dict:
            if not item.keys() <= _harmless:
                keys += [key for key in item if isinstance(key, str) and key not in _harmless]
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
    if any(map(names_a_secret, keys)) or ((texts or keys) and is_suspicious("\n".join([*texts, *keys]))):
        return False
    _remember(keys)
    return True


def _remember(keys: list[str]) -> None:
    for key in keys[:_HARMLESS_LIMIT]:
        if len(key) <= _LONGEST_KEPT_KEY:
            if len(_harmless) >= _HARMLESS_LIMIT:
                _harmless.clear()
            _harmless.add(key)


def _without(value: JSON) -> tuple[JSON, int]:
    """The careful way: a copy of exactly those parts that hold a secret."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return _without_keys(value)
    if isinstance(value, (list, tuple)):
        return _without_items(value)
    return value, 0


def _without_items(value: list[JSON] | tuple[JSON, ...]) -> tuple[JSON, int]:
    result: list[JSON] = []
    found = 0
    for part in value:
        if part and not isinstance(part, int | float):
            part, count = _without(part)
            found += count
        result.append(part)
    return (result, found) if found else (value, 0)


def _without_keys(value: dict[Any, JSON]) -> tuple[JSON, int]:
    result: dict[Any, JSON] = {}
    numbers: dict[str, int] = {}
    found = 0
    for key, part in value.items():
        if key not in _harmless and isinstance(key, str):
            if names_a_secret(key, part):
                found += 1
                continue
            name, count = clean_text(key)
            if count:
                found += count
                key = _unused(name, numbers, value, result)
            elif not names_a_secret(key):
                _remember([key])
        part, count = _without(part)
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
