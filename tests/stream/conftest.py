"""Disks that wait, disks that fail, and ways to a Redis that can be cut."""

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from engines import Engine, Line, line
from lives import MEMORY
from stores import Disk, Failing

from hub.stream.brokers import storefile


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder for many lives, where nothing waits for the disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def connect(path: Path, patience: float) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Failing)

    def fail(why: str) -> None:
        monkeypatch.setattr(Failing, "why", why)

    monkeypatch.setattr(storefile, "connect", connect)
    return fail


@pytest.fixture
async def way(redis_engine: Engine) -> AsyncIterator[Line]:
    async with line(redis_engine, uuid4().hex[:8]) as found:
        yield found
