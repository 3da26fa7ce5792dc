"""Several workers on one port: what they have in common before they are started.

Each worker is a hub of its own, with a state directory of its own under the one that was named; their stream is one in
Redis. The system hands each connection to one of them (SO_REUSEPORT).
"""

import contextlib
import os
import socket

from ..config import Config
from ..errors import UsageError
from ..private import Locked, Unsafe, cannot_take, lock, prepare_directory, unused_removed
from ..stderr import set_up_logging
from ..tokens import ensure
from .access.guard import mode
from .access.tickets import KINDS, TICKETS, clear
from .crew import Crew, Serve
from .listening import address, bind

SHARED = ("redis:", "rediss:", "unix:")  # what the URL of a stream for several hubs begins with


def check(config: Config) -> None:
    """Raise UsageError where several workers would have nothing in common."""
    if not config.broker.startswith(SHARED):
        raise UsageError(
            f"{config.workers} workers need one stream in a Redis or Valkey: name it with --broker, or in HUB_BROKER "
            f"(hub print redis prints its settings)."
        )


def run(config: Config, serve: Serve) -> int:
    """Run the workers until SIGTERM or SIGINT; return the exit status. Raises UsageError if they cannot start."""
    check(config)
    set_up_logging(config)
    folders = (config.state_dir / f"worker-{number}" for number in range(1, config.workers + 1))
    with unused_removed(config.state_dir, *folders):
        return _run(config, serve)


def _run(config: Config, serve: Serve) -> int:
    try:
        prepare_directory(config.state_dir)
        held = lock(config.state_dir)
    except (Locked, Unsafe, OSError) as error:
        raise cannot_take(config.state_dir, error) from None
    try:
        _make_token(config)
        _clear_tickets(config)
        with contextlib.closing(_reserve(config)) as port:
            return Crew(config, port.getsockname()[1], address(config, port), serve).run()
    finally:
        with contextlib.suppress(UsageError):
            _clear_tickets(config)
        os.close(held)


def _make_token(config: Config) -> None:
    """Before any of them does: two at the same moment would stand in each other's way. Raises UsageError."""
    if mode(config) == "token":
        try:
            ensure(config.state_dir)
        except (OSError, Unsafe) as error:
            raise UsageError(f"There can be no token in {config.state_dir}: {error}.") from None


def _clear_tickets(config: Config) -> None:
    """End the sessions and links of the last time: they end with the hub. Raises UsageError."""
    folder = config.state_dir / TICKETS
    try:
        for kind in KINDS:
            clear(folder / kind)
    except OSError as error:
        raise UsageError(f"Old sessions in {folder} cannot be ended: {error.strerror}.") from None


def _reserve(config: Config) -> socket.socket:
    """Hold the port for the workers, without listening. Raises UsageError if another program has it: with SO_REUSEPORT
    alone another hub of this account would get a part of the connections."""
    with contextlib.closing(bind(config)) as sock:
        port = sock.getsockname()[1]
    sock = bind(config.changed(port=port), shared=True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else another account gets it while no worker listens
    return sock
