"""Dangerous commands over real sockets: they run only when they are confirmed, once each time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asked import JSON
from running import HubInside, Talk, hub_app, refused, talk

from hub import Hub, tokens
from hub.commands.call import Call
from hub.commands.confirmation import Confirmations


class Dropped(list[Any]):
    """What a dangerous command has done."""

    def prepare(self, hub: Hub) -> None:
        @hub.command("db:drop", effect="dangerous")
        async def drop(call: Call) -> Any:
            """Drop a table."""
            self.append(call.args)
            return len(self)


@pytest.fixture
def dropped() -> Dropped:
    return Dropped()


@pytest.fixture
async def hub(tmp_path: Path, dropped: Dropped) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=dropped.prepare) as running:
        yield running


async def drop(client: Talk, confirm: str | None = None, **args: Any) -> Any:
    """The payload of the answer."""
    more = {} if confirm is None else {"confirm": confirm}
    await client.send({"type": "command", "id": "d", "payload": {"command": "db:drop", "args": args, **more}})
    return (await client.answer("d"))["payload"]


@pytest.mark.parametrize("weakened", [False, True])
async def test_it_runs_only_when_confirmed(
    hub: HubInside, dropped: Dropped, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    if weakened:
        monkeypatch.setattr(Confirmations, "check", lambda self, name, digest, given: None)
    async with talk(hub.url) as client:
        answer = await drop(client, table="t")
        if weakened:
            assert (answer, dropped) == (1, [{"table": "t"}])
            return
        confirm = refused(answer, "confirmation_required")["details"]["confirm"]
        refused(await drop(client, confirm, table="u"), "confirmation_required")
        assert dropped == []
        assert await drop(client, confirm, table="t") == 1
        again = refused(await drop(client, confirm, table="t"), "confirmation_required")["details"]["confirm"]
        assert await drop(client, again, table="t") == 2
    assert dropped == [{"table": "t"}] * 2


async def test_over_http_and_on_another_connection_of_the_account(hub: HubInside, dropped: Dropped) -> None:
    answer = await hub.post("api/commands/db:drop", {"table": "t", "n": 1})
    confirm = answer.refused(428, "confirmation_required")["details"]["confirm"]
    async with talk(hub.url) as client:
        assert await drop(client, confirm, n=1, table="t") == 1
    used = {**JSON, "Hub-Confirm": confirm}
    (await hub.post("api/commands/db:drop", {"table": "t", "n": 1}, used)).refused(428, "confirmation_required")
    odd = {**JSON, "Hub-Confirm": "\u00e9\u4e2d"}
    (await hub.post("api/commands/db:drop", {"table": "t"}, odd)).refused(428, "confirmation_required")


async def test_a_refusal_is_counted_and_in_the_audit_log(hub: HubInside, dropped: Dropped) -> None:
    for _ in range(2):
        (await hub.post("api/commands/db:drop", {})).refused(428, "confirmation_required")
    assert hub.counted("hub_commands_total", "db:drop", "confirmation_required") == 2
    while len(found := await hub.records("command.refused")) < 2:
        pass
    assert [(record["details"]["command"], record["details"]["outcome"]) for record in found] == [
        ("db:drop", "confirmation_required")
    ] * 2
    assert await hub.records("command.called") == []


async def test_who_only_reads_is_told_so_first(tmp_path: Path, dropped: Dropped) -> None:
    """Nobody gets a value for what would be refused anyway."""
    async with hub_app(tmp_path, prepare=dropped.prepare, auth="token") as hub:
        headers = {**JSON, "Authorization": f"Bearer {tokens.ensure(hub.hub.config.state_dir, 'OBSERVER')}"}
        (await hub.post("api/commands/db:drop", {}, headers)).refused(403, "forbidden")


async def test_a_provided_command_is_confirmed_before_its_provider_hears_of_it(hub: HubInside) -> None:
    async with talk(hub.url) as provider, talk(hub.url) as client:
        await provider.call("hub:provide", commands=[{"name": "rocket:launch", "effect": "dangerous"}])
        confirm = (await client.fails("rocket:launch", "confirmation_required", n=1))["details"]["confirm"]
        await provider.call("hub:ping")
        assert provider.answers == {}
        payload = {"command": "rocket:launch", "args": {"n": 1}, "confirm": confirm}
        await client.send({"type": "command", "id": "l", "payload": payload})
        asked = await provider.answer("call-1")
        assert asked["payload"] == {"command": "rocket:launch", "args": {"n": 1}}
        await provider.send({"type": "response", "id": "call-1", "payload": "up"})
        assert (await client.answer("l"))["payload"] == "up"
