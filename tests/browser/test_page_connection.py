"""The page and its connection: it comes back, shows what is then, and never claims to be fresher than it is."""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from browser.cdp import Page
from browser.hubs import HubProcess, StartHub, Wire, hub_inside, publish
from browser.test_page_safety import rewrite

from hub import Hub
from hub.web.page.panel import Panel

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
GONE = "document.querySelector('#connection').dataset.state === 'gone'"
TASKS = "[...document.querySelectorAll('[data-agent] [data-task]')].map((node) => node.dataset.task).sort().join()"
LOST = ("WebSocket connection to", "Failed to load resource")  # what Chromium itself logs then

# The page's clock runs so many times as fast: what it waits for comes sooner.
FAST = """
    const [timeout, interval, now] = [setTimeout, setInterval, performance.now.bind(performance)];
    window.setTimeout = (f, ms) => timeout(f, ms / {times});
    window.setInterval = (f, ms) => interval(f, ms / {times});
    performance.now = () => now() * {times};
"""
HIDE = """
    Object.defineProperty(document, "hidden", { get: () => window.away ?? false, configurable: true });
    window.away = %s;
    document.dispatchEvent(new Event("visibilitychange"));
"""


def task(name: str) -> dict[str, object]:
    return {"event": "task:progress", "data": {"id": name, "progress": 1, "agent": name}}


def behind(wire: Wire) -> dict[str, Any]:
    """The settings of a hub that is reached through this wire."""
    seen_as = f"127.0.0.1:{wire.port}"
    return {"allow_host": (seen_as,), "allow_origin": (f"http://{seen_as}",)}


def port(url: str) -> int:
    return int(url.split(":")[-1].strip("/"))


async def test_after_a_broken_connection_nothing_is_missing(wire: Wire, tmp_path: Path, page: Page) -> None:
    async with hub_inside(Hub(state_dir=tmp_path, **behind(wire))) as url:
        wire.target = port(url)
        await page.open(f"http://127.0.0.1:{wire.port}/")
        await page.until(LIVE)
        await publish(url, [task("one")])
        await page.until(f"{TASKS} === 'one'")
        wire.cut()
        await page.until(GONE)
        await publish(url, [task("two"), task("three")])
        assert re.match(r"✕ Not connected since \d\d:\d\d:\d\d\. ", (await page.text("#gone"))[0])
        assert await page.evaluate("document.title") == "✕ hub"
        assert await page.evaluate("document.body.hasAttribute('data-gone')")
        assert await page.evaluate(TASKS) == "one"
        wire.mend()
        await page.until(LIVE, deadline=30)
        await page.until(f"{TASKS} === 'one,three,two'")
        assert await page.evaluate("document.querySelector('#gone').hidden")
        assert await page.evaluate("document.querySelector('#notice').childElementCount === 0"), "nothing of it is lost"
        assert (await page.evaluate("document.title")).startswith("hub · ")
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_after_the_hubs_end_the_page_is_whole_again(hub: HubProcess, page: Page, end: str) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await publish(hub.url, [task("before")])
    await page.until(f"{TASKS} === 'before'")
    if end == "kill":
        hub.signal(signal.SIGKILL)
        await hub.forget()
    else:
        assert await hub.stop() == 0
    await page.until(GONE)
    await hub.start()
    await publish(hub.url, [task("meanwhile")])
    await page.until(LIVE, deadline=30)
    await publish(hub.url, [task("since")])
    await page.until(f"{TASKS} === 'before,meanwhile,since'")
    assert await page.evaluate("document.querySelector('#notice').childElementCount === 0")
    page.forgive(*LOST)


async def test_a_new_history_is_told(start_hub: StartHub, page: Page) -> None:
    hub = await start_hub("--ephemeral")
    await publish(hub.url, [task("before")])
    await page.open(hub.url)
    await page.until(f"{LIVE} && {TASKS} === 'before'")
    await hub.stop()
    await page.until(GONE)
    await hub.start()
    await page.until("document.querySelector('#notice').textContent.includes('The hub began a new history')", 30)
    await page.until(f"{TASKS} === ''")
    page.forgive(*LOST)


