"""The page and its connection: it comes back, misses nothing or says so, and never claims to be fresher than it is."""

import asyncio
import signal
from pathlib import Path

import pytest
from aiohttp import web
from browser.cdp import Page
from browser.hubs import HubProcess, StartHub, Wire, hub_inside, publish
from browser.test_page_safety import rewrite

from hub import Hub
from hub.web.page.dashboard import Panel

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
GONE = "document.querySelector('#connection').dataset.state === 'gone'"
THREATS = "[...document.querySelectorAll('[data-panel=threats] .name')].map((node) => node.textContent).join()"
LOST = ("WebSocket connection to", "Failed to load resource")  # what Chromium itself logs then

# Timers run a hundred times as fast, and are counted.
FAST = """
    window.fired = 0;
    const real = setTimeout;
    window.setTimeout = (f, ms) => real(() => { f(); window.fired += 1; }, ms / 100);
"""
# What is done every five seconds is not done at all.
NO_ROUTINE = """
    const real = setTimeout;
    window.setTimeout = (f, ms) => (ms < 5000 ? real(f, ms) : 0);
"""
# Whether a connection is there is looked at fifty times as often, and that is counted.
QUICK_WATCH = """
    window.looked = 0;
    const real = setInterval;
    window.setInterval = (f, ms) => real(() => { f(); window.looked += 1; }, ms / 50);
"""
# Counts what the page got through its WebSocket.
COUNT_FRAMES = """
    const Real = WebSocket;
    window.received = 0;
    window.WebSocket = class extends Real {
      constructor(...args) {
        super(...args);
        this.addEventListener("message", () => { window.received += 1; });
      }
    };
"""
ASKED = "performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'xmlhttprequest').length"


def threat(name: str) -> dict[str, object]:
    return {"event": "security:threat_detected", "data": {"type": name, "severity": "low"}}


def task(name: str) -> dict[str, object]:
    return {"event": "task:progress", "data": {"id": name, "progress": 1}}


async def test_after_a_broken_connection_nothing_is_missing_and_nothing_is_twice(
    wire: Wire, start_hub: StartHub, page: Page
) -> None:
    seen_as = f"127.0.0.1:{wire.port}"
    hub = await start_hub("--allow-host", seen_as, "--allow-origin", f"http://{seen_as}")
    wire.target = hub.port
    await page.open(f"http://{seen_as}/")
    await page.until(LIVE)
    await publish(hub.url, [threat("one")])
    await page.until(f"{THREATS} === 'one'")
    seen = await page.evaluate("document.querySelector('[data-panel=threats] .row').dataset.key")

    wire.cut()
    await page.until(GONE)
    await publish(hub.url, [threat("two"), threat("three")])
    await hub.publish("task:progress", {"id": "build", "progress": 12})
    assert (await page.text("#connection"))[0].startswith("Not connected since ")
    assert await page.text("[data-panel=threats] .name") == ["one"]

    wire.mend()
    await page.until(LIVE)
    await page.until(f"{THREATS} === 'three,two,one'")
    await page.until("document.querySelector('[data-panel=tasks] progress').value === 12")
    assert page.sockets[-1].endswith(f"%3A{seen}"), "it goes on behind the last event it got"
    assert await page.evaluate("document.querySelector('#notice').hidden"), "there was no gap to tell of"
    page.forgive(*LOST)


