"""What the search field finds: by name, the best first, as links; whatever others have called themselves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app
from sent import Page, main

from hub import Call, Hub
from hub.web.page import search


def prepare(hub: Hub) -> None:
    @hub.command("build:start", {}, effect="write")
    async def start(call: Call) -> Any:
        """Start a build."""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


async def links(hub: HubInside, text: str) -> dict[str, list[str]]:
    """The addresses of what is found, by kind."""
    answer = await hub.get("", search=text)
    assert answer.status == 200
    found: dict[str, list[str]] = {}
    for link in main(answer.text).all("a"):
        href = str(link["href"])
        kind, _, rest = href.removeprefix("./?").partition("=")
        if href.startswith("./?") and kind in ("agent", "task", "panel", "call") and rest:
            found.setdefault(kind, []).append(rest)
    return found


async def test_agents_tasks_panels_and_commands_are_found_by_their_names(hub: HubInside) -> None:
    await hub.hub.publish("agent:status_change", {"id": "builder", "status": "idle", "type": "ci"})
    await hub.hub.publish("task:progress", {"id": "t-1", "name": "Rebuild all", "agent": "builder"})
    await hub.hub.publish("task:progress", {"id": "t-2", "name": "Build the wheel"})
    await hub.hub.publish("task:progress", {"id": "t-3", "name": "Something else"})
    found = await links(hub, "BUILD")
    assert found == {"agent": ["builder"], "task": ["t-2", "t-1"], "call": ["build%3Astart"]}
    assert (await links(hub, "fail"))["panel"] == ["failed"]
    assert (await links(hub, "hub:ask"))["call"] == ["hub%3Aask"]
    assert "panel" not in await links(hub, "t-3")


async def test_each_link_leads_somewhere(hub: HubInside) -> None:
    await hub.hub.publish("agent:status_change", {"id": "a b&c=ä/?#", "status": "idle"})
    await hub.hub.publish("task:progress", {"id": "a b&c=ä/?#", "name": "a b&c"})
    for text in ("a b&c", "events", "hub:seen"):
        found = await links(hub, text)
        assert found
        for kind, rests in found.items():
            for rest in rests:
                assert (await hub.ask("GET", f"?{kind}={rest}")).status == 200


async def test_a_few_of_each_are_shown_and_all_of_one_kind_page_by_page(hub: HubInside) -> None:
    for number in range(250):
        await hub.hub.publish("task:progress", {"id": f"same-{number:03}", "name": f"same {number:03}"})
    await hub.hub.publish("agent:status_change", {"id": "same", "status": "idle"})
    first = Page((await hub.get("", search="same")).text)
    assert len((await links(hub, "same"))["task"]) == search.FEW
    (every,) = [str(one["href"]) for one in first.all("a") if "All 250" in str(one["text"])]
    assert every == "./?search=same&kind=task"
    found, place = list[str](), every
    while place:
        page = Page((await hub.get(place.removeprefix("./"))).text)
        found += [str(one["text"]) for one in page.all("a") if str(one["href"]).startswith("./?task=")]
        place = next((str(one["href"]) for one in page.all("a", rel="next")), "")
    assert found == [f"same {number:03}" for number in range(250)]
    assert "Nothing further" in (await hub.get("", search="same", kind="task", page="9")).text
    (await hub.get("", search="same", kind="odd")).refused(400, "invalid_args")
    (await hub.get("", search="same", kind="task", page="x")).refused(400, "invalid_args")


async def test_what_was_searched_for_stands_in_the_field(hub: HubInside) -> None:
    for text in ("same", 'a "b" <c>', " "):
        page = Page((await hub.get("", search=text)).text)
        assert page.one("input", name="search")["value"] == text
    assert Page((await hub.get("")).text).one("input", name="search")["value"] == ""


async def test_what_is_called_like_markup_is_only_shown(hub: HubInside) -> None:
    hostile = "<script>alert(1)</script>\"'"
    await hub.hub.publish("task:progress", {"id": hostile, "name": hostile})
    for text in (hostile, "script", "nothing <b>like</b> this"):
        answer = await hub.get("", search=text)
        assert "<script>alert" not in answer.text
        assert "<b>like" not in answer.text
        Page(answer.text)
    assert "Nothing is called" in (await hub.get("", search="zzz")).text
    assert (await hub.get("", search=" ")).status == 200
    assert (await hub.get("", search="x" * 5000)).status == 200


async def test_others_get_their_turn_while_it_looks(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = list[float]()
    monkeypatch.setattr(search, "SLICE", 10)
    sleep = search.asyncio.sleep  # type: ignore[attr-defined]

    async def counted(seconds: float) -> None:
        turns.append(seconds)
        await sleep(seconds)

    for number in range(100):
        await hub.hub.publish("task:progress", {"id": str(number)})
    monkeypatch.setattr(search, "asyncio", type("Asyncio", (), {"sleep": staticmethod(counted)}))
    await hub.get("", search="nothing")
    assert len(turns) >= 10
