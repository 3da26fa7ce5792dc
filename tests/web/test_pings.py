"""/ping/{name}: a job's sign of life, as curl in a cron line sends it; and never a browser."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, until
from samples import EXPECTED, is_within, sample

from hub.web import pings


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as running:
        yield running


async def ping(hub: HubInside, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> Any:
    """Send one; returns the task as it is then."""
    curl = {"User-Agent": "curl/8.5", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = await hub.ask(method, f"ping/{path}", data=body or None, headers=curl)
    assert (answer.status, answer.text) == (200, "" if method == "HEAD" else "OK"), answer.text
    found = hub.hub.state.get("task:progress", "ping:" + path.partition("/")[0].partition("?")[0])
    assert found is not None
    return found.data


async def test_the_samples_of_healthchecks(hub: HubInside) -> None:
    for given, want in zip(sample("healthchecks-pings"), EXPECTED["healthchecks-pings"], strict=True):
        path = given["path"].removeprefix("/ping/")
        task = await ping(hub, path, given.get("body", "").encode(), given["method"])
        assert is_within(want["data"], task), (want, task)


async def test_an_exit_status_is_how_it_has_ended(hub: HubInside) -> None:
    for what, status, error in (
        ("", "succeeded", None),
        ("/0", "succeeded", None),
        ("/fail", "failed", "failed"),
        ("/1", "failed", "exit status 1"),
        ("/255", "failed", "exit status 255"),
    ):
        task = await ping(hub, f"job{what}", method="GET")
        assert (task["status"], task.get("error")) == (status, error)


async def test_a_run_has_its_beginning_and_its_end(hub: HubInside) -> None:
    one, two = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"
    begun = (await ping(hub, f"job/start?rid={one}"))["started_at"]
    await ping(hub, f"job/start?rid={two}")
    assert (await ping(hub, f"job/log?rid={two}", b"half"))["runs"] == {one: begun}
    still = await ping(hub, f"job?rid={one}")
    assert (still["status"], still["rid"], "runs" in still) == ("running", two, False), "the other one"
    page = await hub.get("api/events", topics="task:progress", limit="1000")
    ended = page.json["events"][-2]["payload"]["data"]
    assert (ended["started_at"], ended["status"], ended["rid"]) == (begun, "succeeded", one)
    assert ended["duration_ms"] >= 0
    last = await ping(hub, f"job/3?rid={two}")
    assert (last["status"], last["duration_ms"] >= 0, "runs" in last) == ("failed", True, False)
    assert "duration_ms" not in await ping(hub, f"job?rid={two}")
    await ping(hub, "job/start")
    assert "duration_ms" in await ping(hub, "job")


async def test_a_run_that_never_ends_hides_no_later_one(hub: HubInside) -> None:
    begun = (await ping(hub, "job/start?rid=killed"))["started_at"]
    await ping(hub, "job/start?rid=next")
    ended = await ping(hub, "job?rid=next")
    assert (ended["status"], ended["runs"]) == ("succeeded", {"killed": begun})
    await ping(hub, "job/start?rid=third")
    ended = await ping(hub, "job?rid=killed")
    assert (ended["status"], ended["rid"]) == ("running", "third")
    for number in range(20):
        last = await ping(hub, f"job/start?rid={number}")
    assert len(last["runs"]) == 15
    ended = await ping(hub, "job/1?rid=18")
    assert (ended["status"], ended["error"]) == ("failed", "exit status 1"), "a failure is not hidden by one that runs"


async def test_what_is_known_of_ended_runs_is_bounded_and_no_more_than_a_repetition(hub: HubInside) -> None:
    for number in range(20):
        last = await ping(hub, f"job/1?rid={number}")
    assert last["ended"] == {str(number): "failed" for number in range(12, 20)}
    assert (await ping(hub, "job/2?rid=15"))["rid"] == "19", "said again"
    assert (await ping(hub, "job?rid=15"))["rid"] == "15", "it says something else"
    await ping(hub, "job/start?rid=16")
    assert (await ping(hub, "job/1?rid=16"))["rid"] == "16", "it has begun anew"
    assert (await ping(hub, "job/1?rid=1"))["rid"] == "1", "it is forgotten"
    assert list((await ping(hub, "job/log?rid=1"))["ended"])[-3:] == ["15", "16", "1"]


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_start_keeps_the_lease(hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    """Else a job that hangs would run for ever, and nobody would hear of it."""
    if weakened:
        monkeypatch.setattr(pings, "_left", lambda known, is_stale: None)
    await ping(hub, "job/0?ttl=1")
    await ping(hub, "job/start")
    await ping(hub, "other?ttl=1")
    await until(lambda: hub.hub.state.is_stale("task:progress", "ping:other"))
    assert hub.hub.state.is_stale("task:progress", "ping:job") is not weakened
    if not weakened:
        await ping(hub, "job/start")
        found = hub.hub.state.get("task:progress", "ping:job")
        assert found is not None
        assert found.ttl is not None
        assert 0.5 < found.ttl <= 1, "it has come, late: its lease begins anew"
        await ping(hub, "job")
        assert not hub.hub.state.is_stale("task:progress", "ping:job"), "it has ended in time"
        found = hub.hub.state.get("task:progress", "ping:job")
        assert found is not None
        assert found.ttl is None


async def test_a_message_changes_nothing_else(hub: HubInside) -> None:
    assert "status" not in await ping(hub, "job/log", b"hello")
    await ping(hub, "job/start")
    task = await ping(hub, "job/log", b"half done\n")
    assert (task["status"], task["message"]) == ("running", "half done")
    await ping(hub, "job/7", b"no space left")
    task = await ping(hub, "job/log", b"cleaned up")
    assert (task["status"], task["error"], task["message"]) == ("failed", "exit status 7", "cleaned up")


async def test_the_end_of_what_it_has_said_counts(hub: HubInside) -> None:
    task = await ping(hub, "job/1", b"x" * 500_000 + "ü".encode() * 1500 + b"the end\xff\n")
    assert task["message"].endswith("üthe end")
    assert len(task["message"].encode()) <= 2048


@pytest.mark.parametrize(
    "path", ["a b", "a%20b", "a" * 65, "job/256", "job/-1", "job/begin", "job/1/2", "job/01234", ""]
)
async def test_what_is_no_ping(hub: HubInside, path: str) -> None:
    assert (await hub.ask("POST", f"ping/{path}", headers={"User-Agent": "curl"})).status == 404
    assert (await hub.get("api/events")).json["events"] == []


@pytest.mark.parametrize("ttl", ["0", "0.5", "31536001", "soon", "nan", "-1", ""])
async def test_a_lease_that_is_none(hub: HubInside, ttl: str) -> None:
    (await hub.ask("POST", f"ping/job?ttl={ttl}", headers={"User-Agent": "curl"})).refused(400, "invalid_args")


async def test_a_job_that_does_not_come(hub: HubInside) -> None:
    await ping(hub, "job?ttl=1")
    await ping(hub, "job/log", b"a message does not renew it")
    await ping(hub, "other?ttl=31536000")
    await until(lambda: [item["stale"] for item in hub.hub.snapshot()["items"]] == [False, True], "stale")
    page = await hub.get("api/events", topics="hub:stale")
    assert [event["payload"]["data"]["key"] for event in page.json["events"]] == ["ping:job"]


BROWSERS: list[dict[str, str]] = [
    {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"},
    {"Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-User": "?1"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
]


@pytest.mark.parametrize("headers", BROWSERS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_a_browser_is_refused(hub: HubInside, headers: dict[str, str], method: str) -> None:
    answer = await hub.ask(method, "ping/job", headers={"User-Agent": "curl/8", **headers})
    assert answer.status == 403
    assert (await hub.get("api/events")).json["events"] == []
    assert sum(hub.counted("hub_connections_refused_total").values()) == 1


async def test_what_no_browser_says_may_be_there(hub: HubInside) -> None:
    await ping(hub, "job", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="same-origin")
    await ping(hub, "job", Sec_Fetch_Site="none")


async def test_weakened_a_picture_reports_a_job_as_done(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "_refuse_browsers", lambda request: None)
    await ping(hub, "job", method="GET", User_Agent="Mozilla/5.0", Sec_Fetch_Dest="image")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
@pytest.mark.parametrize(("program", "status"), [("true", "succeeded"), ("exit 3", "failed")])
async def test_the_line_of_cron(hub: HubInside, program: str, status: str) -> None:
    """As it stands in the README."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (line,) = [line for line in readme.splitlines() if "ping/backup" in line]
    command = line.split("*  ")[1].replace("restic backup /home", f"({program})").replace("localhost:3141/", hub.url)
    shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", command)
    assert await shell.wait() == 0
    task = hub.hub.state.get("task:progress", "ping:backup")
    assert task is not None
    assert (task.data["status"], task.ttl) == (status, 93600)
