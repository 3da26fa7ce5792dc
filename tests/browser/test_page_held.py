"""Without a connection no form can be sent: its buttons say so, and are there again with the hub."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import Wire, hub_inside
from browser.test_page_connection import GONE, LIVE, LOST, behind, port
from browser.test_page_forms import asking, prepare
from browser.test_page_safety import rewrite
from running import until

from hub import Hub

BUTTONS = "[...document.querySelectorAll('form button')]"
ALLOW = "[...document.querySelectorAll('button')].filter((one) => one.textContent === 'Allow')"
NEWS = "document.querySelector('#news').textContent"
PLACES = ("", "?task=t", "?call=shop:order", "?panel=events&filter=task")


@asynccontextmanager
async def wired(wire: Wire, state: Path) -> AsyncIterator[tuple[Hub, str]]:
    hub = Hub(state_dir=state, **behind(wire))
    prepare(hub)
    async with hub_inside(hub) as url:
        wire.target = port(url)
        await hub.publish("task:progress", {"id": "t", "status": "failed"})
        yield hub, f"http://127.0.0.1:{wire.port}/"


@pytest.mark.parametrize("weakened", [False, True])
async def test_without_a_connection_no_button_of_a_form_can_be_pressed(
    wire: Wire, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/dashboard.js", "hold(true);", "")
    async with wired(wire, tmp_path / "state") as (hub, url), asking(hub):
        for place in PLACES:
            await page.open(url + place)
            await page.until(LIVE)
            count = await page.evaluate(f"{BUTTONS}.length")
            assert count or place == "?task=t"
            assert not await page.evaluate(f"{BUTTONS}.some((one) => one.disabled)")
            wire.cut()
            await page.until(GONE)
            assert await page.evaluate(f"{BUTTONS}.filter((one) => one.disabled).length") == (0 if weakened else count)
            (said,) = await page.text("#gone")
            assert said.endswith("If the hub was stopped, start it with “hub”: this page comes back by itself.")
            wire.mend()
            await page.until(LIVE, deadline=30)
            assert not await page.evaluate(f"{BUTTONS}.some((one) => one.disabled || one.dataset.held !== undefined)")
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_what_had_the_focus_leaves_it_to_its_row_and_the_keys_say_why(
    wire: Wire, tmp_path: Path, page: Page
) -> None:
    async with wired(wire, tmp_path / "state") as (hub, url), asking(hub) as id:
        await page.open(url)
        await page.until(LIVE)
        await page.evaluate(f"{ALLOW}[0].focus()")
        wire.cut()
        await page.until(GONE)
        assert await page.evaluate("document.activeElement.dataset.question") == id
        for key, row in (("a", "[data-question]"), ("e", "[data-task=t]")):
            await page.evaluate(f"document.querySelector('{row}').focus(), {NEWS} = ''")
            await page.press(key)
            await page.until(f"{NEWS} === 'That cannot be sent now.'")
        wire.mend()
        await page.until(LIVE, deadline=30)
        await page.click_on(ALLOW)
        await until(lambda: not [*hub.questions.records()])
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_what_was_being_sent_when_the_connection_went_is_held_with_the_others(
    wire: Wire, tmp_path: Path, page: Page
) -> None:
    """That it has failed makes it no button that can be pressed."""
    async with wired(wire, tmp_path / "state") as (hub, url), asking(hub):
        await page.open(url)
        await page.until(LIVE)
        await page.evaluate("window.fetch = () => new Promise((_, reject) => (window.fail = reject))")
        await page.click_on(ALLOW)
        await page.until("window.fail")
        wire.cut()
        await page.until(GONE)
        await page.evaluate("window.fail(new TypeError('no'))")
        await page.until("document.querySelector('[data-notice=unsent]')")
        assert await page.evaluate(f"{BUTTONS}.every((one) => one.disabled)")
        wire.mend()
        await page.until(LIVE, deadline=30)
        assert not await page.evaluate(f"{BUTTONS}.some((one) => one.disabled)")
        await page.leave()
        wire.cut()
    page.forgive(*LOST)
