"""Hostile event data in a real Chromium: it stays text, runs nothing and reaches no prototype.

Each attack also runs against weakened builds, where one protection is off and it must get further.
"""

import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside
from jinja2 import Environment

import hub.web.access.guard
import hub.web.page.frame
from hub import Hub

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
PAYLOADS = (
    "<img src=x onerror=alert(1)>",
    "</template></li><script>alert(2)</script>",
    "\" autofocus onfocus=alert(3) x='",
    "{{ 7 * 7 }}<svg onload=alert(4)>",
)
LAST = "document.querySelector('[data-task=last]')?.innerText.includes('the last')"
INJECTED = "document.querySelectorAll('main img, main svg:not(.sparkline), main script, [onfocus], [onerror]').length"

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
    prepare = hub.web.page.frame.prepare_environment

    def trusting(env: Environment) -> Environment:
        prepare(env)
        env.autoescape, env.bytecode_cache = False, None
        return env

    patch.setattr(hub.web.page.frame, "prepare_environment", trusting)


MARKUP_IN_SCRIPT = """{
    if (fresh.data.includes("<")) old.parentNode.innerHTML = fresh.data;
    else old.data = fresh.data;
  }"""


def markup_in_script(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """The page's script writes what it has fetched as markup."""
    rewrite(patch, folder, "static/morph.js", "old.data = fresh.data", MARKUP_IN_SCRIPT)


async def hostile(running: Hub, payloads: Sequence[str] = PAYLOADS) -> None:
    """Every panel gets markup wherever it takes a text; the last event is a plain one."""
    for number, payload in enumerate(payloads):
        by = {payload: number}
        vote = {"vote_id": payload, "topic": payload, "agent": payload, "option": "reject", "deadline": payload}
        task = {"name": payload, "message": payload, "error": payload, "agent": payload, "started_at": payload}
        for status in ("active", "error"):
            await running.publish("agent:status_change", {"id": status + payload, "status": status, "task": payload})
        for status in ("running", "failed", "waiting_approval"):
            await running.publish("task:progress", {"id": status + payload, "status": status, **task})
        await running.publish("governance:vote_cast", vote)
        await running.publish("security:threat_detected", {"type": payload, "severity": "low", "details": by})
        await running.publish("audit:new_event", {"action": payload, "actor": by, "hash": payload})
        await running.publish("memory:stats_update", {"total_entries": 1, "by_type": by, "by_partition": by})
        await running.publish("x:y", {payload: payload})
    await running.publish("task:progress", {"id": "last", "name": "the last"})


async def shown_live(page: Page, url: str, running: Hub) -> None:
    await page.open(url)
    await page.until(LIVE)
    await hostile(running)
    await page.until(LAST)


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
        for section in ("waiting", "failed", "working", "threats"):
            shown = " ".join(await page.text(f"[data-section={section}]"))
            assert all(payload in shown for payload in PAYLOADS), section
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
        if attack is shown_by_server:
            await hostile(running, PAYLOADS[:1])
            await page.open(url)
        else:
            await running.publish("task:progress", {"id": "last", "name": "the last"})
            await page.open(url)
            await page.until(LIVE)
            await page.until(LAST)
            await running.publish("task:progress", {"id": "last", "name": PAYLOADS[0]})
        await page.until_trouble(trouble)
        await page.leave()
    runs = [one for one in page.troubles if one.startswith("dialog")]
    assert bool(runs) is (no_policy in weaknesses)
    page.troubles.clear()


async def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(page: Page, tmp_path: Path) -> None:
    running = Hub(state_dir=tmp_path)
    async with hub_inside(running) as url:
        await hostile(running)
        await page.open(url)
        await page.until(LIVE)
        code = "[...document.querySelectorAll('*')].flatMap((node) => [...node.attributes].map(({ name }) => name))"
        names = set(await page.evaluate(code))
        assert not [name for name in names if re.match(r"on|style$|nonce$|srcdoc$", name)]
        assert await page.evaluate("[...document.scripts].every((node) => node.textContent === '')")
        assert await page.evaluate("document.querySelectorAll('style, iframe, object, base').length") == 0
        await page.leave()
