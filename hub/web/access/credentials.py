"""Who holds the hub's token, a browser's session or a one-time link, and who has tried too often without."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import hdrs, web

from ... import tokens
from ...private import Unsafe
from ...wire.vocabulary import Trust
from ..keys import LOGIN_ROUTE, OPEN_ROUTES
from .connections import Accepted
from .peer import Peer

LINK_SECONDS = 600.0
SESSION_SECONDS = 30 * 86_400.0
SESSIONS = LINKS = 256  # kept at most; the oldest goes first
FAILURES = 10  # in a second, from one address and user
BLOCK_SECONDS = 1.0
PLACE_SECONDS = 3.0  # from the refusal; who comes back after BLOCK_SECONDS, or after two seconds, is in time
ADDRESSES = 1024  # whose failures are remembered

log = logging.getLogger("hub")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a session or a one-time link is good for, until when (monotonic), and for whose connections."""

    trust: Trust
    until: float
    uid: int | None = None

    def is_good(self) -> bool:
        return time.monotonic() <= self.until

    def is_for(self, uid: int | None) -> bool:
        """Stops another account's server on this machine: a browser sends its cookies to every port of a host, so that
        one may get to see a session's."""
        return self.uid == uid


class Tokens:
    """The tokens of a state directory, and what was given out in their place: sessions and one-time links.

    Sessions and links live in memory and are looked up by digest, so that neither the time of a comparison nor a dump
    of the dictionaries gives one away. They end with the hub, and with the token that they stand for.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._held: dict[Trust, bytes] = {}  # trust → token
        self._seen: dict[Trust, tuple[int, ...] | None] = {}  # trust → which file that was
        self._sessions: OrderedDict[bytes, Ticket] = OrderedDict()
        self._links: OrderedDict[bytes, Ticket] = OrderedDict()
        self._replaced: set[Trust] = set()
        self.failures = Failures()

    def open(self) -> None:
        """Make the token if there is none, and read. Raises Unsafe. Before this nobody gets in."""
        tokens.ensure(self.directory)
        self.refresh()

    def refresh(self) -> None:
        """Read again what `hub token --new` has replaced, and end the sessions and links that stood for it."""
        changed = set()
        for trust, name in tokens.FILES.items():
            found = _which(self.directory / name)
            if trust not in self._seen or found != self._seen[trust]:
                before = self._held.pop(trust, None)
                if token := self._read(trust):
                    self._held[trust] = token
                self._seen[trust] = found
                if before is not None and before != self._held.get(trust):
                    changed.add(trust)
        if changed:
            for tickets in (self._sessions, self._links):
                for key in [key for key, ticket in tickets.items() if ticket.trust in changed]:
                    del tickets[key]
        self._replaced |= changed

    def replaced(self) -> frozenset[Trust]:
        """The trusts whose token is another now, or gone; each once, whoever has noticed it."""
        self.refresh()
        found = frozenset(self._replaced)
        self._replaced.clear()
        return found

    def _read(self, trust: Trust) -> bytes | None:
        try:
            token = tokens.read(self.directory, trust)
        except (OSError, Unsafe) as error:
            log.error("nobody gets in with this token any more: %s", error)
            return None
        return token.encode() if token else None

    # ---- who asks: the checks of the guard in token mode

    def few_guesses(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops guessing, and a flood of it from filling the log: what comes now is not even compared."""
        if _is_open(connection, request) or not self.failures.refuses(connection.peer, _shown(connection, request)):
            return None
        return "Too many bad tokens came from here; wait a second."

    def known(self, connection: Accepted, request: web.Request) -> str | None:
        """Stops everybody who has neither the token nor a session that was begun with it."""
        if request.match_info.route.name == LOGIN_ROUTE or _is_open(connection, request):
            return None
        trust = self.trust(request, connection.peer, connection.cookie)
        if trust is None:
            self.failed(connection, request)
            return "This hub wants its token: hub token prints it, hub token --link opens the page."
        connection.peer = replace(connection.peer, trust=trust)
        return None

    def failed(self, connection: Accepted, request: web.Request) -> None:
        """What the request has shown is bad, and counts."""
        self.failures.count(connection.peer, _shown(connection, request))

    def trust(self, request: web.Request, peer: Peer, cookie: str) -> Trust | None:
        """The trust that the request's token or session gives; None if it has none. One header, one token: with an
        Authorization header there is no second try by cookie."""
        self.refresh()
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if not given:
            return self._session(request.cookies.get(cookie, ""), peer.uid)
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

    def _session(self, secret: str, uid: int | None) -> Trust | None:
        """The trust of a session, for the account that began it."""
        ticket = self._sessions.get(_digest(secret))
        return ticket.trust if ticket and ticket.is_good() and ticket.is_for(uid) else None

    # ---- links and sessions

    def link(self, trust: Trust) -> str:
        """A code that opens one session with this trust, within LINK_SECONDS."""
        code = secrets.token_urlsafe(32)
        _keep(self._links, code, Ticket(trust, time.monotonic() + LINK_SECONDS), LINKS)
        return code

    def enter(self, code: str, uid: int | None) -> str | None:
        """The secret of a new session for a code that has not been used; None for any other."""
        self.refresh()
        link = self._links.pop(_digest(code), None)
        if link is None or not link.is_good():
            return None
        secret = secrets.token_urlsafe(32)
        _keep(self._sessions, secret, Ticket(link.trust, time.monotonic() + SESSION_SECONDS, uid), SESSIONS)
        return secret


