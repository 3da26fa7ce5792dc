"""Pings of jobs, with the paths of healthchecks: a job's sign of life as a task."""

import re
from collections.abc import Mapping
from typing import Any

from ..quoted import REDACTED
from ..redaction import redact_text
from .identities import hidden
from .reading import between
from .shape import Event
from .turns import TASK

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
EXIT = re.compile(r"[0-9]{1,3}", re.ASCII)
MESSAGE = 2048  # bytes of a message: its end
RUNS = 16  # of one job that are remembered at once
ENDED = 8  # of one job whose end is remembered, so that it is known when its sender repeats it


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
    """The last that a job has said, without secrets if it is cut: what is cut is cleaned before, all of it, since the
    begin of a secret may be far from its end. Linear in the size."""
    text = body.decode("utf-8", "ignore")
    if len(body) > MESSAGE:
        text = redact_text(text)
        at = len(text) - len(text.encode()[-MESSAGE:].decode("utf-8", "ignore"))
        marked = text.find(REDACTED, max(0, at - len(REDACTED) + 1), at + len(REDACTED) - 1)
        text = text[at if marked < 0 else marked + len(REDACTED) :]
    return text.strip()


def events(
    key: str, said: int | str, known: Mapping[str, Any], now: str, run: str = "", message: str = ""
) -> list[Event]:
    """What a ping becomes. `run` pairs a start with its end; `known` is the task as it was: the run that it tells of,
    in `runs` when the others began that have not ended, and in `ended` how others did. What was said already of a run,
    and is said again behind the end of another, is no event."""
    task: dict[str, Any] = {"id": key, "name": key.partition(":")[2]}
    more = {"message": message} if message else {}
    if said == "log":
        return [Event(TASK, {**known, **task, **more})]
    status = "running" if said == "start" else "failed" if said else "succeeded"
    ended = _ended(known)
    if ended.pop(run, None) == status and known.get("rid") != run:
        return []
    if run and status != "running":
        ended[run] = status
    if ended:
        task["ended"] = dict(list(ended.items())[-ENDED:])
    runs = _open(known)
    later = list(runs)[list(runs).index(run) + 1 :] if run in runs else []
    began = runs.pop(run, None)
    if said == "start":
        return [_running(task, {**runs, run: now}, more)]
    end = {**task, **_end(int(said), run, began, known, now), **more}
    if later and not int(said):  # another one runs; a failure stands until the next word of this job
        return [Event(TASK, end), _running(task, runs, {})]
    return [Event(TASK, end | ({"runs": runs} if runs else {}))]


def _open(known: Mapping[str, Any]) -> dict[str, str]:
    """When each run began that has not ended, the newest last."""
    others, began = known.get("runs"), known.get("started_at")
    runs = dict(others) if isinstance(others, dict) else {}
    if known.get("status") == "running" and isinstance(began, str):
        runs[str(known.get("rid", ""))] = began
    return runs


def _ended(known: Mapping[str, Any]) -> dict[str, str]:
    """How each run has ended that is still remembered, the newest last."""
    ended = known.get("ended")
    return dict(ended) if isinstance(ended, dict) else {}


def _running(task: Mapping[str, Any], runs: Mapping[str, str], more: Mapping[str, Any]) -> Event:
    """The newest of these runs."""
    *others, (run, began) = list(runs.items())[-RUNS:]
    beside = {"runs": dict(others)} if others else {}
    return Event(TASK, {**task, "status": "running", "started_at": began, **_named(run), **beside, **more})


def _named(run: str) -> dict[str, str]:
    return {"rid": run} if run else {}


def _end(status: int, run: str, began: str | None, known: Mapping[str, Any], now: str) -> dict[str, Any]:
    found: dict[str, Any] = {"status": "failed" if status else "succeeded", "ended_at": now, **_named(run)}
    if began is not None:
        found |= {"started_at": began, "duration_ms": between(began, now)}
    elif run and (run, found["status"]) == (known.get("rid"), known.get("status")):  # told again, it is the same end
        found |= {name: known[name] for name in ("started_at", "ended_at", "duration_ms") if name in known}
    if status:
        found["error"] = f"exit status {status}" if status > 0 else "failed"
    return found if status else {**found, "progress": 100}
