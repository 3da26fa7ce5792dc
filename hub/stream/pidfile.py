"""Which process each agent and task is, on disk: so that who ends while no hub runs is noticed at the next start."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..private import Unsafe, open_private, read_private, write_all, write_whole
from ..processes import Process, boot, may_run, namespace

log = logging.getLogger("hub")

STATUS, TASK = "agent:status_change", "task:progress"
WHAT = {STATUS: "agent", TASK: "task"}  # as it is called on disk
FILE = "pids.jsonl"  # in the state directory
LARGEST, SPARE = 64 * 1024 * 1024, 1000  # bytes that are read of it; lines beyond what is needed


class One(NamedTuple):
    """An agent or a task: the event that tells of it, and its id."""

    event: str
    id: str


class Pidfile:
    """The notes: one line for each that is `known`, or is not any more. A disk that takes none ends no watch."""

    def __init__(self, directory: Path, known: Mapping[One, Process]) -> None:
        self._file, self._known = directory / FILE, known
        self._lines = 0
        self._boot, self._namespace = boot(), namespace()
        self._journal: int | None = None

    def read(self) -> dict[One, tuple[Process, bool]]:
        """Who was known, and whether its process may run: one of an earlier boot of the system, or of a container that
        is gone, has ended. Whose number is of another namespace is known no more: a hub that has gone into a container,
        or out of one, takes nobody living for dead."""
        found: dict[One, tuple[Process, bool]] = {}
        try:
            lines = read_private(self._file, LARGEST).splitlines()
        except FileNotFoundError:
            lines = []
        except (OSError, Unsafe) as error:
            log.warning(
                "the processes of agents and tasks are not known: %s; "
                "the end of one that was there before this start is not noticed",
                error,
            )
            lines = []
        boot, own, lost = self._boot, self._namespace, set[One]()
        runs = cache(may_run)
        for line in lines:
            # A kill in the middle of a write cuts a line off.
            with contextlib.suppress(ValueError, KeyError, TypeError, StopIteration):
                told = json.loads(line)
                one = next(One(event, str(told[what])) for event, what in WHAT.items() if what in told)
                found.pop(one, None)
                lost.discard(one)
                if told["pid"] is None:
                    continue
                known = Process(int(told["pid"]), "", "", 0, int(told["started"]))
                of = told.get("namespace", own)
                if told["boot"] == boot and of != own and runs(of):
                    lost.add(one)
                else:
                    found[one] = known, told["boot"] == boot and of == own
        if lost:
            log.warning(
                "%d agents and tasks are of processes outside of this hub's container, or in another one; "
                "their ends are not noticed until they say their pid again",
                len(lost),
            )
        return found

    def note(self, one: One, known: Process | None) -> None:
        """One line more; all anew when most of them are of no use any more."""
        self._lines += 1
        if self._journal is None or self._lines > 2 * len(self._known) + SPARE:
            self.rewrite()
        else:
            self._guarded(lambda: write_all(self._journal or -1, self._line(one, known)))

    def rewrite(self) -> None:
        """Only what is known now."""
        self._lines = len(self._known)
        if self._lines or self._file.exists():
            self._guarded(self._write)

    def close(self) -> None:
        """What is on disk stays."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _write(self) -> None:
        self.close()
        write_whole(self._file, b"".join(self._line(*each) for each in self._known.items()), durable=False)
        self._journal = open_private(self._file, os.O_WRONLY | os.O_APPEND)

    def _line(self, one: One, known: Process | None) -> bytes:
        told: dict[str, Any] = {WHAT[one.event]: one.id, "pid": None}
        if known is not None:
            where = {"boot": self._boot, "namespace": self._namespace}
            told |= {"pid": known.pid, "started": known.started, **where}
        return json.dumps(told).encode() + b"\n"

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, Unsafe) as error:  # the disk is full: what is watched now is watched all the same
            log.warning(
                "the processes of agents and tasks cannot be noted: %s; "
                "the end of one is noticed as long as this hub runs, not across a restart",
                error,
            )
