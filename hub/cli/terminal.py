"""What the command line prints: a line an event, for a person or a program, and nothing that drives a terminal."""

import argparse
import json
import sys
from datetime import datetime
from typing import Any, TextIO

from ..client.items import Gap, Received

REASONS = {
    "slow": "this reader was too slow",
    "expired": "they are no longer kept",
    "epoch": "the hub began a new history",
}


# ---- for whom


def add_form(command: argparse.ArgumentParser) -> None:
    """Add the flags that say for whom the output is."""
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs, one JSON a line (default: into a pipe)")
    form.add_argument("--text", action="store_true", help="for people, in columns (default: on a terminal)")


def is_for_people(args: argparse.Namespace) -> bool:
    """Whether a person reads stdout: as the flags of `add_form` say, else if it is a terminal."""
    return bool(args.text or (not args.json and is_terminal(sys.stdout)))


def is_terminal(stream: TextIO) -> bool:
    """Whether a person sees what is written there."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


# ---- lines


def readable(item: Received | Gap) -> str:
    """One line for a person: local time, name, data; or what is missing."""
    if isinstance(item, Gap):
        many = "events are" if item.count is None else f"{item.count} events are"
        why = REASONS.get(item.reason, item.reason)
        return printable(f"--- {many} missing before {item.before}: {why}")
    moment = datetime.fromisoformat(item.timestamp).astimezone()
    when = moment.replace(tzinfo=None).isoformat(" ", "milliseconds")
    return printable(f"{when} {item.name} {compact(item.data)}")


def envelope(item: Received | Gap) -> str:
    """One line for a program: the envelope as it came."""
    return printable(compact(item.envelope))


def printable(text: str) -> str:
    """`text` with everything that could drive a terminal (controls, bidi marks, line breaks) as JSON escapes.

    A JSON text stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f" for c in text)


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
