"""However many look and however much happens, a panel is drawn once; nobody is shown less than he asks for."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader

from hub import Hub, Panel
from hub.commands.clients import Client
from hub.web.page import board as boards
from hub.web.page import frame, shown, slices
from hub.web.page.board import Board
from hub.web.page.frame import compile_all
from hub.web.page.panel import Asked
from hub.web.page.panels import panels
from hub.web.page.shown import Shown
from hub.web.page.slices import Slices
from hub.web.viewers import Viewers


class Drawn:
    """A panel that counts its drawings, over a hub in memory."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.count, self.more = hub, 0, ""
        self.viewers = Viewers()
        self.panel = Panel("one", "One", ("a:*",), self.context)
        env = Environment(
            loader=DictLoader(
                {
                    "panels/one.html": "{{ seen }}{{ more }}",
                    "section.html": "{{ body }}",
                    "rows/x.html": "<li>{{ row.key }}{{ count() }}</li>",
                }
            )
        )
        self.rows = 0
        env.globals["count"] = self.counted
        self.shown = Shown(hub, env, Board(hub), self.viewers)
        hub.on_moved.append(self.shown.moved)

    def counted(self) -> str:
        self.rows += 1
        return ""

    def context(self, hub: Hub) -> dict[str, Any]:
        self.count += 1
        return {"seen": hub.cursor.seq, "more": self.more}

    async def get(self, *, live: bool = False) -> str:
        (variant,) = await self.shown.get([(self.panel, Asked())], live=live)
        return str(variant.html)


@pytest.fixture
async def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Drawn]:
    monkeypatch.setattr(shown, "minute", lambda: 1)
    hub = Hub(state_dir=tmp_path, ephemeral=True)
    await hub.start()
    yield Drawn(hub)
    await hub.stop()


