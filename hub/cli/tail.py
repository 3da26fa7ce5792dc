"""`hub tail`: follow events."""

import argparse
import contextlib
import sys
from typing import Any

from ..errors import UsageError
from ..statedir import state_directory
from ..stdio import give_up, was_closed
from .beginnings import add_beginning
from .grammar import add_command, positive
from .http import add_where
from .places import Place, place
from .terminal import add_form


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "tail", run, "follow events")
    add_where(command)
    command.add_argument("patterns", metavar="PATTERN", nargs="*", help="as agent:* (default: every event)")
    add_beginning(command)
    command.add_argument(
        "--resume",
        metavar="NAME",
        type=place,
        help="go on where the tail with this NAME has ended; begin as the other flags say only the first time; "
        "refused while only a demo runs",
    )
    command.add_argument("--count", type=positive, metavar="N", help="end after N events")
    add_form(command)


def run(args: argparse.Namespace) -> int:
    """Print events as they come, and gaps in their place, until interrupted; 1 if they cannot be written any more.

    With `--resume` the place is kept behind each line, once it has been written: the next run goes on there.
    """
    from . import coroutines
    from .following import follow
    from .writing import Unwritten

    try:
        with contextlib.suppress(KeyboardInterrupt), _place(args) as kept:
            coroutines.run(lambda wish: follow(args, kept, wish))
    except Unwritten as unwritten:
        return int(give_up(unwritten.error))
    return 0


def _place(args: argparse.Namespace) -> contextlib.AbstractContextManager[Place | None]:
    if args.resume is None:
        return contextlib.nullcontext()
    if was_closed(sys.stdout):
        raise UsageError("Stdout is closed, and --resume keeps its place behind what was written.")
    return Place(args.state_dir or state_directory(), args.resume)
