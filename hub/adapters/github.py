"""GitHub: runs of workflows as tasks."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from .identities import hidden
from .reading import between, first_line, identity, mapping, moment, text
from .shape import Event, Given, Taken, passed_over
from .turns import OVER

SIGNATURE = "X-Hub-Signature-256"
SUCCEEDED, CANCELLED = ("success", "neutral"), ("cancelled", "skipped", "stale")
RUNNING = {"requested": "queued", "in_progress": "running"}


def is_signed(secret: bytes, body: bytes, signature: str) -> bool:
    """Whether whoever sent this body has the secret. Stops everybody else who can reach the address."""
    right = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace"))


def take(given: Given) -> Taken:
    """A task for a run; of all other events nothing is told.

    The event's id is the body's. Stops whoever has seen one delivery from publishing it again and again: GitHub signs
    the body, and the header with the delivery's own id is not signed. One that GitHub sends again has the same body.
    """
    run = mapping(given.body.get("workflow_run"))
    repository = identity(mapping(given.body.get("repository")).get("full_name"), 200)
    number = identity(run.get("id"))
    status = _status(text(given.body.get("action")), text(run.get("conclusion")))
    if given.headers.get("X-GitHub-Event", "workflow_run") != "workflow_run" or not (number and repository and status):
        return passed_over({})
    task = {"id": f"github:{hidden(f'{repository}/{number}')}", "status": status, **_about(run)}
    known = given.last.value("task:progress", task["id"]) or {}
    is_behind = status not in OVER and known.get("status") in OVER and known.get("attempt", 1) >= task["attempt"]
    if is_behind or known.get("attempt", 1) > task["attempt"]:
        return Taken()  # it came late
    if status == "failed":
        task["error"] = text(run.get("conclusion")) or "failed"
    if status in OVER:
        task |= _end(run)
    if known and all(known.get(name) == value for name, value in task.items()):
        return Taken()  # it came again, long behind the first
    return Taken([Event("task:progress", task, f"github:{given.digest}" if given.digest else None)])


def _status(action: str, conclusion: str) -> str | None:
    if action != "completed":
        return RUNNING.get(action)
    return "succeeded" if conclusion in SUCCEEDED else "cancelled" if conclusion in CANCELLED else "failed"


def _about(run: Mapping[str, Any]) -> dict[str, Any]:
    attempt = run.get("run_attempt")
    found = {
        "name": first_line(run.get("name")),
        "message": first_line(run.get("display_title")),
        "url": text(run.get("html_url"), 500),
        "branch": text(run.get("head_branch")),
        "started_at": moment(run.get("run_started_at")),
    }
    return {name: value for name, value in found.items() if value} | {
        "attempt": attempt if isinstance(attempt, int) and 0 < attempt < 10_000 else 1
    }


def _end(run: Mapping[str, Any]) -> dict[str, Any]:
    began, ended = moment(run.get("run_started_at")), moment(run.get("updated_at"))
    took = between(began, ended)
    return {**({"ended_at": ended} if ended else {}), **({"duration_ms": took} if took is not None else {})}
