"""`hub audit`: check the audit log, and show its newest records."""

import argparse
from pathlib import Path
from typing import Any

from ..statedir import state_directory
from ..stdio import say
from .grammar import add_command, folder, positive
from .http import add_where, connection
from .terminal import compact, printable


def add(commands: Any) -> None:
    """Add the commands to the command line."""
    audit = commands.add_parser("audit", help="the audit log", allow_abbrev=False)
    audits = audit.add_subparsers(metavar="ACTION", required=True)
    command = add_command(audits, "verify", verify, "check the chain, with or without a running hub")
    command.add_argument("file", metavar="FILE", nargs="?", type=Path, help="audit.jsonl or its folder")
    command.add_argument("--state-dir", type=folder, metavar="DIR", help="the hub's state directory")
    command = add_command(audits, "tail", tail, "show the newest records")
    add_where(command)
    command.add_argument("--limit", type=positive, default=20, metavar="N", help="how many (20)")


def verify(args: argparse.Namespace) -> int:
    """Check the stored chain; the exit status is the verdict's."""
    from ..audit.verify import verify

    verdict = verify(args.file or args.state_dir or state_directory())
    if verdict.valid:
        more = f"; {verdict.reason}" if verdict.reason else ""
        say(printable(f"intact: {verdict.records} records, head {verdict.head}{more}"))
    else:
        at = f" (at record {verdict.broken_at})" if verdict.broken_at is not None else ""
        say(printable(f"not intact: {verdict.reason}{at}; {verdict.records} records before that are good"))
    return verdict.status


def tail(args: argparse.Namespace) -> int:
    """Print the newest records, oldest first, one JSON a line."""
    with connection(args) as hub:
        found = page = hub.ask("GET", f"/api/audit?limit={args.limit}")
        while page and len(found) < args.limit:  # an answer ends with what fits
            page = hub.ask("GET", f"/api/audit?limit={args.limit - len(found)}&before={found[0]['seq']}")
            found = page + found
    for record in found:
        say(printable(compact(record)))
    return 0
