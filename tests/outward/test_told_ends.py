"""Each end of a task is told once: another one of the same task, too; and the page shows what the messages tell."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from outward.test_notify import config, titles
from receivers import receiver, write_config
from running import HubInside, hub_app, until
from sent import send
from web.page.test_working import shown, strip

from hub.outward import rules
from hub.stream.tasks import end_of

Step = Callable[[HubInside], Awaitable[Any]]
TASK = "task:progress"
LAST = {"id": "last", "status": "error"}


def ping(path: str) -> Step:
    return lambda hub: hub.ask("POST", f"ping/{path}", headers={"User-Agent": "curl"})


def ended(at: int, status: str = "failed", **more: Any) -> Step:
    data = {"id": "nightly", "name": "nightly", "status": status, "ended_at": f"2026-12-0{at}T03:00:00Z", **more}
    return lambda hub: hub.hub.publish(TASK, data)


def unit(run: str) -> Step:
    env = {"MONITOR_UNIT": "nightly", "MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_INVOCATION_ID": run}
    return lambda hub: hub.post("hooks/systemd", {"argv": ["nightly"], "env": env})


TWO: dict[str, tuple[Step, Step]] = {
    "ping": (ping("nightly/1"), ping("nightly/1")),
    "failed ping": (ping("nightly/fail"), ping("nightly/2")),
    "ping of another run": (ping("nightly/1?rid=a"), ping("nightly/1?rid=b")),
    "unit": (unit("a" * 32), unit("b" * 32)),
    "task": (ended(1), ended(2)),
    "task without an offset": (ended(1, ended_at="2026-12-01 03:00"), ended(1, ended_at="2026-12-02 03:00")),
    "task that first says no time": (ended(1, ended_at=None), ended(1)),
}
TIMELESS = (ended(1), ended(1, ended_at=None))
ONE: dict[str, tuple[Step, Step]] = {
    "ping of the same run": (ping("nightly/1?rid=a"), ping("nightly/1?rid=a")),
    "message": (ping("nightly/1"), ping("nightly/log")),
    "unit": (unit("a" * 32), unit("a" * 32)),
    "task": (ended(1), ended(1, message="cleaned up")),
    "moment written otherwise": (ended(1), ended(1, ended_at="2026-12-01T04:00:00.000+01:00")),
    "task that says no time again": TIMELESS,
}


async def told(tmp_path: Path, *steps: Step) -> list[str]:
    """What somebody is told when this happens."""
    async with receiver() as got:
        write_config(tmp_path, config(got.url))
        async with hub_app(tmp_path) as hub:
            for step in steps:
                await step(hub)
            await hub.hub.publish("agent:status_change", LAST)
            await until(lambda: "last is in error" in titles(got))
            return titles(got)[:-1]


@pytest.mark.parametrize("steps", TWO.values(), ids=TWO)
async def test_another_end_is_told(tmp_path: Path, steps: tuple[Step, Step]) -> None:
    assert await told(tmp_path, *steps) == ["nightly failed"] * 2


@pytest.mark.parametrize("steps", TWO.values(), ids=TWO)
async def test_weakened_it_would_not_be(
    tmp_path: Path, steps: tuple[Step, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "end_of", lambda data, *before: (end := end_of(data)) and (end[0], None))
    assert await told(tmp_path, *steps) == ["nightly failed"]


@pytest.mark.parametrize("steps", ONE.values(), ids=ONE)
async def test_the_same_end_is_told_once(tmp_path: Path, steps: tuple[Step, Step]) -> None:
    assert await told(tmp_path, *steps) == ["nightly failed"]


@pytest.mark.parametrize("steps", ONE.values(), ids=ONE)
async def test_weakened_it_would_be_told_again(
    tmp_path: Path, steps: tuple[Step, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(rules, "end_of", lambda data, *before: (end := end_of(data)) and (end[0], str(next(numbers))))
    assert await told(tmp_path, *steps) == ["nightly failed"] * 2


async def test_the_same_end_is_told_once_however_often_it_comes(tmp_path: Path) -> None:
    none = ended(1, ended_at=None)
    assert await told(tmp_path, ended(1), ended(1, ended_at="2026-12-01T03:00:00.000Z"), none, none, ended(1)) == [
        "nightly failed"
    ]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_run_that_ended_before_another_is_told_once_also_where_its_sender_repeats_it(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.adapters.ping._ended", lambda known: {})
    steps = [ping("nightly/fail?rid=a"), ping("nightly?rid=b"), ping("nightly/fail?rid=a"), ping("nightly/log")]
    assert await told(tmp_path, *steps) == ["nightly failed"] * (2 if weakened else 1)


@pytest.mark.parametrize(
    ("steps", "unseen"),
    [*((steps, 1) for steps in TWO.values()), *((steps, int(steps is TIMELESS)) for steps in ONE.values())],
    ids=[*(f"another {name}" for name in TWO), *(f"same {name}" for name in ONE)],
)
async def test_the_page_shows_anew_what_is_told_anew(tmp_path: Path, steps: tuple[Step, Step], unseen: int) -> None:
    """And what says no time, of which nobody can tell."""
    async with hub_app(tmp_path) as hub:
        await steps[0](hub)
        [task] = hub.hub.state.of(TASK)
        assert strip(await shown(hub), "failed") == 1
        assert (await send(hub, "seen", {"event": TASK, "key": task.key or ""})).status == 303
        assert strip(await shown(hub), "failed") == 0
        await steps[1](hub)
        assert strip(await shown(hub), "failed") == unseen


async def test_how_long_the_next_one_took_is_not_counted_from_the_one_before(tmp_path: Path) -> None:
    """Nothing was heard of it in between: nobody knows when it began."""
    known = [ended(at, "succeeded", started_at=f"2026-12-0{at}T02:00:00Z") for at in (1, 2)]
    assert await told(tmp_path / "known", *known) == ["nightly is done"] * 2
    assert await told(tmp_path / "unknown", *(ended(at, "succeeded") for at in (1, 2))) == []


@pytest.mark.parametrize("weakened", [False, True])
async def test_of_what_the_kernel_has_ended_nobody_is_told_that_it_does_not_come(
    tmp_path: Path, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(rules, "REASON", "")

    async def killed(hub: HubInside) -> None:
        data = {"id": "run:nightly", "name": "nightly", "status": "failed", "error": "process ended"}
        await hub.hub.publish(TASK, data, ttl=0.05)
        await until(lambda: hub.hub.state.is_stale(TASK, "run:nightly"))
        await until(lambda: hub.counted("hub_events_total", "other"), "that is published")

    assert await told(tmp_path, killed) == ["nightly failed", *["nightly did not come"] * weakened]
