"""The page's forms: each is a call as any other, no other page can send one, and what is wrong stands at its field."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp_jinja2
import pytest
from aiohttp import ClientSession, web
from doors import bearer
from jinja2 import BaseLoader, ChoiceLoader, DictLoader
from marshmallow import fields, validate
from running import Answer, HubInside, hub_app, talk, until
from sent import FORM, Page, main, own, send

from hub import Call, Hub, HubError, create_app
from hub.commands import confirmation
from hub.commands.asked import account
from hub.commands.provided import Provided
from hub.commands.runner import LIGHT
from hub.commands.seen import is_seen
from hub.errors import CommandError
from hub.web.access.guard import Guard
from hub.web.page import formfields, forms, marks, results
from hub.web.page.form import OF_A_CLIENT, OWN
from hub.web.page.formfields import REST
from hub.wire.vocabulary import Trust

ME = account(os.geteuid())
QUESTION = ("Deploy?", ["yes", "no", "a\r\nb"])
VOTE = {"vote_id": "v", "topic": "Merge?", "eligible": 7, "status": "open"}


def prepare(hub: Hub) -> None:
    @hub.command("db:drop", {"table": fields.String(required=True), "rows": fields.Integer()}, effect="dangerous")
    async def drop(call: Call) -> Any:
        """Drop a table."""
        return {"dropped": call.args}

    @hub.command("shop:order", {"count": fields.Integer(strict=True, validate=validate.Range(1, 9))})
    async def order(call: Call) -> Any:
        """Order something."""
        if call.args.get("count") == 9:
            raise CommandError("The shop is closed.")
        return {"ordered": call.args.get("count", 1)}

    @hub.command("shop:much", {}, effect="read")
    async def much(call: Call) -> Any:
        """Say much."""
        return "x" * 100_000


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


def value(hub: HubInside, event: str, key: str) -> Any:
    found = hub.hub.state.get(event, key)
    return found and found.data


def sent_back(answer: Answer, place: str = "./") -> None:
    assert (answer.status, answer.headers["Location"]) == (303, place)


# ---- what they do


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


# ---- what is wrong stands at its field


@pytest.mark.parametrize(
    ("path", "sent", "wrong"),
    [
        ("call/shop:order", {"count": "many"}, {"count": "Not a valid integer."}),
        ("call/shop:order", {"count": "10"}, {"count": "Must be greater than or equal to 1 and less than"}),
        ("call/hub:history", {"topics": '["bad"', "limit": "3"}, {"topics": "This is not JSON"}),
        ("call/hub:ask", {"options": "[1]"}, {"question": "Missing data", "options": "0: Not a valid string."}),
        (
            "call/hub:ask",
            {"options": "[", "timeout": "0", "details": "{", "while": "gone"},
            {
                "question": "Missing data",
                "options": "This is not JSON",
                "timeout": "Must be greater than or equal to 1",
                "details": "This is not JSON",
                "while": "Must be",
            },
        ),
        ("answer", {"answer": "yes"}, {"question": "Missing data"}),
        ("call/hub:ask", {"question": "?", "options": "[1]"}, {"options": "0: Not a valid string."}),
        ("answer", {"question": "", "answer": "yes"}, {"question": "Missing data"}),
        ("seen", {"event": "task:progress", "key": "x"}, {"key": "There is no last value"}),
        ("seen", {"event": "x", "key": "x"}, {"event": "Not a name"}),
        ("vote", {"vote_id": "none", "option": "approve"}, {"vote_id": "There is no such vote."}),
        ("vote", {"vote_id": "v", "option": "perhaps"}, {"option": "Must be one of"}),
        ("vote", {"vote_id": "v"}, {"option": "Missing data"}),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    hub: HubInside, path: str, sent: dict[str, str], wrong: dict[str, str]
) -> None:
    await hub.hub.publish("governance:vote_cast", VOTE)
    before = hub.hub.cursor
    answer = await send(hub, path, sent)
    assert answer.status == 422
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    for name, sentence in wrong.items():
        assert page.problem(name).startswith(sentence)
    assert len(page.all("p", class_="problem")) == len(wrong)
    for name, text in sent.items():
        if name not in wrong and page.field(name).get("type"):
            assert page.field(name).get("value", text) == text, "what was typed is still there"
    assert hub.hub.cursor == before


WORKER: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}, "data": {}},
    "required": ["name", "data"],
}


async def wrong_of_worker(hub: HubInside, sent: dict[str, str]) -> tuple[dict[str, str], str]:
    """What stands at the fields of a provider's command, and above them."""
    async with talk(hub.url) as provider:
        await provider.call("hub:provide", commands=[{"name": "worker:do", "args": WORKER}])
        page = main((await send(hub, "call/worker:do", sent)).text)
    names = [name for name in ("name", "size", "data", REST) if "aria-invalid" in page.field(name)]
    above = "".join(str(one["text"]) for one in page.all("p", role="alert"))
    return {name: page.problem(name).partition(":")[0] for name in names}, above


