"""What is wrong with a form stands at its field, all of it at once, and nothing has run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from running import HubInside, hub_app, talk, until
from sent import QUESTION, VOTE, Page, main, prepare, send, value

from hub.commands.provided import Provided
from hub.commands.runner import LIGHT
from hub.web.page.formfields import REST


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
