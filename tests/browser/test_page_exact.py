"""What is pressed is what was read, in a real Chromium: options that hide something, end in blanks, or no HTML can
carry; and the args of what is dangerous."""

import json
import re
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside
from browser.test_page_forms import asking, look, prepare, press_button, quoted, value
from running import until

import hub.web.page.exact as hub_exact
from hub import Hub
from hub.commands.seen import is_seen

# What is asked, and what stands on the buttons.
OPTIONS = ("\u202eseY", "no", "no ", "n\0l", "a\rb", "a\nb", "x\xa0y", "1 &lt; 2")
LABELS = ["\\u202eseY", "no", "no␣", "n\\u0000l", "a\\rb", "a\nb", "x\\u00a0y", "1 &lt; 2"]


@pytest.fixture
async def hub(tmp_path: Path) -> Hub:
    hub = Hub(port=0, state_dir=tmp_path)
    prepare(hub)
    return hub


@pytest.mark.parametrize("script", [True, False])
async def test_the_option_that_was_read_is_the_answer(hub: Hub, page: Page, script: bool) -> None:
    async with hub_inside(hub) as url:
        for number, option in enumerate(OPTIONS):
            async with asking(hub, "Which?", OPTIONS) as id:
                await look(page, url, script)
                buttons = f"[...document.querySelectorAll('[data-question={quoted(id)}] button')]"
                await page.until(f"{buttons}.length === {len(OPTIONS)}")
                assert await page.evaluate(f"{buttons}.map((b) => b.textContent)") == LABELS
                await page.click_on(f"[{buttons}[{number}]]")
                await until(lambda id=id: value(hub, "hub:question", id)["status"] == "answered")  # type: ignore[misc]
                assert value(hub, "hub:question", id)["answer"] == option
                await page.until(f"!{buttons}.length")
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_button_works_whatever_its_row_is_called(
    hub: Hub, page: Page, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(hub_exact, "ALTERED", re.compile("(?!)"))
    async with hub_inside(hub) as url:
        await hub.publish("task:progress", {"id": "n\0m", "status": "failed"})
        await look(page, url, True)
        await press_button(page, "Seen")
        if weakened:
            await page.until("document.querySelector('.problem')")
            page.forgive("status of 404", "status of 422", "status of 500")
        else:
            await page.until("!document.querySelector('[data-section=failed]')")
        assert is_seen(hub.state, "task:progress", "n\0m") is not weakened
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_what_is_confirmed_is_read_as_it_runs(hub: Hub, page: Page, script: bool) -> None:
    table = "/home/\u202ecod\u202c/x  y"
    async with hub_inside(hub) as url:
        await look(page, f"{url}?call=db:drop", script)
        await page.fill("[name=table]", table)
        await press_button(page, "Go on")
        await page.until("document.querySelector('[data-args]')")
        (shown,) = await page.text("[data-args]")
        assert '"/home/\\u202ecod\\u202c/x  y"' in shown
        assert json.loads(shown) == {"table": table}
        await page.complete()
        await press_button(page, "Run db:drop")
        await page.until("document.querySelector('.result pre')")
        assert "\u202e" not in (await page.text("main"))[0]
        (dropped,) = [event for event in hub.window.events() if event.name == "db:dropped"]
        assert dropped.data == {"table": table}
        await page.complete()
        await page.leave()
