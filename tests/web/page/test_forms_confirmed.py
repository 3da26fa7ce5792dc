"""What is dangerous has a second step: it is shown exactly, and runs once, as it was shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from running import HubInside, hub_app, talk
from sent import Page, main, prepare, rewritten, send

from hub.commands import confirmation
from hub.web.page import formfields

DOOR = {
    "type": "object",
    "properties": {"password": {"type": "string", "minLength": 4}, "more": {"type": "object"}},
    "additionalProperties": False,
}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as inside:
        yield inside


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
