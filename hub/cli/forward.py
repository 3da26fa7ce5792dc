"""`hub forward`: publish what happens here to another hub."""

import argparse
import contextlib
import re
from typing import Any
from urllib.parse import urlsplit

from ..statedir import state_directory
from .beginnings import add_beginning
from .grammar import add_command, folder, url
from .http import add_where
from .places import Place, place

FOLDER = "forwards"
EXAMPLES = """
    hub forward --to https://hub.home.example --to-token-file hub.token
    hub forward 'agent:*' 'task:*' --to localhost:4242 --after start
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "forward", run, "publish what happens here to another hub", EXAMPLES)
    command.add_argument("patterns", metavar="PATTERN", nargs="*", help="as agent:* (default: every event)")
    there = command.add_argument_group("to which hub")
    there.add_argument("--to", type=url, metavar="URL", required=True, help="its address")
    there.add_argument(
        "--to-token-file", type=folder, metavar="FILE", help="the file of its token (HUB_FORWARD_TOKEN: the token)"
    )
    there.add_argument("--to-ca", metavar="FILE", help="certificates to trust for it")
    add_beginning(command)
    command.add_argument(
        "--name",
        metavar="NAME",
        type=place,
        help="of the place that is kept, which a second run goes on from (default: made of the address)",
    )
    add_where(command)


def run(args: argparse.Namespace) -> int:
    """Publish there what comes here, each event once, until interrupted; how far it has come is kept in the state
    directory. While only a demo runs here, or there, it waits."""
    from . import coroutines
    from .forwarding import forward

    with contextlib.suppress(KeyboardInterrupt), _place(args) as place:
        coroutines.run(lambda _: forward(args, place))
    return 0


def _place(args: argparse.Namespace) -> Place:
    name, repeats = args.name or _name_of(args.to), "; the other hub knows by its id what it has"
    return Place(args.state_dir or state_directory(), name, FOLDER, "hub forward --name", repeats)


def _name_of(address: str) -> str:
    parts = urlsplit(address)
    return re.sub(r"[^A-Za-z0-9.-]", "_", f"to-{parts.netloc}{parts.path}")[:64]
