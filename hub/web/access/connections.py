"""The connections that the hub has accepted: who is at the other end of each, before its first request is read."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ...commands.ratelimit import Bucket
from ...sockdiag import is_loopback
from .opened import Grant
from .peer import Peer, endpoint, owner

STRANGERS = 64  # connections of other accounts at once, and new ones a second
SHOWN_SECONDS = 60.0  # so long whoever has shown a token may come as often as it likes


@dataclass(slots=True)
class Accepted:
    """What holds for every request of a connection, and the Host last found good on it. In token mode each request gets
    a copy, in which a trusted proxy's word and the token's trust are filled in."""

    peer: Peer
    loopback: bool
    address: str  # our end's
    port: int  # our end's: the hub's own port, in a mounted application too
    scheme: str
    host: str | None = None
    hosts: tuple[str, ...] = ()  # that a trusted proxy named beside the Host
    passed: list[tuple[bytes, bytes]] | None = None  # headers, but for lengths, with which all checks let one in
    grant: Grant | None = None  # what has let the request in, in token mode

    @property
    def cookie(self) -> str:
        """The name of the session's cookie. With the port: to a browser all ports of a host share their cookies."""
        return f"hub_session_{self.port}"


class Watch:
    """Knows every connection of the servers that it watches. The connections of `users` are the operator's.

    The other accounts of this machine have STRANGERS connections together, and as many new ones a second: what is more
    is `refused(address)`, and cut off before a word of it is read. So their connections take no descriptors away from
    the operator's. In token mode a peer that is `spared` may be the operator: a trusted proxy, or whom the kernel does
    not name; and who has shown a token is. An account that has shown one comes with new connections at any rate: the
    right token is never kept waiting, also by a script that makes a connection for each request.
    """

    def __init__(self, users: frozenset[int], refused: Callable[[str], None] = lambda address: None) -> None:
        self.users, self.refused = users, refused
        self.spared: Callable[[Peer], bool] = lambda peer: False
        self.strangers: set[object] = set()
        self._arrivals = Bucket(STRANGERS, STRANGERS)
        self._shown: dict[int, float] = {}  # the accounts that have shown a token, and when
        # By aiohttp's protocol of the connection, filled and emptied in over(). No weak references: uvloop's TLS
        # transport takes none. A mounted application is not watched: there the kernel is asked at every request.
        self.connections: dict[object, Accepted] = {}

    def over(self, server: web.Server) -> None:
        """Ask the kernel when a connection is accepted, not at its first request. Call it before listening."""
        connection_made, connection_lost = server.connection_made, server.connection_lost

        def made(handler: Any, transport: asyncio.Transport) -> None:
            connection_made(handler, transport)
            if (accepted := self._recognise(transport)) is None:
                return
            self.connections[handler] = accepted
            if self._is_stranger(accepted) and not self._has_room(handler, accepted.peer.uid):
                self.refused(accepted.peer.address)
                asyncio.get_running_loop().call_soon(transport.abort)  # when aiohttp's task for it has begun

        def lost(handler: Any, exc: BaseException | None = None) -> None:
            self.connections.pop(handler, None)
            self.strangers.discard(handler)
            connection_lost(handler, exc)

        server.connection_made = made  # type: ignore[method-assign]
        server.connection_lost = lost  # type: ignore[method-assign]

    def connection(self, request: web.Request) -> Accepted | None:
        """The connection that a request came on; None if it is gone."""
        if request.transport is None:
            return None
        return self.connections.get(request.protocol) or self._recognise(request.transport)

    def let_in(self, request: web.Request) -> None:
        """Whoever sent this has shown a token: a client as every other."""
        self.strangers.discard(request.protocol)
        if (accepted := self.connections.get(request.protocol)) and accepted.peer.uid is not None:
            self._shown[accepted.peer.uid] = time.monotonic()

    def forget(self) -> None:
        """What was shown so far is no token any more."""
        self._shown.clear()

    def _is_stranger(self, accepted: Accepted) -> bool:
        return accepted.peer.trust == "NONE" and accepted.loopback and not self.spared(accepted.peer)

    def _has_room(self, handler: object, uid: int | None) -> bool:
        """Take a stranger in. Stops another account that opens connections until no descriptor is left, or so fast that
        the hub does nothing else."""
        if len(self.strangers) >= STRANGERS:
            return False
        if not self._has_shown(uid) and self._arrivals.take():
            return False
        self.strangers.add(handler)
        return True

    def _has_shown(self, uid: int | None) -> bool:
        shown = None if uid is None else self._shown.get(uid)
        return shown is not None and time.monotonic() - shown < SHOWN_SECONDS

    def _recognise(self, transport: asyncio.BaseTransport) -> Accepted | None:
        """Ask the kernel who is there; None if nobody is any more. Never raises or waits."""
        if (name := transport.get_extra_info("peername")) is None:
            return None
        address, port = endpoint(name)
        own_address, own_port = endpoint(transport.get_extra_info("sockname"))
        loopback = is_loopback(address)
        uid = owner(transport) if loopback else None
        peer = Peer(address, port, uid, "OPERATOR" if uid in self.users else "NONE")
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        return Accepted(peer, loopback, own_address, own_port, scheme)
