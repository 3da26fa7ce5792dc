"""Questions to a hub in this process: asked, answered, and how they have ended by the audit log."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from logs import everything
from running import until

from hub import Call, Hub
from hub.commands.clients import Client
from hub.commands.question import EVENT
from hub.errors import HubError

QUESTION: dict[str, Any] = {"question": "Deploy?", "options": ["yes", "no"]}
UID = os.geteuid()


def client_of(uid: int | None = UID) -> Client:
    return Client("http", "10.1.2.3:4711" if uid is None else "127.0.0.1:4711", uid)


async def call(hub: Hub, command: str, /, *, by: Client | None = None, key: str | None = None, **args: Any) -> Any:
    call = Call(hub, by or client_of(), "1", idempotency_key=key)
    return json.loads(await hub.commands.call(call, command, args))


async def refused(hub: Hub, code: str, command: str, /, **args: Any) -> HubError:
    with pytest.raises(HubError) as error:
        await call(hub, command, **args)
    assert error.value.code == code
    return error.value


@contextlib.asynccontextmanager
async def asked(hub: Hub, **args: Any) -> AsyncIterator[tuple[str, "asyncio.Task[Any]"]]:
    """The id of a question that is open, and the call that waits for its end."""
    before = {record["id"] for record in hub.questions.records()}
    waiting = asyncio.ensure_future(call(hub, "hub:ask", **{**QUESTION, **args}))
    await until(lambda: waiting.done() or {record["id"] for record in hub.questions.records()} - before)
    (id,) = {record["id"] for record in hub.questions.records()} - before
    try:
        yield id, waiting
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def value(hub: Hub, id: str) -> dict[str, Any]:
    event = hub.state.get(EVENT, id)
    assert event
    found: dict[str, Any] = event.data
    return found


def ends(directory: Path, id: str) -> list[tuple[str, str | None]]:
    """How the audit log says that a question has ended."""
    about = [record for record in everything(directory) if record["action"].startswith("question.")]
    mine = [record for record in about if record["details"]["id"] == id and record["action"] != "question.asked"]
    return [(record["action"].removeprefix("question."), record["details"]["answer"]) for record in mine]


def away(what: str, patch: pytest.MonkeyPatch, hub: Hub) -> None:
    async def fails(*args: Any) -> Any:
        raise HubError("audit_unavailable" if what == "audit" else "broker_unavailable", "Away.")

    if what == "audit":
        patch.setattr(hub.questions.settling, "record", fails)
    else:
        patch.setattr(hub.broker, "append", fails)