async def test_after_a_restart_the_page_is_whole_again(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("task:progress", {"id": "before", "progress": 40})
    await page.until("document.querySelector('[data-key=before]')")

    assert await hub.stop() == 0
    await page.until(GONE)
    await hub.start()
    await hub.publish("task:progress", {"id": "meanwhile", "progress": 1})
    await page.until(LIVE)
    await page.until("document.querySelector('[data-key=meanwhile]')")
    await hub.publish("task:progress", {"id": "after", "progress": 2})
    await page.until("document.querySelector('[data-key=after]')")
    shown = await page.text("[data-panel=tasks] .name")
    await page.reload()
    assert await page.text("[data-panel=tasks] .name") == shown
    page.forgive(*LOST)


async def test_a_new_history_is_told(start_hub: StartHub, page: Page) -> None:
    hub = await start_hub("--ephemeral")
    await hub.publish("task:progress", {"id": "before", "progress": 40})
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.stop()
    await hub.start()
    await page.until("document.querySelector('#notice').textContent.includes('The hub began a new history.')")
    await page.until("document.querySelector('#notice').textContent.includes('was loaded again at')")
    assert await page.text("[data-panel=tasks] .name") == [], "what the hub no longer knows is not shown"
    page.forgive(*LOST)


async def test_a_gap_is_told_and_the_page_is_whole_behind_it(wire: Wire, tmp_path: Path, page: Page) -> None:
    seen_as = f"127.0.0.1:{wire.port}"
    hub = Hub(
        state_dir=tmp_path,
        window_events=10,
        ephemeral=True,
        allow_host=(seen_as,),
        allow_origin=(f"http://{seen_as}",),
    )
    async with hub_inside(hub) as url:
        wire.target = int(url.split(":")[-1].strip("/"))
        await page.open(f"http://{seen_as}/")
        await page.until(LIVE)
        wire.cut()
        await page.until(GONE)
        await publish(url, [task(f"task-{number:02}") for number in range(25)])
        wire.mend()
        missed = "15 events were missed while this page was away, and were no longer kept."
        await page.until(f"document.querySelector('#notice').textContent.startsWith({missed!r})")
        await page.until("document.querySelectorAll('[data-panel=tasks] .row').length === 25")
        await hub.publish("task:progress", {"id": "task-99", "progress": 40})
        await page.until("document.querySelector('[data-key=task-99]')")
        assert await page.text("[data-panel=tasks] .name") == [f"task-{number:02}" for number in [*range(25), 99]]
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_what_happens_while_the_page_is_loaded_again_is_not_lost(wire: Wire, tmp_path: Path, page: Page) -> None:
    seen_as = f"127.0.0.1:{wire.port}"
    hub = Hub(
        state_dir=tmp_path, ephemeral=True, window_events=10, allow_host=(seen_as,), allow_origin=(f"http://{seen_as}",)
    )
    drawn, deliver = asyncio.Semaphore(0), asyncio.Event()
    deliver.set()

    async def hold_back(request: web.Request, response: web.StreamResponse) -> None:
        if request.path == "/":
            drawn.release()
            await deliver.wait()

    async with hub_inside(hub, prepare=hold_back) as url:
        wire.target = int(url.split(":")[-1].strip("/"))
        await page.before_scripts(COUNT_FRAMES)
        await page.open(f"http://{seen_as}/")
        await page.until(LIVE)
        wire.cut()
        await page.until(GONE)
        await publish(url, [task(f"task-{number:02}") for number in range(25)])
        deliver.clear()
        drawn = asyncio.Semaphore(0)
        wire.mend()
        await page.until("document.querySelector('#notice').textContent.includes('were missed')")
        async with asyncio.timeout(10):
            await drawn.acquire()
        received = await page.evaluate("window.received")
        await hub.publish("task:progress", {"id": "late", "progress": 40})
        await page.until(f"window.received > {received}")
        deliver.set()
        await page.until("document.querySelector('[data-key=late]')")
        assert len(await page.text("[data-panel=tasks] .row")) == 26
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_a_cursor_that_the_hub_refuses_is_left_behind(hub: HubProcess, page: Page) -> None:
    """After a restore from an old copy, say: the page's cursor lies in the future, which a browser sees as no more
    than a failed connection."""
    await hub.publish("task:progress", {"id": "build", "progress": 40})
    await page.before_scripts(FAST)
    await page.before_scripts("""
        document.addEventListener("readystatechange", () => {
          document.body.dataset.cursor = document.body.dataset.cursor.replace(/:.*/, ":999999");
        }, { once: true });
    """)
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("task:progress", {"id": "build", "progress": 50})
    await page.until("document.querySelector('[data-panel=tasks] progress').value === 50")
    page.forgive(*LOST)


async def test_a_hub_that_does_not_answer_is_told(hub: HubProcess, page: Page) -> None:
    await page.before_scripts(FAST)
    await page.open(hub.url)
    await page.until(LIVE)
    hub.signal(signal.SIGSTOP)
    await page.until("document.querySelector('#connection').textContent.startsWith('No answer')", deadline=30)
    hub.signal(signal.SIGCONT)
    await page.until(LIVE)
    page.forgive(*LOST)


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_connection_that_goes_nowhere_is_not_called_live(
    wire: Wire, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Its rows come by another connection than its figures: those may be answered while nothing comes by this one."""
    if weakened:
        rewrite(monkeypatch, tmp_path, "static/stream.js", "if (!this.#heard && this.#asked) return lost();", "")
    seen_as = f"127.0.0.1:{wire.port}"
    hub = Hub(state_dir=tmp_path / "state", allow_host=(seen_as,), allow_origin=(f"http://{seen_as}",))
    async with hub_inside(hub) as url:
        wire.target = int(url.split(":")[-1].strip("/"))
        await page.before_scripts(QUICK_WATCH)
        await page.open(f"http://{seen_as}/")
        await page.until(LIVE)
        wire.freeze()
        if weakened:
            before = await page.evaluate("window.looked")
            await page.until(f"window.looked > {before} + 4")
            assert await page.evaluate(LIVE)
        else:
            await page.until("document.querySelector('#connection').textContent.startsWith('Not connected')")
        wire.thaw()
        await page.until(LIVE)
        await page.leave()
        wire.cut()
    page.forgive(*LOST)


async def test_below_a_prefix_nothing_is_asked_outside_of_it(tmp_path: Path, page: Page) -> None:
    hub = Hub(state_dir=tmp_path)
    async with hub_inside(hub, "some/where/") as url:
        await page.open(url)
        await page.until(LIVE)
        await hub.publish("task:progress", {"id": "build", "progress": 40})
        await page.until("document.querySelector('[data-panel=tasks] progress').value === 40")
        links = await page.evaluate("[...document.links].map((link) => link.href)")
        assert len(links) == 3
        asked = [one for one in page.requests if not one.startswith(("data:", "about:"))]
        assert len(asked) >= 4
        assert [one for one in asked + links if not one.startswith(url)] == []
        assert url in (await page.text("[data-panel=agents] pre"))[0]
        await page.leave()


async def test_a_panel_of_the_application_is_drawn_again_for_its_events(tmp_path: Path, page: Page) -> None:
    orders: list[str] = []

    def broken(hub: Hub) -> dict[str, object]:
        raise RuntimeError("no such shop")

    hub = Hub(state_dir=tmp_path)
    hub.panels.append(Panel("orders", "Orders", ("orders:*",), lambda hub: {"orders": orders}))
    hub.panels.append(Panel("shop", "Shop", (), broken))
    hub.on("orders:*")(lambda event: orders.append(event.data["order"]))
    template = "<ul>{% for order in orders %}<li>{{ order }}</li>{% endfor %}</ul>"
    async with hub_inside(hub, templates={"panels/orders.html": template}) as url:
        await page.before_scripts(NO_ROUTINE)
        await page.open(url)
        await page.until(LIVE)
        await hub.publish("orders:new", {"order": "<b>tea</b>"})
        await page.until("document.querySelector('[data-panel=orders] li')?.textContent === '<b>tea</b>'")
        assert "could not be drawn" in (await page.text("[data-panel=shop]"))[0]
        assert "Up" in (await page.text("[data-panel=health]"))[0]
        await page.leave()


async def test_a_hidden_page_asks_nothing(hub: HubProcess, page: Page) -> None:
    await page.before_scripts(FAST)
    await page.open(hub.url)
    await page.until(f"{ASKED} > 3")
    await page.evaluate("""
        Object.defineProperty(document, "hidden", { get: () => window.away ?? false, configurable: true });
        window.away = true;
        document.dispatchEvent(new Event("visibilitychange"));
        window.before = window.fired;
    """)
    await page.until("window.fired > window.before")
    asked = await page.evaluate(ASKED)
    for percent in range(20):
        await hub.publish("task:progress", {"id": "build", "progress": percent})
        await page.until(f"document.querySelector('[data-panel=tasks] progress')?.value === {percent}")
    assert await page.evaluate(ASKED) <= asked + 1, "one may have been on its way"
    asked = await page.evaluate(ASKED)
    await page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    await page.until(f"{ASKED} > {asked}")
