"""Reads a regular expression of somebody else's, as ECMA-262 has it with the flag `u`, into the steps of a machine."""

from collections.abc import Callable
from typing import NamedTuple

MAX_GROUPS = 20  # in each other

Ranges = tuple[tuple[int, int], ...]

_DIGITS: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = (
    (9, 13), (32, 32), (160, 160), (5760, 5760), (8192, 8202), (8232, 8233), (8239, 8239), (8287, 8287), (12288, 12288),
    (65279, 65279),
)  # fmt: skip
_LINE_ENDS: Ranges = ((10, 10), (13, 13), (8232, 8233))
_LAST = 0x10FFFF


def _others(ranges: Ranges) -> Ranges:
    """All characters that are not in these."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CLASSES |= {name.upper(): _others(ranges) for name, ranges in _CLASSES.items()}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


class Step(NamedTuple):
    """One state: `take` a character of these and go on at `to`; without `take`, go on at all of `to`, if the place is
    the `place` of the text that is asked for."""

    to: tuple[int, ...]
    take: Ranges | None = None
    place: str = ""


class Part(NamedTuple):
    """A part of an expression. It makes its states, so many, when it is told where to go on: a repeated one makes them
    anew. Each makes one at least: else `((){9999}){9999}` would be nothing, and take for ever."""

    states: int
    make: Callable[[int], int]


class Parser:
    """Reads an expression from left to right, in time linear in its length, however much it repeats."""

    def __init__(self, text: str, add: Callable[..., int]) -> None:
        self._text, self._at, self._add, self._depth = text, 0, add, 0

    def whole(self) -> Part:
        part = self._either()
        if self._at < len(self._text):
            raise ValueError("A ')' closes nothing.")
        return part

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        if not (character := self._peek()):
            raise ValueError("It ends too early.")
        self._at += 1
        return character

    def _took(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) * found
        return found

    def _either(self) -> Part:
        parts = [self._row()]
        while self._took("|"):
            parts.append(self._row())
        if len(parts) == 1:
            return parts[0]
        states = 1 + sum(part.states for part in parts)
        return Part(states, lambda to: self._add(Step(tuple(part.make(to) for part in parts))))

    def _row(self) -> Part:
        parts = list[Part]()
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._one()))
        if not parts:
            return self._nothing()

        def row(to: int) -> int:
            for part in reversed(parts):
                to = part.make(to)
            return to

        return Part(sum(part.states for part in parts), row)

    def _one(self) -> Part:
        match self._next():
            case "(":
                return self._group()
            case "[":
                return self._taking(self._class())
            case ".":
                return self._taking(_others(_LINE_ENDS))
            case "^" | "$" as place:
                return Part(1, lambda to: self._add(Step((to,), place=place)))
            case "\\":
                return self._taking(self._escaped())
            case "*" | "+" | "?" | "{" | "}" | "]" as sign:
                raise ValueError(f"A {sign!r} stands where nothing can be repeated; as a character write \\{sign}.")
            case character:
                return self._taking(((ord(character), ord(character)),))

    def _taking(self, ranges: Ranges) -> Part:
        return Part(1, lambda to: self._add(Step((to,), ranges)))

    def _nothing(self) -> Part:
        return Part(1, lambda to: self._add(Step((to,))))

    def _group(self) -> Part:
        if self._took("?<") and self._peek() not in ("=", "!"):
            while self._next() != ">":
                pass
        elif self._text[self._at - 2 : self._at] == "?<" or (self._peek() == "?" and not self._took("?:")):
            raise ValueError("Lookaround and flags are not done here.")
        self._depth += 1
        if self._depth > MAX_GROUPS:
            raise ValueError(f"More than {MAX_GROUPS} groups are in each other.")
        part = self._either()
        self._depth -= 1
        if not self._took(")"):
            raise ValueError("A '(' is not closed.")
        return part

    def _repeated(self, part: Part) -> Part:
        least, most = self._times()
        self._took("?")  # whether it takes few or many makes no difference to whether it matches
        return part if (least, most) == (1, 1) else self._repeat(part, least, most)

    def _repeat(self, part: Part, least: int, most: int | None) -> Part:
        if most == 0:
            return self._nothing()

        def repeated(to: int) -> int:
            if most is None:
                loop = self._add(Step(()))
                to = self._add(Step((part.make(loop), to)), loop)
            for _ in range((most or least) - least):
                to = self._add(Step((part.make(to), to)))
            for _ in range(least):
                to = part.make(to)
            return to

        more = 1 if most is None else most - least
        return Part(least * part.states + more * (part.states + 1), repeated)

    def _times(self) -> tuple[int, int | None]:
        if self._took("*"):
            return 0, None
        if self._took("+"):
            return 1, None
        if self._took("?"):
            return 0, 1
        if not self._took("{"):
            return 1, 1
        least, comma, most = "".join(iter(self._next, "}")).partition(",")
        if not _is_count(least) or (most and not _is_count(most)):
            raise ValueError("A '{' is followed by no number of times; as a character write \\{.")
        if comma and not most:
            return int(least), None
        if int(most or least) < int(least):
            raise ValueError("A repetition ends before it begins.")
        return int(least), int(most or least)

    # ---- characters

    def _class(self) -> Ranges:
        negated, found = self._took("^"), list[tuple[int, int]]()
        while not self._took("]"):
            low = self._member()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                found.append(_range(low, self._member()))
            else:
                found += low
        return _others(tuple(found)) if negated else tuple(found)

    def _member(self) -> Ranges:
        character = self._next()
        return self._escaped() if character == "\\" else ((ord(character), ord(character)),)

    def _escaped(self) -> Ranges:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character in _CONTROLS and not (character == "0" and self._peek().isdigit()):
            code = _CONTROLS[character]
        elif character in "xu":
            code = self._code(character)
        elif character.isascii() and not character.isalnum():  # ECMA-262 knows fewer of these; nothing else is meant
            code = ord(character)
        else:
            raise ValueError(f"\\{character} is not done here.")
        return ((code, code),)

    def _code(self, kind: str) -> int:
        if kind == "u" and self._took("{"):
            digits = "".join(iter(self._next, "}"))
        else:
            digits = "".join(self._next() for _ in range(2 if kind == "x" else 4))
        if not 1 <= len(digits) <= 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise ValueError(f"\\{kind} is followed by no number of a character.")
        return min(int(digits, 16), _LAST)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 4


def _range(low: Ranges, high: Ranges) -> tuple[int, int]:
    single = len(low) == len(high) == 1 and low[0][0] == low[0][1] and high[0][0] == high[0][1]
    if not single or high[0][0] < low[0][0]:
        raise ValueError("A range in [ ] is none.")
    return low[0][0], high[0][0]
