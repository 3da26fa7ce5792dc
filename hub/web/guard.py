"""Who gets in: peer, forwarding headers, Host, Origin, fetch metadata and user, before any handler runs.

Only the operator's own programs and the hub's own page are let in; the headers of every response forbid the browser the
rest. What each check looks at, and its status, is PROTOCOL's section 5.
"""

import asyncio
import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, hdrs, web
from aiohttp.typedefs import Handler

from ..config import Config
from ..errors import HubError, UsageError
from .origin import Names, shown, target_authority
from .peer import Peer, endpoint, is_loopback, owner, supported, unmapped

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OPEN_ROUTES = frozenset({"metrics", "healthz"})  # names of the routes that every local account may read
WEBSOCKET_ROUTE = "ws"  # name of the route where a foreign peer is refused with close code 1008

_FORWARDING = frozenset(
    {
        *("forwarded", "via", "x-real-ip", "cf-connecting-ip", "cf-ray", "cdn-loop", "true-client-ip"),
        *("fastly-client-ip", "x-client-ip", "x-cluster-client-ip", "x-original-host"),
        *("x-original-forwarded-for", "x-envoy-external-address"),
    }
)  # and all that begins with x-forwarded
_SEC_FETCH_SITE = "Sec-Fetch-Site"

PEER = web.RequestKey("peer", Peer)


class Refused(HubError):
    """Not let in, and nothing ran. `reason` names one of `Guard.checks`, so a metric's label may carry it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__("forbidden", message, status=421 if reason == "host" else 403)
        self.reason = reason


@dataclass(slots=True)
class Connection:
    """What holds for every request of a connection, and the Host last found good on it."""

    peer: Peer
    loopback: bool
    port: int  # our end's: the hub's own port, in a mounted application too
    scheme: str
    origins: frozenset[str]
    host: str | None = None


Check = Callable[[Connection, web.Request], str | None]


class Guard:
    """The checks of `--auth local`, in order; each returns None, or a sentence for whom it refuses.

    `refused(reason, address)` is called once for every refusal. `limit(request, peer)` is called for every request that
    passed the checks and returns 0.0, or the seconds to wait: then the answer is `rate_limited`. Raises UsageError if
    an `--allow-host` is no host or an `--allow-origin` no origin.
    """

    def __init__(
        self,
        config: Config,
        *,
        refused: Callable[[str, str], None],
        limit: Callable[[web.Request, Peer], float] | None = None,
    ) -> None:
        self.refused = refused
        self.limit = limit
        self.users = frozenset({0, os.geteuid()})
        self.names = Names(config.allow_host, config.allow_origin)
        self.checks: dict[str, Check] = {
            "peer": self._loopback_peer,
            "forwarded": self._not_forwarded,
            "host": self._known_host,
            "origin": self._own_origin,
            "fetch_site": self._same_site,
            "user": self._own_user,
        }
        # By aiohttp's protocol of the connection, filled and emptied in watch(). No weak references: uvloop's TLS
        # transport takes none. A mounted application is not watched: there the kernel is asked at every request.
        self._connections: dict[object, Connection] = {}

    def protect(self, app: web.Application) -> None:
        """Stand before every handler of the application, and put the security headers on its responses."""
        app.middlewares.insert(0, self.middleware)
        app.on_response_prepare.append(_on_prepare)

    def watch(self, server: web.Server) -> None:
        """Ask the kernel when a connection is accepted, not at its first request. Call it before listening.

        Also puts the security headers on aiohttp's answers to what is not HTTP, which no application sees.
        """
        connection_made, connection_lost = server.connection_made, server.connection_lost
        request_factory = server.request_factory

        def made(handler: Any, transport: asyncio.Transport) -> None:
            self._connections[handler] = self._recognise(transport)
            connection_made(handler, transport)

        def lost(handler: Any, exc: BaseException | None = None) -> None:
            self._connections.pop(handler, None)
            connection_lost(handler, exc)

        def request_of(*parts: Any) -> web.BaseRequest:
            request = request_factory(*parts)
            if request.method == "UNKNOWN":  # what aiohttp calls a request that it could not read
                request._prepare_hook = functools.partial(_on_prepare, request)  # type: ignore[method-assign]
            return request

        server.connection_made = made  # type: ignore[method-assign]
        server.connection_lost = lost  # type: ignore[method-assign]
        server.request_factory = request_of

    def check(self, request: web.Request) -> Peer:
        """The peer, if all checks pass. Raises Refused."""
        transport = request.transport
        if transport is None:
            raise Refused("user", "The connection is gone.")
        connection = self._connections.get(request.protocol) or self._recognise(transport)
        for reason, check in self.checks.items():
            if sentence := check(connection, request):
                self.refused(reason, connection.peer.address)
                raise Refused(reason, sentence)
        return connection.peer

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets the request through with its Peer in `request[PEER]`, or answers with the error object."""
        try:
            request[PEER] = peer = self.check(request)
        except Refused as refusal:
            return await _refuse(request, refusal)
        if self.limit is not None and (wait := self.limit(request, peer)) > 0:
            error = HubError("rate_limited", "Too many requests; wait a little.", retry_after=round(wait, 3))
            return web.json_response(
                error.payload(), status=error.status, headers={"Retry-After": str(math.ceil(wait))}
            )
        return await handler(request)

    # The checks, in their order.

    def _loopback_peer(self, connection: Connection, request: web.Request) -> str | None:
        """Stops other machines."""
        return None if connection.loopback else "Only local connections allowed."

    def _not_forwarded(self, connection: Connection, request: web.Request) -> str | None:
        """Stops the world behind a proxy or tunnel on this machine, which makes everybody look local."""
        for name in request.headers:
            lower = name.lower()
            if lower in _FORWARDING or lower.startswith("x-forwarded"):
                return "A proxy forwarded this request; the hub only serves programs of its own machine."
        return None

    def _known_host(self, connection: Connection, request: web.Request) -> str | None:
        """Stops DNS rebinding: a foreign name pointed at this machine, so that its page looks same-origin."""
        hosts = request.headers.getall(hdrs.HOST, ())
        if len(hosts) != 1:
            return "A request needs exactly one Host header."
        if hosts[0] != connection.host:
            if not self.names.is_own(hosts[0], connection.scheme, connection.port):
                return _wrong_host(hosts[0])
            connection.host = hosts[0]
        target = target_authority(request.raw_path)
        if target is None or self.names.is_own(target, connection.scheme, connection.port):
            return None
        return _wrong_host(target)

    def _own_origin(self, connection: Connection, request: web.Request) -> str | None:
        """Stops pages of other sites and other local ports: a page may open a WebSocket or POST anywhere."""
        origins = request.headers.getall(hdrs.ORIGIN, ())
        if not origins:
            return None
        if len(origins) == 1 and (
            origins[0] in connection.origins
            or origins[0] in self.names.allowed_origins
            or origins[0] == f"{connection.scheme}://{request.headers.get(hdrs.HOST, '').lower()}"
        ):
            return None
        return f"Pages of {shown(', '.join(origins))} may not use this hub; --allow-origin lets them in."

    def _same_site(self, connection: Connection, request: web.Request) -> str | None:
        """Stops what other sites make a browser send without an Origin: images, scripts, links, frames."""
        sites = request.headers.getall(_SEC_FETCH_SITE, ())
        if not sites or (len(sites) == 1 and sites[0] in ("same-origin", "none")):
            return None
        if request.headers.get(hdrs.ORIGIN) in self.names.allowed_origins:
            return None  # to the browser an allowed page is another site all the same
        return "Another site sent the browser here; type the hub's address instead."

    def _own_user(self, connection: Connection, request: web.Request) -> str | None:
        """Stops the other accounts of this machine, which are loopback peers too."""
        uid = connection.peer.uid
        if uid in self.users or request.match_info.route.name in OPEN_ROUTES:
            return None
        if uid is None:
            return "The system does not say whose connection this is; stay connected until the answer comes."
        return "This hub belongs to another account of this machine; start your own."

    def _recognise(self, transport: asyncio.BaseTransport) -> Connection:
        """Ask the kernel who is there. Never raises or waits."""
        address, port = endpoint(transport.get_extra_info("peername"))
        own_address, own_port = endpoint(transport.get_extra_info("sockname"))
        loopback = is_loopback(address)
        uid = owner(transport) if loopback else None
        peer = Peer(address, port, uid, "OPERATOR" if uid in self.users else "NONE")
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        return Connection(peer, loopback, own_port, scheme, self.names.origins(scheme, own_address, own_port))


