"""What has only just come under the pointer, or to the focus, takes no press: a double-click answers one question."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside
from browser.test_page_forms import asking, look, quoted
from browser.test_page_safety import rewrite
from running import until

from hub import Hub
from hub.commands.asked import person
from hub.commands.clients import Client

MANY = 4
FOCUSED = "document.activeElement"
FIRST = "document.querySelector('#waiting [data-question] button')"
READY = f"getComputedStyle({FIRST}).pointerEvents !== 'none'"
RESTS = "if (isMoved) button.animate"
ANIMATES = "animation: settle 0.5s;"
HELD = "if (!event.repeat && (event.target !== led || performance.now() >= until)) return;"


@pytest.fixture
async def hub(tmp_path: Path) -> Hub:
    return Hub(port=0, state_dir=tmp_path / "state")


@asynccontextmanager
async def asked(hub: Hub, page: Page, script: bool = True) -> AsyncIterator[str]:
    """The address of a page with four questions of the same answers, that can be pressed."""
    async with hub_inside(hub) as url, contextlib.AsyncExitStack() as stack:
        for number in range(MANY):
            await stack.enter_async_context(asking(hub, f"Run it {number}?", ("allow", "deny"), {"agent": "ada"}))
        await look(page, url, script)
        await page.until(f"document.querySelectorAll('#waiting [data-question]').length === {MANY} && {READY}")
        yield url
        await page.complete()
        await page.leave()


async def place(page: Page) -> tuple[float, float]:
    """Where the first answer of the first question is."""
    box = f"(() => {{ const box = {FIRST}.getBoundingClientRect(); return [box.x + 20, box.y + box.height / 2] }})()"
    x, y = await page.evaluate(box)
    return x, y


async def in_order(page: Page) -> list[str]:
    """The questions as they stand on the page: those of one millisecond in any order."""
    ids: list[str] = await page.evaluate(
        "[...document.querySelectorAll('#waiting [data-question]')].map((row) => row.dataset.question)"
    )
    return ids


def still_open(hub: Hub) -> int:
    return len([*hub.questions.records()])


def sent(page: Page) -> int:
    return len([url for url, _ in page.posts if url.endswith("/answer")])


async def answered(hub: Hub, page: Page, least: int) -> int:
    """How many questions are answered in the end: so many at least, and before that of the last one, pressed now."""
    await until(lambda: still_open(hub) <= MANY - least)
    rows = "document.querySelectorAll('#waiting [data-question]').length"
    await page.until(f"document.readyState === 'complete' && {rows} === {still_open(hub)}")  # none moves any more
    last = (await in_order(page))[-1]
    await page.click_on(f"[...document.querySelectorAll('[data-question={quoted(last)}] button')].slice(1)")
    await until(lambda: last not in {record["id"] for record in hub.questions.records()})
    return MANY - 1 - still_open(hub)


async def twice(hub: Hub, page: Page, least: int, script: bool) -> int:
    """How many answers the first press gives, and a second one of the same spot as soon as another row lies there."""
    async with asked(hub, page, script):
        first = (await in_order(page))[0]
        spot = await place(page)
        await page.click_at(*spot)
        there = f"document.elementFromPoint({spot[0]}, {spot[1]})?.closest('[data-row]')?.dataset.question"
        await page.until(f"({there} ?? {first!r}) !== {first!r}")
        await page.click_at(*spot, count=2)
        return await answered(hub, page, least)


@pytest.mark.parametrize("script", [True, False])
async def test_a_double_click_answers_one_question(hub: Hub, page: Page, script: bool) -> None:
    assert await twice(hub, page, 1, script) == 1


@pytest.mark.parametrize("script", [True, False])
async def test_what_shows_that_is_no_dead_test(
    hub: Hub, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bool
) -> None:
    if script:
        rewrite(monkeypatch, tmp_path, "static/settling.js", RESTS, "if (false) button.animate")
    else:
        rewrite(monkeypatch, tmp_path, "static/hub.css", ANIMATES, "")
    assert await twice(hub, page, 2, script) == 2


async def after_somebody_elses(hub: Hub, page: Page, least: int) -> int:
    """How many are answered, when another person has answered the first, and then that spot was pressed."""
    async with asked(hub, page):
        id = (await in_order(page))[0]
        spot = await place(page)
        await hub.questions.answer(id, "deny", person(Client("http", "127.0.0.1:1", 1, "OPERATOR")))
        await page.until(f"!document.querySelector('[data-question={quoted(id)}]')")
        await page.click_at(*spot)
        return await answered(hub, page, least)


async def test_a_row_that_somebody_elses_answer_has_moved_takes_no_press(hub: Hub, page: Page) -> None:
    assert await after_somebody_elses(hub, page, 1) == 1


async def test_and_what_shows_that_is_no_dead_test(
    hub: Hub, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, tmp_path, "static/settling.js", RESTS, "if (false) button.animate")
    assert await after_somebody_elses(hub, page, 2) == 2


async def test_what_has_come_to_rest_is_pressed_as_ever(hub: Hub, page: Page) -> None:
    async with asked(hub, page):
        for left in range(MANY - 1, -1, -1):
            await page.until(READY)
            await page.click_at(*await place(page))
            await page.until(f"document.querySelectorAll('[data-question]').length === {left}")
            assert still_open(hub) == left


async def by_enter(hub: Hub, page: Page) -> str:
    """What Enter does that is pressed again, and held, when it has answered the first question: `nothing`, if the row
    of the second has the focus; else where it has led."""
    async with asked(hub, page):
        second = (await in_order(page))[1]
        await page.press("j")
        await page.press("a")
        await page.press("Enter")
        await page.until(f"{FOCUSED}.dataset.question === {second!r}")
        for repeats in (False, True):
            key = {"key": "Enter", "windowsVirtualKeyCode": 13, "text": "\r", "autoRepeat": repeats}
            await page.send("Input.dispatchKeyEvent", type="keyDown", **key)
        await page.send("Input.dispatchKeyEvent", type="keyUp", key="Enter", windowsVirtualKeyCode=13)
        await page.until("document.readyState === 'complete'")
        found: str = await page.evaluate(f"location.search || {FOCUSED}.dataset.question")
        assert sent(page) == 1
        if found == second:
            await page.press("a")  # and the keys go on where one was
            assert await page.evaluate(f"{FOCUSED}.textContent") == "allow"
        return "nothing" if found == second else found


async def test_behind_enter_the_next_row_has_the_focus_and_enter_again_does_nothing(hub: Hub, page: Page) -> None:
    assert await by_enter(hub, page) == "nothing"


async def test_and_what_shows_that_of_enter_is_no_dead_test(
    hub: Hub, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, tmp_path, "static/settling.js", HELD, "return;")
    assert await by_enter(hub, page) == "?agent=ada"
