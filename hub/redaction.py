"""What must never be written down: secrets are taken out of an event before it is stored, sent, audited or logged.

A value without secrets costs one look at its keys and one search through its texts; the time is linear in its size,
whatever is in it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from . import sensitive
from .quoted import NAMING, REDACTED
from .secretnames import Use, is_secret, use_of
from .secretvalues import FLAT, is_header, is_named, is_paired
from .sensitive import clean_each, clean_text, is_suspicious

JSON = Any

# Keys seen before and found harmless. Bounded: keys come from outside.
_HARMLESS_LIMIT = 4096
_LONGEST_KEPT_KEY = 64
_harmless: set[str] = set()

# Characters, and texts and keys to be looked at, from which on a value is cleaned in several steps. No frame of 64 KiB
# holds so much, so what one connection sends in frames is never overtaken.
LONG = 64 * 1024
MANY = LONG // len('"",')


def hide(holder: object, secrets: Iterable[str]) -> None:
    """See `sensitive.hide`."""
    sensitive.hide(holder, secrets)
    _harmless.clear()  # one of them may have been a key before it was a token


def redact(value: JSON) -> tuple[JSON, int]:
    """The value without its secrets, and how many were taken out.

    The input is never changed. Without a secret in it the very same object comes back. Every part that holds no secret
    is shared with the input. Nesting: at least 32 levels.
    """
    seen = _look_at(value)
    return (value, 0) if seen is None else _without(value, _secrets_in(seen))


Apart = Callable[[Callable[[], "Secrets"]], Awaitable["Secrets"]]


async def redact_each(values: list[JSON], apart: Apart) -> tuple[list[JSON], int]:
    """As `redact` for each of these; one look at all of them says what is to be taken out, nearly always nothing. Where
    there is much to be looked at, that is done `apart`, as `Passes.apart` does it."""
    seen = _look_at(values)
    if seen is None:
        return values, 0
    secrets = await apart(partial(_secrets_in, seen)) if seen.is_much else _secrets_in(seen)
    cleaned = [_without(value, secrets) for value in values]
    return [value for value, _ in cleaned], sum(count for _, count in cleaned)


def redact_text(text: str) -> str:
    """The text with everything that looks like a secret replaced by `[redacted]`."""
    return clean_text(text)[0] if is_suspicious(text) else text


def holds_secret(text: str) -> bool:
    """Whether something in the text looks like a secret."""
    return is_suspicious(text) and clean_text(text)[1] > 0


class Seen(NamedTuple):
    """What a first look at a value has found: its texts and new keys, if one of them may hold a secret, and the keys
    that name one, or may."""

    texts: list[str]
    keys: set[str]
    naming: Mapping[str, Use]
    size: int  # characters of the texts and keys

    @property
    def is_much(self) -> bool:
        return self.size >= LONG or len(self.texts) + len(self.keys) + len(self.naming) >= MANY


class Secrets(NamedTuple):
    """What is to be taken out of a value: the texts and keys that hold a secret, with what is left of each and how many
    it held, and the keys that name one, or may."""

    texts: Mapping[str, tuple[str, int]]
    naming: Mapping[str, Use]


def _look_at(value: JSON) -> Seen | None:
    """Return None if there is certainly nothing to take out: one search through all texts and new keys of the value."""
    texts, keys, is_beside, lists = _new_texts(value)
    naming = {key: use for key in keys if (use := use_of(key)) != "harmless"} if keys else {}
    joined = "\n".join([*texts, *keys]) if texts or keys else ""
    if joined and is_suspicious(joined):
        return Seen(texts, keys, naming, len(joined))
    if keys:
        _remember(keys - naming.keys())
    if lists and ("\n--" in joined or joined.startswith("--") or FLAT.search(joined)):  # options, or headers in turns
        is_beside = is_beside or any(map(_named_in, lists))
    return Seen([], set(), naming, 0) if naming or is_beside else None


def _secrets_in(seen: Seen) -> Secrets:
    texts, keys, naming, _ = seen
    secrets = clean_each([*texts, *keys]) if texts or keys else {}
    if not seen.is_much:  # else a text may be `hide`n meanwhile, and then no key that was looked at before is harmless
        _remember(keys - naming.keys() - secrets.keys())
    return Secrets(secrets, naming)


def _new_texts(value: JSON) -> tuple[list[str], set[str], bool, list[Sequence[JSON]]]:
    """All texts in the value, all keys that are not known to be harmless, whether a secret stands beside its name, and
    the lists in which one may stand behind it."""
    texts: list[str] = []
    keys: set[str] = set()
    is_beside = False
    lists: list[Sequence[JSON]] = []
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
            if ("value" in item or "Value" in item) and _pair_in(item):
                is_beside = True
            for part in item.values():
                kind = type(part)
                if kind is str:
                    texts.append(part)
                elif kind is not int and part is not None:
                    todo.append(part)
        elif kind is list or kind is tuple:
            todo.extend(item)
            if len(item) > 1 and type(item[0]) is str:
                lists.append(item)
                if len(item) == 2 and use_of(item[0]) != "harmless" and _named_in(item):
                    is_beside = True
            elif item and isinstance(item[0], _LISTS) and len(item[0]) == 2 and not is_beside and _pairs_in(item):
                is_beside = True
    return texts, keys, is_beside, lists


def _pair_in(item: Mapping[Any, JSON]) -> str | None:
    """The member that has a secret which this names, as the value of `{"name": "DB_PASSWORD", "value": "…"}`."""
    for naming, having in _PAIRS:
        if having in item and isinstance(name := item.get(naming), str):
            part = item[having]
            return having if part not in ("", None, REDACTED) and is_secret(use_of(name), part) else None
    return None


_PAIRS = tuple((naming, "Value" if naming[0].isupper() else "value") for naming in NAMING)


def _named_in(items: Sequence[JSON]) -> set[int]:
    """Which of these texts have their name before them, as `["mysql", "--password", "…"]`, and `["X-Api-Key", "…"]`."""
    named = [at for at, name in enumerate(items, 1) if isinstance(name, str) and name[:2] == "--"]
    if len(items) == 2 and isinstance(name := items[0], str) and not (name.isalpha() and name.islower()):
        named = [1]
    elif len(items) > 3 and not len(items) % 2:  # as Node.js hands on headers
        named += [at for at in range(1, len(items), 2) if isinstance(items[at - 1], str) and is_header(items[at - 1])]
    return {at for at in named if at < len(items) and isinstance(items[at], str) and is_named(items[at - 1], items[at])}


def _pairs_in(items: Sequence[JSON]) -> set[int]:
    """Which of these are a name and a secret of it, if all are pairs that begin with a text: `[["password", "…"]]`."""
    if not all(isinstance(pair, _LISTS) and len(pair) == 2 and isinstance(pair[0], str) for pair in items):
        return set()
    return {at for at, (name, value) in enumerate(items) if isinstance(value, str) and is_paired(name, value)}


_LISTS = (list, tuple)
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
    named, pairs = _named_in(value), _pairs_in(value) if value and isinstance(value[0], _LISTS) else ()
    for at, part in enumerate(value):
        if at in named:
            part, found = REDACTED, found + 1
        elif at in pairs:
            part, found = [_without(part[0], secrets)[0], REDACTED], found + 1
        elif part and not isinstance(part, _NUMBERS):
            part, count = _without(part, secrets)
            found += count
        result.append(part)
    return (result, found) if found else (value, 0)


def _without_keys(value: dict[Any, JSON], secrets: Secrets) -> tuple[JSON, int]:
    result: dict[Any, JSON] = {}
    numbers: dict[str, int] = {}
    found, (texts, naming) = 0, secrets
    beside = _pair_in(value) if "value" in value or "Value" in value else None
    for key, part in value.items():
        if (use := naming.get(key)) and is_secret(use, part):
            found += 1
            continue
        if cleaned := texts.get(key):
            found += cleaned[1]
            key = _unused(cleaned[0], numbers, value, result)
        if key == beside:
            part, found = REDACTED, found + 1
        elif part and not isinstance(part, _NUMBERS):
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
