"""What a person must not miss stands where he looks, and is counted: jobs that did not come, alerts, failures."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from running import HubInside, hub_app, until
from sent import Page, send
from web.page.test_working import shown, strip

from hub.stream.state import State
from hub.web.page import dashboard, formats

TASK = "task:progress"
ALERT = "alert:status"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as hub:
        yield hub


def text(page: Page, panel: str) -> str:
    return " ".join(str(page.one("section", id=panel)["text"]).split())


async def overdue(hub: HubInside, name: str) -> None:
    await hub.hub.publish(TASK, {"id": name, "name": name, "status": "succeeded"}, ttl=0.01)
    await until(lambda: hub.hub.state.is_stale(TASK, name))


async def test_a_job_that_did_not_come_is_failed_until_it_is_seen_or_comes(hub: HubInside) -> None:
    await overdue(hub, "backup")
    page = await shown(hub)
    assert strip(page, "failed") == 1
    assert "backup · did not come" in text(page, "failed")
    assert page.all("section", id="working") == [], "it stands in one place"
    assert (await send(hub, "seen", {"event": TASK, "key": "backup"})).status == 303
    assert strip(await shown(hub), "failed") == 0
    await overdue(hub, "backup")
    assert strip(await shown(hub), "failed") == 1, "the next one that does not come is another"
    await hub.hub.publish(TASK, {"id": "backup", "status": "succeeded"}, ttl=600)
    page = await shown(hub)
    assert strip(page, "failed") == 0
    assert "1 done" in text(page, "working")


async def order_behind_a_restart(folder: Path) -> list[str]:
    """The failed ones as they stand when the hub has begun anew: `old` did not come before `new` failed."""
    async with hub_app(folder) as hub:
        await overdue(hub, "old")
        await hub.hub.publish(TASK, {"id": "new", "status": "failed"})
        await hub.hub.publish("x:y", "what was last")
    async with hub_app(folder) as hub:
        return failed(await shown(hub))


def failed(page: Page) -> list[str]:
    return [str(one["data-task"]) for one in page.all("li") if str(one.get("id", "")).startswith("task-")]


async def test_what_did_not_come_stays_in_its_place_behind_a_restart(tmp_path: Path) -> None:
    assert await order_behind_a_restart(tmp_path / "own") == ["new", "old"]


async def test_weakened_it_jumps_to_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "changed_at", lambda state, name, key: state.position)  # that of the start
    assert await order_behind_a_restart(tmp_path / "own") == ["old", "new"]


async def late(hub: HubInside) -> int:
    """How many are left when all were marked that had been drawn before one more did not come, which ended long ago."""
    await hub.hub.publish(TASK, {"id": "cron", "status": "succeeded"}, ttl=0.3)
    for name in ("one", "two"):
        await hub.hub.publish(TASK, {"id": name, "status": "failed"})
    page = await shown(hub)
    until_then = next(str(one["value"]) for one in page.all("input", name="until"))
    await until(lambda: hub.hub.state.is_stale(TASK, "cron"))
    assert (await send(hub, "seen", {"panel": "failed", "until": until_then})).status == 303
    return strip(await shown(hub), "failed")


async def test_who_marks_all_has_not_seen_what_did_not_come_since(hub: HubInside) -> None:
    assert await late(hub) == 1


async def test_what_shows_that_is_no_dead_test(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    from hub.web.page import rows

    monkeypatch.setattr(rows.Task, "noticed", property(lambda row: row.seq))
    assert await late(hub) == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_press_on_one_row_marks_what_was_drawn(
    hub: HubInside, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.web.page.marks.was_drawn", lambda row, until: True)
    await hub.hub.publish(TASK, {"id": "a", "status": "failed"})
    page = await shown(hub)
    form = {str(one["name"]): str(one["value"]) for one in page.all("input", type="hidden") if one["name"] != "panel"}
    assert form.keys() == {"event", "key", "drawn"}
    for status in ("running", "failed"):  # meanwhile
        await hub.hub.publish(TASK, {"id": "a", "status": status})
    assert (await send(hub, "seen", form)).status == 303
    assert strip(await shown(hub), "failed") == (0 if weakened else 1)
    if weakened:
        return
    page = await shown(hub)
    form = {str(one["name"]): str(one["value"]) for one in page.all("input", type="hidden") if one["name"] != "panel"}
    assert (await send(hub, "seen", form)).status == 303
    assert strip(await shown(hub), "failed") == 0
    assert (await send(hub, "seen", form | {"drawn": "x"})).status == 400


async def test_what_is_stale_is_counted_beside_what_works(hub: HubInside) -> None:
    await hub.hub.publish(TASK, {"id": "well", "status": "running"})
    await hub.hub.publish(TASK, {"id": "lost", "status": "running"}, ttl=0.01)
    await until(lambda: hub.hub.state.is_stale(TASK, "lost"))
    assert strip(await shown(hub), "working, 1 stale") == 1


def firing(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": "firing", "title": name, "source": "grafana", **more}


async def test_alerts_that_fire_stand_with_the_threats_until_they_are_over(hub: HubInside) -> None:
    await hub.hub.publish(ALERT, firing("HighLoad", severity="warning", description="load is 42"))
    await hub.hub.publish(ALERT, firing("DiskFull", severity="critical", started_at="2026-01-01T00:00:00Z"))
    page = await shown(hub)
    assert strip(page, "alerts firing") == 2
    said = text(page, "threats")
    assert said.startswith("Alerts 2 open")
    assert said.index("▲ critical DiskFull") < said.index("warning HighLoad from grafana · load is 42 · firing for")
    await hub.hub.publish("security:threat_detected", {"type": "inject", "severity": "high"})
    page = await shown(hub)
    assert strip(page, "threats and alerts") == 3
    assert "Threats and alerts 3 open" in text(page, "threats")
    assert (await send(hub, "seen", {"event": ALERT, "key": "HighLoad"})).status == 303
    assert strip(await shown(hub), "threats and alerts") == 2
    assert "seen" in text(await shown(hub, panel="threats", filter="all"), "threats")
    await hub.hub.publish(ALERT, {"id": "DiskFull", "status": "resolved"})
    page = await shown(hub)
    assert strip(page, "threat open") == 1
    assert "DiskFull" not in text(page, "threats")


async def test_alerts_are_found(hub: HubInside) -> None:
    await hub.hub.publish(ALERT, firing("DiskFull", description="91 % of /var"))
    page = await shown(hub, search="diskf")
    assert "DiskFull firing · 91 % of /var" in " ".join(page.text.split())
    assert "./?panel=threats&filter=all" in [one["href"] for one in page.all("a")]


async def test_failures_beside_failed_are_those_of_the_sparkline(hub: HubInside) -> None:
    for status in ("failed", "running", "failed", "succeeded"):
        await hub.hub.publish(TASK, {"id": "again", "status": status})
    await hub.hub.publish(TASK, {"id": "t", "status": "failed"})
    page = await shown(hub)
    assert "Failed 1 not yet seen, 3 failures in 15 min" in text(page, "failed")
    assert "failures 3" in text(page, "recent")


async def test_clients_are_one_number(hub: HubInside) -> None:
    page = await shown(hub)
    assert "0 clients" in page.text
    assert "clients" not in text(page, "hub")


async def test_what_is_over_says_when_it_ended(hub: HubInside) -> None:
    times = {"started_at": "2026-01-01T10:00:00Z", "ended_at": "2026-01-01T10:03:27Z"}
    await hub.hub.publish(TASK, {"id": "t", "status": "succeeded", **times})
    page = await shown(hub, task="t")
    said = text(page, "attempts")
    assert "after 3 min 27 s" in said
    assert times["ended_at"] in [one["datetime"] for one in page.all("time")]
    assert times["started_at"] not in [one["datetime"] for one in page.all("time")]


BROWSER = {"Accept": "text/html,*/*"}


@pytest.mark.parametrize("place", ["", "?panel=failed", "?agent=ada"])
async def test_without_script_ages_are_those_of_the_request(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    await hub.hub.publish(TASK, {"id": "t", "agent": "ada", "status": "failed"})
    first = await hub.ask("GET", place, headers=BROWSER)
    assert ">0 s ago<" in first.text or ">1 s ago<" in first.text
    moved = 24.0
    now = time.time
    monkeypatch.setattr(formats, "time", SimpleNamespace(**{**vars(time), "time": lambda: now() + moved}))
    again = await hub.ask("GET", place, headers=BROWSER)
    assert ">24 s ago<" in again.text or ">25 s ago<" in again.text
    assert ">0 s ago<" not in again.text
    if "ETag" in first.headers:  # and none is told that what he has is right still
        monkeypatch.setattr(dashboard, "time", SimpleNamespace(time=lambda: now() + moved))
        kept = await hub.ask("GET", place, headers={**BROWSER, "If-None-Match": first.headers["ETag"]})
        assert kept.status == 200


async def test_what_the_script_fetches_has_the_ages_of_its_drawing(hub: HubInside) -> None:
    await hub.hub.publish(TASK, {"id": "t", "status": "failed"})
    first = await hub.ask("GET", "?panel=failed&viewer=nobody", headers=BROWSER)
    again = await hub.ask(
        "GET", "?panel=failed&viewer=nobody", headers={**BROWSER, "If-None-Match": first.headers["ETag"]}
    )
    assert again.status == 304, "it counts by itself"


async def test_whose_run_it_is_and_what_went_wrong_is_said_once(hub: HubInside) -> None:
    await hub.hub.publish(TASK, {"id": "github:ada/shop/7", "name": "CI", "status": "failed", "error": "failure"})
    await hub.hub.publish(
        TASK, {"id": "ping:x", "name": "x", "status": "failed", "error": "failed", "message": "Trace"}
    )
    said = text(await shown(hub), "failed")
    assert "CI in shop · failure" in said
    assert "x · Trace" in said
    assert "ada/shop" in [one["text"] for one in (await shown(hub, task="github:ada/shop/7")).all("dd")]
    await hub.hub.publish(
        TASK, {"id": "k", "name": "make", "status": "failed", "error": "process ended", "message": "step 1"}
    )
    assert "make · process ended · at “step 1”" in text(await shown(hub), "failed")
    lost = {"name": "make", "status": "failed", "error": "process ended", "message": "step 1"}
    await hub.hub.publish(TASK, {"id": "run:make", **lost})
    await hub.hub.publish(TASK, {"id": "run:other", **lost, "name": "other", "agent": "ada"})
    said = text(await shown(hub), "failed")
    assert "make · hub run was killed; what it ran may still run · at “step 1”" in said
    assert "other · process ended · at “step 1”" in said, "its agent has"
    page = await shown(hub, task="run:make")
    assert page.one("dd", class_="bad")["text"] == "hub run was killed; what it ran may still run"
    assert "✕ failed hub run was killed; what it ran may still run" in text(page, "attempts")
    assert "✕ failed Trace" in text(await shown(hub, task="ping:x"), "attempts")


async def test_an_event_of_an_alert_says_its_title(hub: HubInside) -> None:
    await hub.hub.publish(ALERT, {**firing("DiskFull"), "id": "c0ffee"})
    said = text(await shown(hub), "events")
    assert "alert:status DiskFull firing" in said
    assert "c0ffee" not in said.partition("{")[0]


async def test_what_is_found_reads_as_a_sentence(hub: HubInside) -> None:
    page = await shown(hub, search="hub:ask")
    assert "`" not in str(page.one("ul", data_found="Commands")["text"])
