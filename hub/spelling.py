"""The word that was probably meant."""

from collections.abc import Iterable
from itertools import islice

MOST = 500  # words that one is compared with: some come from outside, and there may be many
SLIPS = 2  # characters side by side that may be wrong, missing, too many or exchanged


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of the words that differs least, and in one place only; None if none does. Capitals are no
    difference, and a word that only begins or ends another stands for it.

    The work is linear in the letters of the first MOST words.
    """
    best, found = SLIPS + 1, None
    plain = word.casefold()
    for other in islice(words, MOST):
        slips = _slips(plain, other.casefold())
        if slips < best:
            best, found = slips, other
    return found


def _slips(word: str, other: str) -> int:
    """How many characters stand between what both begin with and what both end with."""
    shorter = min(len(word), len(other))
    begin = end = 0
    while begin < shorter and word[begin] == other[begin]:
        begin += 1
    while end < shorter - begin and word[-1 - end] == other[-1 - end]:
        end += 1
    same, slips = begin + end, max(len(word), len(other)) - begin - end
    if same == len(word) > SLIPS:
        return min(slips, SLIPS)
    return slips if same > slips else SLIPS + 1


def suggestion(word: str, words: Iterable[str]) -> str:
    """Return a question that names the word which was probably meant, to be put behind a sentence; empty if none is
    near."""
    found = meant(word, words)
    return f"; did you mean {found}?" if found else ""


def meant(word: str, words: Iterable[str]) -> str | None:
    """Return the word that a person probably meant to type; None if none is near. Finds more than `nearest`, and takes
    longer: for lists of our own."""
    known = list(words)
    return nearest(word, known) or _similar(word, known)


def _similar(word: str, words: list[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, words, 1)), None)
