"""Who works on what: what is counted is what is shown, who waits for a person says so, and no two read the same."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from running import HubInside, hub_app, until
from sent import Page, send

from hub.web.page import frame, working
from hub.web.page.working import Line

AGENT, TASK = "agent:status_change", "task:progress"
SESSION = "claude-code:7c1b4a52-0d3e-4f6a-9b1c-2e5d8f0a1b22"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as inside:
        yield inside


async def shown(hub: HubInside, **asked: str) -> Page:
    answer = await hub.get("", **asked)
    assert answer.status == 200, answer.text
    return Page(answer.text)


def head(page: Page) -> str:
    return " ".join(str(page.one("h2", id="h-working")["text"]).split())


def rows(page: Page) -> dict[str, str]:
    """The rows of agents and lone tasks, by name, in the page's order."""
    found = [one for one in page.all("li") if "data-row" in one and "row" in str(one["class"]).split()]
    return {str(one.get("data-agent") or one["id"]): " ".join(str(one["text"]).split()) for one in found}


def text(page: Page, panel: str) -> str:
    return " ".join(str(page.one("h2", id=f"h-{panel}")["text"]).replace("✕", "").split())


def strip(page: Page, word: str) -> int:
    (found,) = [str(one["text"]) for one in page.all("a") if str(one["text"]).strip().endswith(word)]
    return int(found.split()[0])


async def test_what_is_done_says_of_when(hub: HubInside) -> None:
    for name, status in (("a", "succeeded"), ("b", "cancelled"), ("c", "running")):
        await hub.hub.publish(TASK, {"id": name, "status": status})
    assert ways(await shown(hub)) == "2 done in the last hour ▸"
    row = hub.app[frame.BOARD].tasks.all["a"]
    row.at -= working.HOUR
    await hub.hub.publish(TASK, {"id": "d", "status": "succeeded"})
    assert ways(await shown(hub)) == "2 done in the last hour, 3 kept ▸"


def ways(page: Page) -> str:
    return " ".join(str(page.one("p", class_="more ways")["text"]).split())


async def test_what_is_counted_is_what_is_shown_in_the_same_words(hub: HubInside) -> None:
    publish = hub.hub.publish
    for name in ("ada", "bob"):
        await publish(AGENT, {"id": name, "status": "active", "task": "Something"})
        await publish(TASK, {"id": f"of-{name}", "agent": name})
    await publish(TASK, {"id": "second", "agent": "ada"})
    await publish(TASK, {"id": "lone"})
    await publish(AGENT, {"id": "asks", "status": "active"})
    await publish(TASK, {"id": "push", "name": "Push it", "agent": "asks", "status": "waiting_approval"})
    await publish(AGENT, {"id": "silent", "status": "active"}, ttl=0.01)
    await publish(AGENT, {"id": "rests", "status": "idle"})
    await until(lambda: hub.hub.state.is_stale(AGENT, "silent"))
    page = await shown(hub)
    assert head(page) == "Working now 3 working on 4 tasks, 1 waiting for you, 1 stale"
    assert len(rows(page)) == 5
    assert strip(page, "working on 4 tasks, 1 stale") == 3
    assert strip(page, "quiet agent") == 1, "each is counted in one place"
    assert [*rows(page)][-1] == "silent", "the stale last"
    for filter, title, count in (("quiet", "Quiet agents", 1), ("agents", "All agents", 5), ("tasks", "All tasks", 5)):
        other = await shown(hub, panel="working", filter=filter)
        assert head(other) == f"{title} {count}"
        assert len(rows(other)) == count
        assert "3 working" in other.text


async def test_who_is_needed_where_nothing_can_be_pressed_is_told_where_to_answer(hub: HubInside) -> None:
    """As when the hook that has asked was killed: its agent asks in its terminal then."""
    task = {"id": f"{SESSION}/turn", "name": "Clean up", "agent": SESSION, "status": "waiting_approval"}
    await hub.hub.publish(AGENT, {"id": SESSION, "status": "active"})
    await hub.hub.publish(TASK, {**task, "message": "Bash: rm -rf build"})
    details = {"agent": SESSION, "task": task["id"], "cwd": "/home/ada/shop"}
    asking = asyncio.create_task(hub.hub.ask("Bash: rm -rf build", ["allow", "deny"], details=details))
    await until(lambda: [*hub.hub.questions.records()])
    page = await shown(hub)
    assert (strip(page, "needs you"), "answer it where it runs" in page.text) == (1, False)
    asking.cancel()
    await asyncio.wait({asking})
    await until(lambda: not [*hub.hub.questions.records()])
    page = await shown(hub)
    assert strip(page, "needs you") == 1
    (row,) = [" ".join(str(one["text"]).split()) for one in page.all("li", class_="ask")]
    assert "answer it where it runs, in shop · asked" in row, "though nothing can be pressed"
    await hub.hub.publish(AGENT, {"id": SESSION, "status": "active", "host": "tower"})
    assert "answer it where it runs, in shop on tower" in " ".join((await shown(hub)).text.split())


