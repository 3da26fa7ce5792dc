"""What must be taken out of a text: what is known for a secret, what looks like one, and what has the name of one."""

import re
from collections.abc import Iterable, MutableMapping, Sequence
from itertools import count
from json import dumps
from weakref import WeakKeyDictionary

from .assigned import may_be_assigned, without_assigned
from .quoted import REDACTED, has_escapes, has_members, unescaped, without_members
from .secretshapes import OF_SERVICES, PASSES, Pass, may_be_of_a_service, may_have_shape

# What has no look of its own, and is known to the letter: the tokens of the hubs of this process, by who knows them.
_known: MutableMapping[object, frozenset[str]] = WeakKeyDictionary()
_own: tuple[str, ...] = ()


def hide(holder: object, secrets: Iterable[str]) -> None:
    """Take these texts for secrets from here on, in the place of those that this holder had named before."""
    global _own
    _known[holder] = frozenset(written for text in secrets for written in _as_written(text))
    _own = tuple(set().union(*_known.values()))


def _as_written(text: str) -> Iterable[str]:
    """The text as it is, in JSON, and in JSON that stands in JSON: nearly always the same."""
    for _ in range(3):
        yield text
        text = dumps(text)[1:-1]


def clean_text(text: str) -> tuple[str, int]:
    """The text with every secret in it replaced by `[redacted]`, and how many they were.

    What was escaped without need is read as what it stands for. It stays as it was written, unless there is a secret in
    the text that can be seen no other way.
    """
    found = _cleaned(text)
    if has_escapes(text):
        plain = unescaped(text)
        other = _cleaned(plain)
        if other[1] and other[0] != (unescaped(found[0]) if found[1] else plain):
            return other
    return found


def _cleaned(text: str) -> tuple[str, int]:
    found = 0
    for secret in _own:  # first: what has a look might end within it
        if count := text.count(secret):
            text, found = text.replace(secret, REDACTED), found + count
    if '"' in text or "'" in text:
        text, more = without_members(text)
        found += more
    folded = text.lower()
    for passes in (PASSES, OF_SERVICES if may_be_of_a_service(text) else ()):
        text, more = _passed(text, folded, passes)
        found += more
    if may_be_assigned(text) and (cleaned := without_assigned(text)) != text:
        text, found = cleaned, found + _more(text, cleaned)
    return (_each_once(text) if found > 1 else text), found


def _each_once(text: str) -> str:
    """JSON in which several keys held secrets says of each something of its own, as `redaction` does it."""
    numbers = count(1)
    return _KEYS.sub(lambda key: key[0] if (number := next(numbers)) == 1 else f"{key[0]} {number}", text)


_KEYS = re.compile(r"""[{,]\s*+\\*+["']\[redacted\](?=\\*+["']\s*+:)""")


def _passed(text: str, folded: str, passes: Sequence[Pass]) -> tuple[str, int]:
    found = 0
    for literals, pattern, replacement in passes:
        for literal in literals:
            if literal in folded:
                cleaned = pattern.sub(replacement, text)
                if cleaned != text:
                    found += _more(text, cleaned)
                    text = cleaned
                break
    return text, found


def clean_each(texts: Sequence[str]) -> dict[str, tuple[str, int]]:
    """What `clean_text` makes of each text that holds a secret. Many short ones are cleaned as the lines of one text: a
    pass over each of them costs more than what it finds."""
    joined = _BETWEEN.join(texts)
    folded = joined.lower()
    is_more = joined.count(_BETWEEN) != len(texts) - 1 or has_escapes(joined)
    if is_more or any(mark in folded for mark in _SPANNING):
        return {text: found for text in texts if (found := clean_text(text))[1]}
    lines = clean_text(joined)[0].split(_BETWEEN)
    changed = ((text, line) for text, line in zip(texts, lines, strict=True) if text != line)
    return {text: _ALL if line == REDACTED else (line, _more(text, line)) for text, line in changed}


# A line ends for every pattern, and what it repeats ends, too: a NUL is no space and in no credential.
_BETWEEN = "\0\n"
# What is in every secret that may run over that: with these, the lines together may hold more than each.
_SPANNING = ('"', "'", "----begin", "---- begin")
_ALL = (REDACTED, 1)


def _more(text: str, cleaned: str) -> int:
    return max(1, cleaned.count(REDACTED) - text.count(REDACTED))


def is_suspicious(text: str) -> bool:
    """A cheap first look, mostly for plain substrings: False is certain, True is not."""
    if may_have_shape(text) or may_be_of_a_service(text) or has_members(text) or may_be_assigned(text):
        return True
    for secret in _own:
        if secret in text:  # with `any` it takes three times as long
            return True
    return has_escapes(text) and (plain := unescaped(text)) != text and is_suspicious(plain)
