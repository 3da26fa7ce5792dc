"""/asyncapi.json: every frame that goes over the wire, either way, fits what it says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from documented import Part, document, problems, references, resolved
from doors import bearer
from marshmallow import fields
from running import HubInside, Talk, hub_app, stream, talk, until

from hub import Call, Hub
from hub.commands.asked import Person
from hub.web.documents.schemas import NOTICES, RESULTS

NOTHING = "none"  # an id that nobody has
CALLS: dict[str, dict[str, Any]] = {
    "hub:info": {},
    "hub:ping": {"x": 1},
    "hub:subscribe": {"topics": ["*"]},
    "hub:publish": {"event": "task:progress", "data": {"id": "build"}, "ttl": 60, "id": "1"},
    "hub:unsubscribe": {"topics": ["no:thing"]},
    "hub:provide": {"commands": [{"name": "test:serve", "args": {"type": "object"}}]},
    "hub:history": {"limit": 5},
    "hub:state": {"topics": ["task:*"]},
    "hub:commands": {},
    "hub:clients": {},
    "hub:stats": {},
    "hub:ask": {"question": "Go on?", "options": ["yes", "no"], "default": "no", "details": {"n": 1}},
    "hub:answer": {"question": NOTHING, "answer": "yes"},
    "hub:questions": {},
    "hub:seen": {"event": "task:progress", "key": "build"},
    "hub:cancel": {"id": NOTHING},
    "audit:tail": {"limit": 3},
    "audit:verify": {},
}


def prepare(hub: Hub) -> None:
    @hub.command("test:order", {"order": fields.Integer(strict=True, required=True)})
    async def order(call: Call) -> Any:
        """Order."""
        await call.progress({"percent": 50})
        return call.args["order"]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare, window_events=5, ephemeral=True) as found:
        yield found


def payload(found: Part, message: Part) -> Part:
    schema: Part = resolved(found, resolved(found, message))["payload"]
    return schema


async def test_what_is_called_and_what_is_answered_fits(hub: HubInside) -> None:
    assert CALLS.keys() == RESULTS.keys() == {command.name for command in hub.hub.commands} - {"test:order"}
    found = await document(hub, "asyncapi")
    operations = {resolved(found, one["messages"][0]).get("name"): one for one in found["operations"].values()}
    async with talk(hub.url) as client:
        for name, args in {**CALLS, "test:order": {"order": 1}}.items():
            asked, (answered, refused) = operations[name]["messages"][0], operations[name]["reply"]["messages"]
            frame = {"type": "command", "id": name, "payload": {"command": name, "args": args}}
            assert problems(found, payload(found, asked), frame) == []
            await client.send(frame)
            if name == "hub:ask":
                await _answer(hub)
            answer = await client.answer(name)
            assert problems(found, payload(found, answered), answer) == []
            assert problems(found, payload(found, refused), answer) != []
            await client.send({**frame, "payload": {"command": name, "args": {"more": 1}, "more": 1}})
            assert problems(found, payload(found, refused), await client.answer(name)) == []


async def _answer(hub: HubInside) -> None:
    await until(lambda: hub.hub.questions.records())
    (question,) = hub.hub.questions.records()
    await hub.hub.questions.answer(question["id"], "yes", Person("somebody"))


async def test_a_question_that_is_open_fits(hub: HubInside) -> None:
    found = await document(hub, "asyncapi")
    async with talk(hub.url, "?topics=no:thing") as client:
        await client.begin("hub:ask", **CALLS["hub:ask"])
        await until(lambda: hub.hub.questions.records())
        questions = await client.call("hub:questions")
        assert len(questions) == 1
        assert problems(found, found["components"]["schemas"]["HubQuestionsResult"], questions) == []


async def events_of(hub: HubInside, client: Talk) -> list[Part]:
    """One event of each type that comes by itself, in order."""
    cursor = hub.hub.cursor
    await hub.publish(6)
    await client.call("hub:subscribe", topics=["*"], after=str(cursor))  # five are kept: a gap
    await hub.hub.publish("task:progress", {"id": "x"}, ttl=0.05)
    await hub.hub.publish("agent:status_change", {"id": "x", "status": "idle"})
    asking = await client.begin("hub:ask", **CALLS["hub:ask"])
    await _answer(hub)
    await client.answer(asking)
    await client.call("test:order", order=1)
    await client.call("hub:seen", event="task:progress", key="x")
    seen, wanted = dict[str, Part](), {"hub:gap", "hub:stale", "hub:question", "hub:progress", "a:x", "task:progress"}
    wanted.add("hub:seen")
    while not wanted <= seen.keys():
        event = await client.event()
        seen[event["payload"]["event"]] = event
    return list(seen.values())


async def test_every_event_fits(hub: HubInside) -> None:
    found = await document(hub, "asyncapi")
    messages = [resolved(found, one) for one in found["operations"]["follow"]["messages"]]
    told = {resolved(found, one).get("name", "other"): payload(found, one) for one in messages}
    assert told.keys() == {*NOTICES, *(type.name for type in hub.hub.types), "other"}
    async with talk(hub.url, "?topics=no:thing") as client:
        for event in await events_of(hub, client):
            name = event["payload"]["event"]
            assert problems(found, told.get(name, told["other"]), event) == [], name
            assert problems(found, told["hub:mark"], event) != []


async def test_a_mark_fits_and_so_does_a_server_sent_event(tmp_path: Path) -> None:
    async with hub_app(tmp_path, heartbeat=0.1) as hub:
        found = await document(hub, "asyncapi")
        streamed = [payload(found, one) for one in found["operations"]["stream"]["messages"]]
        async with talk(hub.url, "?topics=b:*") as client, stream(hub.url) as sent:
            await hub.publish(1)
            (mark,) = [one for one in [await client.event()] if one["payload"]["event"] == "hub:mark"]
            for frame in (mark, (await sent.event()).json):
                assert [one for one in streamed if problems(found, one, frame) == []] != []


async def test_what_a_provider_is_sent_fits_and_so_does_what_it_says(hub: HubInside) -> None:
    found = await document(hub, "asyncapi")
    serve, progress = found["operations"]["serve"], found["operations"]["progress"]
    error = {"error": "No.", "code": "command_failed", "retryable": False}
    async with talk(hub.url, "?topics=no:thing") as provider, talk(hub.url, "?topics=no:thing") as caller:
        await provider.call("hub:provide", commands=[{"name": "test:serve"}])
        ends: list[Part] = [{"type": "response", "payload": None}, {"type": "error", "payload": error}]
        for told, end in enumerate(ends):
            calling = await caller.begin("test:serve", n=1)
            asked = await provider.frame()
            assert asked
            assert problems(found, payload(found, serve["messages"][0]), asked) == []
            percent = {"event": "hub:progress", "data": {"call": asked["id"], "percent": 50}}
            for message, said in (
                (progress["messages"][0], {"type": "event", "id": "1", "payload": percent}),
                (serve["reply"]["messages"][told], {"id": asked["id"], **end}),
            ):
                assert problems(found, payload(found, message), said) == []
                await provider.send(said)
            assert (await caller.event())["payload"]["data"]["percent"] == 50
            assert (await caller.answer(calling))["type"] == end["type"]


async def test_it_says_where_it_is_and_who_gets_in(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        hub.http.headers.update(bearer(hub))
        found = await document(hub, "asyncapi")
    for server, protocol in (("websocket", "ws"), ("http", "http")):
        said = found["servers"][server]
        assert (said["host"], said["protocol"]) == (f"127.0.0.1:{hub.port}", protocol)
        assert [resolved(found, one)["type"] for one in said["security"]] == ["http", "httpApiKey"]
    for name in references(found):
        assert resolved(found, {"$ref": name}) is not None