async def test_all_that_is_wrong_is_said_at_once(hub: HubInside) -> None:
    missing, json = "Missing data for required field.", "This is not JSON"
    found = await wrong_of_worker(hub, {"name": "", "size": "x", "data": "{"})
    assert found == ({"name": missing, "size": "Not a valid integer.", "data": json}, "")
    found = await wrong_of_worker(hub, {"size": "x", "hub:args": '{"name"'})
    assert found == (
        {"name": missing, "size": "Not a valid integer.", "data": missing, "hub:args": json},
        "",
    ), "of what stands in a text that cannot be read, nobody knows whether it is missing"
    answer = await send(hub, "call/shop:order", {"count": "x", "odd": "1"})
    page = main(answer.text)
    assert (page.problem("count"), page.one("p", role="alert")["text"]) == (
        "Not a valid integer.",
        "odd: Unknown field.",
    )


@pytest.mark.parametrize("weakened", [False, True])
async def test_nothing_runs_that_is_looked_at_for_what_is_wrong(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    """Nor is what takes long to look at looked at without a turn of its own."""
    if weakened:
        monkeypatch.setattr(Provided, "is_heavy", lambda *args: False)
    schema = {**WORKER, "properties": {**WORKER["properties"], "note": {"type": "string", "maxLength": 3}}}
    async with talk(hub.url) as provider:
        await provider.call("hub:provide", commands=[{"name": "worker:do", "args": schema}])
        for note, is_said in (("x" * 4, True), ("x" * LIGHT, weakened)):
            sent = {"name": "a", "note": note, "data": "{", "size": "1"}
            page = main((await send(hub, "call/worker:do", sent)).text)
            assert page.problem("data").startswith("This is not JSON")
            assert ("aria-invalid" in page.field("note")) is is_said
        assert provider.answers == {}
    assert [one["details"]["command"] for one in await hub.records("command.called")] == ["hub:provide"]


async def test_a_form_that_does_not_fit_is_noted_as_any_call_that_does_not(hub: HubInside) -> None:
    for path, sent in (("call/hub:history", {"topics": "["}), ("call/hub:history", {"limit": "x"}), ("vote", {})):
        await send(hub, path, sent)
    while len(records := await hub.records("command.refused")) < 3:
        await asyncio.sleep(0.005)  # they are noted, and nobody waits for that
    refused = [one["details"] for one in records]
    assert [(one["command"], one["outcome"]) for one in refused] == [
        ("hub:history", "invalid_args"),
        ("hub:history", "invalid_args"),
        ("hub:publish", "invalid_args"),
    ]


async def test_an_answer_that_is_no_option_is_wrong_at_its_field(hub: HubInside, question: str) -> None:
    answer = await send(hub, "answer", {"question": question, "answer": "maybe"})
    assert answer.status == 422
    assert Page(answer.text).problem("answer").startswith("Must be one of: 'yes', 'no'")


async def test_a_vote_that_is_over_is_not_cast(hub: HubInside) -> None:
    await hub.hub.publish("governance:vote_cast", {**VOTE, "status": "passed"})
    answer = await send(hub, "vote", {"vote_id": "v", "option": "approve"})
    assert (answer.status, Page(answer.text).problem("vote_id")) == (422, "This vote is over.")
    answer = await send(hub, "vote", {"vote_id": "v", "option": "approve", "status": "open"})
    assert answer.status == 422
    assert value(hub, "governance:vote_cast", "v")["status"] == "passed"


async def test_what_a_command_refuses_is_said_above_its_form(hub: HubInside) -> None:
    answer = await send(hub, "call/shop:order", {"count": "9"})
    page = main(answer.text)
    assert (answer.status, page.one("p", class_="problem", role="alert")["text"]) == (500, "The shop is closed.")
    assert page.field("count")["value"] == "9"
    answer = await send(hub, "call/shop:order", {"odd": "1"})
    assert answer.status == 422
    assert "odd: Unknown field." in str(main(answer.text).one("p", role="alert")["text"])


async def test_a_command_that_is_not_there(hub: HubInside) -> None:
    (await send(hub, "call/shop:ordr")).refused(404, "unknown_command")
    (await hub.get("?call=shop:ordr")).refused(404, "unknown_command")
    (refused,) = await hub.recorded("command.refused")
    assert refused["details"]["command"] == "shop:ordr"


# ---- who may send one

FOREIGN = ["http://evil.test", "null", "", "http://localhost:1", "https://127.0.0.1"]


async def is_done(hub: HubInside, headers: dict[str, str]) -> bool:
    """Whether a form with these headers does what it says."""
    await hub.hub.publish("task:progress", {"id": "build", "status": "failed"})
    body = "event=task:progress&key=build"
    answer = await hub.ask("POST", "seen", data=body, headers={**FORM, **headers}, allow_redirects=False)
    done = is_seen(hub.hub.state, "task:progress", "build")
    assert answer.status == (303 if done else 403)
    return done


@pytest.mark.parametrize("origin", [None, *FOREIGN])
async def test_nobody_elses_page_can_send_one(hub: HubInside, origin: str | None) -> None:
    assert await is_done(hub, own(hub))
    assert not await is_done(hub, {} if origin is None else {"Origin": origin})
    assert not await is_done(hub, {"Origin": own(hub)["Origin"].upper()})


async def test_a_page_that_is_allowed_to_ask_cannot_send_forms(tmp_path: Path) -> None:
    async with hub_app(tmp_path, allow_origin=("http://friend.test",)) as hub:
        friend = {"Origin": "http://friend.test"}
        assert (await hub.ask("GET", "api/state", headers=friend)).status == 200
        assert not await is_done(hub, friend)


async def test_weakened_a_form_without_an_origin_is_done(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "check_form", lambda self, request: None)
    assert await is_done(hub, {})


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "has_frame"),
    [
        ("call/shop:ordr", b"count=1", {}, 404, True),
        ("call/shop:order", b"count", {}, 422, True),
        ("seen", b"key=%ff", {}, 422, True),
        ("seen", b"", {"Content_Type": "text/plain"}, 415, True),
        ("seen", b"key=build", {"Origin": "http://evil.test"}, 403, False),
    ],
)
async def test_a_browser_whose_form_is_refused_gets_a_page(
    hub: HubInside, path: str, body: bytes, headers: dict[str, str], status: int, has_frame: bool
) -> None:
    """In the frame of every page, unless it was somebody else's page that has sent it: that has no business there."""
    answer = await send(hub, path, body, accept="text/html,*/*;q=0.8", **headers)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert ('role="search"' in answer.text) is has_frame
    if has_frame:
        page = Page(answer.text)
        root = "../" if path.startswith("call/") else "./"
        assert page.one("body")["data-root"] == root
        assert all(str(one["href"]).startswith((root, "#")) for one in page.all("a"))


