"""The page in a real Chromium: it shows what is, moves when something happens, and works without its script."""

import asyncio
import random
import shlex
from asyncio.subprocess import DEVNULL
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from browser.cdp import Page
from browser.hubs import HubProcess, hub_inside, publish
from running import environment

from hub import Hub
from hub.demo import life
from hub.web.viewers import Viewer, Viewers

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
tell = Viewers.tell

# Everything that the server has drawn, without what counts on by itself (ages, the hub's figures) or is the script's.
DRAWN = """
    (() => {
      const copy = document.querySelector("main").cloneNode(true);
      const own = "[data-panel=hub], [data-panel=recent] .sparkline, [data-keep]";
      for (const node of copy.querySelectorAll(own)) node.remove();
      for (const node of copy.querySelectorAll("time")) node.replaceChildren();
      for (const node of copy.querySelectorAll("[data-version]")) node.removeAttribute("data-version");
      return copy.innerHTML + document.querySelector(".strip").outerHTML;
    })()
"""


def section(name: str) -> str:
    return f"document.querySelector('[data-section={name}]')"


async def test_an_event_moves_a_bar_in_an_open_page(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("task:progress", {"id": "build", "progress": 40})
    await page.until("document.querySelector('[data-section=working] progress').value === 40")
    await page.until("document.querySelector('.figures').textContent.includes('1 client')")
    await page.evaluate("window.bar = document.querySelector('progress')")
    await hub.publish("task:progress", {"id": "build", "progress": 70, "status": "running"})
    await page.until("document.querySelector('[data-section=working] progress').value === 70")
    assert await page.evaluate("window.bar === document.querySelector('progress')"), "it is the same bar"
    assert await page.text("[data-section=working] .figure") == ["70 %"]
    await page.reload()
    assert await page.evaluate("document.querySelector('progress').value") == 70


async def test_each_section_comes_and_goes_by_itself(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    assert await page.evaluate("document.querySelector('#first') !== null")
    await hub.publish("task:progress", {"id": "t", "status": "waiting_approval", "message": "wants to push"})
    await page.until(f"{section('waiting')}.querySelector('[data-task=t]')")
    assert "Nothing has been said" not in (await page.text("#first"))[0], "what else there is can be read on"
    await page.until("document.title.startsWith('(1) ')")
    await hub.publish("task:progress", {"id": "t", "status": "failed", "error": "exit 1"})
    await page.until(f"!{section('waiting')} && {section('failed')}.innerText.includes('exit 1')")
    await hub.publish("task:progress", {"id": "t", "status": "running"})
    await page.until(f"!{section('failed')} && {section('working')}.querySelector('[data-task=t]')")
    await page.until("document.querySelector('.still').innerText.startsWith('✓ Nothing waits for you.')")
    await hub.publish("agent:status_change", {"id": "a", "status": "error", "reason": "no quota"})
    await page.until(f"{section('failed')}.querySelector('[data-agent=a]')")
    assert await page.evaluate("document.querySelector('#first')") is None
    await hub.publish("governance:vote_cast", {"vote_id": "v", "agent": "x", "option": "approve", "topic": "Merge?"})
    await page.until(f"{section('waiting')}.querySelector('[data-vote=v]').innerText.includes('1 for, 0 against')")
    await hub.publish("security:threat_detected", {"type": "inject", "severity": "critical"})
    await page.until(f"{section('threats')}.querySelector('[data-threat]').innerText.includes('inject')")
    await hub.publish("build:log_line", {"line": "compiling"})
    await page.until(f"{section('events')}.querySelector('[data-event]').innerText.includes('compiling')")
    await hub.publish("memory:stats_update", {"total_entries": 12})
    await page.until(f"{section('hub')}.innerText.includes('12 entries')")
    await hub.publish("governance:vote_cast", {"vote_id": "v", "status": "passed"})
    await page.until(f"!{section('waiting')}")


async def test_a_question_comes_and_is_told(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    ask = {"question": "Deploy?", "options": ["Yes, now", "No"], "default": "No", "timeout": 60}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{hub.url}api/commands/hub:ask", json=ask))
        await page.until("document.querySelector('[data-question]')")
        assert await page.text("[data-question] button") == ["Yes, now", "No"]
        assert "“No” by itself in " in (await page.text("[data-question]"))[0]
        await page.until("document.querySelector('#news').textContent === '1 more waiting: Deploy?'")
        await page.until("document.title.startsWith('(1) ')")
        before = await page.text("[data-question] time[data-as=left]")
        await page.until(f"document.querySelector('time[data-as=left]').textContent !== '{before[0]}'")
        question = await page.evaluate("document.querySelector('[data-question]').dataset.question")
        answer = {"question": question, "answer": "No"}
        await (await http.post(f"{hub.url}api/commands/hub:answer", json=answer)).release()
        await page.until("!document.querySelector('[data-question]') && !document.title.startsWith('(')")
        await (await asking).release()


async def test_the_lines_of_the_first_minute_do_what_they_say(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    line = (await page.text("#first pre"))[0]
    curl, silent, url, _, header, _, body = shlex.split(line)
    assert (curl, silent, header) == ("curl", "-s", "content-type: application/json")
    async with aiohttp.ClientSession() as http:
        response = await http.post(url, data=body, headers={"content-type": "application/json"})
        assert response.status == 200, await response.text()
    await page.until("document.querySelector('[data-task=build] ~ .part progress').value === 40")
    publish, run, ask = (await page.text("#first pre"))[1].splitlines()
    for line, said in ((publish, {"progress": 70}), (run.replace("make", "true"), {"status": "succeeded"})):
        process = await asyncio.create_subprocess_exec(*shlex.split(line), env=environment(), stdout=DEVNULL)
        assert await process.wait() == 0, line
        async with aiohttp.ClientSession() as http, http.get(f"{hub.url}api/state?topics=task:progress") as response:
            assert said.items() <= (await response.json())["items"][-1]["data"].items()
    assert await page.evaluate("document.querySelector('#first') !== null")
    asking = await asyncio.create_subprocess_exec(*shlex.split(ask), env=environment(), stdout=DEVNULL)
    await page.until("document.querySelector('[data-question] button').textContent === 'yes'")
    assert await page.evaluate("document.querySelector('#first')") is None
    asking.kill()
    await asking.wait()


async def test_an_item_that_is_not_renewed_turns_stale(hub: HubProcess, page: Page) -> None:
    stale = "document.querySelector('[data-agent=worker].stale')"
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("agent:status_change", {"id": "worker", "status": "active"}, ttl=0.2)
    await page.until(f"{stale}.innerText.includes('stale: nothing for')")
    await page.until("document.querySelector('.strip').innerText.includes('working, 1 stale')")
    await hub.publish("agent:status_change", {"id": "worker", "status": "active"})
    await page.until(f"document.querySelector('[data-agent=worker]') && !{stale}")


async def test_what_the_reader_does_stays_through_updates(hub: HubProcess, page: Page) -> None:
    for number in range(3):
        await hub.publish(
            "task:progress", {"id": f"t{number}", "agent": "coder", "started_at": f"2026-01-0{number + 1}"}
        )
    await hub.publish("build:line", {"line": "x"})
    await page.open(hub.url)
    await page.until(LIVE)
    await page.evaluate("""
        const filter = document.querySelector("#filter");
        filter.value = "typed";
        document.querySelector(".further").open = true;
        window.row = document.querySelector("[data-agent=coder]");
        filter.focus();
        filter.setSelectionRange(1, 3);
        scrollTo(0, 40);
        window.top_ = scrollY;
    """)
    for percent in range(1, 6):
        await hub.publish(
            "task:progress", {"id": "t0", "agent": "coder", "progress": percent, "message": f"{percent}!"}
        )
        await page.until(f"{section('working')}.innerText.includes('{percent}!')")
    state = """
        (() => {
          const filter = document.activeElement;
          return [filter.id, filter.value, filter.selectionStart, filter.selectionEnd,
            document.querySelector(".further").open, window.row.isConnected, scrollY === window.top_];
        })()
    """
    assert await page.evaluate(state) == ["filter", "typed", 1, 3, True, True, True]


async def test_events_are_paused_by_the_box_and_by_an_open_one(hub: HubProcess, page: Page) -> None:
    names = "[...document.querySelectorAll('[data-event] .name')].map((node) => node.textContent).join()"
    await hub.publish("one:x", {"a": {"b": 1}})
    await page.open(hub.url)
    await page.until(f"{LIVE} && {names} === 'one:x'")
    await page.click("[data-event] summary")
    assert '"b": 1' in (await page.text("[data-event] pre"))[0]
    await hub.publish("two:x", {})
    await hub.publish("task:progress", {"id": "t"})
    await page.until("document.querySelector('[data-task=t]')")
    assert await page.evaluate(names) == "one:x"
    await page.click("[data-event] summary")
    await hub.publish("three:x", {})
    await page.until(f"{names} === 'three:x,task:progress,two:x,one:x'")
    await page.click("#pause")
    await hub.publish("task:progress", {"id": "u"})
    await page.until("document.querySelector('[data-task=u]')")
    assert await page.evaluate(names) == "three:x,task:progress,two:x,one:x"


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_live_is_what_a_reload_shows(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """2,000 random events over 1,000 agents and 1,000 tasks."""
    if weakened:
        monkeypatch.setattr(Viewers, "tell", told_without_failures)
    dice = random.Random(11)
    hub = Hub(state_dir=tmp_path, ephemeral=True)
    async with hub_inside(hub) as url:
        await publish(url, [one(dice, number, "agent") for number in range(1000)])
        await publish(url, [one(dice, number, "task") for number in range(1000)])
        await page.open(url)
        await page.until(LIVE)
        for _ in range(20):
            batch = [
                one(dice, dice.randrange(1000), dice.choice(["agent", "task", "vote", "other"])) for _ in range(100)
            ]
            await publish(url, batch)
            await asyncio.sleep(0.02)
        cursor = str(hub.cursor)
        await page.until(f"document.body.dataset.cursor === '{cursor}'")
        live = await page.evaluate(DRAWN)
        await page.reload()
        await page.until(LIVE)
        assert (live == await page.evaluate(DRAWN)) is not weakened
        await page.leave()


def told_without_failures(viewers: Viewers, viewer: Viewer, versions: dict[str, str], cursor: str) -> None:
    known = viewer.knows.get("failed", versions["failed"])
    tell(viewers, viewer, {**versions, "failed": known}, cursor)


def one(dice: random.Random, number: int, kind: str) -> dict[str, Any]:
    """One random event."""
    if kind == "agent":
        status = dice.choice(["active", "active", "idle", "error", "stopped", "starting"])
        data: dict[str, Any] = {"id": f"agent-{number}", "status": status, "task": dice.choice(["a", "b"])}
        return {"event": "agent:status_change", "data": data}
    if kind == "task":
        status = dice.choice(["running", "running", "queued", "waiting_approval", "succeeded", "failed"])
        data = {
            "id": f"task-{number}",
            "status": status,
            "agent": f"agent-{number % 700}",
            "message": str(dice.random()),
        }
        if status == "running":
            data["progress"] = dice.randrange(100)
        return {"event": "task:progress", "data": data}
    if kind == "vote":
        data = {"vote_id": f"v{number % 5}", "agent": f"agent-{number}", "option": dice.choice(["approve", "reject"])}
        return {"event": "governance:vote_cast", "data": data}
    return {"event": "build:line", "data": {"line": dice.random()}}


async def test_without_scripts_a_reload_shows_the_present(hub: HubProcess, page: Page) -> None:
    await page.without_scripts()
    await page.open(hub.url)
    assert "Nothing has been said here yet." in (await page.text("#first"))[0]
    for number in range(30):
        await hub.publish("task:progress", {"id": f"{number:02}", "progress": 40, "status": "failed"})
    await page.reload()
    assert len(await page.text("[data-section=failed] [data-task]")) == 12
    assert "Reload the page to see the present." in (await page.text("#connection"))[0]
    assert await page.evaluate("document.querySelector('#pause').checkVisibility()") is False
    await page.open(await page.evaluate("document.querySelector('#failed [rel=next]').href"))
    assert len(await page.text("[data-section=failed] [data-task]")) == 12
    await page.open(await page.evaluate("document.querySelector('.back a').href"))
    assert len(await page.text("[data-section=hub]")) == 1


async def test_the_newest_of_each_own_name_is_live(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(f"{LIVE} && document.querySelector('#first').innerText.includes('Nothing has been said here yet')")
    await hub.publish("sensor:temp", {"c": 21})
    await page.until(f"{section('newest')}.innerText.includes('c: 21')")
    await page.until("!document.querySelector('#first').innerText.includes('Nothing has been said')")
    await hub.publish("sensor:temp", {"c": 22})
    await page.until(f"{section('newest')}.innerText.includes('c: 22')")
    assert len(await page.text("[data-section=newest] li")) == 1
    await page.press("j")
    await page.press("Enter")
    await page.until("location.search === '?panel=events&filter=sensor%3Atemp'")
    await page.until("document.querySelectorAll('[data-event]').length === 2")


async def test_a_page_of_one_panel_lives_too(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url + "?panel=events&filter=build")
    await page.until(LIVE)
    await hub.publish("task:progress", {"id": "t"})
    await hub.publish("build:line", {"line": "one"})
    await page.until("document.querySelectorAll('[data-event]').length === 1")
    assert "one" in (await page.text("[data-event]"))[0]
    await page.until("[...document.querySelectorAll('.strip a')].at(3).innerText.startsWith('1')")
    asked = [one for one in page.requests if "viewer=" in one]
    assert asked
    assert all("filter=build" in one for one in asked)


async def press(page: Page, key: str) -> None:
    more = {"text": "\r", "code": "Enter", "windowsVirtualKeyCode": 13} if key == "Enter" else {"text": key}
    if len(key) > 1 and key != "Enter":
        more = {}
    await page.send("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
    await page.send("Input.dispatchKeyEvent", type="keyUp", key=key)


@web.middleware
async def take(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is sent is taken, whatever would come of it: the test looks at what was sent."""
    if request.method == "POST":
        return web.Response(status=303, headers={"Location": "./"})
    return await handler(request)


async def test_the_keyboard_is_enough(tmp_path: Path, page: Page) -> None:
    hub = Hub(state_dir=tmp_path, ephemeral=True)
    async with hub_inside(hub, middleware=take) as url:
        await by_keyboard(hub, url, page)
        await page.leave()


async def by_keyboard(hub: Hub, url: str, page: Page) -> None:
    focused = "document.activeElement"
    asking = asyncio.create_task(hub.ask("Deploy?", ["Yes", "No"], default="No"))
    for name in ("worse", "bad"):
        await hub.publish("task:progress", {"id": name, "status": "failed"})
    await page.open(url)
    await page.until(f"{LIVE} && document.querySelector('[data-question]')")
    steps = [*zip("jjjkkk", ["question", "task", "task", "task", "question", "question"], strict=True)]
    for key, mark in steps:
        await press(page, key)
        assert await page.evaluate(f"{focused}.dataset.{mark} !== undefined")
    await press(page, "?")
    assert await page.evaluate("document.querySelector('#help').open")
    await press(page, "?")
    assert not await page.evaluate("document.querySelector('#help').open")
    await press(page, "/")
    assert await page.evaluate(f"{focused}.id") == "search"
    await press(page, "j")
    assert await page.evaluate(f"{focused}.value") == "j", "in a field a key is a letter"
    await press(page, "Escape")
    await press(page, "k")
    assert await page.evaluate(f"{focused}.dataset.task") == "worse"
    await press(page, "e")
    await taken(page, 1)
    await page.until("document.querySelector('#news').textContent === 'Sent.'")
    assert await page.evaluate(f"{focused}.dataset.task") == "bad", "behind the last row the one before has the focus"
    await press(page, "k")
    await press(page, "d")
    assert await page.evaluate(f"{focused}.textContent") == "No"
    await page.until("document.querySelector('#news').textContent === 'Enter answers No.'")
    assert len(page.posts) == 1, "nothing is answered before Enter"
    question = await page.evaluate(f"{focused}.closest('[data-row]').dataset.question")
    await press(page, "Enter")
    await taken(page, 2)
    drawn = hub.state.get("task:progress", "worse")
    assert drawn is not None
    assert page.posts == [
        (f"{url}seen", f"event=task%3Aprogress&key=worse&drawn={drawn.seq}"),
        (f"{url}answer", f"question={question}&answer=No"),
    ]
    await page.until("document.querySelector('#news').textContent === 'Sent.'")
    asking.cancel()


async def taken(page: Page, count: int) -> None:
    async with asyncio.timeout(10):
        while len(page.posts) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
async def test_nothing_is_wider_than_the_page(
    hub: HubProcess, page: Page, tmp_path: Path, width: int, dark: bool
) -> None:
    long = "a" * 3000
    story = [{"event": step.event, "data": step.data} for step in islice(life(), 200)]
    await publish(hub.url, story)
    for status in ("running", "failed", "waiting_approval", "queued"):
        data = {"id": status + long, "status": status, "name": long, "message": long, "agent": long, "error": long}
        await hub.publish("task:progress", {**data, "progress": 5})
    for status in ("active", "error"):
        await hub.publish("agent:status_change", {"id": status + long, "status": status, "task": long, "reason": long})
    await hub.publish("governance:vote_cast", {"vote_id": long, "topic": long, "agent": long, "option": "reject"})
    await hub.publish("security:threat_detected", {"type": long, "severity": "critical", "details": {long: long}})
    await hub.publish("memory:stats_update", {"total_entries": 10**19, "by_type": {long: 10**19}})
    await hub.publish("x:y", {long: long})
    await page.viewport(width)
    if dark:
        await page.dark()
    await page.open(hub.url)
    await page.until(LIVE)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, client = await page.evaluate(widths)
    assert scroll <= client
    boxes = "[...document.querySelectorAll('main, section, .rows, .row, .ask, .strip')]"
    wide = f"{boxes}.filter((one) => one.scrollWidth > one.clientWidth + 1)"
    assert await page.evaluate(f"{wide}.map((one) => one.outerHTML.slice(0, 100))") == []
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 20, 23)") is dark
    await page.screenshot(tmp_path / "page.png")