def security_headers(response: web.StreamResponse) -> None:
    """No foreign script, frame, sniffing, referrer, cache or reader. There is never a CORS header."""
    response.headers.update(HEADERS)


def refuse_bind(config: Config) -> None:
    """Raises UsageError for what `--auth local` cannot protect: token mode and all that needs it."""
    if config.auth != "local":
        raise UsageError(f"--auth {config.auth} does not exist yet; use --auth local.")
    if config.trusted_proxy:
        raise UsageError("--trusted-proxy needs --auth token, which does not exist yet.")
    host = config.host.strip("[]")
    if host != "localhost" and not is_loopback(unmapped(host)):
        raise UsageError(f"--host {shown(host)} is not loopback; that needs --auth token, not there yet.")
    if not supported():
        raise UsageError("This system does not say whose a connection is, so --auth local is not safe.")


async def _on_prepare(request: web.BaseRequest, response: web.StreamResponse) -> None:
    security_headers(response)


async def _refuse(request: web.Request, refusal: Refused) -> web.StreamResponse:
    """The refusal as an HTTP status; for a foreign peer's WebSocket as close code 1008 (PROTOCOL 2)."""
    socket = web.WebSocketResponse(timeout=1.0, compress=False, max_msg_size=1024)
    websocket = refusal.reason == "peer" and request.match_info.route.name == WEBSOCKET_ROUTE
    if websocket and socket.can_prepare(request):
        await socket.prepare(request)
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Only local connections allowed")
        return socket
    response = web.json_response(refusal.payload(), status=refusal.status)
    response.force_close()
    return response


def _wrong_host(text: str) -> str:
    return f"This hub is not {shown(text)}; use the address it printed, or start it with --allow-host NAME."
