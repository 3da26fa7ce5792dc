"""The page's list of events: what stands there, what is said of each, and back through what is kept."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote, urlencode

import pytest
from running import HubInside, hub_app
from web.page.test_dashboard import look, marked, sections

from hub.commands.asked import Person
from hub.web.page.history import missing, told
from hub.wire.names import Cursor


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as hub:
        yield hub


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("build:*", ["build:log_line"] * 3),
        ("build", ["build:log_line"] * 3),
        ("a:x, b:y", ["b:y", "a:x"]),
        ("nobody", []),
        ("::", None),
        ("build:log*", None),
        ("a:x, task*", None),
    ],
)
async def test_events_are_found_by_a_pattern(hub: HubInside, filter: str, found: list[str] | None) -> None:
    for number in range(3):
        await hub.hub.publish("build:log_line", {"line": f"module {number}"})
    await hub.hub.publish("a:x", {})
    await hub.hub.publish("b:y", {})
    answer = await hub.get("", panel="events", filter=filter)
    names = re.findall('class="name">([^<]*)<', answer.text)
    assert names == (found or []), "what was not meant is not shown in its place"
    assert ("Not a pattern" in answer.text) is (found is None)
    assert ("No event matches" in answer.text) is (found == [])


@pytest.mark.parametrize(
    ("filter", "meant"),
    [
        ("build*", "build:*"),
        ("a:x, build*", "a:x build:*"),
        ("build:log*", "build:*"),
        ("build:x:log_*", "build:x:*"),
        ("**", "*"),
        ("::", ""),
        ("build*, ü", ""),
    ],
)
async def test_what_was_probably_meant_is_a_link(hub: HubInside, filter: str, meant: str) -> None:
    await hub.hub.publish("build:x:log_line", {})
    links = [
        str(one["href"]) for one in (await look(hub, f"?{urlencode({'panel': 'events', 'filter': filter})}")).all("a")
    ]
    ways = [link.removeprefix("./") for link in links if "filter=" in link and "working" not in link]
    assert ways == ([f"?panel=events&filter={quote(meant)}"] if meant else [])
    for way in ways:
        assert marked(await look(hub, way), "data-event") == ["1"]


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_events_lead_back_through_what_is_kept(tmp_path: Path, ephemeral: bool) -> None:
    async with hub_app(tmp_path, window_events=20, ephemeral=ephemeral) as hub:
        for number in range(250):
            await hub.hub.publish("a:x", {"n": number})
        found, query = list[str](), ""
        while True:
            page = await look(hub, query)
            found += [str(key) for key in marked(page, "data-event")]
            older = [str(one["href"]) for one in page.all("a") if one.get("rel") == "next"]
            if not older:
                break
            query = older[0].removeprefix("./")
        assert found == [str(seq) for seq in range(250, 230 if ephemeral else 0, -1)]


async def test_what_is_missing_is_said_in_its_place(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        await hub.hub.publish("a:x", {"n": number})
    whole = hub.hub.broker.names

    async def with_a_hole(*asked: Any) -> Any:
        return [row for row in await whole(*asked) if not 20 <= row[0] <= 25]

    monkeypatch.setattr(hub.hub.broker, "names", with_a_hole)
    page = await look(hub, "?panel=events&before=40")
    keys = [at.get("data-event", "…") for tag, at in page.elements if tag == "li"]
    assert keys == [*map(str, range(39, 25, -1)), "…", *map(str, range(19, 0, -1))]
    assert "6 events between these are not kept." in page.text
    assert "are not kept" not in (await look(hub, "?panel=events&before=40&filter=a:*")).text
    assert "Nothing older is kept" not in page.text, "all of it stands there"


@pytest.mark.parametrize(
    ("newer", "older", "said"),
    [
        (("e", 5), ("e", 4), ""),
        (("e", 5), ("e", 3), "1 event between these is not kept."),
        (("f", 5), ("e", 4), "The hub began a new history here: events that were behind the older one can be gone."),
    ],
)
def test_a_new_history_is_said_where_it_began(newer: tuple[str, int], older: tuple[str, int], said: str) -> None:
    one, other = (SimpleNamespace(seq=seq, cursor=Cursor(epoch, seq)) for epoch, seq in (newer, older))
    assert missing(cast(Any, one), cast(Any, other), is_all=True) == said


async def test_the_checks_of_hub_doctor_stand_in_nobodys_way(hub: HubInside) -> None:
    """They are kept and can be looked at; the page says how many it leaves out."""
    for number in range(3):
        await hub.hub.publish("build:log_line", {"line": f"module {number}"})
    for number in range(5):
        await hub.hub.publish("doctor:check", {"n": number})
    page = await look(hub)
    assert marked(page, "data-event") == ["3", "2", "1"]
    (way,) = [str(one["href"]) for one in page.all("a") if "doctor" in str(one.get("href"))]
    assert "5 checks of hub doctor" in " ".join(page.text.split())
    assert marked(await look(hub, way.removeprefix("./")), "data-event") == ["8", "7", "6", "5", "4"]
    await hub.hub.publish("build:log_line", {"line": "last"})
    assert marked(await look(hub), "data-event") == ["9", "3", "2", "1"]
    for number in range(20):
        await hub.hub.publish("build:log_line", {"line": f"more {number}"})
    page = await look(hub)
    assert len(marked(page, "data-event")) == 14
    assert "hub doctor" not in page.text, "they lie behind what stands there"


async def test_what_was_marked_as_seen_pushes_nothing_out_of_the_list(hub: HubInside) -> None:
    await hub.hub.publish("build:log_line", {"line": "first"})
    for number in range(20):
        await hub.hub.publish("task:progress", {"id": f"t{number}", "status": "failed"})
        await hub.post("api/commands/hub:seen", {"event": "task:progress", "key": f"t{number}"})
    page = await look(hub)
    assert marked(page, "data-event") == [str(seq) for seq in range(40, 12, -2)]
    assert "14 marked as seen" in page.text, "that there are some between these is said"
    assert "data-whole" not in str(page.elements)
    assert "are not kept" not in page.text
    await hub.hub.publish("doctor:check", {"n": 1})
    page = await look(hub)
    assert "14 marked as seen ▸ · 1 check of hub doctor ▸" in " ".join(page.text.split())
    (way,) = [str(one["href"]) for one in page.all("a") if "hub:seen" in str(one.get("href"))]
    assert len(marked(await look(hub, way.removeprefix("./")), "data-event")) == 20
    assert len(marked(await look(hub, "?panel=events&before=41"), "data-event")) == 40, "what is kept has all of it"


async def test_the_event_says_what_was_answered_and_by_whom(hub: HubInside) -> None:
    asking = asyncio.create_task(hub.hub.ask("Deploy to production?", ["yes_please", "no"]))
    while not hub.hub.state.of("hub:question"):
        await asyncio.sleep(0.01)
    (record,) = hub.hub.questions.records()
    await hub.hub.questions.answer(record["id"], "yes_please", Person("ada"))
    await asking
    text = " ".join((await look(hub)).text.split())
    assert "hub:question Deploy to production? · answered: “yes_please” by ada" in text
    assert "hub:question Deploy to production? · open" in text


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": "timed_out", "answer": "no", "by": None}, "Deploy? · timed out: “no” by itself"),
        ({"status": "timed_out", "answer": None, "by": None}, "Deploy? · timed out"),
        ({"status": "withdrawn", "answer": None, "by": None}, "Deploy? · withdrawn"),
    ],
)
def test_a_question_without_a_persons_answer_says_how_it_is_over(how: dict[str, Any], said: str) -> None:
    data = {"id": "q", "question": "Deploy?", "options": ["yes", "no"], **how}
    assert told("q", data).replace("\N{NO-BREAK SPACE}", " ") == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"id": "me", "status": "active"}, "me active"),
        ({"id": "me"}, "me"),
        ({"id": "me", "c": 22}, "me c: 22"),
        ({"id": "me", "title": "Me", "c": 22}, "Me title: Me, c: 22"),
        ({"c": 22}, "c: 22"),
        ({"id": 7, "status": "active"}, "active"),
    ],
)
def test_an_event_that_nobody_knows_is_called_by_its_id_too(data: Any, said: str) -> None:
    assert told(None, data) == said
    assert told(None, data, of="me") == said[3:] or "me" not in said, "where it need not be said on each"


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("run:make", "run:make failed · exit status 2"),
        ("make", "make failed · exit status 2"),
        ("Make", "Make failed · exit status 2"),
        ("run:remake", "run:remake failed · exit status 2 · make"),
        ("make:x", "make:x failed · exit status 2 · make"),
    ],
)
def test_a_name_that_the_id_says_is_not_said_again(id: str, said: str) -> None:
    data = {"id": id, "name": "make", "status": "failed", "error": "exit status 2"}
    assert told(id, data).replace("\N{NO-BREAK SPACE}", " ") == said
    assert told(id, {**data, "name": ["make"]}).endswith("· make"), "what is no text is shown as it is"


async def test_only_checks_are_an_events_section_without_a_line(hub: HubInside) -> None:
    await hub.hub.publish("doctor:check", {"n": 1})
    page = await look(hub)
    assert "events" in sections(page)
    assert "No event matches" not in page.text
