"""What the command line prints: a line an event, for a person or a program, and nothing that drives a terminal."""

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ..wire.texts import printable as printable  # what is printed is made so, wherever it comes from

if TYPE_CHECKING:
    from ..client.items import Gap, Received

REASONS = {
    "slow": "this reader was too slow",
    "expired": "they are no longer kept",
    "epoch": "the hub began a new history",
}


NAME_WIDTH = 28  # columns of an event's name, as far as it is no longer
Colour = Literal["grey", "green", "yellow", "red", "cyan"]
CODES: dict[Colour, int] = {"grey": 90, "green": 32, "yellow": 33, "red": 31, "cyan": 36}  # ECMA-48, SGR


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


def has_colour(stream: TextIO) -> bool:
    """Whether what is written there is coloured: on a terminal, unless NO_COLOR is set; with CLICOLOR_FORCE
    everywhere."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def coloured(text: str, colour: Colour | None, *, on: bool) -> str:
    """A printable text in a colour, if colours are `on`."""
    return f"\x1b[{CODES[colour]}m{text}\x1b[0m" if on and colour else text


# ---- lines


def readable(item: "Received | Gap", *, colour: bool = False) -> str:
    """One line for a person: local time, name, data, in columns; or what is missing."""
    from ..client.items import Gap  # here: most commands have no use for it

    if isinstance(item, Gap):
        many = "events are" if item.count is None else f"{item.count} event{'s are' if item.count != 1 else ' is'}"
        why = REASONS.get(item.reason, item.reason)
        return coloured(printable(f"--- {many} missing before {item.before}: {why}"), "red", on=colour)
    when, name = coloured(local(item.timestamp), "grey", on=colour), printable(item.name)
    return (
        f"{when}  {coloured(name, 'cyan', on=colour)}{' ' * (NAME_WIDTH - len(name))}  {printable(compact(item.data))}"
    )


def local(timestamp: str) -> str:
    """A time of the wire as the clock on the wall shows it; what is none stays as it is."""
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(timestamp).astimezone()
    except (ValueError, OverflowError):
        return printable(timestamp)
    return moment.replace(tzinfo=None).isoformat(" ", "milliseconds")


def envelope(item: "Received | Gap") -> str:
    """One line for a program: the envelope as it came."""
    return printable(compact(item.envelope))


def compact(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
