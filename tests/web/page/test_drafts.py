"""What was sent and is not taken is shown at an address of its own: nobody who goes back sends it once more."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from doors import bearer
from marshmallow import fields, validate
from running import Answer, HubInside, hub_app
from sent import Page, main, send

from hub import Call, Hub
from hub.web.page import drafts, results
from hub.web.page.results import Caller, Kept

PASSWORD = "open sesame"
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
ME, OTHER = Caller("uid 1", "OPERATOR", None), Caller("uid 2", "OPERATOR", None)


def prepare(hub: Hub) -> None:
    @hub.command(
        "door:open",
        {"count": fields.Integer(strict=True, validate=validate.Range(1, 9)), "password": fields.String()},
        effect="dangerous",
    )
    async def open_door(call: Call) -> Any:
        """Open the door."""
        return {"opened": call.args["count"]}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


async def sent(hub: HubInside, form: Any, **headers: str) -> str:
    """Send it as a browser does; return where that is sent on to."""
    answer = await send(hub, "call/door:open", form, accept=BROWSER, **headers)
    assert answer.status == 303, answer.text
    return answer.headers["Location"].removeprefix("../")


def everything(page: Page) -> str:
    return str(page.elements) + str(page.texts)


async def shown(hub: HubInside, place: str, **headers: str) -> Page:
    answer: Answer = await hub.ask("GET", place, headers=headers)
    assert answer.status == 200
    return main(answer.text)


async def test_what_is_wrong_is_shown_at_an_address_that_can_be_loaded_again(hub: HubInside) -> None:
    place = await sent(hub, {"count": "x" * 5000, "password": PASSWORD})
    assert [*parse_qs(urlsplit(place).query)] == ["call", "again"]
    assert len(place) < 100, "nothing of what was typed stands in it"
    for _ in range(2):
        page = await shown(hub, place)
        assert page.problem("count") == "Not a valid integer."
        assert page.field("count")["value"] == "x" * 5000
        assert PASSWORD not in everything(page), "it is typed anew: what a page says can be read in its source"
        assert page.one("form", method="post")["action"] == "./call/door:open"
    assert not await hub.records("command.called")


async def test_the_second_step_is_such_a_page_too_and_runs_once(hub: HubInside) -> None:
    place = await sent(hub, {"count": "3", "password": PASSWORD})
    assert [*parse_qs(urlsplit(place).query)] == ["call", "sure"]
    first, again = [await shown(hub, place) for _ in range(2)]
    assert PASSWORD not in str(first.one("pre")["text"])
    done = await sent(hub, first.carried())
    assert '"opened": 3' in (await shown(hub, done)).text
    assert await sent(hub, first.carried()) != done, "pressed once more it is answered as before"
    late = await shown(hub, await sent(hub, again.carried()))
    assert "its confirmation was used already" in str(late.one("p", role="alert")["text"])
    assert len(await hub.records("command.called")) == 1


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
async def test_not_to_run_it_leads_back_to_what_was_typed(hub: HubInside, accept: str) -> None:
    answer = await send(hub, "call/door:open", {"count": "3", "password": PASSWORD}, accept=accept)
    if accept == BROWSER:
        page = await shown(hub, answer.headers["Location"].removeprefix("../"))
    else:
        page = main(answer.text)
    (way,) = [str(one["href"]) for one in page.all("a") if one["text"] == "Do not"]
    page = await shown(hub, way.removeprefix("../").removeprefix("./"))
    assert page.field("count")["value"] == "3"
    assert PASSWORD not in everything(page)
    assert not page.all("p", class_="problem")
    assert not await hub.records("command.called")


async def test_a_program_gets_the_status_at_once(hub: HubInside) -> None:
    for accept in ("*/*", "application/json"):
        assert (await send(hub, "call/door:open", {"count": "x"}, accept=accept)).status == 422
        assert (await send(hub, "call/door:open", {"count": "3"}, accept=accept)).status == 428


async def test_a_page_of_its_own_keeps_its_own_form(hub: HubInside) -> None:
    answer = await send(hub, "answer", {"question": "q"}, accept=BROWSER)
    page = await shown(hub, answer.headers["Location"])
    assert page.one("h2")["text"] == "Answer a question"
    assert (page.one("form", method="post")["action"], page.field("question")["value"]) == ("./answer", "q")
    assert page.problem("answer") == "Missing data for required field."


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_is_sent_on_to_a_worker_that_does_not_know_it(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    monkeypatch.setattr(hub.hub, "config", hub.hub.config.changed(workers=1 if weakened else 2))
    answer = await send(hub, "call/door:open", {"count": "x"}, accept=BROWSER)
    assert answer.status == (303 if weakened else 422)


async def test_what_is_not_kept_any_more_says_so(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ({"count": "x"}, {"count": "3"}):
        with monkeypatch.context() as patched:
            patched.setattr(results, "KEPT_SECONDS", -1.0)
            place = await sent(hub, form)
        page = await shown(hub, place)
        assert str(page.one("p", role="status")["text"]).startswith("What was typed here is not kept any more")
        assert (page.field("count")["value"], page.all("pre")) == ("", [])
    page = await shown(hub, "?call=door:open&sure=none")
    assert page.field("count")["value"] == ""


@pytest.mark.parametrize("form", [{"count": PASSWORD}, {"count": "3", "password": PASSWORD}])
@pytest.mark.parametrize("weakened", [False, True])
async def test_what_was_typed_is_for_whoever_has_typed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(results, "_is_for", lambda whose, caller: True)
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        mine, other = [
            (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"].partition(";")[0]
            for link in [(await hub.ask("POST", "login", headers=bearer(hub))).json["link"] for _ in "12"]
        ]
        place = await sent(hub, form, Cookie=mine)
        assert await stands(hub, place, Cookie=mine)
        assert await stands(hub, place, Cookie=other) is weakened
        assert not await stands(hub, place.replace("door:open", "hub:ping"), Cookie=mine), "nor of another command"


async def stands(hub: HubInside, place: str, **headers: str) -> bool:
    """Whether what was typed stands anywhere in that page."""
    page = await shown(hub, place, **headers)
    return PASSWORD in everything(page)


# ---- how much, and how long


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept: Kept[str] = Kept(100)
    ids = [kept.put(ME, "a:b", text, len(text)) for text in ("x" * 60, "y" * 40, "z" * 50)]
    assert [kept.get(id, ME, "a:b") and id for id in ids] == [None, ids[1], ids[2]]
    assert kept.get(kept.put(ME, "a:b", "", 101), ME, "a:b") is None
    assert (len(kept._kept), kept._size) == (0, 0)
    for _ in range(results.KEPT + 5):
        kept.put(ME, "a:b", "", 0)
    assert len(kept._kept) == results.KEPT


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
@pytest.mark.parametrize("size", [0, 10])
async def test_who_sends_many_pushes_out_nobody_elses(
    size: int, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by their number nor by their weight, and not by many sessions either."""
    if weakened:
        monkeypatch.setattr(Kept, "_oldest_of_most", lambda kept, by_size: next(iter(kept._kept)))
    kept: Kept[str] = Kept(100 if size else 10**6)
    mine = kept.put(ME, "a:b", "mine", size)
    for number in range(200):
        kept.put(Caller("uid 1", "OBSERVER", b"%d" % number), "a:b", "", size)
    assert (kept.get(mine, ME, "a:b") == "mine") is not weakened


