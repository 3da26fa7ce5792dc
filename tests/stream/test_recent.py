"""The last 15 minutes: what happened is counted in its minute, across restarts; what nobody knows is not made up."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import hub_process, until

from hub import Hub
from hub.errors import HubError
from hub.stream import recent
from hub.stream.events import Draft, Event
from hub.stream.recent import MINUTES, Minute, Recent
from hub.stream.window import Window
from hub.wire.names import Cursor

FAILED = ("task:progress", {"id": "build", "status": "failed"})
ERROR = ("agent:status_change", {"id": "ada", "status": "error"})
NO_FAILURES: list[tuple[str, Any]] = [
    ("task:progress", {"id": "build", "status": "running", "message": "failed"}),
    ("agent:status_change", {"id": "ada", "status": "idle", "reason": "error"}),
    ("governance:vote_cast", {"vote_id": "v", "status": "failed"}),
    ("build:done", {"status": "failed"}),
]


def event(seq: int, accepted: float, name: str = "a:x", data: Any = None) -> Event:
    return Event(
        Draft(name, str(seq), json.dumps(data).encode()), Cursor("e", seq), "2026-01-01T00:00:00.000Z", accepted
    )


def at(moment: float) -> Any:
    """The clock stands there."""
    return mock.patch.object(recent, "monotonic", return_value=moment)


def totals(counted: Recent) -> tuple[int, int, int]:
    """All events, all failures, and of how many minutes nobody knows."""
    known = [minute for minute in counted.minutes() if minute is not None]
    return sum(one.events for one in known), sum(one.failures for one in known), MINUTES - len(known)


def test_each_event_is_counted_in_its_minute() -> None:
    counted = Recent()
    with at(10_000.0):
        counted.apply([event(1, 9_995.0), event(2, 10_000.0)])
        counted.apply([event(3, 9_900.0, *FAILED), event(4, 9_995.0)])
        found = counted.minutes()
        assert found[-1] == Minute(3, 0)
        assert found[-2] == Minute(1, 1)
        assert found[:-2] == [Minute(0, 0)] * (MINUTES - 2)
    with at(10_000.0 + 60 * MINUTES):
        assert totals(counted) == (0, 0, 0)


@pytest.mark.parametrize(("name", "data"), NO_FAILURES)
def test_only_failed_tasks_and_agents_in_error_are_failures(name: str, data: Any) -> None:
    counted, now = Recent(), time.monotonic()
    counted.apply([event(1, now, name, data)])
    assert totals(counted) == (1, 0, 0)
    counted.apply([event(2, now, *FAILED), event(3, now, *ERROR)])
    assert totals(counted) == (3, 2, 0)


@given(st.lists(st.tuples(st.floats(-2000, 0), st.booleans()), max_size=60), st.floats(0, 1e6), st.data())
def test_nothing_is_counted_twice_or_left_out(times: list[tuple[float, bool]], now: float, data: Any) -> None:
    events = [
        event(seq, now + ago, *(FAILED if failed else ("a:x", None)))
        for seq, (ago, failed) in enumerate(sorted(times), 1)
    ]
    kept = data.draw(st.integers(0, len(events)))
    window, counted = Window(1000, 10**9), Recent()
    window.extend(events[:kept])
    with at(now):
        counted.begin(window, 1)
        start = kept
        while start < len(events):
            end = data.draw(st.integers(start + 1, len(events)))
            counted.apply(events[start:end])
            start = end
        first = (recent._slot(now) - MINUTES * recent.SLOTS + 1) * recent.SLOT
        shown = [one for one in events if one.accepted >= first]
        assert totals(counted) == (len(shown), sum(one.name == "task:progress" for one in shown), 0)


def test_what_it_holds_is_bounded() -> None:
    counted = Recent()
    for slot in range(5000):
        with at(slot * recent.SLOT):
            counted.apply([event(slot + 1, slot * recent.SLOT)])
    assert len(counted._counts) <= 2 * MINUTES * recent.SLOTS


def test_of_what_is_not_kept_any_more_nobody_knows() -> None:
    window, counted = Window(1000, 10**9), Recent()
    window.start_at(99)
    with at(10_000.0):
        window.extend([event(100, 9_750.0), event(101, 9_990.0)])
        counted.begin(window, 100)
        assert counted.minutes()[-5:] == [None, Minute(0, 0), Minute(0, 0), Minute(0, 0), Minute(1, 0)]
        assert totals(counted) == (1, 0, MINUTES - 4)


# ---- over the life of a hub


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(port=0, state_dir=tmp_path, window_events=5)
    await hub.start()
    yield hub
    await hub.stop()


async def publish(hub: Hub, count: int) -> None:
    for number in range(count):
        await hub.publish("a:x", number)
    await hub.publish(*FAILED)


async def test_it_is_there_after_a_restart_also_what_is_older_than_the_window(hub: Hub, tmp_path: Path) -> None:
    await publish(hub, 1200)
    assert totals(hub.recent) == (1201, 1, 0)
    await hub.stop()
    again = Hub(port=0, state_dir=tmp_path, window_events=5)
    await again.start()
    try:
        await until(lambda: totals(again.recent) == (1201, 1, 0))
        await publish(again, 3)
        assert totals(again.recent) == (1205, 2, 0)
    finally:
        await again.stop()


async def test_weakened_only_the_window_would_be_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*args: Any) -> None:
        pass

    await publish(hub, 30)
    await hub.stop()
    monkeypatch.setattr(Recent, "go_on", nothing)
    again = Hub(port=0, state_dir=tmp_path, window_events=5)
    await again.start()
    try:
        assert totals(again.recent)[2] == MINUTES, "it is not made up, at least"
    finally:
        await again.stop()


async def test_it_is_there_after_a_kill(tmp_path: Path) -> None:
    async with hub_process(tmp_path, status=-signal.SIGKILL) as process:
        for event in ("a:x", "a:x", FAILED[0]):
            body = {"event": event, "data": FAILED[1] if event == FAILED[0] else 1}
            async with process.http.post(process.url + "api/events", json=body) as answer:
                assert answer.status == 200
        process.signal(signal.SIGKILL)
        await process.ended()
    hub = Hub(port=0, state_dir=tmp_path / "state")
    await hub.start()
    try:
        assert totals(hub.recent) == (3, 1, 0), "at the first paint"
    finally:
        await hub.stop()


async def test_where_the_store_is_away_the_rest_is_not_known(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*args: Any) -> Any:
        raise HubError("broker_unavailable", "It is away.")

    await publish(hub, 30)
    counted = Recent()
    counted.begin(hub.window, hub.broker.tail)
    monkeypatch.setattr(hub.broker, "read", away)
    await counted.go_on(hub.broker, hub.window.tail)
    assert totals(counted)[2] == MINUTES
    monkeypatch.undo()
    await asyncio.wait_for(counted.go_on(hub.broker, hub.window.tail), 10)
    assert totals(counted) == (31, 1, 0)