async def test_where_more_is_listed_than_counts_both_are_said(hub: HubInside) -> None:
    for name in ("old", "new"):
        await hub.hub.publish(TASK, {"id": name, "status": "failed"})
    assert (await send(hub, "seen", {"event": TASK, "key": "old"})).status == 303
    for mitigated in (True, False):
        await hub.hub.publish("security:threat_detected", {"type": "x", "severity": "high", "mitigated": mitigated})
    page = await shown(hub)
    assert "Failed 1 not yet seen" in text(page, "failed")
    assert "Threats 1 open" in text(page, "threats")
    assert "Failed 2, 1 not yet seen" in text(await shown(hub, panel="failed", filter="all"), "failed")
    assert "Threats 2, 1 open" in text(await shown(hub, panel="threats", filter="all"), "threats")


async def test_of_very_many_tasks_it_says_how_many_are_listed(hub: HubInside) -> None:
    for number in range(60):
        await hub.hub.publish(TASK, {"id": f"t{number}", "agent": "ada"})
    page = await shown(hub, agent="ada")
    assert "Tasks the newest 50 of 60" in " ".join(str(page.one("h2", id="h-tasks")["text"]).split())


async def test_who_waits_for_a_person_is_not_at_work(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": SESSION, "status": "active", "task": "Clean up"})
    await hub.hub.publish(TASK, {"id": f"{SESSION}/turn", "name": "Clean up", "agent": SESSION})
    assert "waits for you" not in rows(await shown(hub))[SESSION]
    details = {"agent": SESSION, "task": f"{SESSION}/turn", "cwd": "/home/me/shop"}
    waiting = {"id": f"{SESSION}/turn", "name": "Clean up", "agent": SESSION, "status": "waiting_approval"}
    await hub.hub.publish(TASK, {**waiting, "message": "Bash: rm -rf build"})
    asking = asyncio.ensure_future(hub.hub.ask("claude-code in shop: Bash: rm?", ["allow", "deny"], details=details))
    await until(lambda: [*hub.hub.questions.records()])
    page = await shown(hub)
    assert head(page) == "Working now 0 working, 1 waiting for you"
    assert rows(page)[SESSION].startswith("▲claude-code 7c1b waits for you · Clean up · in shop")
    assert "waits for you" in rows(await shown(hub, panel="working", filter="agents"))[SESSION]
    assert "waits for you" in str((await shown(hub, agent=SESSION)).one("h2", id="h-now")["text"])
    assert "waits for you" in (await shown(hub, search="claude")).text
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: not [*hub.hub.questions.records()])
    await hub.hub.publish(TASK, {**waiting, "status": "running"})
    page = await shown(hub)
    assert rows(page)[SESSION].startswith("●claude-code 7c1b Clean up · in shop"), "it is still there"
    assert head(page) == "Working now 1 working"


