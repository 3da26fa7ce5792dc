"""POST /api/commands with `Hub-Confirm` and `Idempotency-Key`, over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asked import JSON, request
from running import HubInside, Raw, hub_app, talk

from hub import Hub
from hub.commands.call import Call


def prepare(hub: Hub) -> None:
    @hub.command("test:beside", effect="read")
    async def beside(call: Call) -> Any:
        """Say what came beside the args."""
        return [call.confirm, call.idempotency_key]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubInside]:
    async with hub_app(tmp_path, prepare=prepare) as running:
        yield running


async def test_headers_say_what_a_frame_says_beside_the_args(hub: HubInside) -> None:
    headers = {**JSON, "Hub-Confirm": "value", "Idempotency-Key": "k" * 128}
    assert (await hub.post("api/commands/test:beside", {}, headers)).json == ["value", "k" * 128]
    assert (await hub.post("api/commands/test:beside", {})).json == [None, None]
    async with talk(hub.url) as client:
        payload = {"command": "test:beside", "confirm": "value", "idempotency_key": "k"}
        await client.send({"type": "command", "id": "1", "payload": payload})
        assert (await client.answer("1"))["payload"] == ["value", "k"]


@pytest.mark.parametrize("key", ["k" * 129, "", "a\tb"])
async def test_a_key_that_no_frame_could_have(hub: HubInside, key: str) -> None:
    answer = await hub.post("api/commands/test:beside", {}, {**JSON, "Idempotency-Key": key})
    assert answer.refused(422, "invalid_message")["details"].keys() == {"Idempotency-Key"}


@pytest.mark.parametrize("name", ["Hub-Confirm", "Idempotency-Key"])
async def test_of_two_headers_nobody_knows_which_is_meant(hub: HubInside, name: str) -> None:
    head = request(hub, "POST /api/commands/test:beside", f"{name}: a", f"{name}: b", "Content-Length: 0")
    async with Raw(hub.port) as raw:
        await raw.write(head)
        assert (await raw.read()).startswith(b"HTTP/1.1 422 ")