async def test_a_gap_is_no_gap_to_the_page(wire: Wire, tmp_path: Path, page: Page) -> None:
    """Far more happens while it is away than the hub keeps."""
    hub = Hub(state_dir=tmp_path, window_events=10, ephemeral=True, **behind(wire))
    async with hub_inside(hub) as url:
        wire.target = port(url)
        await page.open(f"http://127.0.0.1:{wire.port}/")
        await page.until(LIVE)
        wire.cut()
        await page.until(GONE)
        await publish(url, [task(f"task-{number:02}") for number in range(18)])
        wire.mend()
        await page.until(LIVE, deadline=30)
        await page.until("document.querySelectorAll('[data-agent] [data-task]').length === 18")
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_a_hub_that_does_not_answer_is_told(hub: HubProcess, page: Page) -> None:
    await page.before_scripts(FAST.format(times=10))
    await page.open(hub.url)
    await page.until(LIVE)
    hub.signal(signal.SIGSTOP)
    await page.until(GONE, deadline=30)
    hub.signal(signal.SIGCONT)
    await page.until(LIVE, deadline=30)
    page.forgive(*LOST)


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_connection_that_goes_nowhere_is_not_called_live(
    wire: Wire, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/dashboard.js", "performance.now() - heard > SILENCE", "false && SILENCE")
    async with hub_inside(Hub(state_dir=tmp_path / "state", **behind(wire))) as url:
        wire.target = port(url)
        await page.before_scripts(FAST.format(times=10))
        await page.open(f"http://127.0.0.1:{wire.port}/")
        await page.until(LIVE)
        wire.freeze()
        if weakened:
            await page.evaluate("new Promise((resolve) => setTimeout(resolve, 60000))")
            assert await page.evaluate(LIVE)
        else:
            await page.until(GONE, deadline=30)
        wire.thaw()
        await page.until(LIVE, deadline=30)
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_below_a_prefix_nothing_is_asked_outside_of_it(tmp_path: Path, page: Page) -> None:
    hub = Hub(state_dir=tmp_path)
    async with hub_inside(hub, "some/where/") as url:
        await page.open(url)
        await page.until(LIVE)
        assert url in (await page.text("#first pre"))[0]
        await hub.publish("task:progress", {"id": "build", "progress": 40})
        await hub.publish("governance:vote_cast", {"vote_id": "v"})
        await page.until("document.querySelector('[data-vote]') && document.querySelector('progress').value === 40")
        links = await page.evaluate("[...document.links].map((link) => link.href)")
        links += await page.evaluate("[...document.forms].map((form) => form.action)")
        assert len(links) >= 12
        asked = [one for one in page.requests if not one.startswith(("data:", "about:"))]
        assert len(asked) >= 6
        assert [one for one in asked + links if not one.startswith(url)] == []
        assert [one for one in page.sockets if not one.startswith(url.replace("http", "ws"))] == []
        await page.leave()


async def test_a_panel_of_the_application_lives_and_has_a_form_of_its_own(tmp_path: Path, page: Page) -> None:
    orders: list[str] = []

    def broken(hub: Hub) -> dict[str, object]:
        raise RuntimeError("no such shop")

    hub = Hub(state_dir=tmp_path)
    hub.panels.append(Panel("orders", "Orders", ("orders:*",), lambda hub: {"orders": orders}))
    hub.panels.append(Panel("shop", "Shop", (), broken))
    hub.on("orders:*")(lambda event: orders.append(event.data["order"]))
    template = (
        '<form method="post" action="order"><input id="order" name="order"></form>'
        "<ul>{% for order in orders %}<li>{{ order }}</li>{% endfor %}</ul>"
    )
    async with hub_inside(hub, templates={"panels/orders.html": template}) as url:
        await page.open(url)
        await page.until(LIVE)
        await page.evaluate("document.querySelector('#order').value = 'typed'")
        await hub.publish("orders:new", {"order": "<b>tea</b>"})
        await page.until("document.querySelector('[data-section=orders] li')?.textContent === '<b>tea</b>'")
        assert await page.evaluate("document.querySelector('#order').value") == "typed"
        assert "could not be drawn" in (await page.text("[data-section=shop]"))[0]
        await page.leave()


async def test_a_hidden_page_asks_nothing(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await publish(hub.url, [task("seen")])
    await page.until(f"{TASKS} === 'seen'")
    await page.evaluate(HIDE % "true")
    await publish(hub.url, [task("late")])
    await page.evaluate("new Promise((resolve) => setTimeout(resolve, 500))")
    page.requests.clear()
    for number in range(5):
        await publish(hub.url, [task(f"x{number}")])
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert page.requests == []
    assert await page.evaluate(TASKS) == "seen"
    await page.evaluate(HIDE % "false")
    await page.until(f"{TASKS} === 'late,seen,x0,x1,x2,x3,x4'")


STUB = """
    window.shown = [];
    window.Notification = class {
      static permission = "default";
      static requestPermission = async () => (Notification.permission = "granted");
      constructor(title, { body, tag }) { window.shown.push([title.split(" · ")[0], body, tag]); }
    };
"""


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_waits_is_told_on_the_desktop_only_if_wanted_and_only_while_nobody_looks(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/notices.js", "!document.hidden || ", "")
    await page.before_scripts(STUB + FAST.format(times=10))
    async with hub_inside(Hub(state_dir=tmp_path / "state")) as url:
        await page.open(url)
        await page.until(LIVE)
        await page.click("#notices")
        await page.until("document.querySelector('#notices').ariaPressed === 'true'")
        await publish(url, [waits("looked-at")])
        await page.until("document.querySelector('[data-task=looked-at]')")
        assert (await page.evaluate("shown") == []) is not weakened
        await page.evaluate(HIDE % "true")
        await page.evaluate("shown.length = 0")
        await publish(url, [task("other")])
        await publish(url, [waits("unseen")])
        await page.until("shown.length")
        assert await page.evaluate("shown") == [["hub", "unseen unseen", "task-unseen"]]
        await page.evaluate(HIDE % "false")
        await page.until(f"{TASKS} === 'other'")
        await page.click("#notices")
        await page.until("document.querySelector('#notices').ariaPressed === 'false'")
        await page.evaluate(HIDE % "true")
        page.requests.clear()
        await publish(url, [waits("unwanted")])
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 5000))")
        assert page.requests == [], "who does not want it costs nothing"
        await page.leave()


def waits(id: str) -> dict[str, object]:
    return {"event": "task:progress", "data": {"id": id, "status": "waiting_approval", "message": id}}


async def test_what_passed_while_nobody_looked_is_said_in_its_place(page: Page, tmp_path: Path) -> None:
    await page.before_scripts(FAST.format(times=10))
    async with hub_inside(Hub(state_dir=tmp_path / "state")) as url:
        await publish(url, [{"event": "a:x", "data": n} for n in range(3)])
        await page.open(url)
        await page.until(LIVE)
        await page.evaluate(HIDE % "true")
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 6000))")
        await publish(url, [{"event": "a:x", "data": n} for n in range(30)])
        await page.evaluate(HIDE % "false")
        await page.until("document.querySelector('#missed')")
        said = "16 more events came before these, and behind what stood here."
        assert await page.text("#events .log li:last-child") == [said]
        await publish(url, [{"event": "a:x", "data": n} for n in range(14)])
        await page.until("!document.querySelector('#missed')")
        await page.leave()


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_fetch_that_fails_is_no_end(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """The next notice comes only behind a fetch: one that failed has to be made again."""
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/dashboard.js", "if (socket) lost(socket);\n    return;", "return;")
    hub = Hub(state_dir=tmp_path / "state")
    async with hub_inside(hub) as url:
        await page.open(url)
        await page.until(LIVE)
        await page.evaluate("""
            window.real = XMLHttpRequest.prototype.open;
            XMLHttpRequest.prototype.open = function (method, url) {
              XMLHttpRequest.prototype.open = window.real;
              window.failed = true;
              window.real.call(this, method, new URL("./nothing", url));
            };
        """)
        await publish(url, [task("one")])
        await page.until("window.failed")
        await publish(url, [task("two")])
        if weakened:
            await asyncio.sleep(1.0)
            assert await page.evaluate(TASKS) == ""
        else:
            await page.until(f"{TASKS} === 'one,two'", deadline=30)
        await page.leave()
    page.forgive(*LOST)
