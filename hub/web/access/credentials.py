"""Who holds the hub's token, a browser's session or a one-time link, and who has tried too often without."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aiohttp import hdrs, web

from ... import tokens
from ...private import Unsafe
from ...redaction import hide
from ...wire.vocabulary import Trust
from ..keys import LOGIN_ROUTE, OPEN_ROUTES
from .connections import Accepted
from .peer import Peer
from .tickets import KINDS, CommonTickets, OwnTickets, Ticket, Tickets, whose

LINK_SECONDS = 600.0
SESSION_SECONDS = 30 * 86_400.0
SESSIONS = LINKS = 256  # kept at most; the oldest goes first
FAILURES = 10  # in BLOCK_SECONDS, from one address and account
BLOCK_SECONDS = 1.0
ADDRESSES = 1024  # whose failures are remembered

log = logging.getLogger("hub")

# Who has sent one knows that: to say so tells a stranger nothing of the hub.
MISSING = (
    "This hub wants its token: name the state directory that it is in (--state-dir DIR), or give it with "
    "--token-file FILE or in HUB_TOKEN; hub token --link opens the page."
)
WRONG = (
    "This is not the token of this hub, or not any more: hub token prints it, with the --state-dir that the hub has; "
    "then it is given in HUB_TOKEN or by --token-file FILE."
)


class Tokens:
    """The tokens of a state directory, and what was given out in their place: sessions and one-time links.

    They end with the hub, and with the token that they stand for. With a `common` folder they are those of all workers
    of a port: a link opens one session, and that is good at each of them.
    """

    def __init__(self, directory: Path, common: Path | None = None) -> None:
        self.directory = directory
        self._held: dict[Trust, bytes] = {}  # trust → token
        self._seen: dict[Trust, tuple[int, ...] | None] = {}  # trust → which file that was
        self._sessions: Tickets = OwnTickets(SESSIONS)
        self._links: Tickets = OwnTickets(LINKS)
        if common is not None:
            sessions, links = (common / kind for kind in KINDS)
            self._sessions = CommonTickets(sessions, SESSIONS, self._held.get)
            self._links = CommonTickets(links, LINKS, self._held.get)
        self._replaced: set[Trust] = set()
        self.failures = Failures()

    def open(self) -> None:
        """Make the token if there is none, and read. Raises Unsafe. Before this nobody gets in."""
        tokens.ensure(self.directory)
        self.refresh()

    def refresh(self) -> None:
        """Read again what `hub token --new` has replaced, and end the sessions and links that stood for it."""
        changed = set[Trust]()
        seen = dict(self._seen)
        for trust, name in tokens.FILES.items():
            found = _which(self.directory / name)
            if trust not in self._seen or found != self._seen[trust]:
                before = self._held.pop(trust, None)
                if token := self._read(trust, before is not None):
                    self._held[trust] = token
                self._seen[trust] = found
                if before is not None and before != self._held.get(trust):
                    changed.add(trust)
        if self._seen != seen:
            hide(self, (token.decode() for token in self._held.values()))
        if changed:
            self._sessions.end(changed)
            self._links.end(changed)
        self._replaced |= changed

    def replaced(self) -> frozenset[Trust]:
        """The trusts whose token is another now, or gone; each once, whoever has noticed it."""
        self.refresh()
        found = frozenset(self._replaced)
        self._replaced.clear()
        return found

    def held(self) -> Mapping[Trust, bytes]:
        """The tokens that open this hub now, as their files are."""
        self.refresh()
        return dict(self._held)

    def _read(self, trust: Trust, is_missed: bool) -> bytes | None:
        try:
            token = tokens.read(self.directory, trust)
            if token is None and is_missed:
                raise Unsafe(f"{self.directory / tokens.FILES[trust]} is gone, or empty; hub token --new makes another")
        except (OSError, Unsafe) as error:
            log.error("a token cannot be used: %s; nobody gets in with it until its file is good again", error)
            return None
        return token.encode() if token else None

    # ---- who asks: the check of the guard in token mode

    def known(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops everybody who has neither the token nor a session that was begun with it."""
        route = request.match_info.route.name
        if route == LOGIN_ROUTE or (connection.loopback and route in OPEN_ROUTES):
            return None
        trust = self.trust(request, connection.peer, connection.cookie)
        if trust is None:
            return WRONG if hdrs.AUTHORIZATION in request.headers else MISSING
        connection.peer = replace(connection.peer, trust=trust)
        return None

    def trust(self, request: web.Request, peer: Peer, cookie: str) -> Trust | None:
        """The trust that the request's token or session gives; None if it has none. One header, one token: with an
        Authorization header there is no second try by cookie."""
        self.refresh()
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if not given:
            return self._session(request.cookies.get(cookie, ""), peer)
        scheme, _, token = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            return None
        return self.holder(token.strip(" ").encode("utf-8", "surrogateescape"))

    def holder(self, token: bytes) -> Trust | None:
        """Whose token these bytes are. Compared with each to the end, in a time that does not say how much fits."""
        found = None
        for trust, held in self._held.items():
            if hmac.compare_digest(token, held):
                found = trust
        return found

    def _session(self, secret: str, peer: Peer) -> Trust | None:
        """The trust of a session, for whoever began it."""
        ticket = self._sessions.find(_digest(secret))
        return ticket.trust if ticket and ticket.is_good() and ticket.is_for(peer) else None

    # ---- links and sessions

    def link(self, trust: Trust) -> str:
        """A code that opens one session with this trust, within LINK_SECONDS. Raises HubError `command_failed` if it
        cannot be kept."""
        code = secrets.token_urlsafe(32)
        self.refresh()
        self._links.keep(_digest(code), Ticket(trust, time.monotonic() + LINK_SECONDS))
        return code

    def enter(self, code: str, peer: Peer) -> str | None:
        """The secret of a new session for a code that has not been used; None for any other."""
        self.refresh()
        link = self._links.take(_digest(code))
        if link is None or not link.is_good():
            return None
        secret = secrets.token_urlsafe(32)
        ticket = Ticket(link.trust, time.monotonic() + SESSION_SECONDS, whose(peer))
        self._sessions.keep(_digest(secret), ticket)
        return secret


class Failures:
    """The bad tokens of each address and account: ten a second are answered as what they are.

    Only bad ones come here, so nobody who has the right one waits, whatever others do beside it.
    """

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, int | None], tuple[float, int]] = OrderedDict()  # since when, how many

    def too_many(self, peer: Peer) -> bool:
        """Count one more; whether there were too many in this second."""
        key, now = _source(peer), time.monotonic()
        since, count = self._counts.pop(key, (now, 0))
        if now - since >= BLOCK_SECONDS:
            since, count = now, 0
        self._counts[key] = since, count + 1
        if len(self._counts) > ADDRESSES:
            self._counts.popitem(last=False)
        return count >= FAILURES


def _source(peer: Peer) -> tuple[str, int | None]:
    """Whose failures count together: by address and account, so that a stranger does not have the operator's counted
    with his own."""
    return peer.address, peer.uid


def _which(path: Path) -> tuple[int, ...] | None:
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
