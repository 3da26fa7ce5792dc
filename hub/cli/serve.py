"""`hub serve`: run a hub."""

import argparse
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..client.discovery import NoHub, parts, running
from ..config import Config, add_flags, given, unknown_variables
from ..errors import Occupied, UsageError
from ..statedir import state_directory
from ..stdio import complain, has_terminal, say
from .grammar import add_command


def add(commands: Any) -> None:
    """Add the command to the command line."""
    serve = add_command(commands, "serve", run, "run the hub")
    add_flags(serve)
    instead = serve.add_argument_group("in place of running")
    instead.add_argument("--check-config", action="store_true", help="say what is wrong with hub.toml, by line")


def run(args: argparse.Namespace) -> int:
    """Run a hub until it is told to stop. Raises UsageError for settings with which it cannot start."""
    if not has_terminal():  # then it asks to read all again, and all will be read
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    config = Config.from_environment(**given(args))
    if args.check_config:
        return check(config)
    from ..web.program import serve

    try:
        return serve(config)
    except Occupied as error:
        raise UsageError(_mine(config) or str(error)) from None


def _mine(config: Config) -> str | None:
    """What to do where it is a hub of this account's own that stands in the way; None where that is not known."""
    own = _running(config.state_dir)
    if own:
        return (
            f"Your hub runs already, at {own[0]}/ (process {own[1]}): open that, "
            "or give a second one a folder and a port of its own (--state-dir DIR --port N)."
        )
    usual = _running(None)
    named = parts(usual[0]) if usual else None
    if not usual or not named or named.port != config.port:
        return None
    return f"Your hub listens on port {config.port}, at {usual[0]}/ (process {usual[1]}): choose another --port."


def _running(directory: Path | None) -> tuple[str, int] | None:
    """Address and process of the hub of this directory, else of the usual one; None where there is none."""
    with suppress(NoHub, UsageError):
        return running(directory or state_directory())
    return None


def check(config: Config) -> int:
    """Say that hub.toml is good. Raises BadFile with all that is wrong, UsageError for settings, or a state directory,
    with which no hub starts."""
    from ..configfile.reading import read
    from ..private import Unsafe, check_directory
    from ..web.access.guard import Guard, refuse_bind
    from ..web.tls import server_context

    for sentence in unknown_variables():
        complain(f"hub: {sentence}")
    refuse_bind(config)
    Guard(config, refused=lambda reason, address: None)
    server_context(config)
    file = read(config)
    try:
        with suppress(FileNotFoundError):  # it will be made
            check_directory(config.state_dir)
    except Unsafe as error:
        raise UsageError(f"{error}.") from None
    say(str(file))
    return 0
