"""What a person sees of a permission: all of it, and nothing that could be drawn as something else."""

from typing import Any

import pytest

from hub.adapters.asking import visible, within
from hub.adapters.senders import ADAPTERS
from hub.adapters.shape import Given, Question

NOW = "2026-11-30T12:00:00.000Z"


class Nothing:
    """A hub that knows nothing yet."""

    def value(self, event: str, key: str) -> None:
        return None

    def tasks(self, agent: str) -> list[Any]:
        return []

    subagents = tasks


def asked(tool_input: Any, tool: str = "Bash") -> Question | None:
    body = {"hook_event_name": "PermissionRequest", "session_id": "s", "cwd": "/home/u/shop"}
    given = Given(
        {**body, "tool_name": tool, "tool_input": tool_input}, Nothing(), "2026-11-30T12:00:00.000Z", asks=True
    )
    return ADAPTERS["claude-code"](given).question


def text(tool_input: Any) -> str:
    question = asked(tool_input)
    assert question is not None
    return question.text


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("ls\r rm -rf ~", "ls\\r rm -rf ~"),
        ("ls \x1b[2K", "ls \\x1b[2K"),
        ("ls \u202e~ fr- mr", "ls \\u202e~ fr- mr"),
        ("ls \u2066x\u2069", "ls \\u2066x\\u2069"),
        ("ls \u200b", "ls \\u200b"),
        ("ls\u00a0x", "ls\\xa0x"),
        ("a\n\tb", "a\n\tb"),
        ("grep bäcker", "grep bäcker"),
    ],
)
def test_what_cannot_be_seen_is_written_out(hidden: str, shown: str) -> None:
    assert visible(hidden) == shown
    assert text({"command": hidden}) == f"claude-code in shop: Bash: {shown}"


def test_what_is_not_shown_is_counted() -> None:
    command = "echo " + "x" * 4000 + "; rm -rf ~"
    shown = text({"command": command})
    assert shown.endswith(" more characters are not shown)")
    assert len(shown) < 4000
    assert within("abc", 3) == "abc"
    assert within("a" * 100, 80) == "a" * 20 + " … (80 more characters are not shown)"
    assert text({"many": ["y" * 500] * 20}).endswith("(more than this, which is not shown)")


@pytest.mark.parametrize("label", ["yes\u202e", "yes\r", "\u200byes"])
def test_a_label_that_could_be_shown_as_another_is_not_asked(label: str) -> None:
    questions = [{"question": "Go?", "options": [{"label": "yes"}, {"label": label}]}]
    body = {"hook_event_name": "PreToolUse", "session_id": "s", "tool_name": "AskUserQuestion"}

    def question(labels: list[Any]) -> Question | None:
        questions[0]["options"] = labels
        given = Given(
            {**body, "tool_input": {"questions": questions}}, Nothing(), "2026-11-30T12:00:00.000Z", asks=True
        )
        return ADAPTERS["claude-code"](given).question

    assert question([{"label": "yes"}, {"label": "no"}]) is not None
    assert question([{"label": "yes"}, {"label": label}]) is None
