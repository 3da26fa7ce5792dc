"""/openapi.json: it has every route, every command and every event type, and each status in it is one that is seen."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import running
from aiohttp import web
from aiohttp.typedefs import Handler
from asked import JSON
from asked import request as head
from documented import Operation, Part, document, operations, problems, references, resolved
from doors import bearer, guard_of, raw, tokens_of
from marshmallow import Schema, fields, validate
from running import Answer, HubInside, Raw, hub_app, stream, talk

from hub import Call, Event, Hub, create_app
from hub.commands.asked import Person
from hub.errors import HubError
from hub.web import api, hooks, pings
from hub.web.documents.routes import ROUTES
from hub.web.page import dashboard

QUESTION: dict[str, Any] = {"question": "Go on?", "options": ["yes", "no"]}
EXAMPLES: dict[str, Any] = {
    "/api/events": {"event": "task:progress", "data": {"id": "build"}},
    "/api/commands/hub:subscribe": {"topics": ["a:*"]},
    "/api/commands/hub:unsubscribe": {"topics": ["a:*"]},
    "/api/commands/hub:provide": {"commands": []},
    "/api/commands/hub:publish": {"event": "a:x", "data": None},
    "/api/commands/hub:ask": QUESTION,
    "/api/commands/hub:answer": {"question": "none", "answer": "yes"},
    "/api/commands/hub:seen": {"event": "task:progress", "key": "build"},
    "/api/commands/hub:cancel": {"id": "none"},
    "/api/commands/test:look": {"order": 1},
    "/hooks/claude-code": {"session_id": "x", "hook_event_name": "SessionStart"},
}
NAMES = {"/api/commands/{name}": "hub:ping", "/static/{name}": "hub.js"}


class Order(Schema):
    """Somebody orders."""

    order = fields.Integer(strict=True, required=True, validate=validate.Range(min=1))


def prepare(hub: Hub) -> None:
    """What an application adds; and somebody who answers a question."""

    @hub.command("test:look", Order, effect="read")
    async def look(call: Call) -> Any:
        """Look at an order."""
        return call.args["order"]

    @hub.command("test:drop", effect="dangerous")
    async def drop(call: Call) -> Any:
        """Drop all of them."""

    hub.event_type("test:ordered", Order, key="order")

    @hub.on("hub:question")
    async def answer(event: Event) -> None:
        if event.data["status"] == "open" and event.data["question"] == QUESTION["question"]:
            await hub.questions.answer(event.data["id"], "yes", Person("somebody"))


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HubInside]:
    """A hub whose every route fails if it is asked to."""

    @web.middleware
    async def fail(asked: web.Request, handler: Handler) -> web.StreamResponse:
        if "Fail" in asked.headers:
            raise ZeroDivisionError
        return await handler(asked)

    def failing(hub: Hub) -> web.Application:
        app = create_app(hub)
        app.middlewares.append(cast(Any, fail))
        return app

    monkeypatch.setattr(running, "create_app", failing)
    async with hub_app(tmp_path, prepare=prepare, max_body=1000) as found:
        yield found


async def ask(hub: HubInside, operation: Operation, query: str = "", body: Any = None, **headers: str) -> Answer:
    """What the hub says to this operation as it should be used, but for what is given here."""
    name = headers.pop("name", NAMES.get(operation.path))
    others = {"adapter": name or "claude-code", "job": name or "backup", "what": "start"}
    path = operation.path.format(name=name, code=headers.pop("code", ""), **others)
    given = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = json.dumps(EXAMPLES.get(path, {}) if body is None else body) if operation.method == "POST" else None
    return await hub.ask(operation.method, path[1:] + query, allow_redirects=False, headers=given, data=data)


async def confirmed(hub: HubInside, operation: Operation) -> Answer:
    """As `ask`; and a second time with what a refusal has handed out."""
    answer = await ask(hub, operation)
    return await ask(hub, operation, Hub_Confirm=answer.json["details"]["confirm"]) if answer.status == 428 else answer


# ---- how each status comes about


class Hubs(NamedTuple):
    """One with the usual settings, one that takes a request a second, one that does not wait for a body."""

    usual: HubInside
    slow: HubInside
    hasty: HubInside


@pytest.fixture
async def hubs(tmp_path: Path, hub: HubInside, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hubs]:
    monkeypatch.setattr(api, "STRANGER_RATE", 1.0)
    async with (
        hub_app(tmp_path / "slow", prepare=prepare, rate=1) as slow,
        hub_app(tmp_path / "hasty", deadline=0.1) as hasty,
    ):
        yield Hubs(hub, slow, hasty)


async def used(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    if operation.path == "/events":  # which has no end
        async with stream(hubs.usual.url) as endless:
            return endless.response.status
    return (await confirmed(hubs.usual, operation)).status


async def upgraded(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    async with hubs.usual.http.ws_connect(hubs.usual.url + operation.path[1:]):
        return 101


async def known(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    tag = (await ask(hubs.usual, operation)).headers["ETag"]
    return (await ask(hubs.usual, operation, If_None_Match=tag)).status


async def odd_query(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    return (await ask(hubs.usual, operation, "?odd=1")).status


async def foreign_page(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    return (await ask(hubs.usual, operation, Origin="http://elsewhere.example")).status


async def other_host(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    return (await ask(hubs.usual, operation, Host="elsewhere.example")).status


async def nothing_there(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    query = "?call=no:such" if operation.path == "/" else ""
    return (await ask(hubs.usual, operation, query, name="no:such")).status


async def half_a_body(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    async with Raw(hubs.hasty.port) as raw:
        await raw.write(
            head(
                hubs.hasty,
                f"POST {operation.path.format(name='hub:ping', adapter='codex', job='a', what='0')}",
                "Content-Length: 9",
            )
        )
        return int((await raw.read()).split()[1])


async def coded(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    path = operation.path.format(name="hub:ping", adapter="codex", job="a", what="0")
    async with Raw(hubs.usual.port) as raw:
        await raw.write(head(hubs.usual, f"POST {path}", "Transfer-Encoding: gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n")
        return int((await raw.read()).split()[1])


async def taken_back(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    """Somebody else has asked the same, and withdraws it."""
    question = {**QUESTION, "question": "Shall it wait?"}
    key = {"Idempotency_Key": operation.path, "name": "hub:ask"}
    async with talk(hubs.usual.url) as client:
        frame = {"command": "hub:ask", "args": question, "idempotency_key": operation.path}
        await client.send({"type": "command", "id": "same", "payload": frame})
        await running.until(lambda: hubs.usual.hub.questions.records())
        asking = asyncio.ensure_future(ask(hubs.usual, operation, body=question, **key))
        await running.until(lambda: len(hubs.usual.hub.commands.running) == 2)
        await client.call("hub:cancel", id="same")
        return (await asking).status


async def large_body(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    patch.setattr(hooks, "LARGEST", 1000)
    patch.setattr(pings, "LARGEST", 1000)
    patch.setattr(hubs.usual.hub, "github_secret", b"secret")  # of an agent it is passed over
    name = {"name": "github"} if operation.path == "/hooks/{adapter}" else {}
    return (await ask(hubs.usual, operation, body="x" * 1000, **name)).status


async def other_type(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    """Or, where any is taken, one that is encoded."""
    if operation.said["tags"] == ["hooks"]:
        return (await ask(hubs.usual, operation, Content_Encoding="unheard-of")).status
    return (await ask(hubs.usual, operation, Content_Type="text/plain")).status


async def misfit(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    query = "?name=x" if operation.path == "/api/commands" else "?limit=0"
    if operation.method == "GET":
        return (await ask(hubs.usual, operation, query)).status
    return (await ask(hubs.usual, operation, body=[] if operation.path != "/api/events" else {})).status


async def without_confirmation(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    return (await ask(hubs.usual, operation, name="test:drop")).status


async def too_often(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    """A second time; `/metrics` and its like are counted for other accounts only, which this one becomes."""
    if operation.said["tags"] == ["health"]:
        patch.setattr(guard_of(hubs.slow), "users", frozenset())
        patch.setattr(guard_of(hubs.slow).accepted, "users", frozenset())
    for _ in range(50):
        if (status := (await ask(hubs.slow, operation, Connection="close")).status) == 429:
            break
    return status


async def failure(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    return (await ask(hubs.usual, operation, Fail="yes")).status


async def not_now(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    async def refuse(*args: Any) -> None:
        raise HubError("broker_unavailable", "The disk is full.")

    patch.setattr(hubs.usual.hub.commands, "stopping", True)
    patch.setattr(hubs.usual.hub.broker, "append", refuse)
    return (await ask(hubs.usual, operation)).status


async def too_slow(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    registry = hubs.usual.hub.commands
    hanging = {command.name: dataclasses.replace(command, handler=hang, limit=None) for command in registry}
    patch.setattr(registry, "_commands", hanging)
    patch.setattr(registry._runner, "limit", 0.02)
    return (await confirmed(hubs.usual, operation)).status


async def old_protocol(hubs: Hubs, operation: Operation, patch: pytest.MonkeyPatch) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", hubs.usual.port)
    writer.write(f"GET {operation.path} HTTP/1.0\r\nHost: 127.0.0.1:{hubs.usual.port}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


Probe = Callable[[Hubs, Operation, pytest.MonkeyPatch], Awaitable[int]]
PROBES: dict[int, Probe] = {
    101: upgraded,
    200: used,
    304: known,
    400: odd_query,
    403: foreign_page,
    404: nothing_there,
    408: half_a_body,
    409: taken_back,
    413: large_body,
    415: other_type,
    421: other_host,
    422: misfit,
    428: without_confirmation,
    429: too_often,
    500: failure,
    501: coded,
    503: not_now,
    504: too_slow,
    505: old_protocol,
}


@pytest.mark.parametrize("part", range(2))
async def test_each_status_is_seen(hubs: Hubs, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = operations(await document(hubs.usual))[part::2]
    wanted = [(operation.method, operation.path, status) for operation in found for status in operation.statuses]
    seen = []
    await hubs.usual.hub.publish("task:progress", {"id": "build"})  # hub:seen is about it, in whichever part that is
    for operation in found:
        for status in operation.statuses:
            with monkeypatch.context() as patch:
                seen.append((operation.method, operation.path, await PROBES[status](hubs, operation, patch)))
    assert seen == wanted


async def test_in_token_mode_it_says_who_gets_in(tmp_path: Path) -> None:
    async with hub_app(tmp_path / "local", prepare=prepare) as local:
        without = await document(local)
    async with hub_app(tmp_path / "token", auth="token", prepare=prepare) as hub:
        hub.http.headers.update(bearer(hub))
        found = await document(hub)
        assert (without["security"], found["security"]) == ([], [{"token": []}, {"session": []}])
        assert {name for way in found["security"] for name in way} == found["components"]["securitySchemes"].keys()
        before = {operation[:2]: operation.statuses for operation in operations(without)}
        for operation in operations(found):
            if operation.path.startswith("/login"):
                assert operation.statuses[0] == await _let_in(hub, operation)
            else:
                assert operation.statuses == sorted({*before[operation[:2]], 401, 429})
        hub.http.headers.clear()
        seen = [(await raw(hub.port, target="/api/state"))[0] for _ in range(20)]
        assert set(seen) == {401, 429}


async def _let_in(hub: HubInside, operation: Operation) -> int:
    return (await ask(hub, operation, code=tokens_of(hub).link("OPERATOR"))).status


# ---- what is in it


async def test_it_has_every_route_and_no_other(tmp_path: Path) -> None:
    async with hub_app(tmp_path, auth="token") as hub:
        hub.http.headers.update(bearer(hub))
        found = {operation[:2] for operation in operations(await document(hub))}
        calls = {("POST", f"/api/commands/{command.name}") for command in hub.hub.commands}
        resources = [(route.method, route.resource) for route in hub.app.router.routes()]
        routes = {(method, resource.canonical) for method, resource in resources if resource and method != "HEAD"}
        forms = {("POST", path) for path in ("/answer", "/vote", "/seen", "/call/{name}")}
        assert forms <= routes
        routes -= forms
        assert found == calls | routes
        assert set(ROUTES) == routes, "a row of a route that is not there any more"


async def test_it_names_what_the_page_can_be_asked_for(hub: HubInside) -> None:
    (page,) = (operation for operation in operations(await document(hub)) if operation[:2] == ("GET", "/"))
    named = {parameter["name"] for parameter in page.said["parameters"]}
    assert named == {*dashboard.QUERY, *dashboard.PAGES, "kind", "done"}


async def test_a_route_that_nobody_has_described_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTES, ("GET", "/healthz"))
    async with hub_app(tmp_path) as hub:
        (await hub.get("openapi.json")).refused(500, "internal")


async def test_it_has_every_command_as_hub_commands_lists_it(hub: HubInside) -> None:
    found = await document(hub)
    for command in (await hub.get("api/commands")).json:
        said = found["paths"][f"/api/commands/{command['name']}"]["post"]
        assert said["summary"] == command["summary"]
        body = said["requestBody"]
        assert resolved(found, body["content"]["application/json"]["schema"]) == command["args"]
        assert body["required"]
        headers = {parameter["name"] for parameter in said.get("parameters", ())}
        assert ("Idempotency-Key" in headers) == (command["effect"] != "read")
        assert ("Hub-Confirm" in headers) == (command["effect"] == "dangerous")
        assert "Hub-While" in headers


async def test_it_has_every_event_type(hub: HubInside) -> None:
    found = await document(hub)
    choices = [resolved(found, choice) for choice in found["components"]["schemas"]["Published"]["anyOf"]]
    names = [choice["properties"]["event"].get("const") for choice in choices]
    assert names == [*(type.name for type in hub.hub.types), None]
    ordered = found["components"]["schemas"]["TestOrdered"]
    assert ordered["description"] == "Somebody orders. The last value for each `order` is kept."
    assert ordered["properties"] == {"order": {"type": "integer", "minimum": 1}}


PUBLISHED: list[tuple[Any, bool]] = [
    ({"event": "task:progress", "data": {"id": "x", "more": 1}}, True),
    ({"event": "task:progress", "data": {"id": "x", "progress": 101}}, False),
    ({"event": "task:progress", "data": {}}, False),
    ({"event": "governance:vote_cast", "data": {"vote_id": "x", "votes": {"a": "approve"}}}, True),
    ({"event": "governance:vote_cast", "data": {"vote_id": "x", "votes": {"a": "perhaps"}}}, False),
    ({"event": "test:ordered", "data": {"order": 0}}, False),
    ({"event": "a:x", "data": None, "id": "1"}, True),
    ({"event": "a:x", "data": None, "id": ""}, False),
    ({"event": "a:x", "data": None, "ttl": 1}, False),
    ({"event": "task:progress", "data": {"id": "x"}, "ttl": 1}, True),
    ({"event": "task:progress", "data": {"id": "x"}, "ttl": 0}, False),
    ({"event": "a:x"}, False),
    ({"event": "a", "data": 1}, False),
    ({"event": "hub:x", "data": 1}, False),
    ({"event": "a:x", "data": 1, "more": 1}, False),
]


@pytest.mark.parametrize(("event", "fits"), PUBLISHED)
async def test_what_fits_is_what_is_taken(hub: HubInside, event: Any, fits: bool) -> None:
    found = await document(hub)
    body = found["paths"]["/api/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for value in (event, [event]):
        assert (problems(found, body, value) == []) is fits
        assert (await hub.post("api/events", value)).status == (200 if fits else 422)


async def test_all_names_are_one_things_only(tmp_path: Path) -> None:
    """Also where an application has names that differ in nothing but their punctuation."""

    def alike(hub: Hub) -> None:
        for name in ("a:b-c", "a:b:c", "a:b.c", "-:publish", "-:error", "other:published"):
            hub.event_type(name, Order)

            @hub.command(name)
            async def nothing(call: Call) -> None:
                """Do nothing."""

    async with hub_app(tmp_path, prepare=alike) as hub:
        found = await document(hub)
        ids = [operation.said["operationId"] for operation in operations(found)]
        assert len(set(ids)) == len(ids)
        assert {"aBC", "aBC2", "aBC3", "publish", "publish2"} <= set(ids)
        assert found["components"]["schemas"]["Error"]["required"] == ["error", "code", "retryable"]
        for name in references(found):
            assert resolved(found, {"$ref": name}) is not None
        asked: Part = resolved(found, {"$ref": "#/components/schemas/OtherPublished"})
        assert asked["required"] == ["event", "data"]
