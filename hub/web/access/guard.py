"""Who gets in: peer, forwarding headers, Host, Origin, fetch metadata and user, before any handler runs.

Only the operator's own programs and the hub's own page are let in; the headers of every response forbid the browser the
rest. In token mode a token decides in place of peer and user. What each check looks at is PROTOCOL's section 5.
"""

import functools
import ipaddress
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aiohttp import WSCloseCode, hdrs, web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict, istr

from ...config import Config
from ...errors import HubError, UsageError
from ...sockdiag import is_local, supported
from ...wire.vocabulary import Refusal
from ..answers import refusal
from ..keys import OPEN_ROUTES, PEER, RUNNING, SEEN
from .connections import Accepted, Watch
from .credentials import BLOCK_SECONDS, Tokens
from .opened import Grant, Running
from .origin import Names, origin_of, shown, target_authority
from .peer import Peer
from .proxy import Proxies, is_forwarded
from .reader import is_last, read_by
from .tickets import TICKETS

# As multidict keeps names: to put them into a response costs a third.
HEADERS = CIMultiDict(
    {
        istr("Content-Security-Policy"): "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        istr("X-Content-Type-Options"): "nosniff",
        # Not no-referrer: with that a browser sends the page's own forms with `Origin: null`.
        istr("Referrer-Policy"): "same-origin",
        istr("Cache-Control"): "no-store",
        istr("Cross-Origin-Resource-Policy"): "same-origin",
        istr("Cross-Origin-Opener-Policy"): "same-origin",
    }
)
WEBSOCKET_ROUTE = "ws"  # name of the route where a foreign peer is refused with close code 1008

_SEC_FETCH_SITE = "Sec-Fetch-Site"
_LENGTHS = frozenset({b"Content-Length", b"content-length"})  # differ from request to request, and mean nothing here


class Refused(HubError):
    """Not let in, and nothing ran. `reason` names one of `Guard.checks`, so a metric's label may carry it."""

    def __init__(self, reason: Refusal, message: str) -> None:
        status = {"host": 421, "token": 401, "guesses": 429}.get(reason, 403)
        wait = BLOCK_SECONDS if reason == "guesses" else None
        super().__init__("rate_limited" if wait else "forbidden", message, status=status, retry_after=wait)
        self.reason = reason


Check = Callable[[Accepted, web.Request], str | None]


