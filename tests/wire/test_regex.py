"""Expressions of others: they match what they match elsewhere, and never take longer than the text is long."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.wire import regex as module
from hub.wire import regexparser
from hub.wire.regex import Regex

EXPRESSIONS = [
    r"^[a-z0-9]+(-[a-z0-9]+)*$", r"^\d{4}-\d{2}-\d{2}$", "a|b", "^(a+)+$", "(a*)*b", "", "^$", "x?y{2,3}z", "[^a-c]",
    r"[a\]-]", "^a.c$", "(?:ab|cd){2}", r"[\w.+-]+@[\w-]+\.[\w.]+", "a{0,2}$", "$", "^", "b^a", "(^a|b$)c?", "a{2,}",
    r"\u0061\x62\.", r"[\d\-x]", r"\D\W\S", "a+?b*?", "(a|)b", "a{0}b", "(a|b|cd)*z", r"[^\s\d]$",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(text=st.text(alphabet="abcdxyz-10@.] \n", max_size=12))
def test_it_matches_what_python_matches(expression: str, text: str) -> None:
    pythons = re.sub(r"(?<!\\)\$", r"\\Z", expression)
    assert Regex(expression).search(text) is bool(re.search(pythons, text, re.ASCII))


parts = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "^", "$"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
    ),
    max_leaves=6,
)


@given(expression=parts, text=st.text(alphabet="abc", max_size=7))
def test_any_of_these_parts_in_any_order(expression: str, text: str) -> None:
    regex = Regex(expression)
    assert regex.search(text) is bool(re.search(expression.replace("$", r"\Z"), text))
    assert len(regex._steps) == 1 + regex._whole.states


@pytest.mark.parametrize(
    ("expression", "yes", "no"),
    [
        (r"^(?<year>\d+)$", "2026", "x"),
        (r"^\u{1F600}$", "😀", "x"),
        ("[]", "", "x"),
        ("^[^]$", "\n", ""),
        (r"^\s$", "\u2028", "x"),
        (r"^\w$", "_", "ä"),
        (r"^\0$", "\0", "0"),
        (r"^[^\0-a]$", "b", "a"),
        (r"[\0-\u{10FFFF}]", "x", ""),
        (r"^a[^\0-\u{10FFFF}]?$", "a", "ab"),
        (r"^[\t\n]$", "\t", "t"),
        ("^.$", "ä", "\r"),
        (r"^\-{2,}$", "---", "-"),
    ],
)
def test_what_ecma_262_says_otherwise(expression: str, yes: str, no: str) -> None:
    assert Regex(expression).search(yes) is (expression != "[]")
    assert Regex(expression).search(no) is False


@pytest.mark.parametrize(
    "expression",
    [
        "(", ")", "a**", "[", r"\1", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?i)a", "a{2", r"\b", r"\p{L}", "a{3,2}",
        "a{x}", "((a{100}){100})", "[b-a]", r"[a-\d]", "{", "\\", "a{12345}", "(" * 30 + ")" * 30, r"\xg0", r"\u{}",
        "]", "}", "+", "a" * 2000, "[" + "a" * 5000 + "]", "(?<name", r"\c", "(((){9999}){9999}){9999}",
        "(" + "a{0}" * 1000 + "b){990}",
    ],
)  # fmt: skip
def test_what_is_none_or_too_much_is_refused_with_a_sentence(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Regex(expression)


@pytest.mark.parametrize("weakened", [False, True])
def test_an_expression_has_a_length(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few states it has."""
    if weakened:
        monkeypatch.setattr(module, "MAX_LENGTH", 10**9)
    with contextlib.nullcontext() if weakened else pytest.raises(ValueError, match="more than 4096 characters"):
        assert Regex("[" + "a" * 5000 + "]").search("a")


@pytest.mark.parametrize("weakened", [False, True])
def test_nothing_is_not_repeated_for_ever(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(regexparser.Parser, "_nothing", lambda self: regexparser.Part(0, lambda to: to))
    with contextlib.nullcontext() if weakened else pytest.raises(ValueError, match="repeats too much"):
        assert Regex("(((){99}){99}){9}").search("")


@pytest.mark.parametrize(
    ("expression", "letters"),
    [("^(a+)+$", "a"), ("(a|a)*c", "ab"), ("(.*a){12}.*c", "ab"), ("^(([a-z])+.)+[A-Z]([a-z])+$", "a")],
)
def test_it_takes_as_long_as_the_text_is_long(expression: str, letters: str) -> None:
    """On half of these `re` would not come to an end in this life."""
    spent = list[int]()
    text = letters * 20_000 + "!"
    assert Regex(expression).search(text, spent.append) is False
    assert sum(spent) < len(text) / 8


@pytest.mark.parametrize("weakened", [False, True])
def test_what_is_remembered_is_bounded(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(module, "MAX_KNOWN", 10**9)
    regex = Regex("a.{12}b")
    for n in range(20):
        regex.search("".join("ab"[n * i * i % 7 < 3] + chr(0x4E00 + n * 300 + i) for i in range(300)))
    assert (len(regex._known) > 2000) is weakened
