"""`hub serve`: run a hub."""

import argparse
from typing import Any

from ..config import Config, add_flags, given
from ..stdio import say
from .grammar import add_command


def add(commands: Any) -> None:
    """Add the command to the command line."""
    serve = add_command(commands, "serve", run, "run the hub")
    add_flags(serve)
    instead = serve.add_argument_group("in place of running")
    instead.add_argument("--check-config", action="store_true", help="say what is wrong with hub.toml, by line")


def run(args: argparse.Namespace) -> int:
    """Run a hub until it is told to stop. Raises UsageError for settings with which it cannot start."""
    config = Config.from_environment(**given(args))
    if args.check_config:
        return check(config)
    from ..web.program import serve

    return serve(config)


def check(config: Config) -> int:
    """Say that hub.toml is good. Raises BadFile with all that is wrong."""
    from ..configfile.reading import read

    say(str(read(config)))
    return 0