class Failures:
    """Ten bad tokens a second from one address and user, then a second in which nobody's there is looked at.

    What is refused in that second gets a place: shown again, a second later, it is looked at although somebody has been
    bad as often again. So the right token waits two seconds at most, also beside somebody who guesses the moment each
    block ends. That makes no guess cheaper: there are ten places at most, and bad ones count for the second after. Who
    shows ten other tokens first, in every second, can still keep it out: to look at more would let him guess more.
    """

    def __init__(self) -> None:
        self._guesses: OrderedDict[tuple[str, int | None], _Guesses] = OrderedDict()

    def refuses(self, peer: Peer, shown: str) -> bool:
        """Whether what is shown has to wait. Stops guessing."""
        guesses = self._guesses.get(_whose(peer))
        return guesses is not None and guesses.refuse(_digest(shown), time.monotonic())

    def count(self, peer: Peer, shown: str) -> None:
        """What was shown is bad."""
        guesses = self._guesses.pop(_whose(peer), None) or _Guesses(time.monotonic())
        self._guesses[_whose(peer)] = guesses
        guesses.fail(_digest(shown), time.monotonic())
        if len(self._guesses) > ADDRESSES:
            self._guesses.popitem(last=False)


class _Guesses:
    """Those of one address and user: how many were bad since when, and the places by digest of what was shown."""

    __slots__ = ("bad", "places", "since")

    def __init__(self, now: float) -> None:
        self.since, self.bad = now, 0
        self.places: dict[bytes, float] = {}  # since when

    def refuse(self, shown: bytes, now: float) -> bool:
        self._forget(now)
        if shown in self.places:
            return now - self.places[shown] < BLOCK_SECONDS
        if self.bad < FAILURES:
            return False
        if len(self.places) < FAILURES:
            self.places[shown] = now
        return True

    def fail(self, shown: bytes, now: float) -> None:
        self._forget(now)
        self.places.pop(shown, None)
        self.bad += 1
        if self.bad == FAILURES:
            self.since = now  # the block begins

    def carried(self, blocks: int) -> int:
        """How many bad ones still count after so many seconds: those of the places came on top of the ten."""
        return max(0, self.bad - FAILURES * blocks)

    def _forget(self, now: float) -> None:
        if blocks := int((now - self.since) / BLOCK_SECONDS):
            self.bad = self.carried(blocks)
            self.since += blocks * BLOCK_SECONDS
        self.places = {shown: since for shown, since in self.places.items() if now - since < PLACE_SECONDS}


def _whose(peer: Peer) -> tuple[str, int | None]:
    """Whose failures count together: by address and user, so that a stranger cannot shut the operator out."""
    return peer.address, peer.uid


def _shown(connection: Accepted, request: web.Request) -> str:
    """All that a request has to show: its token or session, and the code of its link."""
    given = request.headers.getall(hdrs.AUTHORIZATION, ()) or [request.cookies.get(connection.cookie, "")]
    return "\n".join([*given, request.match_info.get("code", "")])


def _is_open(connection: Accepted, request: web.Request) -> bool:
    return connection.loopback and request.match_info.route.name in OPEN_ROUTES


def _which(path: Path) -> tuple[int, ...] | None:
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _keep(tickets: OrderedDict[bytes, Ticket], secret: str, ticket: Ticket, most: int) -> None:
    tickets[_digest(secret)] = ticket
    while len(tickets) > most:
        tickets.popitem(last=False)
