"""What a person can do on the page, in a real Chromium: with script and without, with the mouse and with keys alone."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside
from browser.test_page_safety import rewrite
from marshmallow import fields, validate
from running import until

from hub import Call, Hub, Panel
from hub.commands.asked import account, person
from hub.commands.clients import Client
from hub.commands.seen import is_seen

ME = account(os.geteuid())
LIVE = "document.querySelector('#connection').dataset.state === 'live'"
HOSTILE = "<img src=x onerror=alert(1)>\"'&<script>alert(2)</script>"


def prepare(hub: Hub) -> None:
    @hub.command("db:drop", {"table": fields.String(required=True)}, effect="dangerous")
    async def drop(call: Call) -> Any:
        """Drop a table."""
        await call.hub.publish("db:dropped", call.args)
        return {"dropped": call.args["table"]}

    @hub.command("shop:order", {"count": fields.Integer(strict=True, required=True, validate=validate.Range(1, 9))})
    async def order(call: Call) -> Any:
        """Order something."""
        return {"ordered": call.args["count"]}


@pytest.fixture
async def hub(tmp_path: Path) -> Hub:
    hub = Hub(port=0, state_dir=tmp_path)
    prepare(hub)
    return hub


@asynccontextmanager
async def running(hub: Hub, prefix: str = "") -> AsyncIterator[str]:
    async with hub_inside(hub, prefix) as url:
        yield url


@asynccontextmanager
async def asking(
    hub: Hub, question: str = "Push it?", options: tuple[str, ...] = ("Allow", "Deny"), details: Any = None
) -> AsyncIterator[str]:
    """The id of a question that waits."""
    before = {record["id"] for record in hub.questions.records()}
    waiting = asyncio.ensure_future(hub.ask(question, options, details=details))
    await until(lambda: {record["id"] for record in hub.questions.records()} - before)
    (id,) = {record["id"] for record in hub.questions.records()} - before
    try:
        yield id
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


async def look(page: Page, url: str, script: bool) -> None:
    if not script:
        await page.without_scripts()
    await page.open(url)
    if script:
        await page.until(LIVE)


def value(hub: Hub, event: str, key: str) -> Any:
    found = hub.state.get(event, key)
    return found.data if found else None


def quoted(text: str) -> str:
    return json.dumps(text)


async def press_button(page: Page, text: str) -> None:
    """Press the one button with exactly this text."""
    await page.click_on(
        f"[...document.querySelectorAll('button')].filter((b) => b.textContent.trim() === {quoted(text)})"
    )


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("prefix", ["", "some/where/"])
async def test_a_question_is_answered_by_one_press(hub: Hub, page: Page, script: bool, prefix: str) -> None:
    async with running(hub, prefix) as url, asking(hub) as id:
        await look(page, url, script)
        await press_button(page, "Allow")
        await until(lambda: value(hub, "hub:question", id)["status"] == "answered")
        assert (value(hub, "hub:question", id)["answer"], value(hub, "hub:question", id)["by"]) == ("Allow", ME)
        await page.until(f"!document.querySelector('[data-question={quoted(id)}]')")
        assert (await page.evaluate("location.href")).split("#")[0] == url
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_a_vote_is_cast_and_a_failure_marked_as_seen(hub: Hub, page: Page, script: bool) -> None:
    async with running(hub) as url:
        await hub.publish(
            "governance:vote_cast", {"vote_id": "v", "topic": "Merge?", "agent": "ada", "option": "reject"}
        )
        await hub.publish("task:progress", {"id": "t", "name": "Build", "status": "failed", "error": "no space"})
        await look(page, url, script)
        await press_button(page, "Approve")
        await until(lambda: value(hub, "governance:vote_cast", "v").get("agent") == ME)
        assert value(hub, "governance:vote_cast", "v")["option"] == "approve"
        await page.until("document.querySelector('[data-vote=v]').textContent.includes('1 for, 1 against')")
        await page.until("document.querySelector('[data-vote=v]').textContent.includes('you: approve')")
        await page.until("document.querySelector('.strip').dataset.need === '0'")
        await press_button(page, "Seen")
        await until(lambda: is_seen(hub.state, "task:progress", "t"))
        await page.until("!document.querySelector('[data-section=failed] [data-task=t]')")
        await hub.publish("security:threat_detected", {"type": "inject", "severity": "critical"})
        for number in range(3):
            await hub.publish("task:progress", {"id": f"t{number}", "status": "failed"})
        await look(page, url, script)
        await press_button(page, "Mark all 3 seen")
        await page.until("!document.querySelector('[data-section=failed]')")
        assert is_seen(hub.state, "task:progress", "t2")
        await press_button(page, "Seen")
        await page.until("!document.querySelector('[data-threat]')")
        await page.until("document.querySelector('[data-section=threats] .end')?.textContent.includes('1 seen ▸')")
        await page.complete()
        await page.leave()


async def test_an_answer_that_comes_too_late_is_told_where_one_looks(hub: Hub, page: Page) -> None:
    async with running(hub) as url, asking(hub) as id:
        await look(page, url, True)
        await page.evaluate("XMLHttpRequest.prototype.send = () => {}")  # from here on it hears of nothing
        await hub.questions.answer(id, "Deny", person(Client("http", "127.0.0.1:1", os.geteuid(), "OPERATOR")))
        await press_button(page, "Allow")
        await page.until("document.querySelector('#notice .bar')?.checkVisibility()")
        said = f"The question was over before this answer came: “Deny” by {ME}."
        assert await page.text("#notice span") == [said]
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_a_command_says_at_its_field_what_is_wrong_and_then_what_it_answered(
    hub: Hub, page: Page, script: bool
) -> None:
    async with running(hub) as url:
        await look(page, f"{url}?call=shop:order", script)
        await page.evaluate("document.querySelector('form.fields').noValidate = true")
        await page.fill("[name=count]", "12")
        await press_button(page, "Run")
        await page.until("document.querySelector('[aria-invalid]')")
        field = "document.querySelector('[name=count]')"
        assert await page.evaluate(f"{field}.value") == "12"
        await page.until(f"document.activeElement === {field}")  # the reader is led to it
        said = (
            f"{field}.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent)"
        )
        assert "less than or equal to 9" in (await page.evaluate(said))[-1]
        await page.complete()
        await page.evaluate("document.querySelector('form.fields').noValidate = true")
        await page.fill("[name=count]", "3")
        await press_button(page, "Run")
        await page.until("document.querySelector('.result pre')")
        assert json.loads((await page.text(".result pre"))[0]) == {"ordered": 3}
        await page.reload()
        assert len([one for one in await hub.audit.tail(100) if one["action"] == "command.finished"]) == 1, "run once"
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_what_is_dangerous_runs_behind_a_second_step_that_shows_it(hub: Hub, page: Page, script: bool) -> None:
    async with running(hub) as url:
        await look(page, f"{url}?call=db:drop", script)
        await page.fill("[name=table]", HOSTILE)
        await press_button(page, "Go on")
        await page.until("document.querySelector('[data-args]')")
        assert json.loads((await page.text("[data-args]"))[0]) == {"table": HOSTILE}
        assert value(hub, "db:dropped", "x") is None
        assert not [event for event in hub.window.events() if event.name == "db:dropped"]
        await page.complete()
        await press_button(page, "Run db:drop")
        await page.until("document.querySelector('.result pre')")
        (dropped,) = [event for event in hub.window.events() if event.name == "db:dropped"]
        assert dropped.data == {"table": HOSTILE}
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_who_goes_back_is_shown_what_was_there_and_sends_nothing(hub: Hub, page: Page, script: bool) -> None:
    """To the page of what was wrong, to the second step, and on again: a browser asks nobody to send a form again."""
    async with running(hub) as url:
        await look(page, f"{url}?call=db:drop", script)
        await page.evaluate("document.querySelector('form.fields').noValidate = true")
        await press_button(page, "Go on")
        await page.until("document.querySelector('[aria-invalid]')")
        assert "again=" in await page.evaluate("location.search")
        await page.fill("[name=table]", "orders")
        await press_button(page, "Go on")
        await page.until("document.querySelector('[data-args]')")
        await press_button(page, "Run db:drop")
        await page.until("document.querySelector('.result pre')")
        posts = len(page.posts)
        assert posts == 3
        steps = "[data-args]", "[aria-invalid]", "form.fields:not(:has([aria-invalid]))"
        for step in steps:
            await page.go(-1)
            await page.until(f"document.querySelector({quoted(step)}) && !document.querySelector('.result')")
            await page.complete()
        for step in (*steps[1::-1], ".result pre"):
            await page.go(1)
            await page.until(f"document.querySelector({quoted(step)})")
            await page.complete()
        assert len(page.posts) == posts
        assert len([event for event in hub.window.events() if event.name == "db:dropped"]) == 1
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_what_takes_a_while_says_so_and_a_second_press_runs_nothing(hub: Hub, page: Page, script: bool) -> None:
    door, runs = asyncio.Event(), 0

    @hub.command("shop:bake", {})
    async def bake(call: Call) -> str:
        """Bake something."""
        nonlocal runs
        runs += 1
        await door.wait()
        return "baked"

    async with running(hub) as url:
        await look(page, f"{url}?call=shop:bake", script)
        button = "document.querySelector('form.fields button')"
        place = f"(() => {{ const box = {button}.getBoundingClientRect(); return [box.x + 9, box.y + 9] }})()"
        await page.until(f"getComputedStyle({button}).pointerEvents !== 'none'")
        spot = await page.evaluate(place)
        # Of a page that is about to be left nobody outside hears anything: it notes itself what it shows.
        note = f"sessionStorage.setItem('shown', {button}.textContent + {button}.disabled)"
        changes = "{ subtree: true, childList: true, attributes: true }"
        await page.evaluate(f"void new MutationObserver(() => {note}).observe(document.body, {changes})")
        await page.click_at(*spot)
        await until(lambda: runs)
        await page.click_at(*spot)
        door.set()
        await page.until("document.querySelector('.result pre')")
        assert json.loads((await page.text(".result pre"))[0]) == "baked"
        assert not await page.evaluate(f"{button}.disabled")
        assert runs == 1
        if script:
            assert await page.evaluate("sessionStorage.getItem('shown')") == "Running…true"
        assert len([url for url, _ in page.posts if url.endswith("/call/shop:bake")]) == (1 if script else 2)
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("weakened", [False, True])
async def test_not_to_run_what_is_dangerous_looks_as_pressable_as_to_run_it(
    hub: Hub, page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weakened: bool
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "pages/confirm.html", 'class="button" ', "")
    async with running(hub) as url:
        await look(page, f"{url}?call=db:drop", False)
        await page.fill("[name=table]", "orders")
        await press_button(page, "Go on")
        await page.until("document.querySelector('.danger')")
        await page.complete()  # before its style sheet is there, nothing has its height
        box = "(({ height }) => Math.round(height))(document.querySelector('%s').getBoundingClientRect())"
        heights = [await page.evaluate(box % selector) for selector in (".danger", ".danger + a")]
        borders = await page.evaluate("getComputedStyle(document.querySelector('.danger + a')).borderTopStyle")
        assert (heights[0] == heights[1], borders == "solid") == (not weakened, not weakened)
        await page.click_on("[...document.querySelectorAll('.danger + a')]")
        await page.until("location.search.startsWith('?call=db%3Adrop&again=')")
        await page.until("document.querySelector('[name=table]').value === 'orders'")
        assert "command.called" not in str(await hub.audit.tail(100))
        await page.complete()
        await page.leave()


@pytest.mark.parametrize("script", [True, False])
async def test_hostile_options_are_buttons_with_exactly_their_text(hub: Hub, page: Page, script: bool) -> None:
    async with running(hub) as url, asking(hub, HOSTILE, (HOSTILE, "a\nb", "</button>")) as id:
        await look(page, url, script)
        texts = f"[...document.querySelectorAll('[data-question={quoted(id)}] button')].map((b) => b.textContent)"
        assert await page.evaluate(texts) == [HOSTILE, "a\nb", "</button>"]
        await page.click_on(f"[document.querySelectorAll('[data-question={quoted(id)}] button')[1]]")
        await until(lambda: value(hub, "hub:question", id)["status"] == "answered")
        assert value(hub, "hub:question", id)["answer"] == "a\nb"
        await page.complete()
        await page.leave()


async def test_with_keys_alone_one_finds_answers_and_marks(hub: Hub, page: Page) -> None:
    async with running(hub) as url, asking(hub) as id:
        await hub.publish("agent:status_change", {"id": "refactorer", "status": "active"})
        await hub.publish("task:progress", {"id": "t", "name": "Build", "status": "failed"})
        await look(page, url, True)
        await page.press("j")
        await page.press("d")  # the second answer gets the focus, and nothing is answered
        await page.until("document.activeElement.textContent === 'Deny'")
        assert value(hub, "hub:question", id)["status"] == "open"
        await page.press("Enter")
        await until(lambda: value(hub, "hub:question", id)["status"] == "answered")
        assert value(hub, "hub:question", id)["answer"] == "Deny"
        await page.until("document.activeElement.dataset.task === 't'")  # the row behind the one that has left
        await page.press("e")
        await until(lambda: is_seen(hub.state, "task:progress", "t"))
        await page.press("/")
        await page.until("document.activeElement.id === 'search'")
        await page.type("refac")
        await page.until("document.querySelector('#palette [aria-selected=true]')")
        assert await page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
        await page.press("Enter")
        await page.until("location.search === '?agent=refactorer'")
        await page.until("document.querySelector('main h2').textContent.includes('refactorer')")
        await page.complete()
        await page.leave()


PALETTE = "[...document.querySelectorAll('#palette [role=option]')]"
ACTIVE = "document.getElementById(document.querySelector('#search').getAttribute('aria-activedescendant'))"


async def test_the_palette_is_a_list_that_keys_walk_through(hub: Hub, page: Page) -> None:
    async with running(hub) as url:
        for name in ("alpha", "alphabet"):
            await hub.publish("agent:status_change", {"id": name, "status": "idle"})
        await hub.publish("task:progress", {"id": HOSTILE, "name": f"alpha {HOSTILE}"})
        await look(page, url, True)
        field = "document.querySelector('#search')"
        assert await page.evaluate(f"{field}.getAttribute('role')") == "combobox"
        await page.press("/")
        await page.type("alpha")
        await page.until(f"{PALETTE}.length === 3")
        assert await page.evaluate("document.querySelectorAll('#palette img, #palette script').length") == 0
        order = []
        for _ in range(4):
            order.append(await page.evaluate(f"{ACTIVE}.querySelector('b').textContent"))
            await page.press("ArrowDown")
        assert order == ["alpha", "alphabet", f"alpha {HOSTILE}", "alpha"], "it goes round"
        await page.press("ArrowUp")
        selected = f"{PALETTE}.filter((one) => one.getAttribute('aria-selected') === 'true')"
        assert await page.evaluate(f"{selected}.length === 1 && {selected}[0] === {ACTIVE}")
        groups = "[...document.querySelectorAll('#palette [role=group]')].map((g) => g.getAttribute('aria-label'))"
        assert await page.evaluate(groups) == ["Agents", "Tasks"]
        await page.press("Escape")
        await page.until("document.querySelector('#palette').hidden")
        assert await page.evaluate(f"{field}.value") == "alpha"
        assert await page.evaluate(f"{field}.getAttribute('aria-expanded')") == "false"
        await page.type("zzz")
        await page.until("document.querySelector('#palette + p').textContent === 'Nothing has this name.'")
        await page.press("Enter")  # nothing to choose: the page of results
        await page.until("location.search === '?search=alphazzz'")
        await page.complete()
        await page.leave()


async def test_the_palette_leads_to_all_that_was_found(hub: Hub, page: Page) -> None:
    async with running(hub) as url:
        for number in range(20):
            await hub.publish("task:progress", {"id": f"same-{number}", "name": f"Same {number:02}"})
        await look(page, url, True)
        await page.press("/")
        await page.type("same")
        await page.until(f"{PALETTE}.length === 9")
        assert (await page.text("#palette [role=option]"))[-1].strip() == "All 20 ▸"
        assert await page.evaluate("document.querySelector('#palette + p').textContent") == (
            "20 found; choose with the arrow keys."
        )
        await page.press("ArrowUp")
        await page.press("Enter")
        await page.until("location.search === '?search=same&kind=task'")
        await page.until("document.querySelectorAll('main .list a').length === 20")
        assert await page.evaluate("document.querySelector('#search').value") == "same"
        await page.complete()
        await page.leave()


async def test_the_palette_leads_to_a_command_and_its_form(hub: Hub, page: Page) -> None:
    async with running(hub, "some/where/") as url:
        await look(page, f"{url}?call=shop:order", True)
        await page.press("/")
        await page.type("db:dr")
        await page.until(f"{PALETTE}.length === 1")
        await page.press("Enter")
        await page.until("location.search === '?call=db%3Adrop'")
        assert (await page.evaluate("location.href")).startswith(url)
        await page.complete()
        await page.leave()


async def test_without_script_the_field_leads_to_a_page_of_results(hub: Hub, page: Page) -> None:
    async with running(hub) as url:
        await hub.publish("task:progress", {"id": "t", "name": "Refactor it"})
        await look(page, url, False)
        await page.fill("#search", "refactor")
        await page.evaluate("document.querySelector('form[role=search]').requestSubmit()")
        await page.until("location.search === '?search=refactor'")
        await page.click_on("[...document.querySelectorAll('main a')].filter((a) => a.textContent === 'Refactor it')")
        await page.until("location.search === '?task=t'")
        await page.complete()
        await page.leave()


async def test_a_page_of_a_task_is_live(hub: Hub, page: Page) -> None:
    async with running(hub) as url:
        await hub.publish("task:progress", {"id": "t", "name": "Build", "progress": 10})
        await look(page, f"{url}?task=t", True)
        await hub.publish("task:progress", {"id": "t", "name": "Build", "progress": 64, "message": "linking"})
        await page.until("document.querySelector('#now').textContent.includes('linking')")
        await page.until("document.querySelectorAll('#events li').length === 2")
        await page.complete()
        await page.leave()


async def test_a_form_that_was_refused_leaves_a_page_that_still_works(hub: Hub, page: Page) -> None:
    """It stands below another address than the page, where several workers serve it, and its links and its connection
    lead home all the same."""
    async with running(hub, "some/where/") as url, asking(hub) as id:
        hub.config = hub.config.changed(workers=2)
        await look(page, f"{url}?call=db:drop", True)
        await page.fill("[name=table]", "x")
        await press_button(page, "Go on")
        await page.until("document.querySelector('[data-args]')")
        await page.complete()
        page.forgive("status of 428")
        assert await page.evaluate("location.pathname") == "/some/where/call/db:drop"
        await page.until(LIVE)
        assert await page.evaluate("document.title.startsWith('(1) ')")
        await page.click_on("[...document.querySelectorAll('nav a')].filter((a) => a.textContent.includes('need'))")
        await page.until(f"document.querySelector('[data-question={quoted(id)}]')")
        assert (await page.evaluate("location.href")).split("#")[0] == url
        await page.complete()
        await page.leave()


ORDERS = """
<ul>
{% for event in orders %}
<li id="order-{{ event.data.order }}">order {{ event.data.order }} {{ event.data.status }}
<form class="act" method="post" action="call/orders:cancel">
<button name="order" value="{{ event.data.order }}">Cancel {{ event.data.order }}</button>
</form></li>
{% endfor %}
</ul>
"""


@pytest.mark.parametrize("script", [True, False])
async def test_an_applications_panel_has_a_form_of_its_own(hub: Hub, page: Page, script: bool) -> None:
    hub.event_type("orders:changed", {"order": fields.Integer(required=True), "status": fields.String()}, key="order")
    hub.panels.append(Panel("orders", "Orders", ("orders:*",), lambda hub: {"orders": hub.state.of("orders:changed")}))

    @hub.command("orders:cancel", {"order": fields.Integer(strict=True, required=True)})
    async def cancel(call: Call) -> None:
        """Cancel an order."""
        await call.hub.publish("orders:changed", {"order": call.args["order"], "status": "cancelled"})

    async with hub_inside(hub, templates={"panels/orders.html": ORDERS}) as url:
        for order in (7, 8):
            await hub.publish("orders:changed", {"order": order, "status": "open"})
        await look(page, url, script)
        await press_button(page, "Cancel 7")
        await until(lambda: value(hub, "orders:changed", "7")["status"] == "cancelled")
        if script:
            await page.until("document.querySelector('#order-7').textContent.includes('order 7 cancelled')")
            assert await page.evaluate("location.href") == url, "one stays where one is"
        else:
            await page.until("location.search.startsWith('?call=orders:cancel&done=')")
        await page.complete()
        await page.leave()
