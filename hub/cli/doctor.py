"""`hub doctor`: what stands in the way, and what to do about it."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from ..stdio import say
from .agents import agents
from .checks import Finding, Reach, of_this_account, of_this_machine
from .grammar import add_command
from .http import add_where
from .terminal import add_form, coloured, compact, has_colour, is_for_people, printable

FINE, FOUND, NO_HUB = 0, 1, 3


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "doctor", run, "find out what stands in the way, and try what the hub promises")
    add_form(command)
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Print each check as it is made; the exit status is 0 if all is well, 1 if something is not, 3 if no hub is there.

    Into a hub that takes it, a few events `doctor:check` are published.
    """
    reach, status = Reach(args), FINE
    for finding in _findings(args, reach):
        _print(finding, args)
        status = FOUND if finding.problem else status
    return NO_HUB if status and not reach.is_there else status


def _findings(args: argparse.Namespace, reach: Reach) -> Iterator[Finding]:
    yield from of_this_machine()
    yield from of_this_account(args)
    yield from reach.findings()
    yield from agents(args, is_open=reach.is_open)
    if reach.is_open:
        from .promise import tried

        yield from tried(args)


def _print(finding: Finding, args: argparse.Namespace) -> None:
    text = finding.problem or finding.fine
    if not is_for_people(args):
        found = {"check": finding.check, "ok": not finding.problem, "text": text}
        say(printable(compact(found)))
        return
    mark = coloured("no" if finding.problem else "ok", "red" if finding.problem else "green", on=has_colour(sys.stdout))
    say(f"{mark}  {finding.check:<12} {printable(text)}")
