"""The hub's own commands, called as a client's session calls them."""

import asyncio
import json
from typing import Any

import pytest

from hub import Call, Hub
from hub.commands import builtin
from hub.commands.clients import Client
from hub.errors import HubError
from hub.stream.subscriber import Subscriber
from hub.wire.framing import WEBSOCKET
from hub.wire.names import EVERYTHING, MAX_PATTERNS, Cursor, Patterns


def client_of(hub: Hub, *, streams: bool = False) -> Client:
    """A client that is connected."""
    client = Client("websocket" if streams else "http", "127.0.0.1:1", 1000)
    if streams:
        client.subscriber = Subscriber(lambda data: None, WEBSOCKET)
        hub.clients.join(client)
        hub.broadcaster.join(client.subscriber, EVERYTHING)
    return client


async def ask(hub: Hub, name: str, client: Client | None = None, /, **args: Any) -> Any:
    call = Call(hub, client or client_of(hub), "1")
    return json.loads(await hub.commands.call(call, name, args))


async def fails(hub: Hub, name: str, code: str, client: Client | None = None, /, **args: Any) -> HubError:
    with pytest.raises(HubError) as refused:
        await ask(hub, name, client, **args)
    assert refused.value.code == code
    return refused.value


async def publish(hub: Hub, count: int, event: str = "a:x") -> list[Cursor]:
    return [(await hub.publish(event, number)).cursor for number in range(count)]


async def test_what_the_hub_says_of_itself(hub: Hub) -> None:
    client = client_of(hub)
    info = await ask(hub, "hub:info", client)
    assert (info["version"], info["protocol"], info["client"]) == (hub.version, builtin.PROTOCOL, client.id)
    assert (info["trust"], info["cursor"]) == ("OPERATOR", str(hub.cursor))
    assert info["limits"]["max_frame"] == hub.config.max_frame


async def test_ping_gives_back_what_came(hub: Hub) -> None:
    assert await ask(hub, "hub:ping", n=1, deep={"x": []}) == {"pong": True, "args": {"n": 1, "deep": {"x": []}}}


async def test_every_command_is_listed_with_a_sentence_and_its_effect(hub: Hub) -> None:
    listed = {row["name"]: row for row in await ask(hub, "hub:commands")}
    assert set(listed) == {command.name for command in hub.commands}
    assert all(row["summary"].endswith(".") for row in listed.values())
    writing = [name for name, row in listed.items() if row["effect"] != "read"]
    assert writing == ["hub:publish", "hub:ask", "hub:answer", "hub:seen", "hub:provide"]


class TestSubscribing:
    async def test_the_first_replaces_what_was_implied_and_more_are_added(self, hub: Hub) -> None:
        client = client_of(hub, streams=True)
        assert (await ask(hub, "hub:subscribe", client, topics=["a:*"]))["topics"] == ["a:*"]
        assert (await ask(hub, "hub:subscribe", client, topics=["b:*"]))["topics"] == ["a:*", "b:*"]
        assert (await ask(hub, "hub:unsubscribe", client, topics=["a:*"]))["topics"] == ["b:*"]
        assert client.subscriber
        assert client.subscriber.patterns == Patterns(["b:*"])

    async def test_who_has_no_stream(self, hub: Hub) -> None:
        await fails(hub, "hub:subscribe", "command_failed", topics=["a:*"])
        await fails(hub, "hub:unsubscribe", "command_failed", topics=["a:*"])

    async def test_more_patterns_than_a_client_can_have(self, hub: Hub) -> None:
        client = client_of(hub, streams=True)
        for start in range(0, MAX_PATTERNS, 32):
            await ask(hub, "hub:subscribe", client, topics=[f"a:x{n}" for n in range(start, start + 32)])
        await fails(hub, "hub:subscribe", "invalid_args", client, topics=["a:more"])

    async def test_after_a_cursor_of_the_future(self, hub: Hub) -> None:
        after = str(Cursor(hub.broker.epoch, hub.cursor.seq + 1))
        await fails(hub, "hub:subscribe", "unknown_cursor", client_of(hub, streams=True), topics=["*"], after=after)