async def test_who_may_only_look_is_told_so_in_a_browser(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        await hub.hub.publish("task:progress", {"id": "t", "status": "failed"})
        for fields in ({"event": "task:progress", "key": "t"}, {"panel": "failed", "until": "9"}):
            observer = bearer(hub, "OBSERVER")
            answer = await send(hub, "seen", fields, accept="text/html", **observer)
            assert answer.status == 303
            page = main((await hub.ask("GET", answer.headers["Location"], headers=observer)).text)
            assert "You may only read here" in str(page.one("p", role="alert")["text"])
            assert page.one("form", method="post")["action"] == "./seen"


async def test_a_refused_form_is_counted(hub: HubInside) -> None:
    await is_done(hub, {})
    assert hub.counted("hub_connections_refused_total", "origin") == 1


async def test_who_only_reads_cannot_press_what_would_be_refused_and_sees_why(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        buttons = {}
        for trust in ("OPERATOR", "OBSERVER"):
            for name in ("shop:order", "db:drop", "shop:much"):
                page = main((await hub.ask("GET", f"?call={name}", headers=bearer(hub, trust))).text)
                (button,) = page.all("button")
                if is_off := "disabled" in button:
                    why = page.one("strong", id=button["aria-describedby"])["text"]
                    assert why == "You may only look on here, so it cannot be run: your trust is OBSERVER."
                buttons[trust, name] = is_off
        assert [*buttons.values()] == [False, False, False, True, True, False], "who only reads may run what only reads"


async def test_who_only_reads_gets_the_form_and_a_refusal(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        observer = bearer(hub, "OBSERVER")
        page = await hub.ask("GET", "?call=shop:order", headers=observer)
        assert "You may only look on here" in page.text
        answer = await send(hub, "call/shop:order", {"count": "1"}, **observer)
        assert (answer.status, "You may only read here" in answer.text) == (403, True)
        await hub.hub.publish("task:progress", {"id": "build"})
        await hub.hub.publish("governance:vote_cast", VOTE)
        for path, sent in (
            ("seen", {"event": "task:progress", "key": "build"}),
            ("vote", {"vote_id": "v", "option": "approve"}),
            ("answer", {"question": "q", "answer": "yes"}),
        ):
            assert (await send(hub, path, sent, **observer)).status == 403
        assert not is_seen(hub.hub.state, "task:progress", "build")
        assert value(hub, "governance:vote_cast", "v") == VOTE
        assert (await send(hub, "call/shop:order", {"count": "1"}, **bearer(hub))).status == 303
        assert (await send(hub, "call/shop:order", {"count": "1"})).status == 401


async def test_a_browser_with_a_session_sends_forms_in_token_mode(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:
        link = (await hub.ask("POST", "login", headers=bearer(hub))).json["link"]
        given = (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"]
        cookie = given.partition(";")[0]
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=cookie)).status == 303
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=cookie, Origin="null")).status == 403
        assert (await send(hub, "call/shop:order", {"count": "1"}, Cookie=f"{cookie}x")).status == 401


# ---- what comes in is weighed


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_no_other_content_type_is_taken(hub: HubInside, kind: str) -> None:
    answer = await send(hub, "call/shop:order", b"count=1", Content_Type=kind)
    answer.refused(415, "invalid_message")


async def test_weakened_what_is_sent_as_a_text_is_done(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "content_type", lambda *args: "")
    assert (await send(hub, "call/shop:order", b"count=1", Content_Type="text/plain")).status == 303


async def test_weakened_a_large_form_is_read(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"count=" + b"1" * forms.MAX_BYTES
    monkeypatch.setattr(forms, "MAX_BYTES", 2 * forms.MAX_BYTES)
    assert (await send(hub, "call/shop:order", large)).status == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"count=" + b"1" * forms.MAX_BYTES, 413),
        (b"&".join(b"f%d=1" % number for number in range(1001)), 422),
        (b"count=1&count=2", 422),
        (b"count=%ff", 422),
        (b"count=\xff", 422),
        (b"count", 422),
        (b"count=%ed%a0%80", 422),
    ],
)
async def test_what_is_no_form_is_refused(hub: HubInside, body: bytes, status: int) -> None:
    answer = await send(hub, "call/shop:order", body)
    answer.refused(status, "too_large" if status == 413 else "invalid_message")