async def test_all_who_come_get_one_drawing(drawn: Drawn) -> None:
    assert set(await asyncio.gather(*(drawn.get() for _ in range(50)))) == {"0"}
    assert drawn.count == 1
    await drawn.get()
    assert drawn.count == 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_who_comes_behind_an_event_is_shown_it(
    drawn: Drawn, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(Shown, "_look", lambda shown: None)
    await drawn.get()
    await drawn.hub.publish("a:x", {})
    assert await drawn.get() == ("0" if weakened else "1")
    await drawn.hub.publish("other:x", {})
    assert await drawn.get() == ("0" if weakened else "1"), "that is no event of the panel's own"


async def test_ages_are_those_of_the_minute_and_that_is_no_news(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    await drawn.get()
    (before,) = await drawn.shown.get([(drawn.panel, Asked())])
    version = before.version
    drawn.more = " a minute later"
    monkeypatch.setattr(shown, "minute", lambda: 2)
    assert await drawn.get(live=True) == "0", "a viewer counts on by itself"
    assert await drawn.get() == "0 a minute later"
    assert before.version == version
    await drawn.hub.publish("a:x", {})
    await drawn.get()
    assert before.version != version


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_ends_by_the_clock_is_drawn_again_then_and_is_news(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """At the full minute, too, with which only ages change."""
    clock = 1000.0
    ends: Any = 1060.0

    def context(hub: Hub) -> dict[str, Any]:
        return {"seen": "open" if clock < 1060 else "over", **({} if weakened else {"ends": ends})}

    panel = Panel("one", "One", ("a:*",), context)
    monkeypatch.setattr(shown, "time", SimpleNamespace(time=lambda: clock, monotonic=lambda: 0.0))
    monkeypatch.setattr(shown, "minute", lambda: clock // 60)

    async def live() -> tuple[str, str]:
        drawn.shown._next = 0.0
        (variant,) = await drawn.shown.get([(panel, Asked())])
        await drawn.shown._draw_stale([variant], live=True, patience=None)
        return str(variant.html), variant.version

    html, version = await live()
    clock = 1061.0
    after, newer = await live()
    assert (html, after) == ("open", "over")
    assert (newer != version) is not weakened
    clock = 1062.0
    ends = 1060.0
    assert await live() == (after, newer)
    (variant,) = await drawn.shown.get([(panel, Asked())])
    assert variant.ends == math.inf, "what lies behind does not come again"
    for ends in ("2030-01-01", None):  # noqa: B007 the panel gives it
        await drawn.hub.publish("a:x", {})
        await live()
        assert variant.ends == math.inf, "an application's word for something else"


async def test_a_version_changes_with_what_is_drawn(drawn: Drawn) -> None:
    (variant,) = await drawn.shown.get([(drawn.panel, Asked())])
    versions = [variant.version]
    for _ in range(2):
        await drawn.hub.publish("a:x", {})
        await drawn.get()
        versions.append(variant.version)
    assert len(set(versions)) == 3
    other = Drawn(drawn.hub)
    (again,) = await other.shown.get([(other.panel, Asked())])
    assert again.version not in versions, "what another run has drawn is not what this one has"


@pytest.mark.parametrize("weakened", [False, True])
async def test_drawing_takes_a_twentieth_of_the_loop(
    drawn: Drawn, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in rests, not in seconds: the next round is begun REST times as long behind one as that took."""
    monkeypatch.setattr(shown, "REST", 0 if weakened else 20)
    monkeypatch.setattr(shown, "LEAST", 0.0)
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(shown, "time", SimpleTime(lambda: 0.0))
    monkeypatch.setattr("hub.web.page.slices.time", SimpleTime(lambda: float(next(clock))))
    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await drawn.get()
    monkeypatch.undo()
    assert (drawn.shown._next > 30) is not weakened


class SimpleTime:
    """A clock by which each look takes two seconds; the other is at rest."""

    def __init__(self, perf_counter: Any) -> None:
        self.perf_counter = perf_counter

    def monotonic(self) -> float:
        return 0.0

    def time(self) -> float:
        return 0.0


async def test_only_so_many_variants_are_kept(drawn: Drawn) -> None:
    panel = Panel("one", "One", (), lambda hub, asked: {"seen": asked.page}, links=True)
    for page in range(1, 100):
        (variant,) = await drawn.shown.get([(panel, Asked(page))], live=True)
        drawn.shown._next = 0.0
        assert variant.html == str(page)
    assert len(drawn.shown._variants) == shown.VARIANTS


async def test_a_row_is_drawn_once_until_it_changes(drawn: Drawn) -> None:
    class Row:
        key, mark = "a", 1

    for _ in range(3):
        assert drawn.shown.row("x", Row) == "<li>a</li>"
    assert drawn.rows == 1
    Row.mark = 2
    drawn.shown.row("x", Row)
    assert drawn.rows == 2
    for number in range(2 * shown.ROWS):
        Row.mark = number
        drawn.shown.row("x", Row)
    assert len(drawn.shown._rows) <= shown.ROWS


# ---- those who are told


@pytest.fixture
async def told(drawn: Drawn) -> AsyncIterator[list[bytes]]:
    """What a viewer of the panel is told."""
    frames = list[bytes]()
    task = asyncio.create_task(drawn.shown.run(lambda: [(drawn.panel, Asked())]))
    drawn.viewers.join(Client("websocket", "me", id="viewer"), frames.append)
    yield frames
    task.cancel()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_viewer_is_told_once_until_it_has_fetched(drawn: Drawn, told: list[bytes]) -> None:
    await until(lambda: told)
    count = drawn.count
    for _ in range(5):
        await drawn.hub.publish("a:x", {})
        await asyncio.sleep(0.01)
    assert len(told) == 1
    assert drawn.count == count, "nobody is drawn for who has not fetched yet"
    drawn.viewers.fetched("viewer", {})
    await until(lambda: len(told) == 2)
    assert drawn.count == count + 1


@pytest.mark.parametrize("weakened", [False, True])
async def test_what_is_not_newer_is_no_news(
    drawn: Drawn, told: list[bytes], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.web.viewers.BEAT", 0.0)
    await until(lambda: told)
    drawn.viewers.fetched("viewer", {})
    for _ in range(3):
        await drawn.hub.publish("other:x", {})
        await asyncio.sleep(0.05)
    assert (len(told) > 1) is weakened
    drawn.viewers.fetched("viewer", {})
    await drawn.hub.publish("a:x", {})
    await until(lambda: len(told) > 1)


async def test_a_viewer_gets_what_is_drawn_and_is_told_of_what_is_newer(drawn: Drawn, told: list[bytes]) -> None:
    await until(lambda: told)
    drawn.shown._next = float("inf")  # not to be drawn for a long time
    await drawn.hub.publish("a:x", {})
    assert await drawn.get(live=True) == "0"


async def test_a_panel_that_takes_long_to_prepare_holds_up_no_other(drawn: Drawn) -> None:
    release = asyncio.Event()

    async def slow(hub: Hub) -> dict[str, Any]:
        await release.wait()
        return {"more": " prepared"}

    panel = Panel("slow", "Slow", ("a:*",), lambda hub: {"seen": "slow"}, slow)
    template = DictLoader({"panels/slow.html": "{{ seen }}{{ more }}"})
    drawn.shown.env.loader = ChoiceLoader([template, *filter(None, [drawn.shown.env.loader])])
    looks = [(drawn.panel, Asked()), (panel, Asked())]
    frames = list[bytes]()
    task = asyncio.create_task(drawn.shown.run(lambda: looks))
    drawn.viewers.join(Client("websocket", "me", id="viewer"), frames.append)
    await until(lambda: frames)
    assert b'"one"' in frames[0]
    assert b'"slow"' not in frames[0]
    drawn.viewers.fetched("viewer", {})
    release.set()
    await until(lambda: len(frames) == 2)
    assert b'"slow"' in frames[1]
    task.cancel()


async def test_who_has_gone_is_told_nothing(drawn: Drawn, told: list[bytes]) -> None:
    await until(lambda: told)
    drawn.viewers.fetched("viewer", {})
    drawn.viewers.leave(Client("websocket", "me", id="viewer"))
    drawn.viewers.fetched("viewer", {})
    drawn.viewers.fetched("nobody", {})
    assert len(drawn.viewers) == 0
    await drawn.hub.publish("a:x", {})
    await asyncio.sleep(0.05)
    assert len(told) == 1


async def test_what_cannot_be_compiled_beforehand_ends_nothing() -> None:
    """As when there are no descriptors just now, or a template is none: whoever draws it hears of it."""

    class Bare(DictLoader):
        def get_source(self, environment: Environment, template: str) -> Any:
            tried.append(template)
            raise OSError(24, "Too many open files")

    tried: list[str] = []
    await compile_all(Environment(loader=Bare({"a.html": "", "b.html": ""}), autoescape=True))
    assert tried == ["a.html", "b.html"]


async def longest_step(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most rows that are drawn, and values that are taken in, between two turns of the others."""
    env = frame.prepare_environment(Environment(loader=FileSystemLoader(frame.folder()), autoescape=True))
    env.globals["places"] = {}
    board = boards.Board(hub)
    page = Shown(hub, env, board, Viewers())
    steps, most, take, row = 0, 0, boards.TAKES["task:progress"], page.row

    def counted(*args: Any) -> None:
        nonlocal steps
        steps += 1
        take(*args)

    def draw(template: str, one: Any) -> Any:
        nonlocal steps
        steps += (template, one.key, one.mark, shown.minute()) not in page._rows
        return row(template, one)

    monkeypatch.setattr(slices, "SLICE", 0.0)
    monkeypatch.setattr(boards, "TAKES", {**boards.TAKES, "task:progress": counted})
    monkeypatch.setattr(page, "row", draw)
    env.globals["row"] = draw
    for number in range(60):
        await hub.publish("task:progress", {"id": str(number), "agent": f"a{number}", "status": "running"})
    (working,) = (panel for panel in panels(board) if panel.name == "working")
    work = asyncio.ensure_future(page.get([(working, Asked())]))
    while not work.done():
        await asyncio.sleep(0)
        steps, most = 0, max(most, steps)
    assert "data-task" in (await work)[0].html
    return most


async def test_the_longest_step_of_a_draw_is_one_row_or_one_value(
    drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await longest_step(drawn.hub, monkeypatch) == 1


async def test_weakened_a_draw_holds_the_loop_to_its_end(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_turn(slices: Slices) -> None: ...

    monkeypatch.setattr(Slices, "turn", no_turn)
    assert await longest_step(drawn.hub, monkeypatch) >= 60
