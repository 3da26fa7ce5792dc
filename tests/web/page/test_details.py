"""The pages of one task and one agent: what is known of it, what happened, and the way back through its events."""

import asyncio
import re
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
    assert "Pull?“no” by eve" in questions
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


async def test_an_agent_that_only_others_name_is_said_to_be_one(hub: HubInside) -> None:
    """It has never said anything of itself: so nothing of it is missing either."""
    await hub.hub.publish(TASK, {"id": "t", "name": "Refactor", "agent": "ada", "status": "failed"})
    page = await shown(hub, agent="ada")
    assert "It has said nothing of itself: others name it." in section(page, "now")
    assert "any more" not in page.text
    assert "Refactor" in section(page, "tasks")


async def test_an_agent_whose_last_value_has_had_no_room_is_said_to_have_spoken(tmp_path: Path) -> None:
    async with hub_app(tmp_path, ephemeral=True, state_items=5) as hub:
        await hub.hub.publish(AGENT, {"id": "ada", "status": "idle"})
        for number in range(6):
            await hub.hub.publish(TASK, {"id": f"t{number}"})
        assert "What it said last is not kept any more." in section(await shown(hub, agent="ada"), "now")


@pytest.mark.parametrize(
    ("more", "took"),
    [
        ({"duration_ms": 28}, "28 ms"),
        ({"duration_ms": 362_000}, "6 min 2 s"),
        ({"started_at": "2026-12-01T10:00:00Z", "ended_at": "2026-12-01T10:00:07.5Z"}, "7 s"),
        ({"started_at": "2026-12-01T10:00:00Z", "ended_at": "2026-12-01T10:00:00.120Z"}, "120 ms"),
    ],
)
async def test_what_a_task_took_is_one_figure_wherever_it_stands(
    hub: HubInside, more: dict[str, Any], took: str
) -> None:
    await hub.hub.publish(TASK, {"id": "t", "agent": "ada"})
    await hub.hub.publish(TASK, {"id": "t", "agent": "ada", "status": "failed", **more})
    page = await shown(hub, task="t")
    assert f"took{took}" in section(page, "now")
    assert f"after {took}" in section(page, "attempts")
    assert f"took {took}" in section(await shown(hub, agent="ada"), "tasks")
    assert f"after {took}" in section(await shown(hub), "failed")
    assert f"took {took}" in section(await shown(hub, panel="working", filter="tasks"), "working")
    await hub.hub.publish(TASK, {"id": "t", "agent": "ada", "status": "running"})
    assert f"after {took}" in section(await shown(hub, task="t"), "attempts"), "the one before keeps its own"


async def test_a_turn_that_is_over_does_not_say_what_it_asked(hub: HubInside) -> None:
    data = {"id": "s/turn", "name": "Clean up", "agent": "s", "message": "Bash: rm -rf build"}
    for status in ("running", "waiting_approval", "running", "succeeded"):
        await hub.hub.publish(TASK, {**data, "status": status})
    for page in (await shown(hub, task="s/turn"), await shown(hub, panel="working", filter="done")):
        (main,) = [str(one["text"]) for one in page.all("main")]
        assert "rm -rf" not in main.partition("Events")[0]
    await hub.hub.publish(TASK, {**data, "status": "succeeded", "message": "31 passed"})
    assert "31 passed" in section(await shown(hub, task="s/turn"), "now")


BLANK = ("   ", "\u3164", "\u2800 ")


@pytest.mark.parametrize("blank", BLANK)
async def test_what_has_a_blank_for_a_name_is_seen_all_the_same(hub: HubInside, blank: str) -> None:
    """Each link and name on the page has something to be seen in it."""
    for status in ("running", "failed", "waiting_approval", "queued", "succeeded"):
        names = {"name": blank, "agent": blank, "message": blank, "error": blank}
        await hub.hub.publish(TASK, {"id": blank + status[0], "status": status, **names})
        await hub.hub.publish(TASK, {"id": status, "status": status, "name": blank})
    for status in ("active", "error", "idle"):
        await hub.hub.publish(AGENT, {"id": blank * (1 + len(status) % 3), "status": status, "task": blank})
    await hub.hub.publish(TASK, {"id": blank, "name": blank})
    await hub.hub.publish("governance:vote_cast", {"vote_id": blank, "topic": blank})
    await hub.hub.publish("security:threat_detected", {"type": blank, "severity": "high"})
    places: tuple[dict[str, str], ...] = (
        {},
        *({"panel": "working", "filter": filter} for filter in ("queued", "done", "agents", "tasks")),
        {"task": blank},
        {"agent": blank},
        {"search": "e"},
    )
    for place in places:
        answer = await hub.get("", **place)
        assert answer.status == 200, place
        page = Page(answer.text)
        for tag in ("a", "b", "h1", "h2", "title"):
            for one in page.all(tag):
                assert re.sub(r"[\s\u3164\u2800]", "", str(one["text"])), (place, one)


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
        assert "Nothing older is kept" not in page.text, "all of it stands there"


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
