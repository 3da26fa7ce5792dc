"""The pages of one task and one agent: what is known of it, what happened, and the way back through its events."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, until
from sent import Page

from hub.commands.asked import Person
from hub.errors import HubError

TASK, AGENT = "task:progress", "agent:status_change"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as inside:
        yield inside


async def shown(hub: HubInside, status: int = 200, **asked: str) -> Page:
    answer = await hub.get("", **asked)
    assert answer.status == status
    return Page(answer.text)


def section(page: Page, name: str) -> str:
    return " ".join(str(page.one("section", aria_labelledby=f"h-{name}")["text"]).split())


def events(page: Page) -> list[str]:
    """The numbers of the events that are shown."""
    return [str(one["data-event"]) for one in page.all("li") if one.get("data-event")]


def has(page: Page, name: str) -> bool:
    return bool(page.all("section", aria_labelledby=f"h-{name}"))


async def test_a_task_shows_how_it_stands_and_what_happened(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": "ada", "status": "active"})
    for data in (
        {"status": "running", "progress": 10},
        {"status": "failed", "progress": 71, "error": "expected 200, got 503"},
        {"status": "running", "progress": 20},
        {"status": "succeeded", "progress": 100, "duration_ms": 61_000},
    ):
        await hub.hub.publish(TASK, {"id": "t", "name": "Run the tests", "agent": "ada", **data})
    await hub.hub.publish(TASK, {"id": "other", "name": "t"})
    page = await shown(hub, task="t")
    assert "Run the tests" in section(page, "now")
    assert "succeeded" in section(page, "now")
    assert page.all("a", href="./?agent=ada")
    attempts = section(page, "attempts")
    assert attempts.index("succeeded") < attempts.index("failed expected 200, got 503"), "the newest first"
    assert "at 71 %" in attempts
    assert len(events(page)) == 4
    assert has(page, "questions") is has(page, "calls") is False


async def test_an_agent_shows_its_tasks_questions_and_calls(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": "ada", "status": "active", "task": "Refactor", "host": "tower"})
    await hub.hub.publish(TASK, {"id": "mine", "name": "Refactor", "agent": "ada", "progress": 40})
    await hub.hub.publish(TASK, {"id": "others", "name": "Not mine", "agent": "bob"})
    call = {"agent": "ada", "tool": "shell"}
    await hub.hub.publish("agent:tool_call", {**call, "phase": "started"})
    await hub.hub.publish("agent:tool_call", {**call, "phase": "finished", "duration_ms": 1500})
    await hub.hub.publish("agent:tool_call", {**call, "phase": "failed", "duration_ms": 500})
    await hub.hub.publish("agent:tool_call", {"agent": "ada", "tool": "web", "phase": "denied"})
    asking = [
        asyncio.ensure_future(hub.hub.ask(text, ["yes", "no"], details={"agent": "ada"})) for text in ("Push?", "Pull?")
    ]
    await until(lambda: len([*hub.hub.questions.records()]) == 2)
    ids = {record["question"]: record["id"] for record in hub.hub.questions.records()}
    await hub.hub.questions.answer(ids["Pull?"], "no", Person("eve"))
    page = await shown(hub, agent="ada")
    assert "tower" in section(page, "now")
    assert "Refactor" in section(page, "tasks")
    assert "Not mine" not in section(page, "tasks")
    assert page.all("a", href="./?task=mine")
    assert "shell2 calls, 1 failed, 1 s each" in section(page, "calls")
    assert "web1 call, 1 denied" in section(page, "calls")
    questions = section(page, "questions")
    assert "Pull? “no” by eve" in questions
    assert [one["value"] for one in page.all("button", name="answer")] == ["yes", "no"]
    assert page.one("input", name="question")["value"] == ids["Push?"]
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)


async def test_what_nobody_knows_is_said(hub: HubInside) -> None:
    for kind in ("task", "agent"):
        page = await shown(hub, 404, **{kind: "nobody"})
        assert f"Nothing is known of this {kind}." in page.text
    (await hub.get("?task=a&odd=1")).refused(400, "invalid_args")
    (await hub.get("?task=a&before=x")).refused(400, "invalid_args")


async def test_what_is_stale_is_said(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": "ada", "status": "active"}, ttl=0.01)
    await until(lambda: hub.hub.snapshot()["items"][0]["stale"])
    assert "stale" in section(await shown(hub, agent="ada"), "now")


async def test_links_lead_back_through_all_of_its_events(tmp_path: Path) -> None:
    async with hub_app(tmp_path, window_events=100) as hub:
        wanted = []
        for number in range(300):
            mine = number % 2 == 0
            published = await hub.hub.publish(TASK, {"id": "t" if mine else "other", "message": f"number {number}"})
            if mine:
                wanted.append(str(published.cursor.seq))
        found, before = list[str](), str(hub.hub.cursor.seq + 1)
        for _ in range(100):
            page = await shown(hub, task="t", before=before)
            found += events(page)
            further = [str(link["href"]) for link in page.all("a", rel="next")]
            if not further:
                break
            before = further[0].rpartition("before=")[2]
        assert found == wanted[::-1]
        assert "Nothing older is kept." in page.text


async def test_a_store_that_is_away_is_said_and_the_rest_shown(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*args: Any) -> Any:
        raise HubError("broker_unavailable", "The disk is full.")

    await hub.hub.publish(TASK, {"id": "t", "name": "Here"})
    monkeypatch.setattr("hub.web.page.trails.Trail.before", away)
    page = await shown(hub, task="t")
    assert "The disk is full." in section(page, "events")
    assert "Here" in section(page, "now")


HOSTILE = "<script>alert(1)</script>\"'&"


async def test_what_others_have_written_is_only_shown(hub: HubInside) -> None:
    texts = dict.fromkeys(("name", "message", "error", "agent"), HOSTILE)
    await hub.hub.publish(TASK, {"id": HOSTILE, **texts})
    await hub.hub.publish(AGENT, {"id": HOSTILE, "status": "error", "reason": HOSTILE, "task": HOSTILE})
    call = {"agent": HOSTILE, "tool": HOSTILE, "phase": "failed", "task": HOSTILE, "error": HOSTILE}
    await hub.hub.publish("agent:tool_call", call)
    asking = asyncio.ensure_future(hub.hub.ask(HOSTILE, [HOSTILE], details={"agent": HOSTILE, "task": HOSTILE}))
    await until(lambda: [*hub.hub.questions.records()])
    for kind in ("task", "agent"):
        answer = await hub.get("", **{kind: HOSTILE})
        assert "<script>alert" not in answer.text
        assert HOSTILE in Page(answer.text).text
    asking.cancel()
    await asyncio.wait({asking})
