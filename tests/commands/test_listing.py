"""What is too large for one answer comes in pages: followed to their end they hold everything, each once."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub import Call, Hub
from hub.commands import builtin, listing
from hub.commands.clients import Client
from hub.stream.events import Draft
from hub.wire.names import Cursor
from hub.wire.strictjson import LARGEST_EVENT

ROOM = 1500  # bytes, in place of a MiB
SIZES = st.lists(st.integers(0, 1200), max_size=25)


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(listing, "LARGEST_EVENT", ROOM)
    monkeypatch.setattr(listing, "SCAN_BYTES", 700)
    hub = Hub(port=0, state_dir=tmp_path, ephemeral=True)
    await hub.start()
    yield hub
    await hub.stop()


async def ask(hub: Hub, name: str, **args: Any) -> Any:
    answer = await hub.commands.call(Call(hub, Client("http", "127.0.0.1:1", 1000), "1"), name, args)
    assert len(answer) < ROOM + 200
    return json.loads(answer)


async def followed(hub: Hub, name: str, items: str, **args: Any) -> tuple[list[Any], str]:
    """All that an answer and those behind it hold, and the last cursor."""
    found = []
    while True:
        page = await ask(hub, name, **args)
        found += page[items]
        if not page["more"]:
            return found, page["cursor"]
        args["after"] = page["cursor"]


def numbers(events: list[Any]) -> list[int]:
    return [event["payload"]["data"]["n"] for event in events]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.integers(1, 30))
async def test_the_newest_events_are_all_there(hub: Hub, sizes: list[int], limit: int) -> None:
    """Whatever their bytes are: those that do not fit are asked for behind the cursor."""
    for number, size in enumerate(sizes):
        await hub.publish("a:x", {"n": number, "pad": "x" * size})
    first, total = await ask(hub, "hub:history", limit=limit), hub.cursor.seq
    events, more = first["events"], first["more"]
    while more and len(events) < limit:
        page = await ask(hub, "hub:history", after=first["cursor"], limit=limit - len(events))
        events, more, first = events + page["events"], page["more"], page
    seqs = [int(event["cursor"].rpartition(":")[2]) for event in events]
    assert seqs == list(range(max(1, total - limit + 1), total + 1))
    assert first["cursor"] == str(hub.cursor)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.integers(1, 30))
async def test_all_events_behind_a_cursor_are_there(hub: Hub, sizes: list[int], limit: int) -> None:
    after = hub.cursor
    for number, size in enumerate(sizes):
        await hub.publish(f"a:{number % 2}", {"n": number, "pad": "x" * size})
    events, cursor = await followed(hub, "hub:history", "events", after=str(after), topics=["a:0"], limit=limit)
    assert numbers(events) == list(range(0, len(sizes), 2))
    assert cursor == str(hub.cursor)


async def test_last_values_are_all_there_in_the_order_in_which_they_changed(hub: Hub) -> None:
    for key in [*range(12), 3, 7]:
        await hub.publish("task:progress", {"id": f"{key}", "message": "x" * 300})
    items, cursor = await followed(hub, "hub:state", "items")
    assert [int(item["key"]) for item in items] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 3, 7]
    assert cursor == str(hub.cursor)
    assert await followed(hub, "hub:state", "items", topics=["agent:*"]) == ([], cursor)
    [last] = (await ask(hub, "hub:state", after=str(Cursor(hub.broker.epoch, hub.cursor.seq - 1))))["items"]
    assert last["key"] == "7"
    assert (await followed(hub, "hub:state", "items", after="gone:99"))[0] == items


async def test_a_cursor_of_the_future_has_no_last_values(hub: Hub) -> None:
    with pytest.raises(Exception, match="future"):
        await ask(hub, "hub:state", after=str(Cursor(hub.broker.epoch, 1)))


async def test_clients_are_all_listed_although_some_go(hub: Hub) -> None:
    clients = [Client("websocket", "127.0.0.1:1", 1000) for _ in range(30)]
    for client in clients:
        hub.clients.join(client)
    found = list[str]()
    while rows := await ask(hub, "hub:clients", **({"after": found[-1]} if found else {})):
        found += [row["client"] for row in rows]
        hub.clients.leave(next(client for client in clients if client.id == found[-1]), "lost")
    assert found == sorted(client.id for client in clients)
    assert len(hub.clients) < 29, "it was one answer"


async def test_audit_records_are_all_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "LARGEST_EVENT", ROOM)
    for _ in range(12):
        await ask(hub, "hub:ping")
    found: list[int] = []
    while not found or found[0] > 1:
        records = await ask(hub, "audit:tail", **({"before": found[0]} if found else {}))
        found = [record["seq"] for record in records] + found
    assert len(found) > 24
    assert found == list(range(1, found[-1] + 1))
    assert [record["seq"] for record in await ask(hub, "audit:tail", before=9, limit=2)] == [7, 8]
    assert await ask(hub, "audit:tail", before=1) == []


async def test_an_event_of_an_older_version_that_is_too_large_is_passed_over(tmp_path: Path) -> None:
    """It is in the store; to send it would close the connection of whoever asks."""
    hub = Hub(port=0, state_dir=tmp_path)
    await hub.start()
    await hub.publish("a:x", {"n": 0})
    await hub.broker.append([Draft("a:x", "id", b'"%b"' % (b"x" * LARGEST_EVENT))])
    await hub.publish("a:x", {"n": 2})
    for args in ({}, {"after": str(Cursor(hub.broker.epoch, 0))}):
        page = json.loads(await hub.commands.call(Call(hub, Client("http", "1", 1), "1"), "hub:history", args))
        assert (numbers(page["events"]), page["complete"], page["more"]) == ([0, 2], False, False)
    await hub.stop()


@pytest.mark.parametrize("topics", [["b:*"], ["c:*"], ["b:*", "c:*"]])
async def test_few_among_many_are_found_by_their_names(
    hub: Hub, topics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "NAMES", 7)
    monkeypatch.setattr(listing, "SCAN", 3)
    names = ["a:x"] * 100
    for place in (0, 1, 40, 41, 42, 77, 99):
        names[place] = "b:x"
    await hub.bus.publish([{"event": name, "data": n} for n, name in enumerate(names)], many=True)
    wanted = [n for n, name in enumerate(names) if name == "b:x" and "b:*" in topics]
    for limit in (1, 2, 3, 1000):
        newest = await ask(hub, "hub:history", topics=topics, limit=limit)
        assert [event["payload"]["data"] for event in newest["events"]] == wanted[-limit:]
        after, more, found = f"{hub.broker.epoch}:0", True, list[int]()
        while more:
            page = await ask(hub, "hub:history", topics=topics, after=after, limit=limit)
            found += [event["payload"]["data"] for event in page["events"]]
            after, more = page["cursor"], page["more"]
            assert page["complete"]
        assert found == wanted
        assert after == str(hub.cursor)
