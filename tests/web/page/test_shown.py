"""One drawing for all viewers, once a second at most, and never an old one for whoever has missed something."""

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from running import hub_app

from hub.web.page import dashboard, shown
from hub.web.page.shown import Shown


class Drawing:
    """Counts how often it is drawn, and lasts until it is released."""

    def __init__(self) -> None:
        self.position = self.count = 0
        self.release = asyncio.Event()
        self.release.set()
        self.fails = False

    async def draw(self) -> str:
        self.count += 1
        found = f"{self.count} at {self.position}"
        await self.release.wait()
        if self.fails:
            raise ZeroDivisionError
        return found


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Drawing:
    """No pause between two, so that nothing depends on the clock."""
    monkeypatch.setattr(shown, "EVERY", 0.0)
    return Drawing()


async def test_all_who_wait_share_one(drawing: Drawing) -> None:
    page = Shown(drawing.draw, lambda: drawing.position)
    assert set(await asyncio.gather(*(page.get() for _ in range(50)))) == {"1 at 0"}


async def test_who_asks_while_it_is_drawn_gets_the_next(drawing: Drawing) -> None:
    """It may have happened after it was begun what he asks for."""
    page = Shown(drawing.draw, lambda: drawing.position)
    drawing.release.clear()
    first = asyncio.create_task(page.get())
    while not drawing.count:
        await asyncio.sleep(0)
    drawing.position = 1
    others = [asyncio.create_task(page.get()) for _ in range(9)]
    await asyncio.sleep(0)
    others.pop().cancel()  # takes nothing away from the others
    drawing.release.set()
    assert await first == "1 at 0"
    assert set(await asyncio.gather(*others)) == {"2 at 1"}


@pytest.mark.parametrize("moved", [False, True])
async def test_it_is_shown_again_while_nothing_happens(drawing: Drawing, moved: bool, monkeypatch: Any) -> None:
    page = Shown(drawing.draw, lambda: drawing.position)
    await page.get()
    monkeypatch.setattr(shown, "EVERY", 3600.0)
    drawing.position += moved
    again = asyncio.create_task(page.get())
    await asyncio.wait([again], timeout=0.1)
    assert again.done() is not moved  # else it waits until it may be drawn again
    again.cancel()


async def test_one_that_fails_is_drawn_again(drawing: Drawing) -> None:
    page = Shown(drawing.draw, lambda: drawing.position)
    drawing.fails = True
    with pytest.raises(ZeroDivisionError):
        await page.get()
    drawing.fails = False
    assert await page.get() == "2 at 0"


@pytest.mark.parametrize("weakened", [False, True])
async def test_many_viewers_of_a_busy_hub_cost_one_drawing(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = mock.Mock(wraps=dashboard.render)
    monkeypatch.setattr(dashboard, "render", draw)
    if weakened:
        monkeypatch.setattr(Shown, "get", lambda page: page._draw())
    async with hub_app(tmp_path) as hub:
        answers = await asyncio.gather(*(hub.get("") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert draw.call_count == (20 if weakened else 1)
        for number in range(2, 12):  # each address is another drawing, and only so many are kept
            answer = await hub.ask("GET", "", headers={"Host": f"127.0.0.{number}:{hub.port}"})
            assert f"curl -s http://127.0.0.{number}:{hub.port}/api" in answer.text
        assert len(hub.app[dashboard.SHOWN]) <= dashboard.ADDRESSES
