"""Stores of events for tests: open, and with a disk that waits or fails."""

import asyncio
import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.stream.brokers.broker import Limits, Lost
from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.stream.events import Draft, Event

PLENTY = Limits(100_000, 2**26, 86400.0)
STATE = Limits(100, 2**26)  # of last values


class Store:
    """A broker that is open, and what came through its pump."""

    def __init__(self, broker: Any) -> None:
        self.broker, self.batches = broker, list[list[Event]]()
        self.fails = list[Exception]()  # what the pump raises next
        self.lost = list[Lost]()
        self.heard: Callable[[list[Event]], None] = lambda batch: None  # behind each batch

    async def pump(self, batch: list[Event]) -> None:
        if self.fails:
            raise self.fails.pop()
        self.batches.append(batch)
        self.heard(batch)

    async def open(self) -> None:
        await self.broker.open(self.pump)
        self.broker.begin(self.lost.append)

    @property
    def pumped(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    async def put(self, *drafts: Draft) -> list[int]:
        return [receipt.seq for receipt in await self.broker.append(drafts)]

    async def ids(self) -> list[str]:
        return [event.id for event in await self.broker.read(0, 10**6)]

    async def kill(self) -> None:
        """What is committed is there, and no word that this was the end."""
        self.broker._database._drop()
        self.broker._database.close = lambda: None
        await self.broker.close()


@asynccontextmanager
async def store(
    path: Path, limits: Limits = PLENTY, *, full: bool = False, state: Limits = STATE
) -> AsyncIterator[Store]:
    found = Store(SqliteBroker(path, limits, state, full=full))
    await found.broker.open(found.pump)
    try:
        yield found
    finally:
        await found.broker.close()


def draft(
    id: str, *, given: bool = False, name: str = "a:x", key: str | None = None, ttl: float | None = None
) -> Draft:
    return Draft(name, id, b'{"n":"%b"}' % id.encode(), key, ttl, given)


def stale(name: str, key: str, seq: int) -> Draft:
    """The end of the lease of the event `seq`."""
    return Draft("hub:stale", "s", json.dumps({"event": name, "key": key, "seq": seq}).encode())


async def passes(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def kept_in(state_dir: Path) -> dict[int, str]:
    sql = sqlite3.connect(state_dir / FILE)
    try:
        return dict(sql.execute("SELECT seq, id FROM events"))
    finally:
        sql.close()


class Disk:
    """Stands in the way of fdatasync: holds it up until `go` and `ready()`, or makes it fail, always or in a round that
    is `bad`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.fails, self.rounds = threading.Event(), False, 0
        self.ready: Callable[[], bool] = lambda: True
        self.descriptors, self.bad = set[int](), set[int]()
        self.go.set()
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def fdatasync(self, descriptor: int) -> None:
        self.rounds += 1
        self.descriptors.add(descriptor)
        assert self.go.wait(5)
        while not self.ready():
            time.sleep(0.001)
        if self.fails or self.rounds in self.bad:
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(descriptor)


class Failing(sqlite3.Connection):
    """A connection whose writes fail while `why` is set."""

    why = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Failing.why and sql.startswith(("INSERT", "UPDATE", "DELETE", "BEGIN")):
            raise sqlite3.OperationalError(Failing.why)
        return super().execute(sql, *args)
