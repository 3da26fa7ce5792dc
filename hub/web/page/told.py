"""What the details of a question say beside its text: in lines for a person, and of each answer at its button."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...wire.texts import seen
from .formats import cut, outline, text

LINES = 12  # of one question; how many more there are is said
TOLD = 300  # characters of what is said of an answer
CALLED = {"cwd": "folder", "description": ""}  # what a sender's words are called; "": what they say speaks for itself

Lines = list[tuple[str, str]]


def lines_of(details: Any, question: str, *, is_told: bool) -> Lines:
    """Name and text of each thing that the details say and the question does not; what a tool was given stands among
    them. `is_told`: of a tool that asks, what it was given stands at the answers."""
    if not isinstance(details, dict):
        return [("", outline(details))] if details and not is_in(details, question) else []
    given = details.get("input")
    beside = {name: value for name, value in details.items() if name != "input"}
    if is_told:
        beside.pop("tool", None)
    elif isinstance(given, dict):
        beside |= {name: value for name, value in given.items() if name not in beside}
    elif "input" in details:
        beside["input"] = given
    found = [(name, value) for name, value in beside.items() if value not in ({}, [], None, "")]
    found = [(name, value) for name, value in found if not is_in(value, question)]
    lines = [(CALLED.get(name, cut(seen(name), TOLD)), outline(value)) for name, value in found[:LINES]]
    return [*lines, ("", f"{len(found) - LINES} more")] if len(found) > LINES else lines


def is_in(value: Any, question: str) -> bool:
    """Whether the question has this text in it already."""
    return isinstance(value, str) and value.strip() in question


def told_of(details: Any, options: Sequence[str]) -> Mapping[str, str] | None:
    """What is said of each answer, where the details are those of a tool that asks just this; else None."""
    given = details.get("input") if isinstance(details, dict) else None
    asked = given.get("questions") if isinstance(given, dict) else None
    if not isinstance(asked, list) or len(asked) != 1 or not isinstance(asked[0], dict):
        return None
    choices = asked[0].get("options")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        return None
    told = {one["label"]: one.get("description") for one in choices if isinstance(one.get("label"), str)}
    if len(told) != len(choices) or not told.keys() <= {*options}:
        return None
    return {label: cut(seen(text(said)), TOLD) for label, said in told.items() if isinstance(said, str) and said}
