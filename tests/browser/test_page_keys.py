"""What the keys do on a row of the page, in a real Chromium: what is meant for one row never acts on another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside
from browser.test_page_forms import LIVE, asking, value
from browser.test_page_safety import rewrite
from running import until

from hub import Hub
from hub.commands.seen import is_seen

FOCUSED = "document.activeElement"
NEWS = "document.querySelector('#news').textContent"
OWN = "  const row = current();\n  if (!row) return say("
FIRST = "  const row = [current(), ...rows()].find((one) => one?.querySelector('.answers'));\n  if (!row) return say("


@pytest.fixture
async def hub(tmp_path: Path) -> Hub:
    return Hub(port=0, state_dir=tmp_path / "state")


@asynccontextmanager
async def two_failed(hub: Hub, page: Page) -> AsyncIterator[str]:
    """The id of a question that waits above two failed tasks, `new` and `old`."""
    async with hub_inside(hub) as url, asking(hub) as id:
        for name in ("old", "new"):
            await hub.publish("task:progress", {"id": name, "agent": "ada", "name": name, "status": "failed"})
        await page.open(url)
        await page.until(f"{LIVE} && document.querySelectorAll('#failed [data-row]').length === 2")
        yield id
        await page.complete()
        await page.leave()


async def answer_on_a_failure(hub: Hub, page: Page) -> str:
    """What has the focus when the keys of answers were pressed on a row that has none."""
    async with two_failed(hub, page) as id:
        await page.press("j")
        await page.press("j")
        assert await page.evaluate(f"{FOCUSED}.dataset.task") == "new"
        await page.press("a")
        await page.press("d")
        focus: str = await page.evaluate(f"{FOCUSED}.dataset.task ?? {FOCUSED}.textContent")
        assert value(hub, "hub:question", id)["status"] == "open"
        if focus == "new":
            assert await page.evaluate(NEWS) == "This row has no second answer."
            await page.press("a")
            assert await page.evaluate(NEWS) == "This row has no answers."
        return focus


async def test_the_keys_of_answers_act_on_the_row_that_has_the_focus_alone(hub: Hub, page: Page) -> None:
    assert await answer_on_a_failure(hub, page) == "new"


async def test_what_shows_that_is_no_dead_test(
    hub: Hub, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, tmp_path, "static/keys.js", OWN, FIRST)
    assert await answer_on_a_failure(hub, page) == "Deny"


async def test_without_a_row_the_keys_of_answers_do_nothing_and_say_so(hub: Hub, page: Page) -> None:
    async with two_failed(hub, page) as id:
        await page.press("d")
        await page.press("Enter")
        assert await page.evaluate(f"{FOCUSED} === document.body")
        assert await page.evaluate(NEWS) == "No row has the focus: j and k go to one."
        assert value(hub, "hub:question", id)["status"] == "open"


async def test_what_is_seen_leaves_the_focus_to_the_next_row(hub: Hub, page: Page) -> None:
    async with two_failed(hub, page):
        await page.press("j")
        await page.press("e")  # a question is not seen, it is answered
        assert await page.evaluate(NEWS) == "There is nothing to mark as seen in this row."
        await page.press("j")
        await page.press("e")
        await until(lambda: is_seen(hub.state, "task:progress", "new"))
        await page.until("document.querySelectorAll('#failed [data-row]').length === 1")
        assert await page.evaluate(f"{FOCUSED}.dataset.task") == "old"


async def test_enter_opens_the_row_and_presses_what_has_the_focus_in_it(hub: Hub, page: Page) -> None:
    async with two_failed(hub, page):
        await page.press("j")
        await page.press("j")
        await page.evaluate(f"{FOCUSED}.querySelector('button').focus()")
        await page.press("Enter")
        await until(lambda: is_seen(hub.state, "task:progress", "new"))
        assert await page.evaluate("location.search") == ""
        await page.until("document.querySelectorAll('#failed [data-row]').length === 1")
        assert await page.evaluate(f"{FOCUSED}.dataset.task") == "old"
        await page.press("j")  # there is no other: whoever presses Enter behind a key of his own means this row
        await page.press("Enter")
        await page.until("location.search === '?task=old'")
