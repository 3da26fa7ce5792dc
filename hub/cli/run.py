"""`hub run`: run a program, and report it as a task. The program, and who reads its output, see nothing of it."""

import argparse
import contextlib
import math
import os
import shlex
import sys
from functools import partial
from pathlib import PurePath
from typing import Any

from ..processes import ended_in_words
from ..redaction import redact_text
from ..stdio import complain
from .child import Child, exit_status
from .distinct import distinct
from .grammar import add_command
from .http import add_where, address, connection
from .interrupts import interruptible
from .notes import Notes
from .relays import Relays
from .reports import Reports
from .terminal import is_terminal, printable

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # what a shell says
LONGEST_NAME, LONGEST_TTL = 100, 30 * 86400.0  # characters, seconds
ANSWER_TIMEOUT = 2.0  # seconds


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "run",
        run,
        "run a program, and report it as a task",
        """hub run -- make -j4 test
        hub run --name backup --ttl 60 -- restic backup /home
        hub run --name nightly -- sh -c 'make && make install'""",
        status="the program's own; 128 + n where signal n has ended it, 126 or 127 where it cannot be run",
    )
    command.usage = "hub run [--name NAME] [--ttl SECONDS] [FLAG …] -- COMMAND …"
    command.add_argument(
        "--name",
        type=_name,
        help="the task's name, its id is run:NAME (default: the program's; while one of that name runs: NAME-2)",
    )
    command.add_argument(
        "--ttl", type=_ttl, metavar="SECONDS", help="the task is stale if this is not heard of so long"
    )
    command.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its words")
    add_where(command)


def _name(text: str) -> str:
    if not (0 < len(text) <= LONGEST_NAME and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is no name: 1 to {LONGEST_NAME} printable characters")
    return text


def _ttl(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TTL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to {LONGEST_TTL:.0f}")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Run the program to its end; the exit status is its own, 128 + n if signal n has ended it.

    Stdin, the environment and everything else are handed on as they are, and so is a terminal or another device; what
    goes into a pipe or a file is passed on byte for byte, and its last line is the task's message. The hub is told
    beside, and not waited for while the program runs, and at its end for a moment only.
    """
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        args.parser.error("there is no program to run")
    name = args.name or _name_of(words[0])
    with distinct(_where(args), name) as name:  # two at once are two tasks: the end of one must not hide the other's
        return _run(args, words, {"id": f"run:{name}", "name": name, "pid": os.getpid()})


def _run(args: argparse.Namespace, words: list[str], task: dict[str, Any]) -> int:
    relays, notes = Relays(), Notes(args)
    connect = partial(connection, args, answer_timeout=ANSWER_TIMEOUT)
    reports = Reports(connect, task, args.ttl, relays.last_line, notes.leave)
    try:
        child = Child(words, relays.descriptors)
    except OSError as error:
        return _not_run(words[0], error, reports)
    relays.start(reports.look)
    reports.start()
    status = child.wait()
    with contextlib.suppress(KeyboardInterrupt), interruptible():  # whoever does not want to wait for the rest
        child.let_go()
        relays.finish()
        reports.end(ended_in_words(status), is_interrupted=child.is_interrupted(status))
    if said := _missed(reports):
        complain(printable(f"hub: {said}"))
    return exit_status(status)


def _missed(reports: Reports) -> str | None:
    """What is said if no hub knows how it has ended: to a person, since it would stand in the program's output; but to
    everybody if a hub has it running, and will never hear of its end."""
    why = f" {reports.missed}" if reports.missed else " Another one has come in its place."
    if reports.was_told and not (reports.is_known or reports.is_left):
        return (
            "The hub that was told of the start of this is not told how it ended, and nothing could be left for it; "
            f"name its state directory with --state-dir.{why}"
        )
    if not reports.missed or not is_terminal(sys.stderr):
        return None
    what = "The next hub here is told how this has ended." if reports.is_left else "No hub knows how this has ended."
    return f"{what}{why}"


def _name_of(program: str) -> str:
    name = redact_text(os.fsencode(PurePath(program).name).decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)[:LONGEST_NAME]


def _where(args: argparse.Namespace) -> str:
    """The hub that is told; the directory in which there may be one later."""
    try:
        return address(args)
    except Exception:  # whatever it is: it must not show in the program's output
        return str(args.state_dir)


def _not_run(program: str, error: OSError, reports: Reports) -> int:
    """Say why the program could not be run, here and to the hub."""
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    status = NOT_FOUND if is_missing else NOT_EXECUTABLE
    shown = shlex.quote(printable(os.fsencode(program).decode("utf-8", "replace")))
    shell = f" To have a shell run it: sh -c {shown}" if " " in program else ""
    sentence = f"There is no program {shown}.{shell}" if is_missing else f"{shown} cannot be run ({error.strerror})."
    complain(f"hub: {sentence}")
    reports.start()
    reports.end(ended_in_words(status), sentence)
    return status
