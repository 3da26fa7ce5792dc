"""A client that knows the seed document and nothing else: it connects to /ws, reads events, sends a command, gets a
response or an error with its id, and is pinged. What the seed's dashboard would do, it must be able to do here."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import ClientWebSocketResponse, WSMsgType
from running import HubInside, hub_app, until


class SeedClient:
    """WSMessage in, WSMessage out: `type`, `id`, `timestamp`, `payload`."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        self.ws = ws
        self.pings = 0

    async def message(self) -> dict[str, Any]:
        """The next WSMessage. A ping is answered as a browser does it, unseen by the page."""
        while True:
            message = await asyncio.wait_for(self.ws.receive(), 5)
            if message.type is WSMsgType.PING:
                self.pings += 1
                await self.ws.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                found: dict[str, Any] = json.loads(message.data)
                assert found["type"] in ("event", "command", "response", "error")
                assert isinstance(found["id"], str)
                assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None
                assert "payload" in found
                return found
            else:
                raise AssertionError(message)

    async def command(self, command: str, args: Any) -> str:
        id = str(uuid.uuid4())
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # as toISOString()
        payload = {"command": command, "args": args}
        await self.ws.send_str(json.dumps({"type": "command", "id": id, "timestamp": timestamp, "payload": payload}))
        return id


@asynccontextmanager
async def seed(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[HubInside, SeedClient]]:
    async with (
        hub_app(tmp_path, **settings) as hub,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"ws://127.0.0.1:{hub.port}/ws", autoping=False) as ws,
    ):
        yield hub, SeedClient(ws)


DASHBOARD_EVENTS = {
    "agent:status_change": {"id": "a1", "status": "active"},
    "task:progress": {"id": "t1", "progress": 50},
    "governance:vote_cast": {"vote_id": "v1", "agent": "a1", "option": "approve"},
    "security:threat_detected": {"type": "injection", "severity": "high"},
    "audit:new_event": {"action": "login"},
    "memory:stats_update": {"total_entries": 5},
}


async def test_it_gets_every_dashboard_event_and_any_other(tmp_path: Path) -> None:
    async with seed(tmp_path) as (hub, client):
        events = {**DASHBOARD_EVENTS, "something:else": [1, "two", None]}
        for name, data in events.items():
            await hub.hub.publish(name, data)
        got = [await client.message() for _ in events]
        assert [message["type"] for message in got] == ["event"] * len(events)
        assert [message["payload"] for message in got] == [{"event": n, "data": d} for n, d in events.items()]
        assert len({message["id"] for message in got}) == len(events)


async def test_what_it_gets_is_sanitised(tmp_path: Path) -> None:
    async with seed(tmp_path) as (hub, client):
        secrets = {"apiKey": "1", "secret": "2", "token": "3"}
        await hub.hub.publish("agent:status_change", {"id": "a1", "status": "active", **secrets})
        assert (await client.message())["payload"]["data"] == {"id": "a1", "status": "active"}


async def test_a_command_gets_a_response_with_its_id(tmp_path: Path) -> None:
    async with seed(tmp_path) as (_, client):
        id = await client.command("hub:ping", {"hello": "there"})
        answer = await client.message()
        assert (answer["type"], answer["id"]) == ("response", id)
        assert answer["payload"]["args"] == {"hello": "there"}


async def test_a_command_that_fails_gets_an_error_with_its_id(tmp_path: Path) -> None:
    async with seed(tmp_path) as (_, client):
        for command in ("no:such", "hub:history"):
            id = await client.command(command, {"limit": -1})
            answer = await client.message()
            assert (answer["type"], answer["id"]) == ("error", id)
            assert isinstance(answer["payload"]["error"], str)
            assert answer["payload"]["error"]


async def test_commands_run_as_operator(tmp_path: Path) -> None:
    async with seed(tmp_path) as (hub, client):
        await client.command("hub:ping", {})
        await client.message()
        [record] = await hub.records("command.called")
        assert record["trust"] == "OPERATOR"


async def test_it_is_pinged_and_stays_while_it_pongs(tmp_path: Path) -> None:
    async with seed(tmp_path, heartbeat=0.1) as (hub, client):
        listening = asyncio.create_task(client.message())
        await until(lambda: client.pings >= 3, "that it is pinged")
        await hub.publish(1)
        assert (await listening)["payload"]["event"] == "a:x"
