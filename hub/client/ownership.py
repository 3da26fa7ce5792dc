"""Whose the server is that a client has reached: asked before anything is sent to it."""

import os
from typing import Any

from ..sockdiag import Address, is_local, is_loopback, server_of, supported, unmapped
from .discovery import parts

ROOT = 0


class Impostor(ConnectionError):
    """What listens there is not this account's hub; the text says whose it is."""


def is_near(url: str | None) -> bool:
    """Whether a hub runs in this machine: that is where it is looked for without an address."""
    named = parts(url) if url else None
    return named is None or is_local(named.host)


def check_server(server: Address, local: Address, sock: Any) -> None:
    """Raise Impostor if our connection `sock` to `server` ends in this machine, and not with this account or root.

    Stops another account that has taken the port of a hub which crashed from getting events, calls and the token. On
    another machine, and with TLS, the certificate says whose it is. Where the kernel answers no such question at all,
    what `server.json` says of the process must do.
    """
    if server[0] != local[0] and not is_loopback(unmapped(server[0])):
        return
    uid = server_of(server, local, sock)
    if uid in (ROOT, os.geteuid()) or (uid is None and not supported()):
        return
    whose = "what listens there has gone" if uid is None else f"another account listens there, user {uid}"
    raise Impostor(f"{whose}; nothing was sent")
