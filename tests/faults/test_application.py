"""The application's code in every place where the hub calls it, going wrong in every way: it ends itself only."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from logs import everything
from running import HubInside, hub_app, talk, until

from hub import Hub
from hub.audit.verdict import INTACT
from hub.audit.verify import verify
from hub.commands import supervised
from hub.errors import UsageError
from hub.stats import snapshot
from hub.stream.events import Draft, Event
from hub.web.page import drawing
from hub.web.page.panel import Panel
from hub.wire.names import Cursor

GATE: asyncio.Event  # until it is set, what swallows its cancellation goes on
ASKED: asyncio.Event  # it was asked to end


async def exception() -> NoReturn:
    raise RuntimeError("mine")


async def cancelled() -> None:
    """The usual way to end a task of one's own: what comes out is the cancellation of something else."""
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def leaves() -> NoReturn:
    raise SystemExit(3)


async def interrupted() -> NoReturn:
    raise KeyboardInterrupt


async def closed() -> NoReturn:
    """As a generator that its user has closed."""
    raise GeneratorExit


class Odd(BaseException):
    pass


async def odd() -> NoReturn:
    raise Odd


async def hangs() -> None:
    await asyncio.Event().wait()


async def swallows() -> None:
    while not GATE.is_set():
        try:
            await GATE.wait()
        except asyncio.CancelledError:
            ASKED.set()


