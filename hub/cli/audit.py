"""`hub audit`: check the audit log, and show its newest records."""

import argparse
import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..statedir import state_directory
from ..stdio import complain, say
from .grammar import add_command, folder, formatter, positive
from .http import add_where, connection
from .terminal import Colour, add_form, coloured, compact, has_colour, is_for_people, local, printable

if TYPE_CHECKING:
    from ..audit.verdict import Verdict

TOLD = ("id", "command", "args", "outcome", "ms")  # what has a place of its own in a line


def add(commands: Any) -> None:
    """Add the commands to the command line."""
    about = "check the audit log, and show its newest records"
    audit = commands.add_parser(
        "audit",
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    audit._positionals.title, audit._optionals.title = "words", "flags"
    audits = audit.add_subparsers(metavar="ACTION", required=True)
    command = add_command(audits, "verify", verify, "check the chain, with or without a running hub")
    command.add_argument("file", metavar="FILE", nargs="?", type=Path, help="audit.jsonl or its folder")
    command.add_argument("--state-dir", type=folder, metavar="DIR", help="the hub's state directory")
    command = add_command(audits, "tail", tail, "show the newest records")
    add_where(command)
    command.add_argument("--limit", type=positive, default=20, metavar="N", help="how many (20)")
    add_form(command)


def verify(args: argparse.Namespace) -> int:
    """Check the stored chain, of several workers each; the exit status is the gravest verdict's."""
    from ..audit.files import logs
    from ..audit.verdict import UNREADABLE, gravest
    from ..audit.verify import verify

    path = args.file or args.state_dir or state_directory()
    found = logs(path) if os.path.isdir(path) or not os.path.lexists(path) else [path]
    if not found:
        complain(printable(f"hub: There is no audit log in {path}; --state-dir names the folder of a hub."))
        return UNREADABLE
    verdicts = [verify(each) for each in found]
    for each, verdict in zip(found, verdicts, strict=True):
        say(printable(f"{each.name}: " * (len(found) > 1) + _told(verdict)))
    return gravest(verdict.status for verdict in verdicts)


def _told(verdict: "Verdict") -> str:
    """A verdict as one line."""
    if verdict.valid:
        more = f"; {verdict.reason}" if verdict.reason else ""
        return f"intact: {verdict.records} records, head {verdict.head}{more}"
    at = f" (at record {verdict.broken_at})" if verdict.broken_at is not None else ""
    what = "not checked" if verdict.is_unreadable else "not intact"
    return f"{what}: {verdict.reason}{at}; {verdict.records} records before that are good"


def tail(args: argparse.Namespace) -> int:
    """Print the newest records, oldest first, one a line: JSON, or in columns for a person."""
    with connection(args) as hub:
        found = page = hub.ask("GET", f"/api/audit?limit={args.limit}")
        while page and len(found) < args.limit:  # an answer ends with what fits
            page = hub.ask("GET", f"/api/audit?limit={args.limit - len(found)}&before={found[0]['seq']}")
            found = page + found
    people, colour = is_for_people(args), has_colour(sys.stdout)
    for record in found:
        say(in_columns(record, colour=colour) if people else printable(compact(record)))
    return 0


def in_columns(record: Mapping[str, Any], *, colour: bool = False) -> str:
    """One line for a person: time, action, who, what, and how that ended."""
    details = record["details"]
    rest = details.get("args") or {name: value for name, value in details.items() if name not in TOLD}
    what = printable(" ".join(filter(None, [details.get("command"), compact(rest) if rest else ""])))
    ended = printable(" ".join([details.get("outcome", ""), f"{details['ms']} ms" if "ms" in details else ""]).strip())
    shade: Colour = "green" if details.get("outcome") == "ok" else "red"
    return "  ".join(
        [
            coloured(local(record["timestamp"]), "grey", on=colour),
            f"{printable(record['action']):<18}",
            f"{printable(_who(record['actor'])):<10}",
            *filter(None, [what, coloured(ended, shade, on=colour and bool(ended))]),
        ]
    )


def _who(actor: Mapping[str, Any] | None) -> str:
    """The account's name, if it is one of this machine; else where it came from."""
    if not actor:
        return "hub"
    if actor.get("uid") is None:
        return str(actor.get("peer") or "hub")
    try:
        return pwd.getpwuid(actor["uid"]).pw_name
    except (KeyError, OverflowError, TypeError):
        return f"uid {actor['uid']}"
