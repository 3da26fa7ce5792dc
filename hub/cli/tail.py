"""`hub tail`: follow events."""

import argparse
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..client.items import Received
from ..stdio import give_up
from .grammar import add_command, positive
from .http import add_where, named_address, token_of
from .terminal import envelope, printable, readable

if TYPE_CHECKING:
    import logging


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(commands, "tail", run, "follow events")
    add_where(command)
    command.add_argument("patterns", metavar="PATTERN", nargs="*", help="as agent:* (default: every event)")
    command.add_argument("--after", metavar="CURSOR", help="begin behind this position, not now")
    command.add_argument("--count", type=positive, metavar="N", help="end after N events")
    command.add_argument("--json", action="store_true", help="one envelope a line")


def run(args: argparse.Namespace) -> int:
    """Print events as they come, and gaps in their place, until interrupted; 1 if they cannot be written any more."""
    import asyncio

    with suppress(KeyboardInterrupt, asyncio.CancelledError):  # being stopped is how a tail ends
        try:
            asyncio.run(_follow(args))
        except _Unwritten as unwritten:
            return int(give_up(unwritten.error))
    return 0


class _Unwritten(Exception):
    """Stdout takes no more."""

    def __init__(self, error: OSError) -> None:
        self.error = error


async def _follow(args: argparse.Namespace) -> None:
    import logging

    from ..client import connections
    from ..client.client import HubClient

    logging.basicConfig(format="hub: %(message)s")
    connections.log.addFilter(_escaped)  # a hub's words stand in its warnings, and must not drive the terminal either
    _stop_when_unread()
    line, left = (envelope if args.json else readable), args.count
    topics = args.patterns or ("*",)
    url = named_address(args)
    where = {"state_dir": args.state_dir, "token": token_of(args), "ca": args.ca}
    async with HubClient(url, topics=topics, after=args.after, **where) as hub:
        async for item in hub:
            _print(line(item))
            if left and isinstance(item, Received):
                left -= 1
                if not left:
                    return


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:  # not to be taken for one of the connection
        raise _Unwritten(error) from None


def _stop_when_unread() -> None:
    """Let `tail | head -1` end when the other side has gone, not only at the next event."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop(pipe: int) -> None:
        loop.remove_reader(pipe)
        if task is not None:
            task.cancel()

    try:
        pipe = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            loop.add_reader(pipe, stop, pipe)  # the end that is written to: readable means that it is broken
    except (OSError, ValueError):
        pass  # not a file at all, or not one that can be watched


def _escaped(record: "logging.LogRecord") -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True
