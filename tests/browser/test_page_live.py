"""The page in a real Chromium: it shows what is, moves when something happens, and works without its script."""

import json
import shlex
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from browser.cdp import Page
from browser.hubs import HubProcess, publish

from hub.demo import life

LIVE = "document.querySelector('#connection').dataset.state === 'live'"

# All rows of the page as nested lists, with attributes in one order and without what only one side needs.
ROWS = """
    (() => {
      const tree = (node) => {
        if (node.nodeType === Node.TEXT_NODE) return node.data.trim();
        const attributes = [...node.attributes].map(({ name, value }) => `${name}=${value}`);
        const children = [...node.childNodes].map(tree).filter((child) => child !== "");
        return [node.localName, ...attributes.filter((one) => !one.startsWith("data-fold")).sort(), children];
      };
      return [...document.querySelectorAll("[data-rows], [data-empty]")].map(tree);
    })()
"""

ODD: list[dict[str, Any]] = [
    {
        "event": "agent:status_change",
        "data": {"id": "ünïcödé 🐝", "status": "idle", "pid": 41234, "tasks_failed": 0},
    },
    {
        "event": "agent:status_change",
        "data": {"id": "10", "status": "error", "error_count": 12345678901234567890},
    },
    {
        "event": "agent:status_change",
        "data": {"id": "9", "status": "stopped", "reason": None, "last_active": "soon"},
    },
    {"event": "agent:status_change", "data": {"id": "B", "status": "idle", "key": "no key", "closed": True}},
    {"event": "task:progress", "data": {"id": "half", "progress": 99.96, "duration_ms": 123456.7}},
    {"event": "task:progress", "data": {"id": "unknown", "progress": None, "status": "waiting_approval"}},
    {
        "event": "task:progress",
        "data": {"id": "done", "progress": 100, "status": "succeeded", "duration_ms": 9e7},
    },
    {
        "event": "task:progress",
        "data": {"id": "undone", "progress": 1e-9, "status": "failed", "error": "<b>no</b>"},
    },
    {"event": "task:progress", "data": {"id": "reopened", "progress": 100, "status": "succeeded"}},
    {"event": "task:progress", "data": {"id": "reopened", "progress": 3, "status": "running"}},
    {
        "event": "governance:vote_cast",
        "data": {"vote_id": "v", "agent": "10", "option": "reject", "eligible": 3},
    },
    {
        "event": "governance:vote_cast",
        "data": {"vote_id": "v", "agent": "9", "option": "approve", "deadline": "x"},
    },
    {"event": "governance:vote_cast", "data": {"vote_id": "v", "agent": "10", "option": "abstain"}},
    {"event": "governance:vote_cast", "data": {"vote_id": "w", "votes": {"a": "reject", "Z": "approve"}}},
    {
        "event": "governance:vote_cast",
        "data": {"vote_id": "w", "agent": "a", "option": "approve", "status": "passed"},
    },
    {"event": "governance:vote_cast", "data": {"vote_id": "w", "deadline": "2026-01-02T03:04:05.678+02:00"}},
    {"event": "security:threat_detected", "data": {"type": "t", "severity": "low", "risk_score": 0.125}},
    {
        "event": "security:threat_detected",
        "data": {"type": "u", "severity": "high", "details": {"10": [1, 2.5], "9": {"x": None, "y": False}}},
    },
    {
        "event": "audit:new_event",
        "data": {"action": "a", "actor": {"id": 7}, "details": -0.001, "trust": "USER"},
    },
    {
        "event": "memory:stats_update",
        "data": {"total_entries": 1048576, "bytes": 1610612736, "by_type": {"2": 1}},
    },
]


