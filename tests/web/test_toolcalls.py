"""Which requests for a permission are asked, over orders in which hooks arrive: nobody waits unseen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.adapters.shape import Taken, Tool, is_same_call, marked
from hub.web import toolcalls
from hub.web.toolcalls import ToolCalls

TOOL = marked(Tool("Bash", {"command": "make"}))


def told(what: str, call: str, actor: str = "a") -> Taken:
    taken = Taken(session="s", actor=actor, tool=TOOL)
    match what:
        case "begins":
            taken.call, taken.starts = call, True
        case "ran":
            taken.call, taken.ran = call, TOOL
        case _:
            taken.waits = True
    return taken


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Calls of one command, at once or one after the other: each begins, most ask, all end; in any order otherwise. A
    request arrives behind the beginning of its call, which its sender waits for."""
    found = list[tuple[str, str]]()
    for call in map(str, range(draw(st.integers(1, 4)))):
        steps = ["begins", "ran"]
        if draw(st.booleans()):
            steps.insert(draw(st.integers(1, 2)), "asks")
        at = draw(st.integers(0, len(found)))
        for step in steps:
            at = draw(st.integers(at, len(found)))
            found.insert(at, (step, call))
            at += 1
    return found


@given(arrivals())
def test_who_waits_is_asked(order: list[tuple[str, str]]) -> None:
    calls, ended = ToolCalls(), set[str]()
    for what, call in order:
        is_late = calls.note(told(what, call))
        if what == "ran":
            ended.add(call)
        assert not (is_late and (what != "asks" or call not in ended)), "it still waits in its terminal"


@given(st.lists(st.sampled_from(["asked", "late", "allowed"]), max_size=5))
def test_one_after_the_other_what_is_late_is_known(lives: list[str]) -> None:
    calls = ToolCalls()
    for number, life in enumerate(lives):
        call = str(number)
        calls.note(told("begins", call))
        if life == "asked":
            assert not calls.note(told("asks", ""))
        calls.note(told("ran", call))
        if life == "late":
            assert calls.note(told("asks", ""))


@pytest.mark.parametrize("kind", ["no call is told", "another subagent", "it was asked", "a while ago"])
def test_in_doubt_it_is_asked(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ToolCalls()
    if kind != "no call is told":
        calls.note(told("begins", "1"))
    if kind == "it was asked":
        calls.note(told("asks", ""))
    calls.note(told("ran", "1"))
    if kind == "a while ago":
        monkeypatch.setattr(toolcalls, "LATE_SECONDS", -1.0)
    assert not calls.note(told("asks", "", actor="b" if kind == "another subagent" else "a"))


def test_a_beginning_that_comes_behind_its_end_begins_nothing() -> None:
    calls = ToolCalls()
    for what in ("ran", "begins"):
        calls.note(told(what, "1"))
    assert calls.note(told("asks", ""))


def test_what_is_remembered_is_bounded() -> None:
    calls = ToolCalls()
    for number in range(3 * toolcalls.KEPT):
        calls.note(told("begins", str(number)))
    assert len(calls._calls) == toolcalls.KEPT


VALUES = st.recursive(  # without true and false, which Python takes for 1 and 0
    st.none() | st.integers() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
INPUTS = VALUES | st.dictionaries(st.sampled_from("abcd") | st.text(min_size=60, max_size=70), VALUES, max_size=5)


@given(INPUTS, INPUTS, st.booleans())
def test_a_mark_tells_the_same_calls_as_the_input_itself(one: Any, other: Any, is_same: bool) -> None:
    first, second = Tool("t", one), Tool("t", one if is_same else other)
    assert is_same_call(marked(first), marked(second)) == is_same_call(first, second)


def test_a_mark_is_small_however_large_the_input_was() -> None:
    large = {"content": "x" * 10**6, "k" * 10**6: [1] * 10**5, **{str(n): {"a": "y" * 100} for n in range(1000)}}
    mark = marked(Tool("Write", large))
    assert len(str(mark.input)) < 20_000
    assert is_same_call(mark, marked(Tool("Write", dict(large))))
    assert not is_same_call(mark, marked(Tool("Write", {**large, "999": {"a": "z" * 100}})))
    assert marked(Tool("t", ["x" * 100])).input == marked(Tool("t", ["x" * 100])).input
