"""The made-up life: valid, lively, coherent and the same each time."""

from collections import Counter
from collections.abc import Coroutine
from itertools import islice
from typing import Any

import pytest

from hub.demo import TASK_LEASE, Step, life, play, setup
from hub.stream.events import EventTypes

STORY = list(islice(life(), 3000))


def test_every_step_passes_the_schemas() -> None:
    types = EventTypes()
    for step in STORY:
        types.check(step.event, step.data)


def test_it_is_the_same_for_the_same_seed() -> None:
    assert list(islice(life(), 3000)) == STORY
    assert list(islice(life(7), 3000)) != STORY


def test_it_has_all_that_the_page_shows_and_is_lively() -> None:
    seen = Counter(step.event for step in STORY)
    kinds = {"agent:status_change", "task:progress", "governance:vote_cast", "security:threat_detected"}
    assert set(seen) == {*kinds, "memory:stats_update"}
    assert min(seen.values()) > 50
    assert 2 < len(STORY) / sum(step.wait for step in STORY) < 6, "a few events a second"
    assert {step.data["status"] for step in STORY if step.event == "task:progress"} >= {
        "queued",
        "running",
        "waiting_approval",
        "succeeded",
        "failed",
    }


def test_a_task_only_moves_forward_and_ends_once() -> None:
    progress: dict[str, float] = {}
    ended: set[str] = set()
    for step in STORY:
        if step.event != "task:progress":
            continue
        task = step.data["id"]
        assert task not in ended
        assert step.data["progress"] >= progress.get(task, 0)
        progress[task] = step.data["progress"]
        if step.data["status"] in ("succeeded", "failed"):
            ended.add(task)
    assert len(ended) > 100


def test_no_running_task_turns_stale_in_it() -> None:
    now, renewed = 0.0, dict[str, float]()
    for step in STORY:
        now += step.wait
        if step.event == "task:progress":
            assert now - renewed.get(step.data["id"], now) < TASK_LEASE
            renewed[step.data["id"]] = now


class Enough(Exception):
    pass


class FakeHub:
    """Takes what a hub takes, up to a limit."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any, float | None]] = []
        self.background: list[Any] = []

    async def publish(self, event: str, data: Any, ttl: float | None = None) -> None:
        self.published.append((event, data, ttl))
        if len(self.published) == 20:
            raise Enough

    def spawn(self, background: Any) -> None:
        self.background.append(background)


async def test_it_is_published_step_by_step() -> None:
    hub: Any = FakeHub()
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.raises(Enough):
        await play(hub, sleep=sleep)
    assert hub.published == [(step.event, step.data, step.ttl) for step in STORY[:20]]
    assert slept == [step.wait for step in STORY[:20]]


def test_setup_leaves_it_to_the_hub_when_to_run_it() -> None:
    hub: Any = FakeHub()
    setup(hub)
    assert hub.published == []
    (background,) = hub.background
    running = background()
    assert isinstance(running, Coroutine)
    running.close()


def test_a_step_is_what_it_says() -> None:
    assert isinstance(STORY[0], Step)
    assert STORY[0].event == "agent:status_change"
    assert STORY[0].data["status"] == "starting"
