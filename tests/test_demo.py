"""The demo on a real hub: there is always a question, its answer changes the story, in every mode and over restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from doors import bearer
from running import HubInside, hub_app, until

from hub import Hub, demo
from hub.commands.asked import NOBODY, Person
from hub.errors import HubError
from hub.roles import Step
from hub.scenes import scene
from hub.story import Story
from hub.wire.timestamps import stamp


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same life, a hundred times as fast."""
    play = demo.play

    async def hurried(hub: Hub, story: Story) -> None:
        await play(hub, story, lambda seconds: asyncio.sleep(seconds / 100))

    monkeypatch.setattr(demo, "play", hurried)
    monkeypatch.setattr(demo, "RETRY", 0.01)


@asynccontextmanager
async def living(path: Path, **settings: Any) -> AsyncIterator[HubInside]:
    async with hub_app(path, prepare=demo.setup, **settings) as hub:
        await until(lambda: question(hub) is not None)
        yield hub


def question(hub: HubInside) -> Any:
    """The one question that is open."""
    found = [*hub.hub.questions.records()]
    assert len(found) <= 1
    return found[0] if found else None


def task(hub: HubInside, number: int) -> Any:
    event = hub.hub.state.get("task:progress", f"decision-{number}")
    return event.data["status"] if event else None


async def test_an_answer_changes_the_story_and_the_next_question_is_there_at_once(tmp_path: Path) -> None:
    async with living(tmp_path) as hub:
        await answered(hub, 0, 0, "succeeded")
        await answered(hub, 1, -1, "cancelled")


async def answered(hub: HubInside, number: int, option: int, wanted: str) -> None:
    """Answer the question with this number, and wait for what comes of it."""
    await until(lambda: task(hub, number) == "queued")
    asked = question(hub)
    assert asked["question"] == scene(number).question
    assert await hub.hub.questions.answer(asked["id"], asked["options"][option], Person("somebody"))
    await until(lambda: question(hub) and question(hub)["id"] != asked["id"])
    await until(lambda: task(hub, number) == wanted)


async def test_where_nobody_answers_the_default_is_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 1.0)
    async with living(tmp_path, ephemeral=True) as hub:
        first = question(hub)["id"]
        await until(lambda: question(hub) and question(hub)["id"] != first)
        await until(lambda: task(hub, 0) == "cancelled")


async def test_a_question_that_was_withdrawn_is_followed_by_another(tmp_path: Path) -> None:
    async with living(tmp_path, ephemeral=True) as hub:
        first = question(hub)["id"]
        await hub.hub.questions.settling.settle(hub.hub.questions._open[first], "withdrawn", NOBODY)
        await until(lambda: question(hub) and question(hub)["id"] != first)


async def test_a_question_outlives_a_restart_and_what_was_open_is_ended(tmp_path: Path) -> None:
    async with living(tmp_path) as hub:
        first = question(hub)["id"]
        await until(lambda: hub.hub.cursor.seq > 200)
    async with living(tmp_path) as hub:
        assert question(hub)["id"] == first
        await until(lambda: task(hub, 0) == "queued")
        left = [event.data for event in hub.hub.state.of("task:progress")]
        assert any(one.get("message") == "the demo began anew" for one in left)
        votes = [event.data for event in hub.hub.state.of("governance:vote_cast")]
        await until(lambda: sum(vote["status"] == "open" for vote in votes) <= 2)
        assert await hub.hub.questions.answer(first, "Wait", Person("somebody"))
        await until(lambda: question(hub) and question(hub)["id"] != first)


async def test_it_lives_in_token_mode_too_and_who_only_looks_on_cannot_answer(tmp_path: Path) -> None:
    async with living(tmp_path, auth="token") as hub:
        asked = question(hub)
        args = {"question": asked["id"], "answer": "Deploy"}
        headers = {"Content-Type": "application/json"}
        (await hub.post("api/commands/hub:answer", args, {**headers, **bearer(hub, "OBSERVER")})).refused(
            403, "forbidden"
        )
        answer = await hub.post("api/commands/hub:answer", args, {**headers, **bearer(hub)})
        assert answer.json == {"accepted": True}
        await until(lambda: task(hub, 0) == "succeeded")


async def test_a_persons_vote_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str, str]] = []
    monkeypatch.setattr(Story, "voted", lambda story, *said: heard.append(said))
    async with living(tmp_path, ephemeral=True) as hub:
        await hub.hub.publish("governance:vote_cast", {"vote_id": "vote-1", "agent": "me", "option": "reject"})
        await hub.hub.publish("governance:vote_cast", {"vote_id": "vote-1", "status": "open"})
        await until(lambda: ("vote-1", "me", "reject") in heard)


async def test_without_a_store_it_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with living(tmp_path, ephemeral=True) as hub:
        ask, failed = hub.hub.ask, list[int]()

        async def away(*args: Any, **more: Any) -> Any:
            if len(failed) < 3:
                failed.append(1)
                raise HubError("broker_unavailable", "It is away.")
            return await ask(*args, **more)

        monkeypatch.setattr(hub.hub, "ask", away)
        await hub.hub.questions.answer(question(hub)["id"], "Wait", Person("somebody"))
        await until(lambda: question(hub) is not None and len(failed) == 3)


def test_what_a_task_takes_is_what_the_clock_says() -> None:
    """From when it began to run to its end; a task in whose middle the life begins has run for a while."""
    begun: dict[str, float] = {}

    def said(now: float, status: str, age: float = 0.0) -> tuple[Any, ...]:
        data = demo.timed(Step(0.1, "task:progress", {"id": "t", "status": status}, age=age), begun, 1e9 + now)
        return data.get("started_at"), data.get("ended_at"), data.get("duration_ms")

    assert said(0, "queued") == (None, None, None)
    assert said(1, "cancelled") == (None, None, None), "it has never run"
    assert said(2, "running", age=60.0) == (stamp(1e9 - 58), None, None)
    assert said(5, "running", age=60.0) == (stamp(1e9 - 58), None, None)
    assert said(7, "failed") == (stamp(1e9 - 58), stamp(1e9 + 7), 65_000)
    assert said(9, "running") == (stamp(1e9 + 9), None, None), "it is tried again"
    assert said(9.5, "succeeded")[2] == 500
    assert begun == {}
    vote = {"vote_id": "v", "status": "open"}
    assert demo.timed(Step(0.1, "governance:vote_cast", vote), begun, 1e9) == vote


def test_of_other_questions_it_goes_on_with_none() -> None:
    ours = {"agent": "deployer", "task": "decision-4"}
    others: list[Any] = [None, "x", {"agent": "deployer"}, {"agent": "ada", "task": "decision-9"}, {"demo": 1}]
    told = [{"status": "open", "details": details} for details in others]
    assert demo._next(told) == 0
    assert demo._next([*told, {"status": "answered", "details": ours}]) == 5
    assert demo._next([*told, {"status": "open", "details": ours}]) == 4
