"""What the page costs: the first paint at 1,000 agents and 1,000 tasks, an idle viewer, and 20 viewers in a storm.

    python tests/bench/page.py             # a minute and a half
    python tests/bench/page.py --browser   # and what a tab of Chromium costs meanwhile

Counted is the CPU of the hub's process (user + system), so that a busy machine does not change it much; what a round of
drawing holds the loop is counted in this process, as CPU of its thread. The bounds stand beside the figures.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from jinja2 import Environment, FileSystemLoader

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser.cdp import Browser, DevTools, find_browser
from browser.hubs import HubProcess, publish

from hub import Hub
from hub.web import program
from hub.web.page import dashboard, frame
from hub.web.page.board import Board
from hub.web.page.panel import Asked
from hub.web.page.panels import panels
from hub.web.page.shown import Shown
from hub.web.viewers import Viewers

MANY = 1000
STATUS = ("running", "running", "queued", "waiting_approval", "succeeded", "succeeded", "failed", "cancelled")
TICKS = os.sysconf("SC_CLK_TCK")
DRAWN = re.compile(r'data-panel="(\w+)" data-version="([^"]+)"')


def household(dice: random.Random) -> Iterator[dict[str, Any]]:
    """1,000 agents and 1,000 tasks, with texts as long as people's are."""
    for number in range(MANY):
        status = ("active", "active", "idle", "error", "stopped")[number % 5]
        data: dict[str, Any] = {"id": f"agent-{number}", "status": status, "task": "Refactor auth middleware"}
        yield {"event": "agent:status_change", "data": data}
    for number in range(MANY):
        yield moved(dice, number)


def moved(dice: random.Random, number: int) -> dict[str, Any]:
    status = STATUS[number % len(STATUS)]
    data: dict[str, Any] = {
        "id": f"task-{number}",
        "name": "Index ~/Photos/2026",
        "status": status,
        "agent": f"agent-{number}",
    }
    data |= {"progress": dice.randrange(100), "message": f"{dice.randrange(8000)} of 8,113 files"}
    return {"event": "task:progress", "data": data}


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def tell(what: str, value: float, unit: str, bound: float) -> None:
    print(f"{what:<58}{value:>9.2f} {unit:<8} at most {bound:g}{'' if value <= bound else '   OVER'}")


@asynccontextmanager
async def running(folder: str) -> AsyncIterator[tuple[HubProcess, int]]:
    hub = HubProcess(Path(folder) / "state")
    await hub.start()
    await asyncio.sleep(1.0)
    assert hub._process
    yield hub, hub._process.pid
    await hub.stop()


async def first_paint(hub: HubProcess, pid: int) -> None:
    await publish(hub.url, list(household(random.Random(1)))[:MANY])
    await publish(hub.url, list(household(random.Random(1)))[MANY:])
    async with aiohttp.ClientSession() as http:
        before = cpu(pid)
        async with http.get(hub.url) as answer:
            size = len(await answer.read())
        tell("first paint at 1,000 + 1,000, of the hub's CPU", (cpu(pid) - before) * 1e3, "ms", 100)
        await asyncio.sleep(1.0)
        before = cpu(pid)
        for _ in range(100):
            async with http.get(hub.url) as answer:
                await answer.read()
        tell("one that is drawn already", (cpu(pid) - before) * 10, "ms", 5)
        tell("its size", size / 1024, "KiB", 100)


async def viewer(url: str) -> None:
    """As the page's script: be told, fetch what is newer."""
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as answer:
            has = dict(DRAWN.findall(await answer.text()))
        async with http.ws_connect(f"{url}ws?page=1") as ws:
            async for message in ws:
                data = json.loads(message.data)["payload"]["data"]
                newer = [name for name, version in data["panels"].items() if has.get(name) != version] or ["summary"]
                query = "&".join(f"panel={name}" for name in newer)
                async with http.get(f"{url}?{query}&viewer={data['viewer']}") as answer:
                    has.update(DRAWN.findall(await answer.text()))


