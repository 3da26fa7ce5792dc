"""Who holds the hub's token, a browser's session or a one-time link, and who has tried too often without."""

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from aiohttp import hdrs, web

from ... import tokens
from ...private import Unsafe
from ...redaction import hide
from ...secretshapes import OF_LOGIN, OF_SESSION
from ...wire.vocabulary import Trust
from ..keys import LOGIN_ROUTE, OPEN_ROUTES
from .connections import Accepted
from .opened import Grant, Opened
from .peer import Peer
from .tickets import KINDS, CommonTickets, OwnTickets, Ticket, Tickets, whose

LINK_SECONDS = 600.0
SESSION_SECONDS = 30 * 86_400.0
SESSIONS = LINKS = 256  # of each trust kept at most; the oldest goes first
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
REPLACED, OVER = "The token was replaced", "The session has ended"


class Tokens:
    """The tokens of a state directory, and what was given out in their place: sessions and one-time links.

    They end with the hub, with the token that they stand for, when their time is over, and when there are newer ones
    than are kept; and what they have opened ends with them: `opened`, in the same step, and where another worker has
    ended one at the next `look`. With a `common` folder they are those of all workers
    of a port: a link opens one session, and that is good at each of them.
    """

    def __init__(self, directory: Path, common: Path | None = None) -> None:
        self.directory = directory
        self._held: dict[Trust, bytes] = {}  # trust → token that opens
        self._texts: dict[Trust, bytes] = {}  # as the files have them
        self._seen: dict[Trust, tuple[int, ...] | None] = {}  # trust → which file that was
        self._sessions: Tickets = OwnTickets(SESSIONS)
        self._links: Tickets = OwnTickets(LINKS)
        if common is not None:
            sessions, links = (common / kind for kind in KINDS)
            self._sessions = CommonTickets(sessions, SESSIONS, self._held.get)
            self._links = CommonTickets(links, LINKS, self._held.get)
        self.opened = Opened()
        self.failures = Failures()
        self.on_replaced: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Make the token if there is none, and read. Raises Unsafe. Before this nobody gets in."""
        tokens.ensure(self.directory)
        self.refresh()

    def refresh(self) -> bool:
        """Read again what `hub token --new` has replaced, and end what was opened with it. Return whether a file is
        another one now."""
        looked = False
        for trust, name in tokens.FILES.items():
            found = _which(self.directory / name)
            if trust not in self._seen or found != self._seen[trust]:
                looked, self._seen[trust] = True, found
                before = self._texts.pop(trust, None)
                if token := self._read(trust, before is not None):
                    self._texts[trust] = token
        if looked:
            self._take_over()
        return looked

    def _take_over(self) -> None:
        """Let in by what the files have now, and by nothing that was there before."""
        before = dict(self._held)
        self._held.clear()  # the same mapping: tickets of workers look into it
        self._held.update(self._texts)
        if self.are_same:
            del self._held["OPERATOR"]
            self.tell_that_they_are_same()
        hide(self, (token.decode() for token in self._texts.values()))
        changed = {trust for trust, token in before.items() if token != self._held.get(trust)}
        if changed:
            self._sessions.end(changed)
            self._links.end(changed)
            self.opened.end(lambda grant: grant.trust in changed, REPLACED)
            self.on_replaced()

    @property
    def are_same(self) -> bool:
        """Whether both files have the same text. Stops who was given it to read from doing more."""
        return "OPERATOR" in self._texts and self._texts["OPERATOR"] == self._texts.get("OBSERVER")

    def tell_that_they_are_same(self) -> None:
        """Say in the log what that means, and what to do."""
        log.error(
            "token and token.read in %s have the same text, so it only opens reading; make one of them new, with "
            "hub token --new or hub token --read-only --new",
            self.directory,
        )

    def look(self) -> None:
        """Notice everything that ends by itself, or at another worker: call it every second."""
        self.refresh()
        self._end_sessions()

    def _end_sessions(self) -> None:
        """End what a session has opened that is not kept any more, or whose time is over."""
        now = time.monotonic()
        self.opened.end(
            lambda grant: grant.session is not None and (now > grant.until or grant.session not in self._sessions), OVER
        )

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
        connection.grant = grant = self.grant(request, connection.peer, connection.cookie)
        if grant is None:
            return WRONG if hdrs.AUTHORIZATION in request.headers else MISSING
        connection.peer = replace(connection.peer, trust=grant.trust)
        return None

    def grant(self, request: web.Request, peer: Peer, cookie: str) -> Grant | None:
        """What the request's token or session gives; None if it has none. One header, one token: with an Authorization
        header there is no second try by cookie."""
        self.refresh()
        given = request.headers.getall(hdrs.AUTHORIZATION, ())
        if not given:
            return self._session(request.cookies.get(cookie, ""), peer)
        scheme, _, token = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            return None
        trust = self.holder(token.strip(" ").encode("utf-8", "surrogateescape"))
        return Grant(trust) if trust is not None else None

    def holder(self, token: bytes) -> Trust | None:
        """Whose token these bytes are. Compared with each to the end, in a time that does not say how much fits."""
        found = None
        for trust, held in self._held.items():
            if hmac.compare_digest(token, held):
                found = trust
        return found

    def _session(self, secret: str, peer: Peer) -> Grant | None:
        """What a session gives, to whoever began it."""
        digest = _digest(secret)
        ticket = self._sessions.find(digest)
        if ticket is None or not ticket.is_good() or not ticket.is_for(peer):
            return None
        return Grant(ticket.trust, digest, ticket.until)

    # ---- links and sessions

    def link(self, trust: Trust) -> str:
        """A code that opens one session with this trust, or the lesser one that there is a token for, within
        LINK_SECONDS. Raises HubError `command_failed` if it cannot be kept."""
        code = OF_LOGIN + secrets.token_urlsafe(32)
        self.refresh()
        trust = trust if trust in self._held else "OBSERVER"
        self._links.keep(_digest(code), Ticket(trust, time.monotonic() + LINK_SECONDS))
        return code

    def enter(self, code: str, peer: Peer) -> str | None:
        """The secret of a new session for a code that has not been used; None for any other."""
        self.refresh()
        link = self._links.take(_digest(code))
        if link is None or not link.is_good():
            return None
        secret = OF_SESSION + secrets.token_urlsafe(32)
        ticket = Ticket(link.trust, time.monotonic() + SESSION_SECONDS, whose(peer))
        self._sessions.keep(_digest(secret), ticket)
        self._end_sessions()
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
