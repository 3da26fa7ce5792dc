"""`hub status`: how the hub is."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ..client.discovery import Refusal, answer
from ..errors import UsageError
from ..private import Unsafe, read_private
from ..statedir import state_directory
from ..stdio import say
from .grammar import add_command
from .http import Connection, add_where, address, connection, pasted
from .samples import Samples
from .terminal import Colour, add_form, coloured, compact, has_colour, is_for_people, local, printable

MEASURED = 0.5  # seconds between two looks at how many events there were
ANSWER_TIMEOUT = 5.0  # seconds


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "status", run, "say how the hub is, and what waits for a person")
    add_form(command)
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Print how the hub is: one JSON, or lines for a person. Raises NoHub, Refusal."""
    with connection(args, answer_timeout=ANSWER_TIMEOUT) as hub:
        found = look(hub, address(args), _announced(args))
    if not is_for_people(args):
        say(printable(compact(found)))
        return 0
    for title, text, good in lines(found, partial(pasted, args)):
        colour: Colour = "grey" if good else "red"
        say(coloured(f"{title:<9}", colour, on=has_colour(sys.stdout)) + printable(text))
    return 0


def look(hub: Connection, url: str, process: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say of the hub at `url`; `process` is what `server.json` says if it is that one. Only open
    questions are asked for with a command. Raises NoHub, Refusal."""
    answered, body = hub.exchange("GET", "/readyz")
    reasons = _reasons(url, answered, body)
    first, began = _samples(hub), time.monotonic()
    time.sleep(MEASURED)
    now = _samples(hub)
    events = now.count("hub_events_total")
    rate = (events - first.count("hub_events_total")) / (time.monotonic() - began)
    is_here = process.get("url") == url
    return {
        "url": url,
        "pid": process.get("pid") if is_here else None,
        "version": now.label("hub_build_info", "version"),
        "started": (is_here and process.get("started")) or _started(now),
        "ready": answered == 200,  # a channel or a webhook that fails is a reason to say so, no obstacle
        "reasons": reasons,
        "events": events,
        "events_per_second": round(rate, 1),
        "workers": now.by("hub_workers", "state"),
        "clients": now.by("hub_clients", "transport"),
        "providers": now.count("hub_providers"),
        "audit": {"valid": bool(now.count("hub_audit_chain_valid")), "records": now.count("hub_audit_records_total")},
        "questions": hub.ask("POST", "/api/commands/hub:questions", b"{}") if now.count("hub_questions_open") else [],
    }


def _announced(args: argparse.Namespace) -> Mapping[str, Any]:
    """What is in `server.json`, nothing if that cannot be read: it may be another machine's hub."""
    with contextlib.suppress(OSError, ValueError, RecursionError, Unsafe, UsageError):
        told = json.loads(read_private((args.state_dir or state_directory()) / "server.json", 65536))
        return {**told, "url": str(told["url"]).rstrip("/")} if isinstance(told, dict) and "url" in told else {}
    return {}


def _reasons(url: str, status: int, body: bytes) -> Any:
    """What is wrong with the hub, by part. Raises Refusal, NoHub."""
    try:
        return answer(url, 200 if status == 503 else status, body)["reasons"]
    except (TypeError, LookupError):
        raise Refusal({"error": f"The hub at {url} does not say how it is."}, status) from None


def _samples(hub: Connection) -> Samples:
    return Samples(hub.exchange("GET", "/metrics")[1].decode("utf-8", "replace"))


def _started(samples: Samples) -> str | None:
    seconds = samples.value("process_start_time_seconds")
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# ---- for people


def lines(found: Mapping[str, Any], typed: Callable[..., str]) -> Iterator[tuple[str, str, bool]]:
    """Title, text, and whether it is as it should be, for each line. `typed`: the words of a command, as one would type
    them for this hub."""
    process = f", process {found['pid']}" if found["pid"] else ""
    yield "hub", f"{found['version']} at {found['url']}{process}", True
    if found["started"]:
        yield "up", f"{_since(found['started'])}, since {local(found['started'])[:19]}", True
    for part, reason in found["reasons"].items():
        yield "problem" if found["ready"] else "not ready", f" {part}: {reason}", False
    workers = {state: count for state, count in found["workers"].items() if count}
    if workers not in ({}, {"up": 1}):
        yield "workers", ", ".join(f"{count} {state}" for state, count in workers.items()), set(workers) == {"up"}
    total, rate = found["events"], found["events_per_second"]
    yield "events", f"{rate:,} a second now, {total:,} since the start", True
    yield "clients", _clients(found["clients"], found["providers"]), True
    audit = found["audit"]
    broken = f"the chain is broken: {typed('call', 'audit:verify')} says where"
    chain = "the chain is intact" if audit["valid"] else broken
    yield "audit", f"{audit['records']:,} records, {chain}", audit["valid"]
    yield (
        "waiting",
        f"{len(found['questions']) or 'no'} question{'s' * (len(found['questions']) != 1)} for a person",
        True,
    )
    for question in found["questions"]:
        options = question["options"]
        yield "", f"{question['question']} ({', '.join(options)}) until {local(question['deadline'])[:19]}", True
        yield "", typed("call", "hub:answer", f"question={question['id']}", f"answer={options[0]}"), True


def _clients(clients: Mapping[str, int], providers: int) -> str:
    each = ", ".join(f"{count} by {transport}" for transport, count in clients.items() if count)
    serving = f"; {providers} of them serve{'s' * (providers == 1)} commands" if providers else ""
    return f"{sum(clients.values()):,}{f' ({each})' if each else ''}{serving}"


def _since(started: str) -> str:
    """How long ago that was, in two units."""
    try:
        seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()))
    except (ValueError, TypeError):
        return "for an unknown time"
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    while len(parts) > 2 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])
