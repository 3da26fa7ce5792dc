"""Where a hub listens: its port, and the address at which programs of this machine reach it."""

import errno
import socket

from ..config import Config
from ..errors import Occupied, UsageError


def bind(config: Config, *, shared: bool = False) -> socket.socket:
    """The port, before anything else is taken; `shared` with other sockets of this account that are, too. Raises
    UsageError. Connections of before that linger in the system keep nobody from it."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((config.host, config.port))
    except OSError as error:
        sock.close()
        raise cannot_listen(config, error) from None
    sock.setblocking(False)
    return sock


def cannot_listen(config: Config, error: OSError) -> UsageError:
    where = f"Cannot listen on {config.host} port {config.port}"
    if error.errno == errno.EADDRINUSE:
        return Occupied(f"{where}: another program listens there; stop it or choose --port.")
    return UsageError(f"{where}: {error.strerror}.")


def address(config: Config, sock: socket.socket) -> str:
    """Where programs of this machine reach the hub; of all addresses, the loopback one."""
    port = sock.getsockname()[1]
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http{'s' * bool(config.tls_cert)}://{f'[{host}]' if ':' in host else host}:{port}/"