async def test_an_event_moves_a_bar_in_an_open_page(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("task:progress", {"id": "build", "progress": 40})
    await page.until("document.querySelector('[data-panel=tasks] progress').value === 40")
    await hub.publish("task:progress", {"id": "build", "progress": 70, "status": "running"})
    await page.until("document.querySelector('[data-panel=tasks] progress').value === 70")
    assert await page.text("[data-panel=tasks] .name") == ["build"]
    assert await page.text("[data-panel=tasks] .figure") == ["70 %"]

    await page.reload()
    assert await page.evaluate("document.querySelector('[data-panel=tasks] progress').value") == 70


async def test_the_line_that_an_empty_panel_suggests_fills_it(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    lines = await page.text("[data-empty] pre")
    assert len(lines) == 5
    async with aiohttp.ClientSession() as http:
        for line in lines:
            curl, silent, url, header, kind, data, body = shlex.split(line)
            assert (curl, silent, header, kind, data) == (
                "curl",
                "-s",
                "-H",
                "content-type: application/json",
                "-d",
            )
            response = await http.post(url, data=body, headers={"content-type": "application/json"})
            assert response.status == 200, await response.text()
    await page.until("document.querySelectorAll('[data-rows] > li').length === 5")
    assert await page.evaluate("[...document.querySelectorAll('[data-empty]:has(pre)')].every((node) => node.hidden)")


@pytest.mark.parametrize("events", ["demo", "odd"])
async def test_what_the_script_drew_is_what_the_server_draws(hub: HubProcess, page: Page, events: str) -> None:
    """There is one description of a row. The script's half of it is compared with the server's on the same events."""
    story = [{"event": step.event, "data": step.data} for step in islice(life(), 400)]
    await page.open(hub.url)
    await page.until(LIVE)
    await publish(hub.url, story if events == "demo" else ODD)
    await hub.publish("agent:status_change", {"id": "last", "status": "idle"})
    await page.until("document.querySelector('[data-key=last]')")
    drawn = await page.evaluate(ROWS)
    await page.reload()
    for by_script, by_server in zip(drawn, await page.evaluate(ROWS), strict=True):
        assert by_script == by_server
    assert "last" in json.dumps(drawn)


async def test_a_tally_counts_the_newest_option_of_each_agent(hub: HubProcess, page: Page) -> None:
    async def cast(**more: str) -> None:
        await hub.publish("governance:vote_cast", {"vote_id": "release", **more})

    tally = "[...document.querySelectorAll('.tally span')].map((node) => node.textContent).join(', ')"
    await cast(agent="alice", option="approve")
    await cast(agent="bob", option="approve")
    await page.open(hub.url)
    assert await page.evaluate(tally) == "approve 2, reject 0, abstain 0"

    await page.until(LIVE)
    await cast(agent="bob", option="reject")
    await cast(agent="carol", option="abstain")
    await page.until(f"{tally} === 'approve 1, reject 1, abstain 1'")
    await hub.publish("governance:vote_cast", {"vote_id": "release", "votes": {"dave": "reject"}, "status": "failed"})
    await page.until(f"{tally} === 'approve 0, reject 1, abstain 0'")
    await page.reload()
    assert await page.evaluate(tally) == "approve 0, reject 1, abstain 0"


async def test_an_item_that_is_not_renewed_turns_stale(hub: HubProcess, page: Page) -> None:
    stale = "document.querySelector('[data-key=worker] .stale')"
    await page.open(hub.url)
    await page.until(LIVE)
    await hub.publish("agent:status_change", {"id": "worker", "status": "active"}, ttl=0.2)
    await page.until(f"{stale}.textContent === 'stale' && !{stale}.hidden")
    await page.reload()
    assert await page.evaluate(f"{stale}.textContent") == "stale"
    await page.until(LIVE)
    await hub.publish("agent:status_change", {"id": "worker", "status": "idle"})
    await page.until(f"{stale}.hidden")


async def test_without_scripts_a_reload_shows_the_present(hub: HubProcess, page: Page) -> None:
    await page.without_scripts()
    await page.open(hub.url)
    assert "No task yet." in " ".join(await page.text("[data-panel=tasks]"))
    await hub.publish("task:progress", {"id": "build", "progress": 40})
    await page.reload()
    assert await page.text("[data-panel=tasks] .figure") == ["40 %"]
    assert "Reload the page to see the present." in (await page.text("#connection"))[0]
    seen = "document.querySelector('#verify').checkVisibility()"
    assert await page.evaluate(seen) is False, "a button that does nothing must not be seen"


async def test_a_command_from_the_page_is_answered_and_recorded(hub: HubProcess, page: Page) -> None:
    await page.open(hub.url)
    await page.until(LIVE)
    await page.click("#verify")
    await page.until("document.querySelector('#verdict').textContent.endsWith('all intact.')")
    await page.until("document.querySelector('.records').innerText.includes('audit:verify')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
async def test_nothing_is_wider_than_the_page(
    hub: HubProcess, page: Page, tmp_path: Path, width: int, dark: bool
) -> None:
    long = "a" * 3000
    story = [{"event": step.event, "data": step.data} for step in islice(life(), 200)]
    await publish(hub.url, story)
    await hub.publish("task:progress", {"id": long, "name": long, "message": long, "agent": long, "progress": 5})
    await hub.publish("agent:status_change", {"id": long, "status": "active", "task": long})
    await hub.publish("governance:vote_cast", {"vote_id": long, "topic": long, "agent": long, "option": "reject"})
    await hub.publish("security:threat_detected", {"type": long, "severity": "critical", "details": {long: long}})
    await hub.publish("memory:stats_update", {"total_entries": 10**19, "by_type": {long: 10**19}})
    await hub.publish("audit:new_event", {"action": long, "hash": long, "details": long})
    await page.viewport(width)
    if dark:
        await page.dark()
    await page.open(hub.url)
    await page.until(LIVE)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, client = await page.evaluate(widths)
    assert scroll <= client
    boxes = "[...document.querySelectorAll('.panel, .rows, .line > :not(.hash)')]"
    wide = f"{boxes}.filter((one) => one.scrollWidth > one.clientWidth + 1)"
    assert await page.evaluate(f"{wide}.map((one) => one.outerHTML.slice(0, 100))") == []
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 24, 27)") is dark
    await page.screenshot(tmp_path / "page.png")
