"""The word that was probably meant, and how much is looked at to find it."""

from collections.abc import Iterator

import pytest

from hub import spelling
from hub.spelling import MOST, nearest, suggestion

NAMES = ["hub:info", "hub:history", "hub:state", "hub:commands", "task:progress", "orders:cancel", "--state-dir", "-n"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("hub:info", "hub:info"),
        ("task:progres", "task:progress"),  # missing
        ("task:progresss", "task:progress"),  # too many
        ("task;progress", "task:progress"),  # wrong
        ("taks:progress", "task:progress"),  # exchanged
        ("Hub:State", "hub:state"),
        ("info", "hub:info"),
        ("progress", "task:progress"),
        ("--state", "--state-dir"),
        ("orders:cancelled", None),  # another word
        ("ab", None),
        ("zz", None),
        ("-x", None),
        ("", None),
        ("hub:hitsoyr", None),  # in two places
    ],
)
def test_it_differs_in_one_place(word: str, meant: str | None) -> None:
    assert nearest(word, NAMES) == meant


def test_the_one_that_differs_least_is_meant_and_of_equals_the_first() -> None:
    assert nearest("abcdef", ["abcxyf", "abcdxf", "abcxef"]) == "abcdxf"


def test_for_people_more_is_found() -> None:
    assert suggestion("hub:hitsoyr", NAMES) == "; did you mean hub:history?"
    assert suggestion("xyzzy", NAMES) == ""


@pytest.mark.parametrize("weakened", [False, True])
def test_no_more_is_looked_at_than_so_many_words(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(spelling, "MOST", None)
    looked = 0

    def words() -> Iterator[str]:
        nonlocal looked
        for number in range(3 * MOST):
            looked += 1
            yield f"a:name{number}"

    nearest("b:other", words())
    assert (looked > MOST) is weakened
