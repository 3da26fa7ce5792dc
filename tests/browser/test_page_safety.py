"""Hostile event data in a real Chromium: it stays text, runs nothing and reaches no prototype.

Each attack also runs against weakened builds, where one protection is off and it must get further.
"""

import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside

import hub.web.access.guard
import hub.web.page.formats
import hub.web.page.frame
from hub import Hub

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
PAYLOADS = (
    "<img src=x onerror=alert(1)>",
    "</template></li><script>alert(2)</script>",
    "\" autofocus onfocus=alert(3) x='",
    "{{ 7 * 7 }}<svg onload=alert(4)>",
)
INJECTED = "document.querySelectorAll('main img, main svg, main script, [onfocus], [onerror]').length"

Weaken = Callable[[pytest.MonkeyPatch, Path], None]


def rewrite(patch: pytest.MonkeyPatch, folder: Path, name: str, old: str, new: str) -> None:
    """Serve a copy of the templates in which one place is written otherwise."""
    copy = folder / "templates"
    if not copy.exists():
        shutil.copytree(hub.web.page.frame.folder(), copy)
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    patch.setattr(hub.web.page.frame, "folder", lambda: copy)


def no_policy(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.delitem(hub.web.access.guard.HEADERS, "Content-Security-Policy")


def no_autoescape(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The server writes event data into the page as it is."""
    patch.setattr(hub.web.page.formats, "escape", str)


def markup_in_script(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The page's script writes event data as markup."""
    rewrite(patch, folder, "static/dashboard.js", "node.textContent = shown &&", "node.innerHTML = shown &&")


def plain_objects(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The page's script merges what arrives into ordinary objects."""
    merging = """
        export function maps(value, into = {}) {
          if (value === null || typeof value !== "object") return value;
          for (const key in value) {
            into[key] = typeof value[key] === "object" ? maps(value[key], into[key]) : value[key];
          }
          return into;
        }
        function unused(value) {"""
    rewrite(patch, folder, "static/stream.js", "export function maps(value) {", merging)


async def hostile(running: Hub) -> None:
    """Every panel gets markup wherever it takes a text; the last event is a plain one."""
    for number, payload in enumerate(PAYLOADS):
        by = {payload: number}
        vote = {"vote_id": payload, "topic": payload, "agent": payload, "option": "reject", "deadline": payload}
        await running.publish("agent:status_change", {"id": payload, "status": "idle", "task": payload})
        await running.publish("task:progress", {"id": payload, "name": payload, "message": payload, "error": payload})
        await running.publish("governance:vote_cast", vote)
        await running.publish("security:threat_detected", {"type": payload, "severity": "low", "details": by})
        await running.publish("audit:new_event", {"action": payload, "actor": by, "hash": payload})
        await running.publish("memory:stats_update", {"total_entries": 1, "by_type": by, "by_partition": by})
    await running.publish("task:progress", {"id": "last"})


async def shown_live(page: Page, url: str, running: Hub) -> None:
    await page.open(url)
    await page.until(LIVE)
    await hostile(running)
    await page.until("document.querySelector('[data-key=last]')")


async def shown_by_server(page: Page, url: str, running: Hub) -> None:
    await hostile(running)
    await page.open(url)
    await page.until(LIVE)


Attack = Callable[[Page, str, Hub], Awaitable[None]]


@pytest.mark.parametrize("attack", [shown_live, shown_by_server])
async def test_markup_in_event_data_is_text(page: Page, tmp_path: Path, attack: Attack) -> None:
    running = Hub(state_dir=tmp_path / "state")
    async with hub_inside(running) as url:
        await attack(page, url, running)
        assert await page.evaluate(INJECTED) == 0
        for panel in ("agents", "tasks", "votes", "threats"):
            names = await page.evaluate(
                f"[...document.querySelectorAll('[data-panel={panel}] .name')].map((node) => node.textContent)"
            )
            assert set(PAYLOADS) <= set(names)
        assert page.troubles == []
        await page.leave()


@pytest.mark.parametrize(
    ("weaknesses", "attack", "trouble"),
    [
        pytest.param([no_autoescape], shown_by_server, "Content", id="no autoescape: the policy stops the script"),
        pytest.param([no_autoescape, no_policy], shown_by_server, "dialog: 1", id="no autoescape, no policy: it runs"),
        pytest.param([markup_in_script], shown_live, "TrustedHTML", id="innerHTML: trusted types stop it"),
        pytest.param([markup_in_script, no_policy], shown_live, "dialog: 1", id="innerHTML, no policy: it runs"),
    ],
)
async def test_markup_gets_as_far_as_the_protections_let_it(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weaknesses: list[Weaken], attack: Attack, trouble: str
) -> None:
    """Each protection is needed: with one off the other still holds, with both off the markup is a program."""
    for weaken in weaknesses:
        weaken(monkeypatch, tmp_path)
    running = Hub(state_dir=tmp_path / "state")
    async with hub_inside(running) as url:
        await page.open(url)
        if attack is shown_live:
            await page.until(LIVE)
        await hostile(running)
        if attack is shown_by_server:
            await page.open(url)
        await page.until_trouble(trouble)
        await page.leave()
    runs = [one for one in page.troubles if one.startswith("dialog")]
    assert bool(runs) is (no_policy in weaknesses)
    page.troubles.clear()


@pytest.mark.parametrize("weakness", [None, plain_objects])
async def test_no_key_of_an_event_reaches_a_prototype(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakness: Weaken | None
) -> None:
    if weakness:
        weakness(monkeypatch, tmp_path)
    evil = {"polluted": "yes"}
    ballots = {"__proto__": "approve", "constructor": "reject", "toString": "abstain"}
    running = Hub(state_dir=tmp_path / "state")
    async with hub_inside(running) as url:
        await page.open(url)
        await page.until("document.querySelector('#connection').dataset.state !== 'still'")
        details = {"__proto__": evil, "constructor": {"prototype": evil}}
        await running.publish("security:threat_detected", {"type": "t", "severity": "low", "details": details})
        await running.publish("task:progress", {"id": "__proto__", "__proto__": evil, "progress": 1})
        await running.publish("task:progress", {"id": "constructor", "progress": 2})
        await running.publish("governance:vote_cast", {"vote_id": "__proto__", "votes": ballots})
        if weakness:
            await page.until("({}).polluted === 'yes'")
        else:
            await page.until("document.querySelector('[data-panel=votes] .name')?.textContent === '__proto__'")
            assert await page.evaluate("({}).polluted === undefined && ''.polluted === undefined")
            assert await page.text("[data-panel=tasks] .name") == ["__proto__", "constructor"]
            assert await page.text("[data-panel=votes] .tally span") == ["approve 1", "reject 1", "abstain 1"]
            assert "polluted: yes" in (await page.text("[data-panel=threats] .row"))[0]
        await page.leave()
    if weakness:
        page.troubles.clear()  # the page cannot go on with such objects


async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(page: Page, tmp_path: Path) -> None:
    running = Hub(state_dir=tmp_path)
    async with hub_inside(running) as url:
        await hostile(running)
        await page.open(url)
        await page.until(LIVE)
        code = "[...document.querySelectorAll('*')].flatMap((node) => [...node.attributes].map(({ name }) => name))"
        names = set(await page.evaluate(code))
        assert not [name for name in names if re.match(r"on|style$|nonce$|srcdoc$", name)]
        assert await page.evaluate("[...document.scripts].map((node) => node.textContent)") == [""]
        assert await page.evaluate("document.querySelectorAll('style, iframe, object, base').length") == 0
        await page.leave()
