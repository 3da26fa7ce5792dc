"""The made-up life: valid, calm, coherent, the same each time; and it goes on as people say."""

import re
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from hub.roles import Step
from hub.scenes import AGENTS, ASKER, SCENES, SILENT, scene
from hub.story import PACE, UNDONE, Story, leftovers, life
from hub.stream.eventtypes import EventTypes

STORY = list(islice(life(), 3000))
Values = dict[tuple[str, str], tuple[float, Step]]


def last_values(story: list[Step]) -> list[tuple[float, Values]]:
    """After each step the seconds that have passed, and what is known then: since when, and by which step."""
    types, now, values, found = EventTypes(), 0.0, Values(), []
    for step in story:
        now += step.wait
        if (key := types.key(step.event, step.data)) is not None:
            values = {**values, (step.event, key): (now, step)}
        found.append((now, values))
    return found


def of(values: Values, event: str, status: str) -> list[tuple[float, Step]]:
    return [one for (name, _), one in values.items() if name == event and one[1].data.get("status") == status]


def test_every_step_passes_the_schemas() -> None:
    types = EventTypes()
    for step in STORY:
        types.check(step.event, step.data)


def test_it_is_the_same_for_the_same_seed() -> None:
    assert list(islice(life(), 3000)) == STORY
    assert list(islice(life(7), 3000)) != STORY


def test_it_has_all_that_the_page_shows_at_a_calm_pace() -> None:
    seen = Counter(step.event for step in STORY)
    kinds = {"agent:status_change", "task:progress", "governance:vote_cast", "security:threat_detected"}
    assert set(seen) == {*kinds, "memory:stats_update"}
    assert 6 <= len({step.data["id"] for step in STORY if step.event == "agent:status_change"}) <= 8
    seconds = sum(step.wait for step in STORY)
    assert 1 < len(STORY) / seconds < 1 / PACE[0]


def test_what_a_message_counts_is_what_its_bar_shows() -> None:
    counted = 0
    for step in STORY:
        found = re.search(r"([\d,]+) of ([\d,]+)", str(step.data.get("message")))
        if found and step.data["agent"] != SILENT:
            done, size = (int(text.replace(",", "")) for text in found.groups())
            assert abs(100 * done / size - step.data["progress"]) <= 100 / size + 1, step
            counted += 1
    assert counted > 100


def test_somebody_who_looks_at_any_moment_sees_it_all() -> None:
    opening = sum(step.wait == 0.02 for step in STORY[:60])
    moments = last_values(STORY)[opening - 1 :]
    assert moments[0][0] < 2, "from the first seconds on"
    for now, values in moments:
        assert of(values, "governance:vote_cast", "open")
        assert len(of(values, "task:progress", "running")) >= 3
        failed = of(values, "task:progress", "failed")
        assert 1 <= len(failed) <= 2
        assert max(since for since, _ in failed) > now - 300, "of the last minutes"
        _, silent = values["agent:status_change", SILENT]
        assert silent.ttl is not None
        assert silent.data["status"] == "active"
        assert of(values, "agent:status_change", "active")
    stale = sum(now > values["agent:status_change", SILENT][0] + 5 for now, values in moments)
    assert stale > 0.97 * len(moments)


def test_what_is_running_is_heard_of_in_time_but_for_who_is_silent() -> None:
    now, until = 0.0, dict[str, float]()
    for step in STORY:
        now += step.wait
        if step.event == "task:progress" and step.data["agent"] != SILENT:
            assert now < until.pop(step.data["id"], now + 1)
            if step.ttl is not None:
                until[step.data["id"]] = now + step.ttl


def test_what_has_failed_is_tried_again_and_ends_well() -> None:
    failed: set[str] = set()
    again: set[str] = set()
    for step in STORY:
        if step.event == "task:progress":
            id, status = step.data["id"], step.data["status"]
            if status == "failed":
                assert step.data["error"]
                failed.add(id)
            elif status == "succeeded" and id in failed:
                again.add(id)
    assert len(again) > 5
    assert len({step.data["id"] for step in STORY if step.event == "task:progress"}) < 200, "they do not grow for ever"


@pytest.mark.parametrize("number", range(len(SCENES)))
def test_each_answer_makes_another_story(number: int) -> None:
    ends = {}
    for answer in scene(number).outcomes:
        story = Story()
        steps = story.steps()
        list(islice(steps, 40))
        story.asked(number)
        before = [step for step in islice(steps, 40) if step.data.get("agent") == ASKER]
        assert before[-1].data["status"] == "queued"
        story.decided(number, answer)
        after = [step for step in islice(steps, 60) if step.data.get("agent") == ASKER]
        ends[answer] = (after[-1].data["status"], after[0].data["message"])
        assert {step.data["id"] for step in before + after} == {before[0].data["id"]}
    assert len(set(ends.values())) == len(ends)
    assert {status for status, _ in ends.values()} == {"succeeded", "cancelled"}
    assert ends[scene(number).default][0] == "cancelled", "the default changes nothing"


def ends_of_the_first_vote(person: str | None) -> dict[str, Any]:
    story, seen = Story(), list[Step]()
    for step in story.steps():
        seen.append(step)
        if person and len(seen) == 40:
            story.voted("vote-1", "somebody", person)
            story.voted("vote-1", ASKER, person)  # no person
            story.voted("vote-9", "somebody", person)  # another vote
        if step.data.get("vote_id") == "vote-1" and step.data["status"] != "open":
            assert any(other.data.get("vote_id") == "vote-2" for other in seen), "the next one is open before"
            return step.data
    raise AssertionError


def test_a_persons_vote_counts() -> None:
    assert "somebody" not in ends_of_the_first_vote(None)["votes"]
    for option in ("approve", "reject"):
        ended = ends_of_the_first_vote(option)
        assert ended["votes"]["somebody"] == option
        approved = list(ended["votes"].values()).count("approve")
        assert ended["status"] == ("passed" if 2 * approved > ended["eligible"] else "failed")


def test_what_an_earlier_life_has_left_is_taken_up() -> None:
    story = Story()
    vote = next(step.data for step in STORY if step.event == "governance:vote_cast")
    story.resume(
        [{**vote, "vote_id": "vote-7"}, {"vote_id": "v"}, {**vote, "vote_id": "x"}, {**vote, "status": "passed"}]
    )
    ids = [step.data["vote_id"] for step in islice(story.steps(), 200) if step.event == "governance:vote_cast"]
    assert ids[0] == "vote-7"
    tasks = [{"id": "a", "agent": AGENTS[0], "status": status} for status in (*UNDONE, "succeeded", "cancelled")]
    assert [task["status"] for task in leftovers([*tasks, {"id": "b", "status": "running"}])] == [*UNDONE]
