"""What the tests of WebSocket clients share: commands that wait for the test, frames, and a mechanism switched off."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import running

from hub import Hub
from hub.commands.call import Call


class Doors:
    """Commands that end when the test says so: `test:wait` with a `door` waits until that is opened."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.inside: set[str] = set()

    def __call__(self, hub: Hub) -> None:
        @hub.command("test:wait")
        async def wait(call: Call) -> Any:
            """Wait until the door is opened."""
            door = call.args["door"]
            self.inside.add(door)
            await self.open.setdefault(door, asyncio.Event()).wait()
            return {"through": door}

    def let(self, door: str) -> None:
        self.open.setdefault(door, asyncio.Event()).set()


def command(name: str, call: str = "1", /, **args: Any) -> str:
    return json.dumps({"type": "command", "id": call, "payload": {"command": name, "args": args}})


async def fails_without(
    check: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str, off: Any
) -> None:
    """The check must fail where this is switched off."""
    monkeypatch.setattr(running, "PATIENCE", 2.0)
    monkeypatch.setattr(switch, off)
    with pytest.raises((AssertionError, TimeoutError, pytest.fail.Exception)):
        await check(tmp_path)
