"""Who is at the other end of a connection to the hub."""

import asyncio
from dataclasses import dataclass
from typing import Any

from ...sockdiag import is_open, uid_of, unmapped
from ...wire.vocabulary import Trust


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. Address and user are the kernel's word, never what a client says of itself; behind a
    trusted proxy the address is that proxy's word, and port (0) and user are not known."""

    address: str
    port: int
    uid: int | None
    trust: Trust  # "OPERATOR"; "OBSERVER", who only reads; or "NONE", who only gets OPEN_ROUTES

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}" if self.port else address


def endpoint(name: Any) -> tuple[str, int]:
    """(address, port) of a TCP socket's name, v4-mapped unmapped; ("", 0) for any other kind of socket."""
    return (unmapped(name[0]), name[1]) if isinstance(name, tuple) and len(name) >= 2 else ("", 0)


def owner(transport: asyncio.BaseTransport) -> int | None:
    """The user id of who opened this TCP connection; None is no certain answer. Never waits or raises.

    Our own end must still be open after the question. Only then can no other connection have the same four-tuple: after
    a reset the port is free again, and an innocent user's socket could be the one named.
    """
    peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    uid = uid_of(peer, local)
    return uid if uid is not None and is_open(transport.get_extra_info("socket")) else None
