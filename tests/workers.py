"""Clients without a socket, which call and serve commands: what they were answered, and what they were asked."""

import asyncio
import json
from typing import Any

from wires import Wire

from hub import Hub
from hub.commands.clients import Client
from hub.commands.session import Session


class Visitor:
    """A client with a session and a wire: what it was answered by id, and what it was asked, in order."""

    def __init__(self, hub: Hub, trust: Any = "OPERATOR") -> None:
        self.hub, self.wire = hub, Wire()
        self.client = Client("websocket", "127.0.0.1:1", 0, trust, subscriber=self.wire)
        self.answers: dict[str | None, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.told: list[Any] = []  # of how far its calls are
        self.session = Session(hub, self.client, self._take, lambda code, reason: None)
        hub.clients.join(self.client)

    def _take(self, text: bytes) -> None:
        frame = json.loads(text)
        if frame["type"] == "command":
            self.asked.append((frame["id"], frame["payload"]["command"], frame["payload"]["args"]))
        elif frame["type"] == "event":
            self.told.append(frame["payload"]["data"])
        else:
            self.answers[frame["id"]] = frame["payload"]

    def say(self, **frame: Any) -> None:
        self.session.receive(json.dumps(frame))

    def progress(self, id: str, **data: Any) -> None:
        self.say(type="event", payload={"event": "hub:progress", "data": {"call": id, **data}})

    def call(self, id: str, command: str, /, **args: Any) -> None:
        self.say(type="command", id=id, payload={"command": command, "args": args})

    async def answer(self, id: str | None) -> Any:
        while id not in self.answers:
            await asyncio.sleep(0.001)
        return self.answers.pop(id)

    async def ask(self, command: str, /, **args: Any) -> Any:
        self.call("ask", command, **args)
        return await self.answer("ask")

    async def provides(self, *names: str, **more: Any) -> Any:
        return await self.ask("hub:provide", commands=[{"name": name, **more} for name in names])

    async def request(self, count: int = 1) -> tuple[str, str, Any]:
        """The newest of so many frames that it was asked."""
        while len(self.asked) < count:
            await asyncio.sleep(0.001)
        return self.asked[count - 1]

    def leave(self) -> None:
        self.session.closing = True
        self.hub.clients.leave(self.client, "lost")
