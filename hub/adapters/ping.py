"""Pings of jobs, with the paths of healthchecks: a job's sign of life as a task."""

import re
from collections.abc import Mapping
from typing import Any

from .identities import hidden
from .reading import between, clean
from .shape import Event
from .turns import TASK

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
EXIT = re.compile(r"[0-9]{1,3}", re.ASCII)
MESSAGE = 2048  # bytes of a message: its end
RUNS = 16  # of one job that are remembered at once


def key_of(name: str) -> str | None:
    """The task of a job, None for a name that no job has."""
    return f"ping:{hidden(name)}" if NAME.fullmatch(name) else None


def status_of(what: str) -> int | str | None:
    """What a ping says: `start`, `log`, or an exit status, -1 for a failure without one. None for what says nothing."""
    if what in ("start", "log"):
        return what
    if what in ("", "fail"):
        return -1 if what else 0
    return int(what) if EXIT.fullmatch(what) and int(what) <= 255 else None


def message_of(body: bytes) -> str:
    """The last that a job has said."""
    return clean(body[-MESSAGE:].decode("utf-8", "ignore")).strip()


def event(
    key: str, said: int | str, known: Mapping[str, Any] | None, now: str, run: str = "", message: str = ""
) -> Event:
    """What a ping becomes. `run` pairs a start with its end; `known` is the task as it was."""
    before = known or {}
    task: dict[str, Any] = {"id": key, "name": key.partition(":")[2]}
    runs = {name: at for name, at in _runs(before).items() if name != run}
    if said == "start":
        begun = dict([*runs.items(), (run, now)][-RUNS:])
        task |= {"status": "running", "started_at": now, "runs": begun}
    elif said == "log":
        task = {**before, **task}
    else:
        task |= _end(int(said), _runs(before).get(run), now)
        task |= {"runs": runs} if runs else {}
    return Event(TASK, task | ({"message": message} if message else {}))


def _runs(known: Mapping[str, Any]) -> dict[str, str]:
    """When each run that has not ended began."""
    runs = known.get("runs")
    return runs if isinstance(runs, dict) else {}


def _end(status: int, began: str | None, now: str) -> dict[str, Any]:
    found: dict[str, Any] = {"status": "failed" if status else "succeeded", "ended_at": now}
    if began is not None:
        found |= {"started_at": began, "duration_ms": between(began, now)}
    if status:
        found["error"] = f"exit status {status}" if status > 0 else "failed"
    return found if status else {**found, "progress": 100}