async def test_a_question_alone_shows_that_its_agent_waits(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": "deployer", "status": "active", "task": "Deploy 2.4"})
    details = {"agent": "deployer", "task": "decision-0"}
    asking = asyncio.ensure_future(hub.hub.ask("Deploy?", ["yes", "no"], details=details))
    await until(lambda: [*hub.hub.questions.records()])
    assert rows(await shown(hub))["deployer"].startswith("▲deployer waits for you · decision-0")
    await hub.hub.publish(TASK, {"id": "decision-0", "name": "Deploy release 2.4", "status": "queued"})
    assert rows(await shown(hub))["deployer"].startswith("▲deployer waits for you · Deploy release 2.4")
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_subagent_stands_below_its_agent_with_what_it_is(hub: HubInside) -> None:
    await hub.hub.publish(AGENT, {"id": "a-earlier", "status": "active", "task": "Something else"})
    await hub.hub.publish(AGENT, {"id": SESSION, "status": "active", "task": "Find the leak", "cwd": "/home/me/shop"})
    await hub.hub.publish(TASK, {"id": f"{SESSION}/turn", "name": "Find the leak", "agent": SESSION})
    await hub.hub.publish(AGENT, {"id": "z-later", "status": "active", "task": "Something else"})
    for sub in ("a1f9c3", "b2e8d4"):
        data = {"id": f"{SESSION}/{sub}", "status": "active", "type": "Explore", "parent": SESSION}
        await hub.hub.publish(AGENT, data)
    page = await shown(hub)
    found = rows(page)
    assert [*found] == ["a-earlier", SESSION, f"{SESSION}/a1f9c3", f"{SESSION}/b2e8d4", "z-later"]
    assert found[SESSION].startswith("●claude-code 7c1b Find the leak · in shop")
    assert found[f"{SESSION}/a1f9c3"].startswith("●↳ Explore a1f9c3 works for claude-code 7c1b")
    assert "no task named" not in page.text
    assert len({text.split(" works")[0] for text in found.values()}) == 5, "no two read the same"
    await hub.hub.publish(TASK, {"id": f"{SESSION}/turn", "agent": SESSION, "status": "succeeded"})
    await hub.hub.publish(AGENT, {"id": SESSION, "status": "idle"})
    alone = rows(await shown(hub))
    assert alone[f"{SESSION}/a1f9c3"].startswith("●claude-code 7c1b/a1f9c3"), "its agent has no line above it"


def test_agents_that_say_that_they_are_each_others_are_shown_all_the_same() -> None:
    def line(name: str) -> Line:
        return Line(name, None, [])

    one, other = line("one"), line("other")
    one.of, other.of = other, one
    assert sorted([one, other], key=working.rank) in ([one, other], [other, one])
    chain = [line(f"n{number}") for number in range(40)]
    for lower, upper in zip(chain[1:], chain, strict=False):
        lower.of = upper
    assert {line.name for line in sorted(chain, key=working.rank)} == {line.name for line in chain}


async def test_many_tasks_of_an_agent_count_as_one_at_work_and_the_one_that_began_last_is_its_line(
    hub: HubInside,
) -> None:
    batch = [{"event": TASK, "data": {"id": f"t{number}", "agent": "ada"}} for number in (5, 10, 100, 60)]
    assert (await hub.post("api/events", batch)).status == 200
    assert rows(await shown(hub))["ada"].startswith("●ada t60"), "all of one millisecond: the last one, not by its text"
    await hub.hub.publish(TASK, {"id": "t10", "agent": "ada", "progress": 3})
    page = await shown(hub)
    assert rows(page)["ada"].startswith("●ada t60"), "what goes on stays where it is"
    assert (head(page), strip(page, "working on 4 tasks")) == ("Working now 1 working on 4 tasks", 1)
    for number in (5, 10, 100):
        await hub.hub.publish(TASK, {"id": f"t{number}", "agent": "ada", "status": "succeeded"})
    assert head(await shown(hub)) == "Working now 1 working"
    await hub.hub.publish(TASK, {"id": "t60", "agent": "ada", "progress": 3}, ttl=0.01)
    await until(lambda: hub.hub.state.is_stale(TASK, "t60"))
    await hub.hub.publish(TASK, {"id": "t5", "agent": "ada"})
    await hub.hub.publish(TASK, {"id": "t60", "agent": "ada", "progress": 4}, ttl=0.01)
    await until(lambda: hub.hub.state.is_stale(TASK, "t60"))
    assert rows(await shown(hub))["ada"].startswith("●ada t5"), "what nobody hears of any more is behind the others"


async def test_a_further_task_leaves_its_agents_line_where_it_is(hub: HubInside) -> None:
    for name in ("ada", "bob"):
        await hub.hub.publish(TASK, {"id": f"of-{name}", "agent": name, "started_at": "2026-11-30T12:00:00Z"})
    await hub.hub.publish(TASK, {"id": "another", "agent": "ada"})
    found = rows(await shown(hub))
    assert [*found] == ["ada", "bob"]
    assert found["ada"].startswith("●ada another")


async def test_how_long_it_runs_is_counted_from_its_beginning_whoever_looks_when(hub: HubInside) -> None:
    """Not from when somebody looked for the first time."""
    first = await hub.hub.publish(TASK, {"id": "t", "agent": "a", "progress": 1})
    for progress in range(2, 30):
        await hub.hub.publish(TASK, {"id": "t", "agent": "a", "progress": progress})
    began = hub.hub.window.between(first.cursor.seq - 1, first.cursor.seq)[0].timestamp
    page = await shown(hub)
    assert [one["datetime"] for one in page.all("time", data_as="since")] == [began]
    detail = await shown(hub, task="t")
    assert {one["datetime"] for one in detail.all("time", data_as="since")} == {began}


async def test_of_one_whose_beginning_is_not_known_it_is_said_when_it_was_heard_of(tmp_path: Path) -> None:
    async with hub_app(tmp_path, window_events=5) as hub:
        for progress in range(10):
            await hub.hub.publish(TASK, {"id": "t", "agent": "a", "progress": progress})
        page = await shown(hub)
        (section,) = page.all("section", data_section="working")
        assert "ago" in str(section["text"])
        assert page.all("time", data_as="since") == []
        await hub.hub.publish(TASK, {"id": "new", "agent": "b"})
        page = await shown(hub)
        assert len(page.all("time", data_as="since")) == 1, "this one was seen from its beginning"
