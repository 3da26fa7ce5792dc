"""What the tests of the plain HTTP routes share: a hub whose commands go wrong in every way, and what they send."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from marshmallow import fields
from running import HubInside, hub_app

from hub import Hub
from hub.commands.call import Call
from hub.errors import CommandError

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def prepare(hub: Hub) -> None:
    """Commands that go wrong in every way."""

    @hub.command("test:refuse")
    async def refuse(call: Call) -> Any:
        """Refuse."""
        raise CommandError("There is no such order.", {"order": call.args.get("order")})

    @hub.command("test:odd")
    async def odd(call: Call) -> Any:
        """Refuse with details that are not JSON."""
        raise CommandError("There is no such order.", {"order": object()})

    @hub.command("test:bug")
    async def bug(call: Call) -> Any:
        """Fail with an internal text."""
        raise ZeroDivisionError("the secret plan")

    @hub.command("test:unwritable")
    async def unwritable(call: Call) -> Any:
        """Return what JSON cannot say."""
        return {"what": object()}

    @hub.command("test:hang")
    async def hang(call: Call) -> Any:
        """Never end."""
        await asyncio.Event().wait()

    @hub.command("test:add", {"a": fields.Integer(strict=True, required=True), "b": fields.Integer(strict=True)})
    async def add(call: Call) -> Any:
        """Add two numbers."""
        return call.args["a"] + call.args.get("b", 0)


def api_hub(tmp_path: Path) -> AbstractAsyncContextManager[HubInside]:
    """A hub with these commands, and with little patience."""
    return hub_app(tmp_path, prepare=prepare, call_timeout=0.3, stop_timeout=0.2, max_body=100_000)


def event(name: str = "a:x", data: Any = None, **more: Any) -> dict[str, Any]:
    return {"event": name, "data": data, **more}


def request(hub: HubInside, line: str, *headers: str) -> bytes:
    """The head of a request, as it is sent."""
    host = f"Host: 127.0.0.1:{hub.port}"
    return "\r\n".join([f"{line} HTTP/1.1", host, "Content-Type: application/json", *headers, "", ""]).encode()