async def test_the_rate_limit_counts_them(tmp_path: Path) -> None:
    async with hub_app(tmp_path, rate=1, prepare=prepare) as hub:
        seen = [(await send(hub, "call/shop:order", {"count": "1"})).status for _ in range(10)]
        assert set(seen) == {303, 429}


# ---- what is dangerous has a second step


async def test_what_is_dangerous_is_shown_exactly_before_it_runs(hub: HubInside) -> None:
    answer = await send(hub, "call/db:drop", {"table": 'a"</pre>', "rows": "3"})
    assert answer.status == 428
    page = Page(answer.text)
    assert json.loads(str(page.one("code")["text"])) == {"table": 'a"</pre>', "rows": 3}
    assert not await hub.records("command.called")
    carried = page.carried()
    answer = await send(hub, "call/db:drop", carried)
    assert answer.status == 303
    page = Page((await hub.get(answer.headers["Location"].removeprefix("../"))).text)
    assert json.loads(str(page.one("code")["text"])) == {"dropped": {"table": 'a"</pre>', "rows": 3}}
    again = await send(hub, "call/db:drop", carried)
    assert again.status == 303, "the same press, once more"
    del carried["hub:key"]
    again = await send(hub, "call/db:drop", carried)
    assert again.status == 428, "it is good once"
    assert len(await hub.records("command.called")) == 1