class Guard:
    """The checks of `--auth`, in order; each returns None, or a sentence for whom it refuses. `tokens` is None in local
    mode.

    `signed(request)` says whether a request without a token is let through to who looks at its signature first, at
    trust NONE. `refused(reason, address)` is called once for every refusal. `limit(request, peer)` is called for every
    request that passed the checks and returns 0.0, or the seconds to wait: then the answer is `rate_limited`. Raises
    UsageError if an `--allow-host` is no host, an `--allow-origin` no origin, or a `--trusted-proxy` no address.
    """

    def __init__(
        self,
        config: Config,
        *,
        refused: Callable[[Refusal, str], None],
        limit: Callable[[web.Request, Peer], float] | None = None,
    ) -> None:
        self.refused = refused
        self.limit = limit
        self.closing = False  # the hub is stopping: what is answered now is the last on its connection
        self.signed: Callable[[web.Request], bool] = lambda request: False
        self.users = frozenset({0, os.geteuid()})
        self.tokens = Tokens(config.common_dir, common_tickets(config)) if mode(config) == "token" else None
        self.names = Names(_hosts(config) if self.tokens else config.allow_host, config.allow_origin)
        self.accepted = Watch(self.users, functools.partial(refused, "too_many"))
        self.checks: dict[Refusal, Check] = {
            "peer": self._loopback_peer,
            "forwarded": self._not_forwarded,
            "host": self._known_host,
            "origin": self._own_origin,
            "fetch_site": self._same_site,
            "user": self._own_user,
        }
        if self.tokens:
            del self.checks["peer"], self.checks["user"]
            proxies = Proxies(config.trusted_proxy)
            self.checks["forwarded"] = proxies.check
            self.accepted.spared = lambda peer: peer.uid is None or proxies.trusts(peer.address)
            self.tokens.on_replaced = self.accepted.forget
            self.checks["token"] = functools.partial(self._known, self.tokens)

    def protect(self, app: web.Application) -> None:
        """Stand before every handler of the application, and put the security headers on its responses."""
        app.middlewares.insert(0, self.middleware)
        app.on_response_prepare.append(self._on_prepare)

    def watch(self, server: web.Server) -> None:
        """Know its connections from when they are accepted; call it before listening. And refuse what is not HTTP,
        which no application sees."""
        read_by(server, self._unreadable)
        self.accepted.over(server)

    def _unreadable(self, error: HubError, address: str) -> web.Response:
        self.refused("shutting_down" if error.code == "shutting_down" else "malformed", address)
        response = refusal(error)
        security_headers(response)
        return response

    def check(self, request: web.Request) -> Peer:
        """The peer, if all checks pass. Raises Refused."""
        connection = self.accepted.connection(request)
        if connection is None:
            raise Refused("user", "The connection is gone.")
        if self.tokens:  # who asks can change from request to request, so nothing is kept for the next
            connection = replace(connection, peer=replace(connection.peer, trust="NONE"))
        request[SEEN] = connection
        headers = [header for header in request.raw_headers if header[0] not in _LENGTHS]
        if headers == connection.passed and request.raw_path[:1] == "/":
            return connection.peer
        for reason, check in self.checks.items():
            if sentence := check(connection, request):
                raise self.refuse(reason, sentence, connection.peer)
        if self.tokens:
            if connection.peer.trust != "NONE":
                self.accepted.let_in(request)
        elif connection.peer.uid in self.users:
            connection.passed = headers  # no check looks at more than them, the host in the path, and the connection
        return connection.peer

    def refuse(self, reason: Refusal, sentence: str, peer: Peer) -> Refused:
        """Return the refusal, counted. Stops guessing, and a flood of it from filling the log: who has been wrong too
        often is told no more than that."""
        if reason == "token" and self.tokens and self.tokens.failures.too_many(peer):
            reason, sentence = "guesses", "Too many bad tokens came from here; wait a second."
        self.refused(reason, peer.address)
        return Refused(reason, sentence)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets the request through with its Peer in `request[PEER]`, or answers with the error object."""
        try:
            request[PEER] = peer = self.check(request)
        except Refused as refused:
            return await _refuse(request, refused)
        if self.limit is not None and (wait := self.limit(request, peer)) > 0:
            error = HubError("rate_limited", "Too many requests; wait a little.", retry_after=round(wait, 3))
            response = refusal(error, request)
            if peer.trust == "NONE":
                response.force_close()  # a flood of these then costs a connection each: those are limited, too
            return response
        grant = request[SEEN].grant
        return await (handler(request) if grant is None else self._held(request, handler, grant))

    async def _held(self, request: web.Request, handler: Handler, grant: Grant) -> web.StreamResponse:
        """What the handler answers, as long as what has let the request in is good. Stops whoever has a token that was
        replaced from getting anything done with what he had begun before."""
        assert self.tokens is not None
        opened, running = self.tokens.opened, Running(request, self.tokens.refresh)
        request[RUNNING] = running
        opened.add(grant, running)
        response: web.StreamResponse | None = None
        try:
            with running.handled():
                response = await handler(request)
        finally:
            opened.discard(grant, running)
            del request[RUNNING]  # they know each other
        if response is not None and running.ended is None:
            return response
        self.refused("token", request[PEER].address)
        response = refusal(Refused("token", f"{running.ended} while this was on its way; begin anew."), request)
        response.force_close()
        return response

    async def _on_prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        security_headers(response)
        if self.tokens and isinstance(request, web.Request) and (running := request.get(RUNNING)) is not None:
            running.begun = True
        if self.closing and response.status != 101 and is_last(request.protocol):
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"  # aiohttp has written that header already

    # The checks, in their order.

    def _loopback_peer(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops other machines."""
        return None if connection.loopback else "Only local connections allowed."

    def _not_forwarded(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops the world behind a proxy or tunnel on this machine, which makes everybody look local."""
        if is_forwarded(request.headers):
            return "A proxy forwarded this request; the hub only serves programs of its own machine."
        return None

    def _known_host(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops DNS rebinding: a foreign name pointed at this machine, so that its page looks same-origin."""
        hosts = request.headers.getall(hdrs.HOST, ())
        if len(hosts) != 1:
            return "A request needs exactly one Host header."
        if hosts[0] != connection.host:
            if not self._is_own(hosts[0], connection):
                return _wrong_host(hosts[0])
            connection.host = hosts[0]
        # What a proxy says of the host comes beside the Host, never in its place: both must be good.
        for named in (target_authority(request.raw_path), *connection.hosts):
            if named is not None and not self._is_own(named, connection):
                return _wrong_host(named)
        return None

    def _is_own(self, host: str, connection: Accepted) -> bool:
        address = connection.address if self.tokens else ""
        return self.names.is_own(host, connection.scheme, connection.port, address)

    def _own_origin(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops pages of other sites and other local ports: a page may open a WebSocket or POST anywhere. Also the
        alias of this very address: another account can serve a page on [::1] at the port that is ours on 127.0.0.1,
        and `localhost` is both."""
        origins = request.headers.getall(hdrs.ORIGIN, ())
        if not origins:
            return None
        if len(origins) == 1 and origins[0] in self.names.allowed_origins | _own_origins(connection, request):
            return None
        return f"Pages of {shown(', '.join(origins))} may not use this hub; --allow-origin lets them in."

    def check_form(self, request: web.Request) -> None:
        """Stops what only looks like a form of the page: without a word of where it comes from, or from a page that
        --allow-origin lets in to use what it asks for by script. Raises Refused."""
        if request.headers.getall(hdrs.ORIGIN, ()) not in [[own] for own in _own_origins(request[SEEN], request)]:
            sentence = "Only a form of the hub's own page may be sent here; programs use /api/commands."
            raise self.refuse("origin", sentence, request[PEER])

    def _same_site(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops what other sites make a browser send without an Origin: images, scripts, links, frames."""
        sites = request.headers.getall(_SEC_FETCH_SITE, ())
        if not sites or (len(sites) == 1 and sites[0] in ("same-origin", "none")):
            return None
        if request.headers.get(hdrs.ORIGIN) in self.names.allowed_origins:
            return None  # to the browser an allowed page is another site all the same
        return "Another site sent the browser here; type the hub's address instead."

    def _known(self, tokens: Tokens, connection: Accepted, request: web.Request) -> str | None:
        """Stops whoever has no token; but for what is signed instead of that, which its handler must check."""
        sentence = tokens.known(connection, request)
        return None if sentence and self.signed(request) else sentence

    def _own_user(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops the other accounts of this machine, which are loopback peers too."""
        uid = connection.peer.uid
        if uid in self.users or request.match_info.route.name in OPEN_ROUTES:
            return None
        if uid is None:
            return "The system does not say whose connection this is; stay connected until the answer comes."
        return "This hub belongs to another account of this machine; start your own."


def _own_origins(connection: Accepted, request: web.Request) -> set[str]:
    """How a browser names the hub's own page, which it has got by this very host."""
    hosts = (request.headers.get(hdrs.HOST, ""), *connection.hosts)
    return {origin_of(connection.scheme, host) for host in hosts}


def security_headers(response: web.StreamResponse) -> None:
    """No foreign script, frame, sniffing, referrer, cache or reader. There is never a CORS header."""
    response.headers.update(HEADERS)


def mode(config: Config) -> str:
    """`--auth`, or what stands in its place: the token where the system does not say whose a connection is."""
    return config.auth or ("local" if supported() else "token")


def common_tickets(config: Config) -> Path | None:
    """The folder of the links and sessions that several workers have in common."""
    return config.common_dir / TICKETS if config.workers > 1 else None


def refuse_bind(config: Config) -> None:
    """Raises UsageError for what the chosen `--auth` cannot protect."""
    if config.auth == "token":
        return
    if config.trusted_proxy:
        raise UsageError("--trusted-proxy lets others in than programs of this machine; that needs --auth token.")
    if not is_local(config.host):
        raise UsageError(f"--host {shown(config.host)} is not loopback; that needs --auth token.")
    if config.auth == "local" and not supported():
        raise UsageError("This system does not say whose a connection is, so --auth local is not safe.")


def _hosts(config: Config) -> tuple[str, ...]:
    """The names that a hub in token mode answers to: also the one that it was told to listen on."""
    host = config.host.strip("[]")
    try:
        ipaddress.ip_address(host)  # an address is known from the connection itself
    except ValueError:
        return (*config.allow_host, host) if host else config.allow_host
    return config.allow_host


async def _refuse(request: web.Request, refused: Refused) -> web.StreamResponse:
    """The refusal as an HTTP status; for a foreign peer's WebSocket as close code 1008 (PROTOCOL 2)."""
    socket = web.WebSocketResponse(timeout=1.0, compress=False, max_msg_size=1024)
    websocket = refused.reason == "peer" and request.match_info.route.name == WEBSOCKET_ROUTE
    if websocket and socket.can_prepare(request):
        await socket.prepare(request)
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Only local connections allowed")
        return socket
    response = refusal(refused, request)
    response.force_close()
    return response


def _wrong_host(text: str) -> str:
    return f"This hub is not {shown(text)}; use the address it printed, or start it with --allow-host NAME."
