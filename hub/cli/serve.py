"""`hub serve`: run a hub."""

import argparse
from typing import Any

from ..config import Config, add_flags, given
from .grammar import add_command


def add(commands: Any) -> None:
    """Add the command to the command line."""
    add_flags(add_command(commands, "serve", run, "run the hub"))


def run(args: argparse.Namespace) -> int:
    """Run a hub until it is told to stop."""
    config = Config.from_environment(**given(args))
    from ..web.app import serve

    return serve(config)
