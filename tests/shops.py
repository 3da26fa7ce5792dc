"""Commands of a shop that note each run, for tests of what runs once."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from marshmallow import fields

from hub.commands.call import Call, Handler
from hub.commands.clients import Client
from hub.errors import CommandError, HubError
from hub.hub import Hub

SECRET = "ghp_" + "a1b2c3d4" * 5


class Shop:
    """Commands that note each run; `gate` lets those end that wait."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.raises: HubError | None = None

    def prepare(self, hub: Hub) -> None:
        def command(name: str, **more: Any) -> Callable[[Handler], Handler]:
            return hub.command(f"shop:{name}", **more)

        @command("buy", args={"what": fields.String(required=True)})
        async def buy(call: Call) -> Any:
            self.runs["buy"] += 1
            return {"order": self.runs["buy"], "what": call.args["what"]}

        @command("wait")
        async def wait(call: Call) -> Any:
            self.runs["wait"] += 1
            await self.gate.wait()
            return self.runs["wait"]

        @command("order")
        async def order(call: Call) -> Any:
            self.runs["order"] += 1
            number, refusal = self.runs["order"], self.raises
            await self.gate.wait()
            if refusal is not None:
                raise refusal
            return {"order": number}

        @command("refuse")
        async def refuse(call: Call) -> Any:
            self.runs["refuse"] += 1
            raise self.raises or CommandError("Sold out.", {"run": self.runs["refuse"]})

        @command("bug")
        async def bug(call: Call) -> Any:
            self.runs["bug"] += 1
            raise ZeroDivisionError

        @command("stubborn")
        async def stubborn(call: Call) -> None:
            self.runs["stubborn"] += 1
            while not self.gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.gate.wait()

        @command("secret")
        async def secret(call: Call) -> Any:
            return {"note": f"it is {SECRET}", "n": 1}

        @command("large")
        async def large(call: Call) -> Any:
            self.runs["large"] += 1
            return "x" * 2_000_000

        @command("drop", effect="dangerous")
        async def drop(call: Call) -> Any:
            self.runs["drop"] += 1
            return self.runs["drop"]

        @command("look", effect="read")
        async def look(call: Call) -> Any:
            self.runs["look"] += 1
            return self.runs["look"]

        async def alone(call: Call) -> Any:
            self.runs["alone"] += 1
            return self.runs["alone"]

        hub.commands.add("hub:alone", alone, repeats=False)


@asynccontextmanager
async def running(directory: Path, shop: Shop, **settings: Any) -> AsyncIterator[Hub]:
    hub = Hub(state_dir=directory, **settings)
    shop.prepare(hub)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def a_call(hub: Hub, key: str | None = "k", *, uid: int = 1000, confirm: str | None = None) -> Call:
    return Call(hub, Client("websocket", "127.0.0.1:1", uid), "1", 0, confirm, key)


async def say(hub: Hub, name: str, call: Call | None = None, **args: Any) -> Any:
    """The result of a call; or of a refusal code, sentence and details."""
    try:
        return json.loads(await hub.commands.call(call or a_call(hub), f"shop:{name}", args))
    except HubError as error:
        return error.code, error.message, error.details
