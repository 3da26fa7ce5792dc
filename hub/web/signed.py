"""GitHub's signature in the place of a token, which it cannot send.

Until it was checked, whoever sends is a stranger: his body is read in a room and a time of its own, by what really
comes of it, and nothing else is done with it.
"""

import asyncio
import contextlib
import ipaddress
import logging
import re
from collections import Counter

from aiohttp import hdrs, web

from ..adapters import github
from ..errors import HubError
from ..stream.brokers.rarely import Rarely
from .access.peer import Peer
from .answers import NEVER, bounded, check_body
from .keys import GUARD, HUB, PEER
from .room import too_much

log = logging.getLogger("hub")

ROUTE = "api-hook"
SECONDS = 3.0  # until a stranger's body has come, and one more for each PACE bytes that did: GitHub waits for 10
PACE = 1024 * 1024
SHARE, ROOM = 2, 8  # largest bodies of one address, and of all of them together
MOST = 128  # strangers whose bodies are awaited at once: each may have a little of one here, and in the connection

_FORM = re.compile(r"sha256=[0-9a-f]{64}", re.ASCII)
_Source = tuple[str, int | None]


def is_offered(request: web.Request) -> bool:
    """Whether a signature stands in the place of a token. One that cannot be right is none: stops a stranger whom even
    a guess is too much work from being read at all."""
    if request.match_info.route.name != ROUTE or request.match_info.get("adapter") != "github":
        return False
    given = request.headers.getall(github.SIGNATURE, ())
    return len(given) == 1 and _FORM.fullmatch(given[0]) is not None and hdrs.AUTHORIZATION not in request.headers


def is_unproved(request: web.Request) -> bool:
    """Whether this has come so far because of its signature alone."""
    return request[PEER].trust == "NONE"


def check(request: web.Request, data: bytes) -> None:
    """Stops whoever can reach the address from reporting runs that never were, once there is a secret. Raises HubError
    with status 401."""
    secret = request.app[HUB].github_secret
    if secret is None:
        is_good = not is_unproved(request)  # it was there when the guard looked
    else:
        is_good = github.is_signed(secret, data, request.headers.get(github.SIGNATURE, ""))
    if not is_good:
        raise _refused(request, f"The header {github.SIGNATURE} is not that of this body.")


class Strangers:
    """The bodies of all strangers. Up to `small` bytes of one take no room; `largest` is what one can have at most.

    Held is what has come, not what is announced. Stops one who announces much and sends nothing from keeping GitHub
    out; one address from taking all of the room, whatever it sends; and many from taking all memory with a little each:
    of more than MOST one goes, of the address that has most of them the one awaited longest. GitHub's come at once.
    """

    def __init__(self, largest: int, small: int) -> None:
        self._largest, self._small = largest, small
        self._held = Counter[_Source]()  # bytes
        self._awaited: dict[asyncio.Timeout, _Source] = {}  # the one that came first is first
        self._freed = asyncio.Event()
        self._rarely = Rarely()

    async def read(self, request: web.Request) -> bytes:
        """The body, whole. Raises HubError: 413, 415, `busy` if there is no room for it in time; and 401, counted as a
        wrong token is, if it does not come."""
        check_body(request, self._largest)
        source, received, held, waits = _source(request[PEER]), bytearray(), 0, False
        limit = asyncio.timeout(min(SECONDS, request.app[HUB].config.deadline))
        try:
            async with limit:
                until = limit.when() or 0.0
                self._await(limit, source)
                async for chunk in request.content.iter_any():
                    received += chunk
                    bounded(received, self._largest)
                    if limit in self._awaited:
                        limit.reschedule(until + len(received) / PACE)
                    if (more := len(received) - held) > self._small:
                        waits = True
                        await self._hold(source, more)
                        waits, held = False, held + more
        except NEVER:
            _refused(request, "")
            raise
        except TimeoutError:
            if waits or limit not in self._awaited:
                self._tell(request)
                raise too_much() from None
            raise _refused(request, "The body that this signature is of did not come in time.") from None
        finally:
            self._awaited.pop(limit, None)
            self._give_back(source, held)
        return bytes(received)

    def _tell(self, request: web.Request) -> None:
        request.app[HUB].metrics.hook("github", "refused")
        if self._rarely.may("busy"):
            log.warning(
                "a delivery to /hooks/github had no room in time; "
                "GitHub sends one that was refused again only where a person asks for it in its settings"
            )

    def _await(self, limit: asyncio.Timeout, source: _Source) -> None:
        if len(self._awaited) >= MOST:
            [(most, _)] = Counter(self._awaited.values()).most_common(1)
            longest = next(each for each, of in self._awaited.items() if of == most)
            del self._awaited[longest]
            with contextlib.suppress(RuntimeError):  # its time is over just now
                longest.reschedule(0.0)
        self._awaited[limit] = source

    async def _hold(self, source: _Source, size: int) -> None:
        while not self._has_room(source, size):
            self._freed.clear()
            await self._freed.wait()
        self._held[source] += size

    def _has_room(self, source: _Source, size: int) -> bool:
        is_within = self._held[source] + size <= SHARE * self._largest
        return is_within and self._held.total() + size <= ROOM * self._largest

    def _give_back(self, source: _Source, size: int) -> None:
        self._held[source] -= size
        if not self._held[source]:
            del self._held[source]
        self._freed.set()


def _refused(request: web.Request, sentence: str) -> HubError:
    """The refusal; of a stranger counted as a wrong token is: stops guessing."""
    request.app[HUB].metrics.hook("github", "refused")
    if is_unproved(request):
        return request.app[GUARD].refuse("token", sentence, request[PEER])
    return HubError("forbidden", sentence, status=401)


def _source(peer: Peer) -> _Source:
    """Whose share it is. Of an IPv6 address its network: one customer has all that are in it."""
    if ":" not in peer.address:
        return peer.address, peer.uid
    return ":".join(ipaddress.IPv6Address(peer.address).exploded.split(":")[:4]), peer.uid
