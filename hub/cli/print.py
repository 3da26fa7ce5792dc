"""`hub print`: files for the programs around the hub, to be written where they belong."""

import argparse
import hashlib
import os
import pwd
import secrets
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from ..config import Config
from ..errors import UsageError
from ..printed.render import FILES, render, wanted
from ..sockdiag import is_local
from ..stdio import say
from .grammar import add_command, folder

SYSTEM = "hub"  # the account of a hub that root sets up, and where it keeps what it keeps
SYSTEM_STATE = "/var/lib/hub"
DOMAIN = "hub.example.org"
ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses; and the one among them that is near


def add(commands: Any) -> None:
    """Add the command to the command line."""
    command = add_command(
        commands,
        "print",
        run,
        "print a file for a program around the hub: a service, a container, a proxy, a monitor, a store",
        "hub print user-unit > ~/.config/systemd/user/hub.service\n"
        "hub print nginx --domain hub.user.example --port 3141 > hub.conf",
    )
    command.add_argument("what", choices=tuple(FILES), metavar="WHAT", help=", ".join(FILES))
    command.add_argument("--host", help="address that the hub listens on")
    command.add_argument("--port", type=int, metavar="N", help="its port")
    command.add_argument("--state-dir", type=folder, metavar="DIR", help="its folder")
    command.add_argument("--user", metavar="NAME", help="account that it runs as")
    command.add_argument("--domain", metavar="NAME", help="name under which others reach it")


def run(args: argparse.Namespace) -> int:
    """Print the file. Raises UsageError for a value that has no place in it."""
    places = wanted(args.what)
    if "address" in places:
        places |= {"host", "port"}
    for name in ("host", "port", "state_dir", "user", "domain"):
        if getattr(args, name) is not None and name not in places:
            raise UsageError(f"There is nothing of --{name.replace('_', '-')} in what hub print {args.what} prints.")
    values = _values(args)
    say(render(args.what, {**values, "flags": _flags(args, values, places)}).rstrip("\n"))
    return 0


def _flags(args: argparse.Namespace, values: Mapping[str, str], places: Collection[str]) -> str:
    """The flags with which the same is printed again, whoever does that: root has other folders, and no variables."""
    usual = {"host": "127.0.0.1", "port": "3141", "state_dir": SYSTEM_STATE, "user": SYSTEM, "domain": DOMAIN}
    known = [name for name in usual if name in places]
    named = [name for name in known if getattr(args, name) is not None or values[name] != usual[name]]
    return "".join(f" --{name.replace('_', '-')} {values[name]}" for name in named)


def _values(args: argparse.Namespace) -> Mapping[str, str]:
    given = {name: getattr(args, name) for name in ("host", "port") if getattr(args, name) is not None}
    config, user = Config.from_environment(**given), _account() if args.user is None else args.user
    is_system = args.what == "systemd-unit" and user == SYSTEM and not os.environ.get("HUB_STATE_DIR")
    state = args.state_dir or (SYSTEM_STATE if is_system else config.state_dir)
    password, host = secrets.token_urlsafe(32), config.host.strip("[]")
    here = ANYWHERE.get(host, host)  # where a program of this machine reaches it
    return {
        "host": host,
        "address": f"[{here}]:{config.port}" if ":" in here else f"{here}:{config.port}",
        "from": "127.0.0.1" if here == "localhost" else here,
        "auth": "" if is_local(host) else " --auth token",
        "port": str(config.port),
        "state_dir": os.path.abspath(state),
        "user": user,
        "useradd": "" if _is_account(user) else f"#   useradd --system {user}\n",
        "and_root": "" if user == "root" else " and root",
        "domain": DOMAIN if args.domain is None else args.domain,
        "python": sys.executable,
        "password": password,
        "digest": hashlib.sha256(password.encode()).hexdigest(),
    }


def _is_account(name: str) -> bool:
    with suppress(KeyError, ValueError):
        return bool(pwd.getpwnam(name))
    return False


def _account() -> str:
    """Who asks; for root an account of the hub's own, because a hub needs no rights."""
    return pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else SYSTEM
