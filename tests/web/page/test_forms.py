"""The page's forms: each is a call as any other, and does what its button says."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from doors import bearer
from running import HubInside, hub_app, talk, until
from sent import FORM, ME, QUESTION, VOTE, Page, main, prepare, send, sent_back, value

from hub import Hub, HubError, create_app
from hub.commands.seen import is_seen
from hub.web.page import forms, marks
from hub.web.page.form import OF_A_CLIENT, OWN


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


@pytest.fixture
async def question(hub: HubInside) -> AsyncIterator[str]:
    """The id of an open question."""
    asking = asyncio.ensure_future(hub.hub.ask(*QUESTION))
    await until(lambda: [*hub.hub.questions.records()])
    yield next(iter(hub.hub.questions.records()))["id"]
    asking.cancel()
    await asyncio.wait({asking})


async def test_an_answer_is_given_by_this_account_and_is_on_record(hub: HubInside, question: str) -> None:
    sent_back(await send(hub, "answer", {"question": question, "answer": "yes"}))
    told = value(hub, "hub:question", question)
    assert (told["answer"], told["by"]) == ("yes", ME)
    (called,) = [one for one in await hub.records("command.called") if one["details"]["command"] == "hub:answer"]
    assert called["details"]["args"] == {"question": question, "answer": "yes"}
    assert called["actor"]["uid"] == os.geteuid()
    (finished,) = [one for one in await hub.records("command.finished") if one["details"]["command"] == "hub:answer"]
    assert finished["details"]["outcome"] == "ok"


async def test_an_option_with_a_line_break_can_be_chosen(hub: HubInside, question: str) -> None:
    """Though a browser sends each break as two characters."""
    (button,) = main((await hub.get("")).text).all("button", name="hub:json:answer")
    sent_back(await send(hub, "answer", {"question": question, str(button["name"]): button["value"]}))
    assert value(hub, "hub:question", question)["answer"] == "a\r\nb"


async def test_an_answer_that_comes_too_late_is_told_so(hub: HubInside, question: str) -> None:
    await send(hub, "answer", {"question": question, "answer": "yes"})
    answer = await send(hub, "answer", {"question": question, "answer": "no"})
    assert answer.status == 303
    by_hand = await send(hub, "call/hub:answer", {"question": question, "answer": "no"})
    for place in (answer.headers["Location"].removeprefix("./"), by_hand.headers["Location"].removeprefix("../")):
        (said,) = main((await hub.get(place)).text).all("p", role="status")
        assert f"▲ The question was over before this answer came: “yes” by {ME}. " in str(said["text"])
        assert "✓" not in str(said["text"])
        assert "Done" not in str(said["text"])
    assert value(hub, "hub:question", question)["answer"] == "yes"


async def test_the_pages_script_is_told_in_place_what_has_become_of_it(hub: HubInside, question: str) -> None:
    fields = {"question": question, "answer": "yes"}
    taken = await send(hub, "answer", fields, accept="application/json")
    assert (taken.status, taken.json) == (200, {})
    late = await send(hub, "answer", fields, accept="application/json")
    assert late.json == {"late": f"The question was over before this answer came: “yes” by {ME}."}
    unknown = await send(hub, "answer", {**fields, "question": "?"}, accept="application/json")
    assert unknown.json == {"late": "The question was over before this answer came."}
    assert (await send(hub, "answer", {"answer": "yes"}, accept="application/json")).status == 422


@pytest.mark.parametrize(("default", "said"), [("no", ": “no” by itself."), (None, ".")])
async def test_a_late_answer_is_told_what_counts_instead(hub: HubInside, default: str | None, said: str) -> None:
    with contextlib.suppress(HubError):
        await hub.hub.ask("Deploy?", ["yes", "no"], default=default, timeout=1)
    (over,) = hub.hub.state.of("hub:question")
    late = await send(hub, "answer", {"question": over.key, "answer": "yes"}, accept="application/json")
    assert late.json["late"] == f"The question was over before this answer came{said}"


async def test_what_was_seen_is_marked(hub: HubInside) -> None:
    await hub.hub.publish("task:progress", {"id": "build", "status": "failed"})
    sent_back(await send(hub, "seen", {"event": "task:progress", "key": "build"}))
    assert is_seen(hub.hub.state, "task:progress", "build")


def threat(**more: Any) -> tuple[str, Any]:
    return "security:threat_detected", {"type": "inject", "severity": "critical", **more}


async def unseen(hub: HubInside) -> dict[str, list[str]]:
    """The rows that wait to be seen, and what marks all of a panel."""
    page = Page((await hub.get("")).text)
    found = {mark: [str(at[mark]) for _, at in page.elements if mark in at] for mark in ("data-task", "data-threat")}
    return found | {"until": [str(at["value"]) for at in page.all("input") if at.get("name") == "until"]}


async def test_a_threat_is_seen_by_its_number(hub: HubInside) -> None:
    for more in ({}, {"mitigated": True}, {"severity": "low"}):
        await hub.hub.publish(*threat(**more))
    worst, low = (await unseen(hub))["data-threat"]
    sent_back(await send(hub, "seen", {"event": "security:threat_detected", "key": worst}))
    assert (await unseen(hub))["data-threat"] == [low]
    every = Page((await hub.get("", panel="threats", filter="all")).text)
    assert [at["data-threat"] for _, at in every.elements if "data-threat" in at] == [low, "2", worst]
    assert "1 seen, 1 mitigated" in Page((await hub.get("")).text).text
    for key in ("9999", "0", "x"):  # none of them is one
        fields = {"event": "security:threat_detected", "key": key}
        assert (await send(hub, "seen", fields)).status == 422
    assert (await send(hub, "seen", {"event": "task:progress", "key": worst})).status == 422


async def test_all_that_was_shown_is_marked_in_one_press_and_nothing_else(hub: HubInside) -> None:
    for number in range(60):
        await hub.hub.publish("task:progress", {"id": f"t{number}", "status": "failed"})
    await hub.hub.publish(*threat())
    await hub.hub.publish(*threat(type="leak"))
    failed, threats = (await unseen(hub))["until"]
    await hub.hub.publish("task:progress", {"id": "t7", "status": "failed"})  # again, behind the drawing
    await hub.hub.publish(*threat(type="late"))
    sent_back(await send(hub, "seen", {"panel": "failed", "until": failed}))
    assert (await unseen(hub))["data-task"] == ["t7"]
    assert len(await hub.records("command.called")) == 59, "each is on record"
    sent_back(await send(hub, "seen", {"panel": "threats", "until": threats}))
    assert len((await unseen(hub))["data-threat"]) == 1
    taken = await send(hub, "seen", {"panel": "failed", "until": "99999"}, accept="application/json")
    assert (taken.status, taken.json) == (200, {})
    assert (await unseen(hub))["data-task"] == []


async def test_weakened_one_press_marks_what_nobody_has_seen_yet(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails between the drawing and the press would be gone without ever having stood there."""
    monkeypatch.setattr(marks, "was_drawn", lambda row, until: True)
    for name in ("old", "older"):
        await hub.hub.publish("task:progress", {"id": name, "status": "failed"})
    (failed,) = (await unseen(hub))["until"]
    await hub.hub.publish("task:progress", {"id": "new", "status": "failed"})
    sent_back(await send(hub, "seen", {"panel": "failed", "until": failed}))
    assert is_seen(hub.hub.state, "task:progress", "new")


