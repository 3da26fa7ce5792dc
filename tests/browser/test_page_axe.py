"""What axe-core finds on the page, by the rules of WCAG A and AA: nothing, with rows in every state, light and dark.

axe-core comes from npm into the environment of these tests (`tox -e browser`).
"""

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
from marshmallow import fields
from running import until

from hub import Call, Hub

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = f"axe.run(document, {{ runOnly: {json.dumps(RULES)}, resultTypes: ['violations'] }})"
STATUSES = ("queued", "running", "waiting_approval", "succeeded", "failed", "cancelled")
AGENTS = ("starting", "active", "idle", "stopped", "error")
PLACES = (
    "",
    "?panel=working&filter=tasks",
    "?panel=events&filter=task",
    "?panel=events&filter=task*",
    "?panel=failed&filter=all",
    "?panel=threats&filter=all",
)
OTHERS = ("?task=task-failed", "?agent=agent-error", "?call=", "?call=shop:order", "?search=task", "?search=zzz")


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    places = [Path(folder) / "axe-core" / "axe.min.js" for folder in os.environ.get("NODE_PATH", "").split(os.pathsep)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("there is no axe-core here (tox -e browser)")
    return found.read_text("utf-8")


async def violations(page: Page, axe: str) -> list[str]:
    """What is wrong, in a line each."""
    await page.evaluate(axe + "; true")
    found = (await page.evaluate(RUN))["violations"]
    return [f"{one['id']}: {node['html'][:160]} {node['failureSummary']}" for one in found for node in one["nodes"]]


@asynccontextmanager
async def full(tmp_path: Path) -> AsyncIterator[tuple[Hub, str]]:
    """A hub with rows in every state."""
    hub = Hub(port=0, state_dir=tmp_path)

    @hub.command("shop:order", {"count": fields.Integer(required=True), "gift": fields.Boolean()}, effect="dangerous")
    async def order(call: Call) -> Any:
        """Order something."""

    async with hub_inside(hub) as url:
        for status in AGENTS:
            await hub.publish("agent:status_change", {"id": f"agent-{status}", "status": status, "reason": "because"})
        for number, status in enumerate(STATUSES):
            data = {"id": f"task-{status}", "name": f"Task {status}", "agent": f"agent-{AGENTS[number % 5]}"}
            more = {"status": status, "progress": 10 * number, "message": "at it", "error": "no space left"}
            await hub.publish("task:progress", {**data, **more})
        await hub.publish("task:progress", {"id": "task-stale", "agent": "agent-active", "progress": None}, ttl=0.01)
        await hub.publish("task:progress", {"id": "task-overdue", "status": "succeeded"}, ttl=0.01)
        for severity in ("critical", "warning", ""):
            alert = {"id": f"alert-{severity}", "status": "firing", "title": "Disk full", "severity": severity}
            await hub.publish("alert:status", {**alert, "source": "grafana", "description": "91 % of /var"})
        await hub.publish("agent:status_change", {"id": "agent-stale", "status": "active"}, ttl=0.01)
        await hub.publish("governance:vote_cast", {"vote_id": "v", "topic": "Merge?", "agent": "a", "option": "reject"})
        for severity, mitigated in (("low", False), ("medium", True), ("high", False), ("critical", False)):
            threat = {"type": "odd", "severity": severity, "mitigated": mitigated, "details": {"path": "/etc"}}
            await hub.publish("security:threat_detected", threat)
        call = {"agent": "agent-error", "tool": "shell", "task": "task-failed"}
        await hub.publish("agent:tool_call", {**call, "phase": "failed", "duration_ms": 100})
        await hub.publish("memory:stats_update", {"total_entries": 12, "bytes": 1000})
        details = {"agent": "agent-error", "task": "task-failed"}
        options = [{"label": "yes", "description": "as little as can be"}, {"label": "no"}]
        told = {"tool": "AskUserQuestion", "input": {"questions": [{"options": options}]}, "cwd": "/home/me/shop"}
        asking = [asyncio.ensure_future(hub.ask(f"{n}?", ["yes", "no"], details=details | told)) for n in range(2)]
        await until(lambda: len([*hub.questions.records()]) == 2)
        await until(lambda: sum(item["stale"] for item in hub.snapshot()["items"]) == 3)
        yield hub, url
        for one in asking:
            one.cancel()
        await asyncio.wait(asking)


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
async def test_the_page_with_rows_in_every_state_is_clean(
    page: Page, tmp_path: Path, axe: str, width: int, dark: bool
) -> None:
    async with full(tmp_path) as (_, url):
        await page.viewport(width)
        if dark:
            await page.dark()
        for place in PLACES + OTHERS:
            await page.open(url + place)
            await page.until(LIVE)
            assert await violations(page, axe) == [], place
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{place} is too wide"
        await page.leave()


async def test_what_opens_and_what_was_refused_is_clean(page: Page, tmp_path: Path, axe: str) -> None:
    async with full(tmp_path) as (_, url):
        await page.open(url)
        await page.until(LIVE)
        await page.press("/")
        await page.type("task")
        await page.until("document.querySelector('#palette [role=option]')")
        assert await violations(page, axe) == [], "the palette"
        for step, fields_ in (("again", {"count": "x"}), ("sure", {"count": "3"})):
            await page.open(f"{url}?call=shop:order")
            await page.evaluate("document.querySelector('form.fields').noValidate = true")
            await page.evaluate("document.querySelector('[name=count]').type = 'text'")
            await page.fill("[name=count]", fields_["count"])
            await page.click("form.fields button")
            await page.until(f"location.search.includes('&{step}=')")
            await page.until(LIVE)
            assert await violations(page, axe) == [], fields_
        await page.leave()


async def test_an_empty_hub_and_one_that_has_gone_are_clean(page: Page, tmp_path: Path, axe: str) -> None:
    page.expected += ["CONNECTION_REFUSED"]
    hub = Hub(port=0, state_dir=tmp_path)
    async with hub_inside(hub) as url:
        await page.open(url)
        await page.until(LIVE)
        assert await violations(page, axe) == [], "empty"
        await hub.publish("sensor:temp", {"c": 22})
        await page.until("document.querySelector('[data-section=newest] li')")
        assert await violations(page, axe) == [], "own events"
        await page.open(f"{url}?call=audit:tail")
        await page.click("form.fields button")
        await page.until(f"{LIVE} && document.querySelector('.result')")
        assert await violations(page, axe) == [], "an answer"
    await page.until("document.querySelector('#connection').dataset.state === 'gone'")
    assert await violations(page, axe) == [], "gone"
    await page.leave()


async def test_a_page_with_faults_is_found_out(page: Page, tmp_path: Path, axe: str) -> None:
    """Weakened: a field without its label, a text that is hardly seen."""
    async with full(tmp_path) as (_, url):
        await page.open(f"{url}?call=shop:order")
        await page.evaluate("document.querySelector('.field label').remove()")
        await page.evaluate("document.querySelector('main h2').style.setProperty('color', '#eeeeee')")
        found = " ".join(await violations(page, axe))
        assert "label" in found
        assert "color-contrast" in found
        await page.leave()
