"""What names look like on the wire: events and commands, ids, cursors, and the patterns that match names."""

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import HubError

MAX_NAME = 128
MAX_PATTERNS = 256
NAME = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)+")
_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,17})", re.ASCII)
_PATTERN = re.compile(r"\*|(?:\*|[A-Za-z0-9_.-]+)(?::(?:\*|[A-Za-z0-9_.-]+))+")


def is_name(text: str) -> bool:
    """Whether `text` can name an event or a command: `domain:action`, at most 128 characters."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


def is_id(text: Any) -> bool:
    """Whether `text` can be an id: 1 to 128 printable characters."""
    return isinstance(text, str) and 1 <= len(text) <= 128 and text.isprintable()


def new_id() -> str:
    """A random UUID4 (RFC 9562, section 5.4), put together by hand: a third of uuid.uuid4()'s cost."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


class Cursor(NamedTuple):
    """A position in the hub's stream: `<epoch>:<seq>` on the wire."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises HubError `unknown_cursor` if this cannot have come from a hub."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise HubError("unknown_cursor", "This is not a cursor: a cursor looks like 3f9a01c2:42.")
        return cls(match[1], int(match[2]))


def pattern_problem(text: str) -> str | None:
    """One sentence on why `text` is no pattern, or None if it is one."""
    if len(text) <= MAX_NAME and _PATTERN.fullmatch(text):
        return None
    if is_name(text + ":x") or NAME.fullmatch(f"x:{text}"):
        return f"No event name has only one part; {text[:MAX_NAME]}:* matches all of that domain."
    return "Not a pattern: parts separated by ':', each a name or a single *, at most 128 characters."


class Patterns:
    """A set of patterns and what it matches. Equal sets are equal, so that clients can share the work.

    `*` alone matches everything; `*` as a part matches exactly one part, as the last part one or more.
    """

    __slots__ = ("_match", "_verdicts", "everything", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(sorted(set(texts)))
        self.everything = "*" in self.texts
        self._match = re.compile("|".join(map(_expression, self.texts)) or r"(?!)").fullmatch
        self._verdicts: dict[str, bool] = {}

    def match(self, name: str) -> bool:
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= 4096:  # names come from outside
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._match(name) is not None
        return verdict

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Patterns({', '.join(self.texts)})"


def _expression(pattern: str) -> str:
    *front, last = pattern.split(":")
    parts = ["[^:]+" if part == "*" else re.escape(part) for part in front]
    return ":".join([*parts, ".+" if last == "*" else re.escape(last)])


EVERYTHING = Patterns(("*",))