async def test_what_was_confirmed_cannot_be_exchanged(hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = Page((await send(hub, "call/db:drop", {"table": "a"})).text).carried()
    assert (await send(hub, "call/db:drop", {**carried, "table": "b"})).status == 428
    assert (await send(hub, "call/db:drop", {**carried, "hub:confirm": "x"})).status == 428
    assert not await hub.records("command.called")
    monkeypatch.setattr(type(hub.hub.commands), "_confirm", lambda *args: None)
    assert (await send(hub, "call/db:drop", {"table": "b"})).status == 303, "weakened it runs at once"


DOOR = {
    "type": "object",
    "properties": {"password": {"type": "string", "minLength": 4}, "more": {"type": "object"}},
    "additionalProperties": False,
}


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_secret_stands_readable_nowhere(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(formfields, "names_a_secret", lambda *args: False)
    async with talk(hub.url) as provider:
        await provider.call("hub:provide", commands=[{"name": "door:open", "args": DOOR, "effect": "dangerous"}])
        refused = Page((await send(hub, "call/door:open", {"password": "123"})).text).field("password")
        assert refused["type"] == ("text" if weakened else "password")
        assert refused.get("autocomplete") == (None if weakened else "new-password")
        typed = {"password": "open sesame", "more": '{"api_key":"open sesame","a":1}'}
        page = main((await send(hub, "call/door:open", typed)).text)
        shown, note = str(page.one("pre")["text"]), "In place of what is a secret by its name" in page.text
        assert ("open sesame" in shown, note) == (weakened, not weakened)
        carried = page.carried()
        if not weakened:
            assert json.loads(shown) == {"password": "••••••", "more": {"api_key": "••••••", "a": 1}}
            assert all("hidden" in one for one in page.all("textarea"))
        calling = asyncio.ensure_future(send(hub, "call/door:open", carried))
        assert (await provider.answer("call-1"))["payload"]["args"] == {
            "password": "open sesame",
            "more": {"api_key": "open sesame", "a": 1},
        }, "it runs with what was typed"
        await provider.send({"type": "response", "id": "call-1", "payload": "up"})
        assert (await calling).status == 303


@pytest.mark.parametrize("how", ["late", "used", "exchanged"])
@pytest.mark.parametrize("weakened", [False, True])
async def test_a_confirmation_that_did_not_count_says_so_and_what_to_do(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch, how: str, weakened: bool
) -> None:
    if weakened:
        rewritten(hub, "pages/confirm.html", "{% if is_late %}", "{% if false %}")
    first = await send(hub, "call/db:drop", {"table": "a"})
    assert not main(first.text).all("p", role="alert"), "nobody has confirmed anything yet"
    carried = Page(first.text).carried()
    ran = 0
    with monkeypatch.context() as patched:
        if how == "late":
            patched.setattr(confirmation, "GOOD_SECONDS", -1)
        elif how == "used":
            ran += (await send(hub, "call/db:drop", carried)).status == 303
            del carried["hub:key"]
        else:
            carried["table"] = "b"
        again = await send(hub, "call/db:drop", carried)
    assert again.status == 428
    assert len(await hub.records("command.called")) == ran
    told = [str(one["text"]) for one in main(again.text).all("p", role="alert")]
    assert [text[:33] for text in told] == ([] if weakened else ["Nothing has run by this press: it"])
    assert all("press again within 60 seconds" in text for text in told)
    assert (await send(hub, "call/db:drop", Page(again.text).carried())).status == 303, "the new one is good"


async def test_what_does_not_fit_has_no_second_step(hub: HubInside) -> None:
    answer = await send(hub, "call/db:drop", {"rows": "x"})
    assert answer.status == 422
    assert Page(answer.text).problem("table") == "Missing data for required field."


# ---- what is shown


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


async def test_an_answer_is_kept_for_a_while_and_for_who_has_called(
    hub: HubInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = (await send(hub, "call/shop:order", {"count": "3"})).headers["Location"].removeprefix("../")
    for _ in range(2):
        assert "ordered" in (await hub.get(place)).text
    assert is_unknown(await hub.get(place.replace("shop:order", "hub:ping")))
    kept = hub.app[forms.RESULTS]
    (id,) = kept._kept
    assert kept.get(id, OTHER, "shop:order") is None
    monkeypatch.setattr(results, "_is_for", lambda *args: True)
    assert kept.get(id, OTHER, "shop:order") is not None, "weakened another account reads it"
    monkeypatch.setattr(results, "KEPT_SECONDS", -1.0)
    place = (await send(hub, "call/shop:order", {"count": "3"})).headers["Location"].removeprefix("../")
    assert is_unknown(await hub.get(place))


OTHER = results.Caller("uid 12345", "OPERATOR", None)


def is_unknown(answer: Answer) -> bool:
    """Whether the page says that nothing is known of this call; nothing else is said of it then."""
    page = main(answer.text)
    (said,) = [str(one["text"]) for one in page.all("p", role="status")]
    is_told = said.startswith("Of this call nothing is known here, not even whether it ran: ")
    assert ("Done" in said, "What it answered" in page.text) == (not is_told, not is_told)
    return is_told


def rewritten(hub: HubInside, name: str, old: str, new: str) -> None:
    """Have a template written otherwise in one place."""
    env = aiohttp_jinja2.get_env(hub.app)
    assert isinstance(env.loader, ChoiceLoader)
    source = env.loader.get_source(env, name)[0]
    assert old in source
    cast(list[BaseLoader], env.loader.loaders).insert(0, DictLoader({name: source.replace(old, new)}))


@pytest.mark.parametrize("id", ["11111111-1111-1111-1111-111111111111", ""])
@pytest.mark.parametrize("weakened", [False, True])
async def test_no_link_says_that_something_ran(hub: HubInside, id: str, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result %}\n<p", "{% if is_done %}\n<p")
    page = main((await hub.get("", call="db:drop", done=id)).text)
    said = str(page.one("p", role="status")["text"])
    assert (said.startswith("Of this call nothing is known"), "✓ Done" in said) == (not weakened, weakened)


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_that_comes_too_late_has_no_tick(hub: HubInside, question: str, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result.remark %}", "{% if not result %}")
    answers = [await send(hub, "answer", {"question": question, "answer": "no"}) for _ in "12"]
    page = main((await hub.get(answers[1].headers["Location"])).text)
    assert ("✓" in str(page.one("p", role="status")["text"])) is weakened


@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_is_for_the_session_that_has_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(results, "_is_for", lambda whose, caller: whose.account == caller.account)
    async with hub_app(tmp_path, auth="token", prepare=prepare) as hub:

        async def session(trust: Trust) -> dict[str, str]:
            link = (await hub.ask("POST", "login", headers=bearer(hub, trust))).json["link"]
            given = (await hub.ask("GET", link, allow_redirects=False)).headers["Set-Cookie"]
            return {"Cookie": given.partition(";")[0]}

        mine, other, observer = await session("OPERATOR"), await session("OPERATOR"), await session("OBSERVER")
        for caller in (mine, bearer(hub)):
            place = (await send(hub, "call/shop:order", {"count": "1"}, **caller)).headers["Location"]
            place = place.removeprefix("../")
            assert not is_unknown(await hub.ask("GET", place, headers=caller))
            others = [mine, other, observer, bearer(hub), bearer(hub, "OBSERVER")]
            others.remove(caller)
            for headers in others:
                assert is_unknown(await hub.ask("GET", place, headers=headers)) is not weakened


async def test_no_more_is_kept_than_is_shown(hub: HubInside) -> None:
    place = (await send(hub, "call/shop:much")).headers["Location"].removeprefix("../")
    page = await hub.get(place)
    assert "This is the beginning of 97.7 KiB." in page.text
    kept = hub.app[forms.RESULTS]
    (own,) = kept._kept.values()
    for _ in range(results.KEPT + 5):
        kept.keep(own.caller, "a:b", b"1")
    assert len(kept._kept) == results.KEPT
    assert is_unknown(await hub.get(place))


# ---- where it is mounted


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


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_broken_audit_log_has_no_tick(hub: HubInside, weakened: bool) -> None:
    if weakened:
        rewritten(hub, "pages/call.html", "{% if result.remark %}", "{% if not result %}")
    assert "✓ Done." in " ".join(str(one["text"]) for one in await verified(hub))
    path = hub.hub.config.state_dir / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"hub.started", b"hub.startet"))
    (said,) = [str(one["text"]) for one in await verified(hub)]
    assert ("▲ The audit log is not intact: what is wrong stands below." in said) is not weakened
    assert ("✓" in said) is weakened


async def verified(hub: HubInside) -> list[dict[str, str | None]]:
    place = (await send(hub, "call/audit:verify")).headers["Location"].removeprefix("../")
    return main((await hub.get(place)).text).all("p", role="status")


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
