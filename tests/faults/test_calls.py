"""Calls cancelled at any await, a disk that fails or is slow, a stop at any moment: the audit log tells of every call
how it ended, once, whatever comes first."""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from logs import everything

from hub.audit.log import AuditLog
from hub.audit.verdict import INTACT
from hub.audit.verify import verify
from hub.commands import supervised
from hub.commands.call import Call
from hub.commands.clients import Client
from hub.commands.registry import Registry
from hub.errors import HubError, Outcome

CALLS = 40


class Disk:
    """What the log is written through: sometimes slow, sometimes failing, as the seed has it."""

    def __init__(self, draw: random.Random, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> None:
        self.failed = 0
        self._draw, self._fails, self._sync = draw, fails, os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def fdatasync(self, file: int) -> None:
        time.sleep(self._draw.choice([0, 0, 0.0005, 0.004]))
        if self._fails and self._draw.random() < 0.3:
            self.failed += 1
            raise OSError(28, "No space left on device")
        self._sync(file)


class Schedule:
    """One run: many calls, each with a handler of its own kind, some of them cancelled by whoever can."""

    def __init__(self, seed: int, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.draw = random.Random(seed)
        self.disk = Disk(random.Random(seed), monkeypatch, fails=seed % 2 == 1)
        self.audit = AuditLog(directory)
        self.commands = Registry(self.audit, 0.01)
        self.counted: list[str] = []
        self.admitted = 0
        self.answered: dict[str, str] = {}  # how, by the call's id; without reads, which need no record
        self.gate = asyncio.Event()
        for name, handler in (("a:quick", self.quick), ("a:long", self.long), ("a:stubborn", self.stubborn)):
            self.commands.add(name, handler)
        self.commands.add("a:read", self.quick, effect="read")
        self.commands.on_call.append(self.count)
        self.commands.on_call.freeze()

    async def quick(self, call: Call) -> str:
        for _ in range(self.draw.randint(0, 3)):
            await asyncio.sleep(0)
        if self.draw.random() < 0.2:
            raise ValueError("mine")
        return "done"

    async def long(self, call: Call) -> None:
        await asyncio.Event().wait()

    async def stubborn(self, call: Call) -> None:
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()

    async def count(self, name: str, outcome: str, seconds: float) -> None:
        self.counted.append(outcome)

    async def caller(self, call: Call, name: str) -> None:
        outcome: Outcome = "ok"
        try:
            await self.commands.call(call, name, {})
        except HubError as error:
            outcome = error.code
        finally:
            self.admitted += call.command is not None
        if call.command is not None and call.command.effect != "read":
            self.answered[call.id] = outcome

    async def meddle(self, task: asyncio.Task[None], call: Call) -> None:
        """Wait for any moment, then cancel the call, or its caller, or its caller twice, or nothing."""
        for _ in range(self.draw.choice([0, 1, 2, 3, 5, 8, 20])):
            await asyncio.sleep(self.draw.choice([0, 0, 0, 0.001]))
        match self.draw.randrange(4):
            case 0:
                call.cancel()
            case 1:
                task.cancel()
            case 2:
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()

    async def run(self) -> None:
        await self.audit.start()
        running: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        for number in range(CALLS):
            call = Call(None, Client("websocket", "127.0.0.1:1"), str(number))  # type: ignore[arg-type]
            name = self.draw.choice(["a:quick", "a:quick", "a:long", "a:stubborn", "a:read"])
            task = loop.create_task(self.caller(call, name))
            running += [task, loop.create_task(self.meddle(task, call))]
            await asyncio.sleep(self.draw.choice([0, 0, 0.001]))
        for _ in range(self.draw.randint(0, 10)):
            await asyncio.sleep(self.draw.choice([0, 0.001]))
        await self.commands.stop(self.draw.choice([0, 0.005]))
        await self.commands.settle()
        await self.audit.stop()
        self.gate.set()
        await asyncio.gather(*running, return_exceptions=True)

    def check(self, directory: Path) -> None:
        """The model."""
        records = everything(directory)
        told = {
            what: Counter(r["details"]["id"] for r in records if r["action"] == f"command.{what}")
            for what in ("called", "finished")
        }
        assert set(told["called"].values()) <= {1}
        assert set(told["finished"].values()) <= {1}
        ended = {r["details"]["id"]: r["details"]["outcome"] for r in records if r["action"] == "command.finished"}
        if not self.disk.failed:
            assert told["called"] == told["finished"]
            assert len(told["called"]) == self.admitted
        for id, outcome in self.answered.items():  # what is answered is on record, also where the disk has failed
            assert outcome in (ended.get(id), "audit_unavailable")
        assert len(self.counted) == self.admitted  # once for every call
        assert verify(directory).status == INTACT


@pytest.mark.parametrize("seed", range(40))
async def test_every_call_is_called_and_finished(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "GRACE", 0.005)
    schedule = Schedule(seed, tmp_path, monkeypatch)
    await schedule.run()
    schedule.check(tmp_path)


Weakening = Callable[[Registry], Callable[..., Awaitable[Any]]]


def forgets_who_was_cancelled(registry: Registry) -> Callable[..., Awaitable[Any]]:
    """As if what was not waited for had not happened."""
    real = registry._begin

    async def begin(call: Call, *args: Any) -> None:
        try:
            await real(call, *args)
        except asyncio.CancelledError:
            call._on_record = False
            raise

    return begin


def does_not_wait(registry: Registry) -> Callable[..., Awaitable[Any]]:
    """As if a stop were over when the last handler is."""

    async def settle() -> None:
        return

    return settle


@pytest.mark.parametrize(("name", "weakening"), [("_begin", forgets_who_was_cancelled), ("settle", does_not_wait)])
async def test_weakened_some_call_has_no_end(
    name: str, weakening: Weakening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "GRACE", 0.005)
    found = 0
    for seed in range(0, 60, 2):
        schedule = Schedule(seed, tmp_path / str(seed), monkeypatch)
        setattr(schedule.commands, name, weakening(schedule.commands))
        await schedule.run()
        try:
            schedule.check(tmp_path / str(seed))
        except AssertionError:
            found += 1
            break
    assert found
