"""What is told beside the panels (not connected, refused, read-only, a new history, a gap, what was not sent): on every
page, and as long as it is true."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from browser.cdp import Page
from browser.hubs import StartHub, Wire, hub_inside, publish
from browser.test_page_connection import FAST, GONE, HIDE, LIVE, LOST, behind, port
from browser.test_page_safety import rewrite
from marshmallow import fields
from running import until

from hub import Call, Hub
from hub.commands.asked import account, person
from hub.commands.clients import Client
from hub.web.page import frame

PLACES = (
    "",
    "?panel=working",
    "?panel=events&filter=task",
    "?task=t",
    "?task=nobody",
    "?agent=a",
    "?call=",
    "?call=shop:order",
    "?search=t",
)
SHOWN = "document.querySelector('{0}').checkVisibility()"
GONE_BAR, READER, HISTORY = (
    SHOWN.format("#gone"),
    SHOWN.format("#reader"),
    "document.querySelector('[data-notice=history]')",
)
TASK = {"event": "task:progress", "data": {"id": "t", "agent": "a", "name": "Build"}}
FAILED = {"event": "task:progress", "data": {"id": "bad", "status": "failed"}}


@pytest.fixture
async def wired(wire: Wire, tmp_path: Path) -> AsyncIterator[tuple[Hub, str]]:
    """A hub that is reached through the wire, and its address there. It takes itself for one of two workers: those
    answer a form that they refuse at the form's own address."""
    hub = Hub(state_dir=tmp_path / "state", **behind(wire))

    @hub.command("shop:order", {"count": fields.Integer(required=True)})
    async def order(call: Call) -> Any:
        """Order something."""

    async with hub_inside(hub) as url:
        hub.config = hub.config.changed(workers=2)
        wire.target = port(url)
        await publish(url, [TASK, FAILED])
        yield hub, f"http://127.0.0.1:{wire.port}/"
        wire.cut()


async def refused_form(page: Page, url: str) -> None:
    """The page that stands at the address of a form."""
    await page.open(f"{url}?call=shop:order")
    await page.until(LIVE)
    await page.evaluate("document.querySelector('form.fields').noValidate = true")
    await page.click("form.fields button")
    await page.until("location.pathname.endsWith('call/shop:order')")
    await page.complete()
    page.forgive("status of 422")


async def test_that_it_is_not_connected_is_told_on_every_page(wired: tuple[Hub, str], wire: Wire, page: Page) -> None:
    _, url = wired
    for place in (*PLACES, None):
        await (refused_form(page, url) if place is None else page.open(url + place))
        await page.until(LIVE)
        assert not await page.evaluate(GONE_BAR), place
        wire.cut()
        await page.until(GONE)
        assert await page.evaluate(GONE_BAR), place
        assert await page.evaluate("document.title") == "✕ hub", place
        wire.mend()
        await page.until(LIVE, deadline=30)
        assert not await page.evaluate(GONE_BAR), place
        await page.complete()
    await page.leave()
    page.forgive(*LOST)