WAYS = [exception, cancelled, leaves, interrupted, closed, odd, hangs, swallows]
Way = Callable[[], Awaitable[None]]
IN_PLACE: dict[Way, BaseException] = {
    exception: RuntimeError("mine"),
    cancelled: asyncio.CancelledError(),
    leaves: SystemExit(3),
    interrupted: KeyboardInterrupt(),
    closed: GeneratorExit(),
    odd: Odd(),
}
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@pytest.fixture(autouse=True)
async def _quickly(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Everything gets little time; what was given up ends with the test."""
    global GATE, ASKED
    GATE, ASKED = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(supervised, "GRACE", 0.3)
    monkeypatch.setattr("hub.hub.GRACE", 0.3)
    monkeypatch.setattr("hub.hub.ON_START", 0.3)
    monkeypatch.setattr("hub.hub.ON_STOP", 0.3)
    monkeypatch.setattr("hub.hub.LISTENERS", 0.3)
    monkeypatch.setattr(drawing, "PREPARE_SECONDS", 0.3)
    yield
    GATE.set()
    await until(lambda: not supervised._given_up)


async def is_all_undone(state_dir: Path) -> None:
    """No thread, no lock, no file is left of a hub, and its log is whole to the last word."""
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("hub-")] == []
    assert verify(state_dir).status == INTACT
    assert everything(state_dir)[-1]["action"] == "hub.stopped"
    again = Hub(port=0, state_dir=state_dir)
    await again.start()
    assert again.problems() == {}
    await again.stop()


async def is_well(inside: HubInside) -> None:
    """A client gets its answers and its events, and the page is there."""
    async with talk(inside.url) as client:
        assert (await client.call("hub:ping"))["pong"] is True
        await inside.hub.publish("a:well", 1)
        assert await client.name() == "a:well"
    assert (await inside.get("")).status == 200
    assert (await inside.get("readyz")).status == 200


@every_way
async def test_a_handler(way: Way, tmp_path: Path) -> None:
    def prepare(hub: Hub) -> None:
        @hub.command("a:b")
        async def handler(call: Any) -> None:
            await way()

    async with hub_app(tmp_path, prepare=prepare, call_timeout=0.5) as inside:
        async with talk(inside.url) as client:
            await client.fails("a:b", "timeout" if way in (hangs, swallows) else "internal")
            assert (await client.call("hub:ping"))["pong"] is True
        (finished,) = await inside.recorded("command.finished") and [
            record for record in await inside.records("command.finished") if record["details"]["command"] == "a:b"
        ]
        assert finished["details"]["outcome"] == ("timeout" if way in (hangs, swallows) else "internal")
        await is_well(inside)
    await is_all_undone(tmp_path)


@every_way
async def test_a_listener_of_events_goes_on_with_the_next(way: Way, tmp_path: Path) -> None:
    heard: list[Any] = []
    others: list[Any] = []

    def prepare(hub: Hub) -> None:
        hub.bus.listeners._limit = 0.3

        @hub.on("a:x")
        async def listener(event: Event) -> None:
            heard.append(event.data)
            if event.data != 2:
                await way()

        hub.on("a:x")(lambda event: others.append(event.data))

    async with hub_app(tmp_path, prepare=prepare) as inside:
        for number in range(3):
            await inside.hub.publish("a:x", number)
        await until(lambda: others == [0, 1, 2])
        if way is swallows:
            await ASKED.wait()
            assert heard == [0]  # a listener never hears two events side by side
            GATE.set()
        await until(lambda: heard == [0, 1, 2], "that it goes on")
        await until(lambda: inside.counted("hub_failures_total", "listener") == (1 if way is swallows else 2))
        await is_well(inside)
    await is_all_undone(tmp_path)


@every_way
async def test_background_work(way: Way, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    def prepare(hub: Hub) -> None:
        async def background() -> None:
            begun.set()
            await way()

        hub.spawn(background)

    async with hub_app(tmp_path, prepare=prepare) as inside:
        await begun.wait()
        if way not in (hangs, swallows):
            await until(lambda: inside.counted("hub_failures_total", "background") == 1)
            assert "background work of the application ended" in caplog.text
        await is_well(inside)
    assert ("nobody waits for it" in caplog.text) is (way is swallows)
    await is_all_undone(tmp_path)


@every_way
async def test_a_listener_of_on_stop(way: Way, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    async def last(hub: Hub) -> None:
        told.append(1)

    async def first(hub: Hub) -> None:
        await way()

    hub = Hub(port=0, state_dir=tmp_path)
    hub.on_stop.extend([first, last])
    await hub.start()
    await hub.stop()
    assert told == [1]  # the others are told all the same
    assert "a listener of on_stop" in caplog.text
    assert snapshot(hub.metrics.registry)["hub_failures_total"] == {"on_stop": 1}
    await is_all_undone(tmp_path)


@every_way
async def test_a_listener_of_on_start_that_fails_undoes_the_start(way: Way, tmp_path: Path) -> None:
    order: list[str] = []
    running = asyncio.Event()

    async def background() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            order.append("background work ended")

    async def first(hub: Hub) -> None:
        await running.wait()
        await way()

    async def last(hub: Hub) -> None:
        order.append("told of the stop")

    hub = Hub(port=0, state_dir=tmp_path)
    hub.spawn(background)
    hub.on_start.append(first)
    hub.on_stop.append(last)
    error, why = (UsageError, "on_start took longer") if way in (hangs, swallows) else (RuntimeError, None)
    before = asyncio.all_tasks()
    with pytest.raises(error, match=why):
        await hub.start()
    assert order == ["told of the stop", "background work ended"]  # the last step first
    assert asyncio.all_tasks() - before <= supervised._given_up
    await is_all_undone(tmp_path)


@every_way
async def test_the_preparing_of_a_panel(way: Way, tmp_path: Path) -> None:
    async def prepared(hub: Hub) -> NoReturn:
        await way()
        raise RuntimeError("mine")

    panel = Panel("own", "Own", (), lambda hub: {}, prepared)
    async with hub_app(tmp_path, prepare=lambda hub: hub.panels.append(panel)) as inside:
        await is_well(inside)
    await is_all_undone(tmp_path)


@pytest.mark.parametrize("way", IN_PLACE, ids=lambda way: way.__name__)
async def test_the_drawing_of_a_panel(way: Way, tmp_path: Path) -> None:
    """It is called in place, and can only raise."""
    raised = IN_PLACE[way]

    def context(hub: Hub) -> Any:
        raise raised

    def prepare(hub: Hub) -> None:
        hub.panels.append(Panel("own", "Own", (), context))

    async with hub_app(tmp_path, prepare=prepare) as inside:
        await is_well(inside)
    await is_all_undone(tmp_path)


async def test_weakened_without_containing_the_stop_ends_at_the_first_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trusting(what: str, limit: float, function: Any, *args: Any) -> bool:
        await function(*args)
        return True

    monkeypatch.setattr("hub.hub.contained", trusting)
    told: list[int] = []

    async def first(hub: Hub) -> None:
        await cancelled()

    async def last(hub: Hub) -> None:
        told.append(1)

    hub = Hub(port=0, state_dir=tmp_path)
    hub.on_stop.extend([first, last])
    await hub.start()
    await hub.stop()
    assert told == []
    await is_all_undone(tmp_path)  # each step by itself: the log is closed even so


@pytest.mark.parametrize("weakened", [False, True])
def test_python_that_clears_away_what_nobody_runs_is_not_held_up(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An event loop was left in the middle: Python closes what waits there, and that is no error of anybody's."""
    if weakened:
        for module in ("hub.background", "hub.life", "hub.stream.listeners"):
            monkeypatch.setattr(f"{module}.is_closing", lambda error, task: False)
    loop = asyncio.new_event_loop()

    async def begin() -> list[Any]:
        hub = Hub(port=0, state_dir=tmp_path)
        hub.bus.on("a:x", lambda event: hangs())
        hub._life.at_end("a step", hangs)
        event = Event(Draft("a:x", "1", b"1"), Cursor("e", 1), "2026-01-01T00:00:00.000Z", 0.0)
        await hub.bus.listeners.offer([event])
        hub._background.start([])
        hub._background.add(hangs)
        hub._life._ending = loop.create_task(hub._life._undo())
        await asyncio.sleep(0)
        return [*hub.bus.listeners._tasks, *hub._background._tasks, hub._life._ending]

    for task in loop.run_until_complete(begin()):
        task._log_destroy_pending = False
        task.get_coro().close()
    loop.close()
    assert [record.levelname for record in caplog.records] == (["ERROR"] * 3 if weakened else [])