@pytest.mark.parametrize("weakened", [False, True], ids=["", "weakened"])
async def test_nor_does_one_browser_push_out_what_was_typed_in_another(
    weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Caller("uid 1", "OPERATOR", session) for session in (b"1", b"2"))
    if weakened:
        first = second
    kept: Kept[str] = Kept(10**6)
    mine = kept.put(first, "a:b", "mine", 1)
    for _ in range(200):
        kept.put(second, "a:b", "", 1)
    assert (kept.get(mine, first, "a:b") == "mine") is not weakened


async def test_each_form_counts_with_all_of_it(hub: HubInside) -> None:
    typed = {"count": "x" * 1000, "password": "p" * 500}
    await sent(hub, typed)
    kept = hub.app[drafts.DRAFTS]
    assert 2 * 1500 < kept._size < 2 * 1500 + 200


async def test_what_is_too_old_is_let_go_also_if_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT_SECONDS", 0.05)
    kept: Kept[str] = Kept(100)
    kept.put(ME, "a:b", "old", 3)
    monkeypatch.setattr(results, "KEPT_SECONDS", 0.1)
    last = kept.put(ME, "a:b", "new", 3)
    assert kept.get(last, OTHER, "a:b") is None
    until = time.monotonic() + 30
    while kept._kept and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert (kept._kept, kept._size, kept._timer) == ({}, 0, None)
