"""`hub hook`: what an agent or systemd sends to its hooks, on to the hub, and the answer back.

It never decides by accident and never stands in the way: its exit status is 0 whatever happens, it says nothing where
anything is in doubt, and takes two seconds at most, unless a person is asked.
"""

import argparse
import contextlib
import json
import os
import signal
import stat
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ..adapters.reading import is_deep, pruned, read
from ..processes import age, program
from ..stdio import complain, say
from ..wire.vocabulary import Adapter
from .grammar import add_command, seconds
from .http import add_where, connection, on_this_machine, pasted, quoted
from .interrupts import interruptible

PATIENCE, LEAST = 1.7, 0.4  # seconds in all, and what is left at least for a start that took long
LONGEST, BEYOND = 604_800.0, 20.0  # seconds that a question may wait, and beyond that for its answer to come
LARGEST, SENT = 64 * 1024 * 1024, 256 * 1024  # bytes that are read; and that are sent as they came
LEVELS, LONGEST_TEXT = 12, 4096  # of what is sent of a larger one
DEEP = 32  # levels
UNREAD = ("tool_response", "toolResult", "last_assistant_message", "prompt_response", "edits", "attachments")
PERMISSIONS = ("PermissionRequest", "permissionRequest", "beforeShellExecution", "beforeMCPExecution")
UNIT = ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "INVOCATION_ID", "UNIT")  # behind MONITOR_, of what has failed


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "hook",
        run,
        "tell the hub what an agent says to its hooks",
        """hub connect claude-code                     write this into the agent's settings
        echo '{"hook_event_name": …}' | hub hook claude-code
        ExecStart=hub hook systemd %i""",
    )
    adapters = get_args(Adapter)
    command.add_argument("adapter", metavar="ADAPTER", choices=adapters, help=f"who sends: {', '.join(adapters)}")
    command.add_argument(
        "event", metavar="EVENT|JSON", nargs="?", default="", help="the event, systemd's unit; or what else is on stdin"
    )
    command.add_argument("--ask", action="store_true", help="ask a person where the agent asks for a permission")
    command.add_argument("--timeout", type=seconds, metavar="SECONDS", help="how long a question waits")
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Send it, and print what comes back. Whoever types it on a terminal is told what it is for."""
    if args.adapter != "systemd" and not args.event.startswith("{") and os.isatty(0):
        complain(f"hub: {_what_to_do(args)}")
        return 0
    with interruptible(), _in_time() as extend:
        found = _given(args)
        if found is None:
            return 0
        body, is_doubtful, asks = found
        extend(min(args.timeout or LONGEST, LONGEST) + BEYOND if asks else None)
        answer = _sent(args, body, asks=asks)
        if answer and not (is_doubtful and answer == "{}"):
            say(answer)
    return 0


def _what_to_do(args: argparse.Namespace) -> str:
    from ..adapters.senders import AGENTS  # here: no agent has time for it

    if args.adapter in AGENTS:
        typed = pasted(args, "connect", args.adapter)
        return f"The agent runs this, with JSON on stdin; {typed} writes it into its settings."
    return (
        f"This takes the JSON of {args.adapter} on stdin; it can send that itself, to the hub's /hooks/{args.adapter}."
    )


class Late(BaseException):
    """The time is up."""


@contextlib.contextmanager
def _in_time() -> Iterator[Any]:
    """Stop whatever goes on when the time is up; gives what sets it anew."""

    def stop(*args: Any) -> None:
        raise Late

    def extend(seconds: float | None) -> None:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        extend(max(LEAST, PATIENCE - age()))
        yield extend
    except Late:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- what is sent


def _given(args: argparse.Namespace) -> tuple[bytes, bool, bool] | None:
    """The body, whether there is any doubt about it, and whether a person may be asked. None for what is no object."""
    if args.adapter == "systemd":
        return _unit(args.event), False, False
    is_body = args.event.startswith("{")
    data = args.event.encode("utf-8", "surrogateescape") if is_body else _stdin()
    try:
        found = read(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    is_permission = (found.get("hook_event_name") or args.event) in PERMISSIONS
    if len(data) <= SENT:
        return data, is_deep(data, DEEP), args.ask and (is_permission or _is_question(found))
    for name in UNREAD:
        found.pop(name, None)
    # An agent's own question is not asked: what is answered is put back together from it, so it must be whole.
    return json.dumps(pruned(found, LEVELS, LONGEST_TEXT)).encode(), True, args.ask and is_permission


def _is_question(found: Mapping[str, Any]) -> bool:
    return found.get("hook_event_name") == "Elicitation" or found.get("tool_name") == "AskUserQuestion"


def _stdin() -> bytes:
    """All of stdin; nothing of a terminal, and of what is too large to be a hook's."""
    found = bytearray()
    if stat.S_ISCHR(os.fstat(0).st_mode):
        return b""
    while (more := os.read(0, 65536)) and len(found) <= LARGEST:
        found += more
    return bytes(found)


def _unit(unit: str) -> bytes:
    told = {f"MONITOR_{name}": value for name in UNIT if (value := os.environ.get(f"MONITOR_{name}"))}
    return json.dumps({"argv": [unit] if unit else [], "env": told}).encode()


def _sent(args: argparse.Namespace, body: bytes, *, asks: bool) -> str:
    """What the hub answers; empty if it does not take it."""
    event = "" if args.event.startswith("{") or args.adapter == "systemd" else args.event
    words = {
        "event": event,
        "ask": "1" if asks else "",
        "timeout": f"{args.timeout:g}" if asks and args.timeout else "",
    }
    query = "&".join(f"{name}={quoted(value)}" for name, value in words.items() if value)
    pid = program()
    headers = {"Content-Type": "application/json", **({"Hub-Pid": str(pid), **on_this_machine()} if pid else {})}
    with connection(args, answer_timeout=None if asks else PATIENCE) as hub:
        status, answer = hub.exchange("POST", f"/hooks/{args.adapter}{f'?{query}' if query else ''}", body, headers)
    return answer.decode("utf-8", "replace") if status == 200 else ""
