"""The words behind a name, as `publish` and `call` take them: JSON, or `key=value` and `key:=json`, or stdin."""

import json
import math
import os
import re
import select
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import UsageError

FIELD = re.compile(r'([^\s={\[":][^=]*?)(:?)=(.*)', re.DOTALL)
COLON = re.compile(r"([A-Za-z_][\w.-]*):([^\s=][^=]*)")
STDIN = "-"
QUIET_SECONDS = 1.0  # in which nothing has come on stdin


def is_json(words: Sequence[str]) -> bool:
    """Whether these words are one JSON text, good or bad."""
    return len(words) == 1 and FIELD.fullmatch(words[0]) is None


class Field(NamedTuple):
    """One `key=value`, or `key:=json`."""

    key: str
    text: str
    is_json: bool


def parsed(words: Sequence[str]) -> list[Field]:
    """The fields that the words are. Raises UsageError for one that is none, or is no JSON."""
    found = []
    for word in words:
        match = FIELD.fullmatch(word)
        if match is None:
            raise UsageError(f"{word!r} is neither key=value nor key:=JSON{equals_meant(word) or '.'}")
        key, is_json, text = match.groups()
        found.append(Field(key, json_text(text) if is_json else text, bool(is_json)))
    return found


def equals_meant(word: str) -> str:
    """Return the question that `key:value` raises, to be put behind a sentence; empty if it is something else."""
    found = COLON.fullmatch(word)
    return f"; did you mean {found[1]}={found[2]}?" if found else ""


def json_word(word: str) -> str:
    """As `json_text`, of a word that stands where fields may stand, too."""
    try:
        return json_text(word)
    except UsageError:
        if not (meant := equals_meant(word)):
            raise
        raise UsageError(f"{word!r} is neither key=value nor JSON{meant}") from None


def fields(words: Sequence[str], types: Mapping[str, Any]) -> dict[str, Any]:
    """What `key=value` and `key:=json` say. `types`: the JSON Schema of each key that has one. Raises UsageError."""
    found: dict[str, Any] = {}
    for key, text, is_json in parsed(words):
        value = json.loads(text) if is_json else _meant(text, types.get(key))
        if key in found and not (isinstance(value, list) and isinstance(found[key], list)):
            raise UsageError(f"{key!r} is given twice.")
        found[key] = [*found.get(key, ()), *value] if isinstance(value, list) else value
    return found


def _meant(text: str, schema: Any) -> Any:
    if schema is None:
        return text
    from ..wire.texts import converted  # here: most fields are texts

    return converted(text, schema)


def json_text(text: str) -> str:
    """The text, if it is JSON of numbers that there are, and with each key once; the hub is stricter, and has the last
    word. Raises UsageError."""
    try:
        json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"This is not JSON: {text[:60]}{'…' * (len(text) > 60)} ({error}).") from None
    return text


def _finite(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text[:20]} is no number of JSON, or too large")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("an object has the same key twice")
    return found


# ---- stdin


def is_given() -> bool:
    """Whether stdin is a pipe or a file: then it is read where no words say anything else. So is a socket, if something
    comes: Node gives one to each child, and says nothing to most."""
    mode = os.fstat(0).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or (stat.S_ISSOCK(mode) and _speaks())


def _speaks() -> bool:
    import socket  # here, as few have any use for it

    if not says_something(QUIET_SECONDS):
        return False
    try:
        with socket.socket(fileno=os.dup(0)) as stdin:
            return bool(stdin.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def read_stdin(size: int) -> bytes:
    """As `os.read`. Raises UsageError."""
    try:
        return os.read(0, size)
    except OSError as error:
        raise UsageError(f"Stdin cannot be read ({error.strerror}).") from None


def says_something(seconds: float) -> bool:
    """Whether stdin has anything to read within so many seconds, be it that it has ended."""
    return bool(select.select([0], [], [], seconds)[0])
