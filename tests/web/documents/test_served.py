"""How the documents are served: made once for all, anew when something has changed, and never too large."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from documented import document, operations, references, resolved
from running import HubInside, hub_app, talk, until

from hub import Call, Hub, create_app
from hub.web.documents import served
from hub.wire.strictjson import LARGEST

BOTH = pytest.mark.parametrize("name", ["openapi", "asyncapi"])
SCHEMA = {
    "$id": "urn:tree",
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}, "leaf": {"$ref": "#leaf"}, "text": {"const": {"$ref": "#leaf"}}},
    "$defs": {
        "node": {"anyOf": [{"type": "array", "items": {"$dynamicRef": "#/$defs/node"}}, {"$ref": "#leaf"}]},
        "end": {"$anchor": "leaf", "type": "integer"},
    },
}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path) as found:
        yield found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts how often a document is put together."""
    real, found = served._put_together, list[str]()

    async def put_together(head: Any, parts: Any) -> bytes:
        found.append("made")
        return await real(head, parts)

    monkeypatch.setattr(served, "_put_together", put_together)
    return found


@BOTH
async def test_who_has_it_is_told_so(hub: HubInside, name: str) -> None:
    first = await hub.get(f"{name}.json")
    assert first.headers["Content-Type"] == "application/json"
    again = await hub.ask("GET", f"{name}.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.text, again.headers["ETag"]) == (304, "", first.headers["ETag"])
    async with talk(hub.url, "?topics=no:thing") as provider:
        await provider.call("hub:provide", commands=[{"name": "test:serve"}])
        other = await hub.ask("GET", f"{name}.json", headers={"If-None-Match": first.headers["ETag"]})
        assert other.status == 200
        assert other.headers["ETag"] != first.headers["ETag"]
        assert "test:serve" in other.text
    await until(lambda: not hub.hub.commands.provided)
    assert (await hub.get(f"{name}.json")).headers["ETag"] == first.headers["ETag"]


@BOTH
@pytest.mark.parametrize("weakened", [False, True])
async def test_it_is_made_once_for_all_who_ask(
    hub: HubInside, made: list[str], monkeypatch: pytest.MonkeyPatch, name: str, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(served, "ADDRESSES", -1)
    await asyncio.gather(*(document(hub, name) for _ in range(20)))
    assert len(made) == (20 if weakened else 1)


async def test_no_more_addresses_are_kept_than_there_may_be(hub: HubInside) -> None:
    for number in range(3 * served.ADDRESSES):
        host = f"127.0.0.{number + 1}:{hub.port}"
        answer = await hub.ask("GET", "openapi.json", headers={"Host": host})
        assert answer.json["servers"] == [{"url": f"http://{host}"}]
    assert len(hub.app[served.DOCUMENTS]._made) <= served.ADDRESSES + 1


@BOTH
async def test_what_a_provider_gave_refers_to_itself(hub: HubInside, name: str) -> None:
    async with talk(hub.url, "?topics=no:thing") as provider:
        await provider.call("hub:provide", commands=[{"name": "test:tree", "args": SCHEMA}])
        found = await document(hub, name)
    args = found["components"]["schemas"]["TestTreeArgs"]
    properties = {name: resolved(found, part) for name, part in args["properties"].items()}
    assert properties["tree"] == args["$defs"]["node"]
    assert properties["leaf"] == {"type": "integer"}
    assert properties["text"] == {"const": {"$ref": "#leaf"}}
    assert resolved(found, args["$defs"]["node"]["anyOf"][0]["items"]) == args["$defs"]["node"]
    assert set(references(args)) == {
        "#leaf",  # a value, and no reference
        "#/components/schemas/TestTreeArgs/$defs/node",
        "#/components/schemas/TestTreeArgs/$defs/end",
    }


def many(hub: Hub) -> None:
    """More commands and event types than one answer holds."""

    async def nothing(call: Call) -> None:
        pass

    nothing.__doc__ = "Do nothing. " * 50
    for number in range(1500):
        hub.command(f"many:command{number}", {})(nothing)
        hub.event_type(f"many:event{number}", {})


@BOTH
@pytest.mark.parametrize("weakened", [False, True])
async def test_it_is_never_larger_than_an_answer_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(served, "LARGEST_RESULT", 2**40)
    async with hub_app(tmp_path, prepare=many) as hub:
        answer = await hub.get(f"{name}.json")
        assert answer.status == 200
        assert (len(answer.text.encode()) > LARGEST) is weakened
        found = answer.json
        assert (" more have no room in here" in found["info"]["description"]) is not weakened
        for reference in set(references(found)):
            assert resolved(found, {"$ref": reference}) is not None
        if name == "openapi":
            described = {operation.path for operation in operations(found)}
            assert {"/api/events", "/api/commands/{name}", "/api/commands/hub:ask"} <= described


@pytest.mark.parametrize("weakened", [False, True])
async def test_others_have_turns_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(served, "SLICE", 2**40)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await served._put_together({"info": {}}, ({str(number): {}} for number in range(160)))
    counting.cancel()
    assert (turns >= 10) is not weakened


@BOTH
async def test_below_a_prefix_it_says_so(tmp_path: Path, name: str) -> None:
    app = web.Application()
    app.add_subapp("/some/where/", create_app(Hub(state_dir=tmp_path)))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/some/where/{name}.json") as response:
        found = await response.json()
    await runner.cleanup()
    if name == "openapi":
        assert found["servers"] == [{"url": f"http://127.0.0.1:{port}/some/where"}]
        assert {"/", "/api/events", "/static/{name}"} <= found["paths"].keys()
    else:
        assert {server["pathname"] for server in found["servers"].values()} == {"/some/where"}
        assert {channel["address"] for channel in found["channels"].values()} == {"/ws", "/events"}
