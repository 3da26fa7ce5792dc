"""What stands beside a question: lines to read, what is said of each answer at its button, nothing twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, until
from sent import Page
from web.page.test_working import shown

from hub.web.page.told import LINES, lines_of, told_of

ASKED = "claude-code in shop: Which way?"
OPTIONS = [
    {"label": "Rewrite", "description": "all <b>anew</b>"},
    {"label": "Patch", "description": "as little as can be"},
]
GIVEN = {"questions": [{"question": "Which way?", "header": "Way", "multiSelect": False, "options": OPTIONS}]}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as hub:
        yield hub


async def asked(hub: HubInside, question: str, options: list[str], details: Any) -> Page:
    asking = asyncio.ensure_future(hub.hub.ask(question, options, details=details))
    await until(lambda: hub.hub.state.of("hub:question"))
    page = await shown(hub)
    asking.cancel()
    return page


def lines(page: Page) -> list[str]:
    return [str(one["text"]) for one in page.all("span", class_="details")]


async def test_what_a_tool_that_asks_says_of_its_answers_stands_at_their_buttons(hub: HubInside) -> None:
    details = {"agent": "claude-code:1", "cwd": "/home/me/shop", "tool": "AskUserQuestion", "input": GIVEN}
    page = await asked(hub, ASKED, ["Rewrite", "Patch", "answer in the terminal"], details)
    assert lines(page) == ["folder: /home/me/shop"]
    buttons = page.all("button", name="answer")
    assert [one["text"] for one in buttons] == ["Rewrite", "Patch", "answer in the terminal"]
    said = [one.get("aria-describedby") for one in buttons]
    assert said[2] is None
    assert [page.one("span", id=str(id))["text"] for id in said[:2]] == ["all <b>anew</b>", "as little as can be"]


async def test_what_a_command_is_for_is_a_line_of_its_own(hub: HubInside) -> None:
    given = {"command": "rm -rf build", "description": "Remove what was built", "timeout": 5000}
    details = {"agent": "claude-code:1", "cwd": "/home/me/shop", "tool": "Bash", "input": given}
    page = await asked(hub, "claude-code in shop: Bash: rm -rf build", ["allow", "deny"], details)
    assert lines(page) == ["folder: /home/me/shop", "Remove what was built", "timeout: 5,000"]


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (None, []),
        ("", []),
        ("Which way?", []),
        ("more of it", [("", "more of it")]),
        ([1, 2], [("", "1, 2")]),
        ({"input": "raw", "tool": "Shell"}, [("tool", "Shell"), ("input", "raw")]),
        ({"pr": 7, "none": None, "empty": {}, "way": "way"}, [("pr", "7")]),
        ({"path": {"a": 1, "b": [2]}}, [("path", "a: 1, b: 2")]),
    ],
)
def test_details_are_lines(details: Any, said: Any) -> None:
    assert lines_of(details, ASKED, is_told=False) == said


def test_of_very_many_details_it_is_said_how_many_there_are() -> None:
    found = lines_of({f"n{number}": number for number in range(100)}, ASKED, is_told=False)
    assert len(found) == LINES + 1
    assert found[-1] == ("", f"{100 - LINES} more")


@pytest.mark.parametrize(
    "given",
    [
        "cut …",
        {},
        {"questions": []},
        {"questions": [1]},
        {"questions": [{}]},
        {"questions": [{"options": ["a"]}]},
        {"questions": [{"options": [{"label": 1}]}]},
        {"questions": [{"options": [{"label": "other", "description": "not asked"}]}]},
        {"questions": [GIVEN, GIVEN]},
    ],
)
def test_what_is_no_question_of_just_these_answers_says_nothing_of_them(given: Any) -> None:
    assert told_of({"input": given}, ["Rewrite", "Patch"]) is None


def test_an_answer_of_which_nothing_is_said_has_nothing_beside_it() -> None:
    options = [{"label": "Rewrite"}, {"label": "Patch", "description": ""}]
    assert told_of({"input": {"questions": [{"options": options}]}}, ["Rewrite", "Patch"]) == {}
    assert told_of("text", ["Rewrite"]) is None
