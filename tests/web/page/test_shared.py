"""One drawing for all who look at the same, within a budget, and never an old one for whoever was told of news."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from running import hub_app

from hub.web.page import details, shared
from hub.web.page.shared import Shared


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
    monkeypatch.setattr(shared, "LEAST", 0.0)
    monkeypatch.setattr(shared, "REST", 0.0)
    return Drawing()


async def test_all_who_wait_share_one(drawing: Drawing) -> None:
    page = Shared(drawing.draw, lambda: drawing.position)
    assert set(await asyncio.gather(*(page.get() for _ in range(50)))) == {"1 at 0"}
    assert await page.get() == "1 at 0", "nothing has happened"


async def test_who_asks_while_it_is_drawn_gets_the_next(drawing: Drawing) -> None:
    """What he asks for may have happened after it was begun."""
    page = Shared(drawing.draw, lambda: drawing.position)
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


async def test_it_rests_between_two(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "LEAST", 3600.0)
    page = Shared(drawing.draw, lambda: drawing.position)
    await page.get()
    drawing.position = 1
    again = asyncio.create_task(page.get())
    await asyncio.wait([again], timeout=0.1)
    assert (again.done(), drawing.count) == (False, 1)
    again.cancel()


async def test_one_that_fails_is_drawn_again(drawing: Drawing) -> None:
    page = Shared(drawing.draw, lambda: drawing.position)
    drawing.fails = True
    with pytest.raises(ZeroDivisionError):
        await page.get()
    drawing.fails = False
    assert await page.get() == "2 at 0"


@pytest.mark.parametrize("weakened", [False, True])
async def test_many_who_look_at_one_task_cost_one_drawing(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Any]()
    known = details._known

    def counted(*args: Any) -> Any:
        drawn.append(args)
        return known(*args)

    monkeypatch.setattr(details, "_known", counted)
    if weakened:
        monkeypatch.setattr(Shared, "get", lambda page: page._draw())
    async with hub_app(tmp_path) as hub:
        await hub.hub.publish("task:progress", {"id": "t", "name": "Build"})
        answers = await asyncio.gather(*(hub.get("", task="t") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert len(drawn) == (20 if weakened else 1)
        for number in range(details.PAGES + 5):
            await hub.get("", task=str(number))
        assert len(hub.app[details.DETAILS]._pages) == details.PAGES