async def storm(url: str, rate: int, seconds: float) -> None:
    """So many events a second, in small batches."""
    dice, batch = random.Random(2), max(1, rate // 50)
    async with aiohttp.ClientSession() as http:
        due = time.monotonic()
        for _ in range(int(seconds * rate / batch)):
            events = [moved(dice, dice.randrange(MANY)) for _ in range(batch)]
            async with http.post(f"{url}api/events", json=events) as answer:
                assert answer.status == 200
            due += batch / rate
            await asyncio.sleep(due - time.monotonic())


async def share(hub: HubProcess, pid: int, viewers: int, rate: int, seconds: float) -> float:
    """Per cent of a core that the hub takes with so many viewers at so many events a second."""
    tasks = [asyncio.create_task(viewer(hub.url)) for _ in range(viewers)]
    await asyncio.sleep(2.0)
    before, began = cpu(pid), time.monotonic()
    await (storm(hub.url, rate, seconds) if rate else asyncio.sleep(seconds))
    found = 100 * (cpu(pid) - before) / (time.monotonic() - began)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks) if tasks else None
    return found


async def tab(hub: HubProcess, seconds: float) -> None:
    """What a tab takes in the storm, as Chromium counts it."""
    program = find_browser()
    if not program:
        return print("there is no Chromium here")
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, Path(profile))
        try:
            async with aiohttp.ClientSession() as http, http.ws_connect(await browser.address(), max_msg_size=0) as ws:
                tools = DevTools(ws)
                async with tools.page() as page:
                    await page.send("Performance.enable", timeDomain="threadTicks")
                    await page.open(hub.url)
                    before = await busy(page)
                    await storm(hub.url, 2000, seconds)
                    tell("a tab meanwhile", 100 * (await busy(page) - before) / seconds, "%", 25)
                await tools.close()
        finally:
            browser.stop()


async def busy(page: Any) -> float:
    metrics = (await page.send("Performance.getMetrics"))["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


async def longest_step() -> None:
    """The longest that a live draw holds the loop in a storm: the CPU between two turns of the others."""
    steps, dice = list[float](), random.Random(3)
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(state_dir=folder, ephemeral=True)
        await hub.start()
        env = frame.prepare_environment(Environment(loader=FileSystemLoader(frame.folder()), autoescape=True))
        env.globals["places"] = dashboard.PAGES
        await frame.compile_all(env)
        for event in household(dice):
            await hub.publish(event["event"], event["data"])
        board = Board(hub)
        drawn = Shown(hub, env, board, Viewers())
        looks = [(panel, Asked()) for panel in panels(board)]
        await drawn.get(looks)  # the first paint, which is no live draw
        program._calm_collector()  # as the hub's own process does
        for _ in range(100):
            for _ in range(400):
                event = moved(dice, dice.randrange(MANY))
                await hub.publish(event["event"], event["data"])
            drawn._next = 0.0
            steps += await stepped(drawn.get(looks))
        await hub.stop()
    tell("the longest step of a live draw, of 99 in 100", statistics.quantiles(steps, n=100)[98] * 1e3, "ms", 5)
    tell("the single longest of them", max(steps) * 1e3, "ms", 5)


async def stepped(work: Coroutine[Any, Any, Any]) -> list[float]:
    """The CPU of each step that the loop does until the work is done."""
    task, steps, began = asyncio.create_task(work), list[float](), time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        steps.append((now := time.thread_time()) - began)
        began = now
    return steps


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--browser", action="store_true", help="also what a tab of Chromium costs")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (15)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with running(folder) as (hub, pid):
            await first_paint(hub, pid)
            alone = await share(hub, pid, 0, 0, asked.seconds)
            tell("an idle viewer", await share(hub, pid, 1, 0, asked.seconds) - alone, "%", 0.5)
            alone = await share(hub, pid, 0, 2000, asked.seconds)
            tell("20 viewers at 2,000 events/s", await share(hub, pid, 20, 2000, asked.seconds) - alone, "%", 15)
            if asked.browser:
                await tab(hub, asked.seconds)
    await longest_step()


if __name__ == "__main__":
    asyncio.run(main())
