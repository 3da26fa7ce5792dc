"""The README's two pictures of the page, light and dark: of the demo as it runs, with all that it promises in sight.

PICTURES=docs python -m pytest tests/browser/test_pictures.py     takes them anew
"""

import os
import time
from itertools import islice
from pathlib import Path

import pytest
from browser.cdp import Page
from browser.hubs import hub_inside

from hub import Hub, demo
from hub.scenes import SILENT
from hub.story import Story
from hub.stream.events import Draft, Event
from hub.wire.names import Cursor
from hub.wire.strictjson import dumpb

LIVE = "document.querySelector('#connection').dataset.state === 'live'"
WIDTH, HEIGHT = 1280, 820
LARGEST = 300_000  # bytes of a picture
SEEN = f"""
    (selector) => [...document.querySelectorAll(selector)].filter((node) => {{
        const box = node.getBoundingClientRect();
        return node.checkVisibility() && box.top >= 0 && box.bottom <= {HEIGHT} && box.right <= {WIDTH};
    }}).length
"""


def look_back(hub: Hub) -> None:
    """The quarter of an hour before, as the demo would have been counted in it."""
    at = time.monotonic()
    for step in islice(Story().steps(), 30, 1200):
        at -= step.wait
        hub.recent.apply([Event(Draft(step.event, "x", dumpb(step.data)), Cursor("e", 1), "", at)])


async def in_sight(page: Page, selector: str) -> int:
    count: int = await page.evaluate(f"({SEEN})({selector!r})")
    return count


@pytest.mark.parametrize("look", ["light", "dark"])
async def test_the_readme_shows_the_demo(page: Page, tmp_path: Path, look: str) -> None:
    hub = Hub(port=0, state_dir=tmp_path, demo=True)
    demo.setup(hub)
    async with hub_inside(hub) as url:
        look_back(hub)
        await page.viewport(WIDTH, HEIGHT)
        await page.send("Emulation.setScrollbarsHidden", hidden=True)
        if look == "dark":
            await page.dark()
        await page.open(url)
        await page.until(LIVE)
        await page.until(f"document.querySelector('.stale[data-agent={SILENT}]')", 30)
        await page.until("document.querySelectorAll('[data-section=working] [data-agent]').length >= 4", 30)
        assert await in_sight(page, "[data-question] button") >= 2
        assert await in_sight(page, "[data-vote] button") == 3
        assert await in_sight(page, "[data-section=failed] [data-task]") >= 1
        assert await in_sight(page, "[data-section=working] .row") >= 4
        assert await in_sight(page, "[data-threat]") >= 1
        assert await in_sight(page, ".sparkline") == 2
        folder = Path(os.environ.get("PICTURES", tmp_path))
        picture = folder / f"page-{look}.png"
        await page.picture(picture)
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20]) == WIDTH
        assert len(data) < LARGEST
        await page.leave()