class TestHistory:
    async def test_the_newest_in_their_order(self, hub: Hub) -> None:
        await publish(hub, 5)
        page = await ask(hub, "hub:history", limit=2)
        assert [event["payload"]["data"] for event in page["events"]] == [3, 4]
        assert (page["cursor"], page["more"]) == (str(hub.cursor), False)

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_page_by_page_from_the_beginning_nothing_is_missing_and_nothing_comes_twice(
        self, limit: int, hub: Hub
    ) -> None:
        await publish(hub, 7)
        await publish(hub, 3, "b:x")
        await publish(hub, 2)
        after, more, found = str(Cursor(hub.broker.epoch, 0)), True, []
        while more:
            page = await ask(hub, "hub:history", topics=["a:*"], after=after, limit=limit)
            assert page["complete"] is True
            found += [event["payload"]["data"] for event in page["events"]]
            after, more = page["cursor"], page["more"]
        assert found == [*range(7), 0, 1]

    async def test_another_epoch_is_not_complete(self, hub: Hub) -> None:
        await publish(hub, 2)
        page = await ask(hub, "hub:history", after="gone:1")
        assert (len(page["events"]), page["complete"]) == (2, False)


async def test_state_and_its_cursor_belong_together(hub: Hub) -> None:
    await hub.publish("task:progress", {"id": "build", "progress": 40})
    state = await ask(hub, "hub:state", topics=["task:*"])
    assert (state["cursor"], [item["key"] for item in state["items"]]) == (str(hub.cursor), ["build"])
    assert (await ask(hub, "hub:state", topics=["agent:*"]))["items"] == []


async def test_publishing_answers_with_the_cursor(hub: Hub) -> None:
    answer = await ask(hub, "hub:publish", event="a:x", data=1, id="mine")
    assert answer == {"id": "mine", "cursor": str(hub.cursor)}
    assert await ask(hub, "hub:publish", event="a:x", data=2, id="mine") == answer  # known already
    assert hub.cursor.seq == 1


async def test_one_command_by_its_name(hub: Hub) -> None:
    assert [row["name"] for row in await ask(hub, "hub:commands", name="hub:ping")] == ["hub:ping"]
    assert await ask(hub, "hub:commands", name="no:such") == []


async def test_who_is_connected(hub: Hub) -> None:
    client = client_of(hub, streams=True)
    (row,) = await ask(hub, "hub:clients")
    assert (row["client"], row["transport"], row["topics"], row["lag"]) == (client.id, "websocket", ["*"], 0)


async def test_the_figures(hub: Hub) -> None:
    await publish(hub, 2)
    stats = await ask(hub, "hub:stats")
    assert stats["hub_events_total"] == {"other": 2}
    assert stats["retention"] == hub.retention()


async def test_only_a_running_call_of_ones_own_is_cancelled(hub: Hub) -> None:
    running, client = asyncio.Event(), client_of(hub)

    async def waits(call: Call) -> None:
        """Wait."""
        running.set()
        await asyncio.Event().wait()

    hub.commands.add("a:waits", waits)
    client.calls["mine"] = call = Call(hub, client, "mine")
    calling = asyncio.create_task(hub.commands.call(call, "a:waits", {}))
    await running.wait()
    assert await ask(hub, "hub:cancel", id="mine") == {"cancelled": False}  # another client's
    assert await ask(hub, "hub:cancel", client, id="other") == {"cancelled": False}
    assert await ask(hub, "hub:cancel", client, id="mine") == {"cancelled": True}
    with pytest.raises(HubError, match="cancelled"):
        await calling


async def test_the_audit_log_is_read_and_verified(hub: Hub) -> None:
    await ask(hub, "hub:ping")
    records = await ask(hub, "audit:tail", limit=3)
    assert [record["action"] for record in records] == ["command.called", "command.finished", "command.called"]
    assert (await ask(hub, "audit:verify"))["valid"] is True
