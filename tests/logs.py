"""What the tests of the audit log share: records to write, what is in a log, and a disk that fails."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.audit.files import closed_segments
from hub.audit.records import Entry, entry
from hub.audit.recovery import parsed
from hub.audit.writer import LogFile

ACTOR = {"client": "c1", "peer": "127.0.0.1:4711", "uid": 1000}


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.jsonl").read_bytes().splitlines()]


def everything(directory: Path) -> list[dict[str, Any]]:
    """The records of all files, oldest first."""
    files = [*closed_segments(directory), directory / "audit.jsonl"]
    found = [parsed(line) for file in files if file.exists() for line in file.read_bytes().splitlines(keepends=True)]
    return [record for record in found if record]


def actions(directory: Path) -> list[str]:
    return [record["action"] for record in records(directory)]


def command(number: int = 0) -> Entry:
    return entry("command.called", ACTOR, "OPERATOR", {"id": str(number), "args": {}})


def written(directory: Path, count: int) -> Path:
    """A directory with so many records, as a hub leaves it that was stopped."""
    log = LogFile(directory)
    log.append([command(number) for number in range(count)])
    log.close()
    return directory / "audit.jsonl"


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread does; the time limit of the test ends it."""
    while not true():
        await asyncio.sleep(0.001)


class Disk:
    """Stands in the way of the system's calls: the n-th of them fails, once, or all of them while `full`."""

    CALLS = ("write", "fdatasync", "fsync", "rename", "ftruncate", "pwrite")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.failing = 0
        self.full = False
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._in_the_way(name, getattr(os, name)))

    def _in_the_way(self, name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.failing or (self.full and name in ("write", "fdatasync")):
                if name == "write":
                    real(args[0], bytes(args[1])[:7])  # a part of it gets there
                raise OSError(28, "No space left on device")
            if name == "write" and len(args[1]) > 100:
                return real(args[0], args[1][:100])  # the system may always take less
            return real(*args, **more)

        return call
