"""One connection to a Redis: who is answered, who cuts it, and how long it is waited for."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, Line
from running import until
from stores import passes

from hub.stream.brokers import connection
from hub.stream.brokers.connection import Connection
from hub.stream.brokers.server import Away, Refused, Server

pytestmark = pytest.mark.once

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


async def served(serve: Serve, path: Path) -> asyncio.Server:
    return await asyncio.start_unix_server(serve, str(path))


async def test_a_server_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_engine: Engine
) -> None:
    path = redis_engine.folder / "silent"
    monkeypatch.setattr(connection, "PATIENCE", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await served(silent, path):
        with pytest.raises(Away, match="does not answer"):
            await Connection.make(Server(f"unix://{path}"))


async def test_another_program_says_something_else(redis_engine: Engine) -> None:
    path = redis_engine.folder / "other"

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"-ERR 220 mail.example.org\r\n" * 3)
        await reader.read()
        writer.close()

    async with await served(other, path):
        with pytest.raises(Refused, match="refuses: 220 mail"):
            await Connection.make(Server(f"unix://{path}"))


async def test_a_connection_that_was_cut_says_why(redis_engine: Engine) -> None:
    found = await Connection.make(Server(redis_engine.url()))
    assert await found.send("PING") == b"PONG"
    found.close(Away("It was enough."))
    with pytest.raises(Away, match="enough"):
        await found.send("PING")
    found.close()


async def test_whoever_goes_harms_no_other(redis_engine: Engine) -> None:
    found = await Connection.make(Server(redis_engine.url()))
    gone, other = found.send("PING"), found.send("ECHO", "other")
    gone.cancel()
    assert await other == b"other"
    found.close()


async def test_a_write_that_fails_cuts_it(redis_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await Connection.make(Server(redis_engine.url()))

    async def fail(*args: Any, **more: Any) -> None:
        raise OSError("broken pipe")

    monkeypatch.setattr(found._wire, "send_packed_command", fail)
    with pytest.raises(Away, match="broken pipe"):
        await found.send("PING")


async def test_it_is_this_process_that_stood_still(way: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await Connection.make(Server(way.url()))
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    monkeypatch.setattr(connection, "STALL", 0.2)
    way.delay = 0.05
    answer = found.send("PING")
    await passes(2)
    time.sleep(0.4)  # noqa: ASYNC251 - that is the fault
    assert await answer == b"PONG"
    way.delay = 0.0
    way.deaf = True
    with pytest.raises(Away, match="does not answer"):
        await found.send("PING")


async def test_a_connection_that_rests_is_left_alone(redis_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await Connection.make(Server(redis_engine.url()))
    monkeypatch.setattr(connection, "PATIENCE", 0.5)
    assert await found.send("PING") == b"PONG"
    await until(lambda: found._timer is None)
    assert await found.send("PING") == b"PONG"
    found.close()
