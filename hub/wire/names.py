"""What names look like on the wire: events and commands, cursors, and the patterns that match names."""

import re
from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakSet

from ..errors import HubError

MAX_NAME = 128
MAX_PATTERNS = 256
NAME = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)+")
CURSOR = re.compile(r"([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,17})", re.ASCII)
PATTERN = re.compile(r"\*|(?:\*|[A-Za-z0-9_.-]+)(?::(?:\*|[A-Za-z0-9_.-]+))+")


def is_name(text: str) -> bool:
    """Whether `text` can name an event or a command: `domain:action`, at most 128 characters."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


MADE_UP = "demo-"  # how the epoch of a made-up life begins, so that its positions are never taken for a hub's own


def is_made_up(cursor: object) -> bool:
    """Whether this is a position in a made-up life, of which nothing is kept."""
    return isinstance(cursor, str) and cursor.startswith(MADE_UP)


_NO_CURSOR = "This is not a cursor: a cursor looks like 3f9a01c2:42; with 0 behind the colon all that is kept comes."


class Cursor(NamedTuple):
    """A position in the hub's stream: `<epoch>:<seq>` on the wire."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises HubError `unknown_cursor` if this cannot have come from a hub."""
        match = CURSOR.fullmatch(text)
        if match is None:
            raise HubError("unknown_cursor", _NO_CURSOR)
        return cls(match[1], int(match[2]))


def pattern_problem(text: str) -> str | None:
    """One sentence on why `text` is no pattern, or None if it is one."""
    if len(text) <= MAX_NAME and PATTERN.fullmatch(text):
        return None
    if is_name(text + ":x") or NAME.fullmatch(f"x:{text}"):
        return f"No event name has only one part; {text[:MAX_NAME]}:* matches all of that domain."
    return "Not a pattern: parts separated by ':', each a name or a single *, at most 128 characters."


class Verdicts:
    """What all sets of patterns have found lately, within `most` bytes for all of them: sets and names come from
    outside, and there are as many pairs of them as somebody likes."""

    def __init__(self, most: int) -> None:
        self._most, self.bytes = most, 0
        self._sets: WeakSet[Patterns] = WeakSet()

    def note(self, patterns: "Patterns", name: str) -> None:
        """There is one more. Those of all are forgotten when they are too many."""
        self.bytes += VERDICT + len(name)
        if self.bytes > self._most:
            for other in self._sets:
                other.verdicts.clear()
            self._sets.clear()
            self.bytes = VERDICT + len(name)
        self._sets.add(patterns)


VERDICT = 150  # bytes that one takes, beside the name
_verdicts = Verdicts(4 * 1024 * 1024)


class Patterns:
    """A set of patterns and what it matches. Equal sets are equal, so that clients can share the work.

    `*` alone matches everything; `*` as a part matches exactly one part, as the last part one or more.
    """

    __slots__ = ("__weakref__", "_forms", "_hash", "_known", "everything", "texts", "verdicts")

    def __init__(self, texts: Iterable[str]) -> None:
        self._known = frozenset(texts)
        self.texts = tuple(sorted(self._known))
        self.everything = "*" in self._known
        self._hash = hash(self.texts)
        self._forms: list[_Form] | None = None  # most sets are not asked anything
        self.verdicts: dict[str, bool] = {}

    @property
    def are_narrow(self) -> bool:
        """Whether somebody has chosen them, to get some events and not others."""
        return bool(self.texts) and not self.everything

    def match(self, name: str) -> bool:
        verdict = self.verdicts.get(name)
        if verdict is None:
            _verdicts.note(self, name)
            verdict = self.verdicts[name] = self.everything or self._look(name)
        return verdict

    def _look(self, name: str) -> bool:
        """One look into the set for each form that its patterns have, as a name of that form would be written: few
        have more than two or three forms, and nothing grows faster than the texts."""
        if name in self._known:
            return True
        if self._forms is None:
            self._forms = sorted({_form(text) for text in self.texts if "*" in text})
        parts = name.split(":")
        for form in self._forms:
            if len(parts) == form.parts or (form.open and len(parts) > form.parts):
                written = parts[: form.parts]
                for place in form.stars:
                    written[place] = "*"
                if ":".join(written) in self._known:
                    return True
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Patterns({', '.join(self.texts)})"


class _Form(NamedTuple):
    """How many parts a pattern has, which of them are `*`, and whether the last of these stands for more than one."""

    parts: int
    stars: tuple[int, ...]
    open: bool


def _form(text: str) -> _Form:
    parts = text.split(":")
    return _Form(len(parts), tuple(place for place, part in enumerate(parts) if part == "*"), parts[-1] == "*")


EVERYTHING = Patterns(("*",))
NOTHING = Patterns(())
