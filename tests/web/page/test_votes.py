"""A vote says to each person what he has cast, and needs him no more; all others are shown one drawing."""

import asyncio
import math
import os
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from running import HubInside, Talk, hub_app, talk
from sent import Page, send
from web.page.test_working import shown, strip

from hub.commands.asked import Person, account
from hub.web.page import dashboard, panels
from hub.web.page.counted import Counted
from hub.web.page.rows import Vote

ME = account(os.geteuid())
CAST = "governance:vote_cast"
VOTE = {"vote_id": "v", "topic": "Merge?", "agent": "ada", "option": "reject"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as hub:
        await hub.hub.publish(CAST, VOTE)
        yield hub


def waiting(page: Page) -> str:
    return " ".join(str(page.one("section", id="waiting")["text"]).split())


async def test_who_has_voted_sees_how_and_is_needed_no_more(hub: HubInside) -> None:
    before = await shown(hub)
    assert strip(before, "needs you") == 1
    assert waiting(before).startswith("▲ Waiting for you 1, the oldest for")
    assert "you:" not in waiting(before)
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    page = await shown(hub)
    assert strip(page, "need you") == 0
    assert waiting(page).startswith("Open votes you have voted on 1")
    assert "you: approve · 2 cast · 1 for, 1 against" in waiting(page)
    assert page.one("button", value="approve")["aria-pressed"] == "true", "and can be changed"
    assert "aria-pressed" not in page.one("button", value="reject")
    assert strip(await shown(hub, agent="ada"), "need you") == 0, "on every page"
    await send(hub, "vote", {"vote_id": "v", "option": "abstain"})
    assert "you: abstain" in waiting(await shown(hub))


async def test_what_waits_stands_before_it(hub: HubInside) -> None:
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    await hub.hub.publish(CAST, {**VOTE, "vote_id": "w", "topic": "Ship?"})
    page = await shown(hub)
    assert strip(page, "needs you") == 1
    assert waiting(page).startswith("▲ Waiting for you 1, the oldest for")
    assert "you have voted on 1 Vote: Ship?" in waiting(page)


async def test_another_person_is_still_needed(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    monkeypatch.setattr(dashboard, "person", lambda client: Person("somebody"))
    page = await shown(hub)
    assert strip(page, "needs you") == 1
    assert "you: " not in waiting(page)


async def test_when_it_is_over_there_is_one_drawing_for_all_again(hub: HubInside) -> None:
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    await hub.hub.publish(CAST, {**VOTE, "status": "passed"})
    page = await shown(hub)
    assert page.all("section", id="waiting") == []
    assert not panels.has_voted(hub.app[dashboard.SHOWN].board, ME)


async def versions(hub: HubInside, looking: Talk, query: str) -> tuple[str, str]:
    """The version of what waits that a viewer has fetched, and the one that he is told of next."""
    told = (await looking.event())["payload"]["data"]
    fetched = await hub.get(f"{query}viewer={told['viewer']}")
    (has,) = re.findall(r'data-panel="waiting" data-version="([^"]+)"', fetched.text)
    await hub.hub.publish("x:y", 1)
    return has, (await looking.event())["payload"]["data"]["panels"]["waiting"]


@pytest.mark.parametrize("query", ["?", "?panel=waiting&", "?panel=waiting&only=1&"])
async def test_a_viewer_is_told_of_his_own_drawing(hub: HubInside, query: str) -> None:
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    async with talk(hub.url, "?page=1") as looking:
        has, told = await versions(hub, looking, query)
        assert has == told


async def test_weakened_he_is_told_of_that_of_all_and_fetches_for_ever(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "_named", lambda looks: None)
    await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    async with talk(hub.url, "?page=1") as looking:
        has, told = await versions(hub, looking, "?panel=waiting&")
        assert has != told


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def seconds_until_over(hub: HubInside, looking: Talk) -> float:
    """How long after its deadline a viewer is told that a vote stands there no more, while nothing happens."""
    told = (await looking.event())["payload"]["data"]
    deadline = time.time() + 1.5
    await hub.hub.publish(CAST, {**VOTE, "deadline": in_seconds(1.5)})
    await hub.get(f"?viewer={told['viewer']}")
    while True:
        fetched = await hub.get(f"?viewer={told['viewer']}")
        if 'data-vote="v"' not in fetched.text:
            assert 'data-need="0"' in fetched.text
            return time.time() - deadline
        told = (await looking.event())["payload"]["data"]


async def test_an_open_page_loses_the_buttons_of_a_vote_at_its_deadline(hub: HubInside) -> None:
    async with talk(hub.url, "?page=1") as looking, asyncio.timeout(9):
        assert await seconds_until_over(hub, looking) >= 0


async def test_weakened_it_keeps_them(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "next_deadline", lambda counted: math.inf)
    async with talk(hub.url, "?page=1") as looking:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await seconds_until_over(hub, looking)


def test_the_next_deadline_is_that_of_an_open_vote() -> None:
    counted = Counted()
    assert counted.next_deadline() == math.inf
    over, soon, late = (time.time() + seconds for seconds in (-60, 60, 90))
    for id, at, status in (("a", over, "open"), ("b", late, "open"), ("c", soon, "open"), ("d", soon - 9, "passed")):
        deadline = datetime.fromtimestamp(at, UTC).isoformat()
        counted.votes[id] = Vote(id, 1, "", 0.0, False, status=status, deadline=deadline)
    counted.votes["none"] = Vote("none", 1, "", 0.0, False)
    assert counted.next_deadline() == pytest.approx(soon, abs=0.01)
