"""`hub token`: the token that lets others in, and links for browsers."""

import argparse
from typing import TYPE_CHECKING, Any

from ..client.discovery import Refusal, credentials
from ..errors import HubError
from ..private import Unsafe
from ..statedir import state_directory
from ..stdio import say
from ..tokens import ensure, read, replace
from .grammar import add_command
from .http import Connection, add_where, address, token_of
from .terminal import printable

if TYPE_CHECKING:
    from ..wire.vocabulary import Trust


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "token", run, "print the token that lets others in, or make a new one")
    add_where(command)
    command.add_argument("--read-only", action="store_true", help="the one that only reads; made if there is none")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--new", action="store_true", help="replace it; whoever has the old one is out")
    what.add_argument("--link", action="store_true", help="ask the hub for a link that lets one browser in, once")


def run(args: argparse.Namespace) -> int:
    """Print a token from its file, or a one-time link from the hub."""
    say(printable(_link(args) if args.link else _token(args)))
    return 0


def _token(args: argparse.Namespace) -> str:
    directory = args.state_dir or state_directory()
    trust: Trust = "OBSERVER" if args.read_only else "OPERATOR"
    try:
        if args.new:
            return replace(directory, trust)
        found = ensure(directory, trust) if args.read_only else read(directory, trust)
    except (OSError, Unsafe) as error:
        raise HubError("forbidden", f"{error}.") from None
    if found is None:
        raise HubError(
            "forbidden",
            f"There is no token in {directory}: name the folder of a hub in token mode (--state-dir DIR), "
            "or start one there (hub serve --auth token).",
        )
    return found


def _link(args: argparse.Namespace) -> str:
    token = _token(args) if args.read_only else token_of(args)
    url = address(args)
    try:
        with Connection(url, headers=credentials(url, args.state_dir, token), ca=args.ca) as hub:
            return f"{url}/{hub.ask('POST', '/login')['link']}"
    except Refusal as refusal:
        if refusal.status == 404:
            raise HubError("forbidden", "This hub needs no link: it is not in token mode.") from None
        raise