async def test_that_one_may_only_look_is_told_on_every_page_and_as_it_is_now(
    wired: tuple[Hub, str], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = wired
    around, trust = frame.surroundings, "OBSERVER"
    monkeypatch.setattr(frame, "surroundings", lambda request: {**around(request), "trust": trust})
    for place in PLACES:
        await page.open(url + place)
        await page.until(LIVE)
        assert await page.evaluate(READER), place
        buttons = "[...document.querySelectorAll('form.act button')].filter((one) => one.checkVisibility()).length"
        assert await page.evaluate(buttons) == 0, place
    await page.open(url)
    await page.until(LIVE)
    trust = "OPERATOR"
    await publish(url, [TASK])
    await page.until(f"!{READER} && document.body.dataset.trust === 'OPERATOR'")
    assert await page.evaluate(buttons) > 0
    await page.leave()
    page.forgive("status of 404")  # of what nobody knows


async def test_a_new_history_is_told_on_every_page_until_it_was_read(start_hub: StartHub, page: Page) -> None:
    hub = await start_hub("--ephemeral")
    for place in ("?task=t", "?call=", "?panel=working"):
        await page.open(hub.url + place)
        await page.until(LIVE)
        await hub.stop()
        await page.until(GONE)
        await hub.start()
        await page.until(HISTORY, 30)
        await page.until(LIVE)
        await hub.publish("task:progress", {"id": "other"})
        assert await page.evaluate(f"Boolean({HISTORY})"), "it stays although there is news"
        await page.click("[data-notice=history] button")
        assert not await page.evaluate(HISTORY)
    page.forgive(*LOST)


async def test_that_the_hub_lets_a_page_in_no_more_is_told_on_every_page(
    start_hub: StartHub, wire: Wire, page: Page
) -> None:
    seen_as = f"127.0.0.1:{wire.port}"
    known = ("--allow-host", seen_as, "--allow-origin", f"http://{seen_as}")
    hub = await start_hub(*known)
    wire.target = hub.port
    why = "document.querySelector('#gone').textContent.includes('does not let this page in any more: This hub is not')"
    for place in ("", "?task=t", "?call="):
        await page.open(f"http://{seen_as}/{place}")
        await page.until(LIVE)
        await hub.stop()
        await page.until(GONE)
        hub._flags = ()
        await hub.start()
        await page.until(why, 30)
        await hub.stop()
        hub._flags = known
        await hub.start()
        await page.until(LIVE, 30)
        assert not await page.evaluate(GONE_BAR)
    await page.leave()
    page.forgive(*LOST, "status of 421")


@pytest.mark.parametrize("weakened", [False, True])
async def test_that_something_was_not_sent_is_told_until_the_hub_is_there_again(
    wired: tuple[Hub, str],
    wire: Wire,
    page: Page,
    weakened: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/dashboard.js", 'end("again");', "")
    _, url = wired
    await page.open(url)
    await page.until(LIVE)
    wire.cut()
    await page.until(GONE)
    await page.evaluate("document.querySelector('[data-task=bad] form').requestSubmit()")  # no button leads there
    unsent = "document.querySelector('[data-notice=unsent]')"
    await page.until(unsent)
    assert (await page.text("[data-notice=unsent] span")) == ["It could not be sent: the hub is not connected."]
    wire.mend()
    await page.until(LIVE, deadline=30)
    assert bool(await page.evaluate(f"Boolean({unsent})")) is weakened
    await page.click("[data-task=bad] form button")
    await page.until("!document.querySelector('[data-task=bad]')")
    assert not await page.evaluate(f"Boolean({unsent})"), "it was sent now"
    await page.leave()
    page.forgive(*LOST)


async def test_what_was_not_sent_is_told_until_it_is_closed_or_over(wired: tuple[Hub, str], page: Page) -> None:
    """The connection is there all the time, and only what was pressed does not come through."""
    _, url = wired
    await page.open(url)
    await page.until(LIVE)
    await page.evaluate("window.fetch = () => Promise.reject(new TypeError('no'))")
    unsent = "document.querySelector('[data-notice=unsent]')"
    await page.click("[data-task=bad] form button")
    await page.until(unsent)
    assert (await page.text("[data-notice=unsent] span")) == ["It could not be sent; press it again."]
    await page.click("[data-notice=unsent] button")
    assert not await page.evaluate(f"Boolean({unsent})")
    await page.click("[data-task=bad] form button")
    await page.until(unsent)
    await publish(url, [{"event": "task:progress", "data": {"id": "bad", "status": "succeeded"}}])
    await page.until(f"!document.querySelector('#failed') && !{unsent}")
    await page.leave()


async def test_what_is_typed_into_a_form_is_not_lost_with_the_hub(
    wired: tuple[Hub, str], wire: Wire, page: Page
) -> None:
    _, url = wired
    await page.open(f"{url}?call=shop:order")
    await page.until(LIVE)
    wire.cut()
    await page.until(GONE)
    await page.fill("[name=count]", "7")
    await page.press("Enter")
    assert await page.evaluate("document.querySelector('form.fields button').disabled")
    await page.evaluate("document.querySelector('form.fields').requestSubmit()")
    await page.until("document.querySelector('[data-notice=unsent]')")
    wire.mend()
    await page.until(LIVE, deadline=30)
    assert await page.evaluate("document.querySelector('[name=count]').value") == "7"
    await page.click("form.fields button")
    await page.until("document.querySelector('.result')")
    await page.complete()
    await page.leave()
    page.forgive(*LOST)


async def test_that_an_answer_came_too_late_is_told_until_the_next_press(wired: tuple[Hub, str], page: Page) -> None:
    hub, url = wired
    waiting = asyncio.ensure_future(hub.ask("Push it?", ("Allow", "Deny")))
    await until(lambda: [*hub.questions.records()])
    (record,) = hub.questions.records()
    await page.open(url)
    await page.until(LIVE)
    await page.evaluate("window.real = XMLHttpRequest.prototype.send; XMLHttpRequest.prototype.send = () => {}")
    await hub.questions.answer(record["id"], "Deny", person(Client("http", "127.0.0.1:1", os.geteuid(), "OPERATOR")))
    await page.click("[data-question] button")
    await page.until("document.querySelector('[data-notice=late]')")
    said = f"The question was over before this answer came: “Deny” by {account(os.geteuid())}."
    assert await page.text("[data-notice=late] span") == [said]
    await page.click("[data-task=bad] form button")
    await page.until("!document.querySelector('[data-notice=late]')")
    await page.leave()
    await waiting


async def test_a_gap_in_the_events_of_one_task_is_told_in_its_place(page: Page, tmp_path: Path) -> None:
    await page.before_scripts(FAST.format(times=10))
    hub = Hub(state_dir=tmp_path / "state")
    async with hub_inside(hub) as url:
        await publish(url, [TASK])
        await page.open(f"{url}?task=t")
        await page.until(LIVE)
        await page.evaluate(HIDE % "true")
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 6000))")
        await publish(url, [TASK] * 60)
        await page.evaluate(HIDE % "false")
        await page.until("document.querySelector('#missed')")
        said = "More of these may have come before them, and behind what stood here."
        assert await page.text("#events .log li:last-child") == [said]
        await page.leave()