async def test_of_one_press_each_mark_is_a_call_of_its_own_that_may_be_refused(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
        answer = await send(hub, "seen", {"panel": "failed", "until": "9"}, **bearer(hub, "OBSERVER"))
        assert answer.status == 403
        assert not is_seen(hub.hub.state, "task:progress", "t")


@pytest.mark.parametrize(
    "fields", [{"panel": "working", "until": "9"}, {"panel": "failed", "until": "x"}, {"panel": "failed", "key": "t"}]
)
async def test_what_marks_nothing_says_so(hub: HubInside, fields: dict[str, str]) -> None:
    await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
    assert (await send(hub, "seen", fields)).status in (400, 422)
    assert (await unseen(hub))["data-task"] == ["t"]


async def test_a_vote_is_cast_by_this_account_and_forgets_nothing_that_was_known(hub: HubInside) -> None:
    await hub.hub.publish("governance:vote_cast", {**VOTE, "votes": {"ada": "reject"}}, ttl=600)
    sent_back(await send(hub, "vote", {"vote_id": "v", "option": "approve"}))
    cast = {**VOTE, "agent": ME, "option": "approve", "votes": {"ada": "reject", ME: "approve"}}
    assert value(hub, "governance:vote_cast", "v") == cast
    kept = hub.hub.state.get("governance:vote_cast", "v")
    assert kept
    assert kept.ttl == 600


async def voted_on_record(hub: HubInside) -> list[Any]:
    """What the audit log has of a vote: who has cast what, and what has come of it."""
    await hub.hub.publish("governance:vote_cast", VOTE)
    sent_back(await send(hub, "vote", {"vote_id": "v", "option": "approve"}))
    assert (await send(hub, "vote", {"vote_id": "v", "option": "perhaps"})).status == 422
    called, finished = [await hub.records(f"command.{what}") for what in ("called", "finished")]
    return [
        (one["actor"]["uid"], begun["details"]["args"]["data"]["option"], one["details"]["outcome"])
        for begun, one in zip(called, finished, strict=True)
        if begun["details"]["id"] == one["details"]["id"]
    ]


@pytest.mark.parametrize(("deadline", "status"), [("2020-01-01T00:00:00Z", 422), ("2120-01-01T00:00:00Z", 303)])
async def test_a_vote_is_over_with_its_deadline(hub: HubInside, deadline: str, status: int) -> None:
    await hub.hub.publish("governance:vote_cast", VOTE | {"deadline": deadline})
    assert ('action="vote"' in (await hub.get("")).text) is (status == 303)
    assert (await send(hub, "vote", {"vote_id": "v", "option": "approve"})).status == status


async def test_a_vote_is_on_record_as_an_answer_is(hub: HubInside) -> None:
    whose = os.geteuid()
    assert await voted_on_record(hub) == [(whose, "approve", "ok"), (whose, "perhaps", "invalid_message")]
    await hub.post("api/events", {"event": "x:y", "data": 1})
    assert len(await hub.records("command.called")) == 2, "of what programs publish the kept event is the record"


async def test_weakened_of_a_vote_there_is_only_its_event(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast(Any, OWN), "vote", replace(OWN["vote"], audited=False))
    assert await voted_on_record(hub) == []


async def test_a_command_is_run_and_its_answer_shown(hub: HubInside) -> None:
    answer = await send(hub, "call/shop:order", {"count": "3"})
    assert answer.status == 303
    place = answer.headers["Location"]
    assert place.startswith("../?call=shop:order&done=")
    page = Page((await hub.get(place.removeprefix("../"))).text)
    assert json.loads(str(page.one("code")["text"])) == {"ordered": 3}
    assert page.one("form", method="post")["action"] == "./call/shop:order"
    assert "✓ Done. What it answered ▾" in [" ".join(str(one["text"]).split()) for one in page.all("p", role="status")]
    assert page.one("a", href="#result")
    text = (await hub.get(place.removeprefix("../"))).text
    places = [text.index(mark) for mark in ('<p role="status"><span', 'class="fields"', 'id="result"')]
    assert places == sorted(places), "it can be run again without going past a long answer"
    sent_back(await send(hub, "call/shop:order", b""), (await last_result(hub)))


async def last_result(hub: HubInside) -> str:
    """Where the newest answer is shown."""
    kept = hub.app[forms.RESULTS]._kept
    return f"../?call=shop:order&done={next(reversed(kept))}"


async def test_what_is_left_empty_is_left_out(hub: HubInside) -> None:
    await send(hub, "call/shop:order", {"count": ""})
    page = await hub.get((await last_result(hub)).removeprefix("../"))
    assert json.loads(str(Page(page.text).one("code")["text"])) == {"ordered": 1}


async def test_every_command_has_a_form_and_is_in_the_list(hub: HubInside) -> None:
    async with talk(hub.url) as provider:
        args = {"type": "object", "properties": {"size": {"enum": ["s", "l"]}}, "additionalProperties": False}
        await provider.call("hub:provide", commands=[{"name": "worker:do", "args": args, "summary": "Do it."}])
        names = [row["name"] for row in (await hub.get("api/commands")).json]
        assert {"worker:do", "shop:order", "hub:ask"} <= set(names)
        listed = Page((await hub.get("?call=")).text)
        for name in {*names} - OF_A_CLIENT:
            assert listed.all("a", href=f"?call={name.replace(':', '%3A')}")
            page = Page((await hub.get("", call=name)).text)
            assert page.one("form", method="post")["action"] == f"./call/{name}"
        sizes = Page((await hub.get("", call="worker:do")).text)
        assert [option["text"] for option in sizes.all("option")] == ["–", "s", "l"]


HOSTILE = "<script>alert(1)</script>\"'&"


async def test_what_others_have_written_is_only_shown(hub: HubInside) -> None:
    async with talk(hub.url) as provider:
        field = {"type": "string", "description": HOSTILE, "default": HOSTILE}
        choice = {"enum": [HOSTILE, "b"], "description": HOSTILE}
        args = {"type": "object", "properties": {HOSTILE: field, "choice": choice}, "required": [HOSTILE]}
        command = {"name": "evil:do", "args": args, "summary": HOSTILE, "effect": "dangerous"}
        await provider.call("hub:provide", commands=[command])
        shown = await hub.get("", call="evil:do")
        refused = await send(hub, "call/evil:do", {"choice": HOSTILE, "hub:args": HOSTILE})
        confirm = await send(hub, "call/evil:do", {HOSTILE: HOSTILE, "choice": HOSTILE})
        assert (shown.status, refused.status, confirm.status) == (200, 422, 428)
        for answer in (shown, refused, confirm, await hub.get("?call=")):
            page = Page(answer.text)
            assert "<script>alert" not in answer.text
            assert HOSTILE in page.text
        assert Page(confirm.text).carried()[HOSTILE] == HOSTILE


async def test_all_of_it_works_below_a_prefix(tmp_path: Path) -> None:
    hub = Hub(state_dir=tmp_path, port=0)
    prepare(hub)
    outer = web.Application()
    outer.add_subapp("/some/hub/", create_app(hub))
    runner = web.AppRunner(outer, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        (host, port) = runner.addresses[0][:2]
        root = f"http://{host}:{port}"
        headers = {**FORM, "Origin": root}
        async with ClientSession() as http:
            async with http.get(f"{root}/some/hub", allow_redirects=True) as answer:
                assert str(answer.url) == f"{root}/some/hub/"
            async with http.post(f"{root}/some/hub/call/shop:order", data="count=2", headers=headers) as answer:
                assert str(answer.url).startswith(f"{root}/some/hub/?call=shop:order&done=")
                assert '"ordered": 2' in Page(await answer.text()).text
            async with http.post(f"{root}/some/hub/call/shop:order", data="count=x", headers=headers) as answer:
                page = Page(await answer.text())
                assert answer.status == 422
                links = [one["href"] for tag in ("a", "link") for one in page.all(tag)]
                links += [one.get("action", "../") for one in page.all("form")]
                links += [one["src"] for one in page.all("script")]
                for link in links:
                    assert link
                    assert link.startswith(("../", "data:", "#"))
                (sheet,) = [link for link in links if link and link.endswith("hub.css")]
                async with http.get(answer.url.join(type(answer.url)(str(sheet)))) as style:
                    assert style.status == 200
            await hub.publish("task:progress", {"id": "build"})
            async with http.post(
                f"{root}/some/hub/seen", data="event=task:progress&key=build", headers=headers
            ) as answer:
                assert str(answer.url) == f"{root}/some/hub/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", ["hub:subscribe", "hub:unsubscribe", "hub:provide", "hub:cancel"])
async def test_what_needs_a_client_of_its_own_has_no_form(hub: HubInside, name: str) -> None:
    for place in ("?call=", f"?search={name}"):
        assert f"?call={name}" not in (await hub.get(place)).text.replace("%3A", ":")
    assert (await hub.get(f"?call={name}")).status == 404
    assert (await send(hub, f"call/{name}", {"topics": "a:*"})).status == 404
    if name == "hub:cancel":
        assert (await hub.post(f"api/commands/{name}", {"id": "x"})).json == {"cancelled": False}
        return
    args: Any = {"commands": []} if name == "hub:provide" else {"topics": ["a:*"]}
    refused = (await hub.post(f"api/commands/{name}", args)).refused(500, "command_failed")
    assert "/ws" in refused["error"]
