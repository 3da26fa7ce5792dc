"""What the page knows of the stream is what the hub's state and events say, however it has come to know it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import Hub
from hub.web.page import board as boards
from hub.web.page import slices
from hub.web.page.board import Board
from hub.web.page.slices import Slices


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(state_dir=tmp_path, ephemeral=True)
    await hub.start()
    yield hub
    await hub.stop()


async def shown(hub: Hub) -> Board:
    board = Board(hub)
    await board.catch_up(Slices())
    return board


def seen_by(board: Board) -> list[Any]:
    """All that panels take from a board."""
    working = {place: sorted(tasks) for place, tasks in board.working.items()}
    votes = {key: (vote.status, vote.ballots, vote.topic) for key, vote in board.counted.votes.items()}
    tasks = {key: (row.status, row.seq, row.stale, row.name) for key, row in board.tasks.all.items()}
    agents = {key: (row.status, row.seq, row.stale) for key, row in board.agents.all.items()}
    groups = {name: sorted(board.tasks[name]) for name in ("running", "failed", "waiting_approval", "queued")}
    return [working, votes, tasks, agents, groups, [threat.key for threat in board.counted.threats], board.memory]


ids = st.sampled_from(["a", "b", "c"])
events = st.one_of(
    st.builds(
        lambda id, status, agent: ("task:progress", {"id": id, "status": status, "agent": agent}),
        ids,
        st.sampled_from(["running", "failed", "queued", "waiting_approval", "succeeded"]),
        ids,
    ),
    st.builds(lambda id: ("task:progress", {"id": id}), ids),
    st.builds(
        lambda id, status: ("agent:status_change", {"id": id, "status": status}),
        ids,
        st.sampled_from(["active", "idle", "error"]),
    ),
    st.builds(
        lambda id, agent, option: ("governance:vote_cast", {"vote_id": id, "agent": agent, "option": option}),
        ids,
        ids,
        st.sampled_from(["approve", "reject"]),
    ),
    st.builds(lambda id: ("governance:vote_cast", {"vote_id": id, "votes": {"z": "approve"}, "status": "passed"}), ids),
    st.just(("security:threat_detected", {"type": "t", "severity": "low"})),
    st.just(("other:event", {})),
    st.none(),  # somebody looks
)


@given(st.lists(events, max_size=30))
@settings(max_examples=60, deadline=None)
def test_who_looked_often_knows_what_one_knows_who_looks_once(tmp_path_factory: Any, steps: list[Any]) -> None:
    async def compare() -> None:
        hub = Hub(state_dir=tmp_path_factory.mktemp("state"), ephemeral=True)
        await hub.start()
        board = Board(hub)
        for step in steps:
            if step is None:
                await board.catch_up(Slices())
            else:
                await hub.publish(*step)
        await board.catch_up(Slices())
        assert seen_by(board) == seen_by(await shown(hub))
        assert board.position == hub.cursor.seq
        await hub.stop()

    asyncio.run(compare())


async def test_a_vote_counts_the_newest_option_of_each_agent(hub: Hub) -> None:
    async def cast(**more: Any) -> None:
        await hub.publish("governance:vote_cast", {"vote_id": "v", **more})

    await cast(agent="a", option="approve", topic="Release?", eligible=4)
    await cast(votes={"a": "reject", "b": "approve"})
    await cast(agent="b", option="reject")
    await cast(agent="c", option="abstain", status="open")
    (vote,) = (await shown(hub)).counted.open_votes()
    assert (vote.topic, vote.eligible, len(vote.ballots)) == ("Release?", 4, 3)
    assert [vote.count(option) for option in ("approve", "reject", "abstain")] == [0, 2, 1]


async def test_a_vote_whose_casts_are_no_longer_in_memory_is_known_by_its_state(tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path, window_events=2)
    await hub.start()
    await hub.publish("governance:vote_cast", {"vote_id": "v", "votes": {"a": "approve", "b": "approve"}})
    for _ in range(3):
        await hub.publish("other:event", {})
    board = await shown(hub)
    assert board.counted.votes["v"].count("approve") == 2
    assert board.since == 3
    await hub.stop()


async def test_what_the_hub_has_no_room_for_is_let_go(tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path, ephemeral=True, state_items=5)
    await hub.start()
    board = Board(hub)
    for number in range(4):
        await hub.publish("task:progress", {"id": f"t{number}", "agent": "a"})
    await board.catch_up(Slices())
    for number in range(4):
        await hub.publish("agent:status_change", {"id": f"a{number}", "status": "idle"})
    await board.catch_up(Slices())
    assert sorted(board.tasks.all) == ["t3"]
    assert board.working == {("a", ""): {"t3": board.tasks.all["t3"]}}
    await hub.stop()


async def test_another_epoch_is_another_board(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await hub.publish("security:threat_detected", {"type": "t", "severity": "low"})
    board = await shown(hub)
    assert len(board.counted.threats) == 1
    hub.window.start_at(hub.window.head)
    monkeypatch.setattr(hub.broker, "epoch", "another")
    await board.catch_up(Slices())
    assert len(board.counted.threats) == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_much_is_taken_in_in_turns_with_everybody_else(
    hub: Hub, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE", float("inf") if weakened else 0.0)
    for number in range(50):
        await hub.publish("task:progress", {"id": str(number)})
    board, turns = Board(hub), 0
    task = asyncio.create_task(board.catch_up(Slices()))
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert (turns > 50) is not weakened


async def test_only_what_has_changed_is_parsed_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        await hub.publish("task:progress", {"id": str(number)})
    board = await shown(hub)
    taken = list[str]()
    monkeypatch.setitem(
        boards.TAKES,
        "task:progress",
        lambda board, event, stale: taken.append(event.key),
    )
    await hub.publish("task:progress", {"id": "7", "progress": 3})
    await board.catch_up(Slices())
    await board.catch_up(Slices())
    assert taken == ["7"]


async def test_open_questions_are_known_until_they_are_over(hub: Hub) -> None:
    board = Board(hub)
    asking = asyncio.create_task(hub.ask("Deploy?", ["yes", "no"], default="no", details={"pr": 7}))
    while not board.questions:
        await board.catch_up(Slices())
        await asyncio.sleep(0)
    (question,) = board.questions.values()
    assert (question.question, question.options, question.default) == ("Deploy?", ["yes", "no"], "no")
    assert question.details == [("pr", "7")]
    asking.cancel()
    while board.questions:
        await board.catch_up(Slices())
        await asyncio.sleep(0)


async def test_a_status_lasts_since_it_began(hub: Hub) -> None:
    board = Board(hub)
    await hub.publish("task:progress", {"id": "a", "progress": 1})
    await board.catch_up(Slices())
    began = board.tasks.all["a"].since
    await hub.publish("task:progress", {"id": "a", "progress": 2})
    await board.catch_up(Slices())
    assert board.tasks.all["a"].since == began
    await hub.publish("task:progress", {"id": "a", "started_at": "2026-01-01T00:00:00Z"})
    await board.catch_up(Slices())
    assert board.tasks.all["a"].since == 1767225600.0


async def test_a_question_and_the_task_that_waits_for_it_are_one_need(hub: Hub) -> None:
    board = Board(hub)
    for id, agent in (("s/1", "claude:s"), ("s/2", "claude:s"), ("deploy", "bot"), ("other", "bot"), ("x", "")):
        await hub.publish("task:progress", {"id": id, "agent": agent, "status": "waiting_approval"})
    asking = [
        asyncio.ensure_future(hub.ask("Which?", ["a", "b"], details=details))
        for details in ({"agent": "claude:s/sub", "tool": "Bash"}, {"agent": "bot", "task": "deploy"}, "bot", None)
    ]
    while len(hub.state.of("hub:question")) < 4:
        await asyncio.sleep(0.01)
    await board.catch_up(Slices())
    assert [task.key for task in board.approvals()] == ["s/1", "other", "x"]
    first, second, *_ = board.questions.values()
    assert (first.agent, first.task, first.details) == ("claude:s/sub", "", [("tool", "Bash")])
    assert (second.agent, second.task, second.details) == ("bot", "deploy", [])
    for one in asking:
        one.cancel()


async def test_a_task_that_waits_for_more_than_is_asked_stands_beside_the_question(hub: Hub) -> None:
    board = Board(hub)
    waits = [{"tool": "Bash", "asks": "Bash: rm"}, {"tool": "Read", "asks": "Read: notes"}]
    task = {"id": "c/1", "agent": "c", "status": "waiting_approval"}
    await hub.publish("task:progress", {**task, "pending": waits})
    asking = asyncio.ensure_future(hub.ask("Read?", ["a", "b"], details={"agent": "c"}))
    while not hub.state.of("hub:question"):
        await asyncio.sleep(0.01)
    await board.catch_up(Slices())
    assert [row.key for row in board.approvals()] == ["c/1"], "what was left to the terminal still waits there"
    await hub.publish("task:progress", {**task, "pending": waits[1:]})
    await board.catch_up(Slices())
    assert board.approvals() == []
    asking.cancel()


async def test_a_task_that_says_no_beginning_runs_since_it_was_first_heard(hub: Hub) -> None:
    board = Board(hub)
    await hub.publish("task:progress", {"id": "t", "progress": 1})
    await board.catch_up(Slices())
    began = board.tasks.all["t"].timestamp
    await hub.publish("task:progress", {"id": "t", "progress": 50, "started_at": "soon"})
    await board.catch_up(Slices())
    assert board.tasks.all["t"].began == began
    await hub.publish("task:progress", {"id": "t", "progress": 60, "started_at": "2026-01-01T00:00:00Z"})
    await board.catch_up(Slices())
    assert board.tasks.all["t"].began == "2026-01-01T00:00:00Z"
