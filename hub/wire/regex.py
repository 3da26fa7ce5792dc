"""Regular expressions that somebody else wrote, searched in time that is linear in the text, whatever they say.

`re` goes back and tries again: `^(a+)+$` takes it hours on forty letters. Here all ways are followed at the same time
(K. Thompson, Regular Expression Search Algorithm, 1968), and where they lead is remembered. That has no back references
and no lookaround; what is left is what ECMA-262 says with the flag `u`, and only whether it matches.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .regexparser import Parser, Ranges, Step

MAX_LENGTH = 4096  # characters of an expression
MAX_STATES = 1000  # of one expression: {n} repeats what stands before it
MAX_KNOWN = 2000  # steps that are remembered


class _State(NamedTuple):
    """All that is possible behind what was read: which states wait for a character, and whether this is a match."""

    waiting: tuple[int, ...]
    matches: bool
    matches_at_end: bool


class Regex:
    """An expression that has been read; its machine is made when it is first searched. Raises ValueError, with a
    sentence, for one that is none or needs what is not done."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"It is too long: more than {MAX_LENGTH} characters.")
        self._steps: list[Step] = [Step(())]  # the first one is the match
        self._whole = Parser(text, self._add).whole()
        if self._whole.states >= MAX_STATES:
            raise ValueError("It is too long, or repeats too much.")
        self._known: dict[tuple[_State, str], _State] = {}
        self._start: _State | None = None

    def search(self, text: str, spend: Callable[[int], None] = lambda steps: None) -> bool:
        """Whether it matches anywhere in the text. `spend` is told how much was done, and may raise."""
        spend((len(text) >> 4) + (self._whole.states >> 2 if self._start is None else 0))
        state, known = self._start or self._begin(), self._known
        for character in text:
            if state.matches:
                return True
            following = known.get((state, character))
            if following is None:
                spend(1 + (len(state.waiting) >> 2))
                following = self._follow(state, character)
            state = following
        return state.matches or state.matches_at_end

    def _begin(self) -> _State:
        self._first = self._whole.make(0)
        self._start = self._state([self._first], at_start=True)
        return self._start

    def _follow(self, state: _State, character: str) -> _State:
        code = ord(character)
        to = [self._steps[n].to[0] for n in state.waiting if _holds(self._steps[n].take or (), code)]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        found = self._known[state, character] = self._state([*to, self._first], at_start=False)
        return found

    def _state(self, numbers: Iterable[int], *, at_start: bool) -> _State:
        numbers = list(numbers)
        now = self._reached(numbers, "^" if at_start else "")
        at_end = self._reached(numbers, "^$" if at_start else "$")
        waiting = tuple(sorted(n for n in now if self._steps[n].take is not None))
        return _State(waiting, 0 in now, 0 in at_end)

    def _reached(self, numbers: list[int], places: str) -> set[int]:
        """All states that these lead to without a character."""
        found, left = set[int](), list(numbers)
        while left:
            if (number := left.pop()) not in found:
                found.add(number)
                step = self._steps[number]
                if step.take is None and (not step.place or step.place in places):
                    left.extend(step.to)
        return found

    def _add(self, step: Step, number: int | None = None) -> int:
        if number is not None:
            self._steps[number] = step
            return number
        self._steps.append(step)
        return len(self._steps) - 1


def _holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)
