"""What is told of one task or agent: each event about it, once, from memory and from the store; and no other."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import Hub
from hub.errors import HubError
from hub.stream.events import Draft, Event
from hub.web.page import trails
from hub.web.page.trails import Trail, Trails, names
from hub.wire.names import Cursor

KEY = 'build "x" ä'
NOW = "2026-11-30T12:00:00.000Z"
ABOUT: list[tuple[str, Any]] = [
    ("task:progress", {"id": KEY}),
    ("task:log", {"id": KEY, "line": "x"}),
    ("agent:tool_call", {"agent": "ada", "tool": "sh", "phase": "started", "task": KEY}),
    ("hub:question", {"id": "q", "details": {"task": KEY}}),
    ("build:line", {"task": KEY}),
]
NOT_ABOUT: list[tuple[str, Any]] = [
    ("task:progress", {"id": "other", "message": KEY}),
    ("agent:status_change", {"id": KEY, "status": "idle"}),
    ("build:line", {"id": KEY}),
    ("build:line", KEY),
    ("build:line", [KEY]),
    ("build:line", {"details": KEY, "task": [KEY]}),
]


@pytest.mark.parametrize(("event", "data"), ABOUT)
def test_what_names_it_is_about_it(event: str, data: Any) -> None:
    assert names("task", KEY, event, data)


@pytest.mark.parametrize(("event", "data"), NOT_ABOUT)
def test_what_only_has_the_word_is_not(event: str, data: Any) -> None:
    assert not names("task", KEY, event, data)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(port=0, state_dir=tmp_path, window_events=50)
    await hub.start()
    yield hub
    await hub.stop()


async def publish(hub: Hub, count: int, every: int = 1) -> list[int]:
    """Publish so many events, each so many of them about it; return their numbers."""
    found = []
    for number in range(count):
        mine = number % every == 0
        published = await hub.publish("task:progress", {"id": KEY if mine else "other", "message": KEY})
        if mine:
            found.append(published.cursor.seq)
    return found


def numbers(events: Any) -> list[int]:
    return [event.seq for event in events]


async def test_all_about_it_is_found_page_after_page_once_and_in_order(hub: Hub) -> None:
    wanted = await publish(hub, 400, every=3)
    trail = Trail("task", KEY)
    await trail.catch_up(hub)
    assert numbers(trail.events) == [seq for seq in wanted if seq >= hub.window.tail]
    found, before = list[int](), hub.window.head + 1
    while before:
        page, before = await trail.before(hub, before, 20)
        assert len(page) <= 20
        found += numbers(page)
    assert found == wanted[::-1]


async def test_what_comes_while_one_looks_is_added(hub: Hub) -> None:
    trail, wanted = Trail("task", KEY), list[int]()
    for _ in range(5):
        wanted += await publish(hub, 30, every=7)
        await trail.catch_up(hub)
    assert numbers(trail.events) == wanted, "more than the window has by now"
    wanted += await publish(hub, 200, every=7)
    await trail.catch_up(hub)
    assert numbers(trail.events) == [seq for seq in wanted if seq >= hub.window.tail], "a hole is no trail"
    page, _ = await trail.before(hub, hub.window.head + 1, 500)
    assert numbers(page) == wanted[::-1]


@pytest.mark.parametrize("weakened", [False, True])
async def test_in_another_epoch_its_numbers_are_those_of_other_events(hub: Hub, weakened: bool) -> None:
    """Also where that has come as far as this had when somebody looks again."""
    await publish(hub, 3)
    trail = Trail("task", KEY)
    await trail.catch_up(hub)
    hub.window.start_at(1)
    if not weakened:
        hub.broker.epoch = "another"
    data = json.dumps({"id": KEY, "message": "new"}, ensure_ascii=False).encode()
    hub.window.extend(
        [Event(Draft("task:progress", f"{seq}", data), Cursor("another", seq), NOW, 0.0) for seq in (2, 3)]
    )
    await trail.catch_up(hub)
    assert [event.cursor.epoch for event in trail.events].count("another") == (0 if weakened else 2)
    assert len(trail.events) == (3 if weakened else 2)


async def test_each_event_is_looked_at_once_and_few_are_parsed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, parsed = list[int](), list[Any]()
    is_about = Trail.is_about

    def look(trail: Trail, event: Event) -> bool:
        looked.append(event.seq)
        return is_about(trail, event)

    def name(*args: Any) -> bool:
        parsed.append(args)
        return names(*args)

    monkeypatch.setattr(Trail, "is_about", look)
    monkeypatch.setattr(trails, "names", name)
    for count in range(40):
        await hub.publish("a:x", count)
    await publish(hub, 3)
    trail = Trail("task", KEY)
    for _ in range(3):
        await trail.catch_up(hub)
    assert looked == [*range(1, 44)]
    assert len(parsed) == 3


async def test_what_it_keeps_is_bounded_and_the_rest_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "EVENTS", 10)
    wanted = await publish(hub, 40)
    trail = Trail("task", KEY)
    await trail.catch_up(hub)
    assert len(trail.events) == 10
    page, before = await trail.before(hub, hub.window.head + 1, 100)
    assert (numbers(page), before) == (wanted[::-1], 0)
    monkeypatch.setattr(trails, "BYTES", 5 * trail.events[0].size)
    small = Trail("task", KEY)
    await small.catch_up(hub)
    assert numbers(small.events) == wanted[-5:]
    assert numbers((await small.before(hub, hub.window.head + 1, 100))[0]) == wanted[::-1]
    kept = Trails()
    first = kept.get("task", "0")
    for number in range(trails.TRAILS):
        kept.get("task", str(number))
        kept.get("task", "0")
    assert kept.get("task", "0") is first
    kept.get("agent", "0")
    assert len(kept._trails) == trails.TRAILS


async def test_looking_back_ends_after_a_while_and_says_where(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "PAGE", 10)
    monkeypatch.setattr(trails, "PAGES", 3)
    (first,) = await publish(hub, 1)
    for number in range(200):
        await hub.publish("a:x", number)
    trail = Trail("task", KEY)
    await trail.catch_up(hub)
    found, before, rounds = list[int](), hub.window.head + 1, 0
    while before:
        page, before = await trail.before(hub, before, 5)
        found += numbers(page)
        rounds += 1
    assert found == [first]
    assert rounds > 3


async def test_a_store_that_is_away_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*args: Any) -> Any:
        raise HubError("broker_unavailable", "It is away.")

    await publish(hub, 100)
    trail = Trail("task", KEY)
    await trail.catch_up(hub)
    monkeypatch.setattr(hub.broadcaster.pages, "read", away)
    with pytest.raises(HubError, match="away"):
        await trail.before(hub, hub.window.head + 1, 80)


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.just("k"),
        lambda inner: st.dictionaries(st.sampled_from(["id", "task", "agent", "details", "x"]), inner, max_size=3),
    )
)
def test_whatever_the_data_are_they_are_about_it_only_if_its_key_is_in_them(data: Any) -> None:
    for kind in ("task", "agent"):
        if names(kind, "k", f"{kind}:x", data):
            assert '"k"' in json.dumps(data)
