"""The hubs of one stream in Redis: a lease for each, what they provide in a hash, and words by publish and subscribe.

Such words are lost when nobody hears. So a hub that was cut off, or whose lease has ended, comes back under another
link: whoever has sent something to the one before knows that there is no answer to come.
"""

import asyncio
import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...errors import HubError
from .answers import KEPT
from .broker import unavailable
from .connection import PATIENCE, Connection
from .peers import Ears, Judge, Names, Offer, Turns, Verdict
from .rarely import Rarely
from .server import KEYS as STREAM
from .server import Away, Moved, Refused, Server, Trouble

log = logging.getLogger("hub")

LEASE, RENEW = 5.0, 1.0  # seconds that a hub lives by itself, and after which it says that it does
# Seconds behind a silence of the server in which the others may not have come back yet.
SETTLED = 2.0
PAUSE = 0.2  # seconds between two tries to come back
AWAITED = 8 * 86_400.0  # seconds that it is known of a hub that died that somebody waited there
KEYS, QUESTIONS = "lp", "loq"


class RedisPeers:
    """A hub among those that share the stream of `server`."""

    def __init__(self, server: Server, name: str = "") -> None:
        """`name` is in front of the id that each start of a hub makes for itself."""
        self.id, self.link = f"{name}{name and '-'}{os.urandom(8).hex()}", ""
        self._judge = RedisJudge(self)
        self.judge: Judge = self._judge
        self.turns: Turns = RedisTurns(self)
        self._server = server
        self._keys = [f"{{{server.prefix}}}:{name}" for name in KEYS]
        self._channel = f"{{{server.prefix}}}:n"
        self._asks: Connection | None = None
        self._number = ""  # of what is known of the others
        self._news, self._joined = asyncio.Event(), asyncio.Event()
        self._looked: asyncio.Future[bool] | None = None  # whether the next look has found what there is
        self._renewed, self._settled = math.inf, 0.0  # when the lease was; until when others may be missing
        self._running: asyncio.Task[None] | None = None
        self._stopping, self._rarely = False, Rarely()

    async def start(self, ears: Ears) -> None:
        self._ears = ears
        self._running = asyncio.get_running_loop().create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._joined.wait()

    async def claim(self, names: Names) -> tuple[str, bytes] | None:
        words = [word for pair in names.items() for word in pair]
        found = await self.run("hub_claim", KEYS, self._channel, self.id, self.link, *words)
        return (found[0].decode(), found[1].split(b" ", 2)[2]) if found else None

    def release(self, names: list[str]) -> None:
        self.tell("hub_release", KEYS, self._channel, self.id, *names)

    async def confirm(self, digest: bytes, given: str, seconds: float) -> str | None:
        fresh = os.urandom(16).hex()
        known = given if re.fullmatch("[0-9a-f]{32}", given) else "-"
        used = await self.run("hub_confirm", (f"k:{known}", f"k:{fresh}"), digest, _ms(seconds))
        return None if used else fresh

    async def look(self) -> None:
        if self._asks is None:
            raise _not_among()
        if self._looked is None:
            self._looked = asyncio.get_running_loop().create_future()
        self._news.set()
        if not await asyncio.shield(self._looked) or time.monotonic() < self._settled:
            raise _not_among()

    async def send(self, link: str, message: bytes) -> bool:
        if self._asks is None:
            return False
        try:
            heard: int = await self._asks.send("PUBLISH", self._channel_of(link), message)
        except Trouble:
            return False
        return heard > 0

    async def stop(self) -> None:
        self._stopping = True
        if self._asks is not None:
            with contextlib.suppress(Trouble):
                await self._asks.run("hub_part", self._channel, self.id, keys=self._keys)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _channel_of(self, link: str) -> str:
        return f"{{{self._server.prefix}}}:h:{link}"

    async def run(self, name: str, keys: Iterable[str], *args: bytes | str | int) -> Any:
        """Call a function of the library. Raises HubError `broker_unavailable`."""
        if self._asks is None:
            raise _not_among()
        try:
            return await self._asks.run(name, *args, keys=[f"{{{self._server.prefix}}}:{key}" for key in keys])
        except Moved:
            self._news.set()  # the lease has ended: the next look makes another link
            raise unavailable("This hub has come back to those of its stream just now.") from None
        except Trouble as error:
            raise unavailable(str(error)) from None

    def tell(self, name: str, keys: Iterable[str], *args: bytes | str | int) -> None:
        """Call one whose answer nobody waits for. What cannot be told ends with the link."""
        if self._asks is not None:
            _heed_not(self._asks.run(name, *args, keys=[f"{{{self._server.prefix}}}:{key}" for key in keys]))

    # ---- being one of them

    async def _run(self) -> None:
        """Be one of them, for as long as there is a hub; whatever is wrong is said where events are kept."""
        while not self._stopping:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await self._live(*[await self._connected(stack) for _ in range(2)])
            except Refused as error:  # the stream itself may do well: nothing else says it
                if self._rarely.may(str(error)):
                    log.warning(
                        "commands and questions do not reach the other hubs of the stream: %s; "
                        "hub print redis shows what a user of the server needs",
                        str(error).rstrip("."),
                    )
            except Trouble as error:
                log.debug("not among the hubs of the stream: %s", error)
            except HubError:
                log.debug("not among the hubs of the stream")
            except Exception as error:  # nobody would hear of a task that has died, and this hub would stay alone
                if self._rarely.may(repr(error)):
                    log.exception("this hub fell out of those of its stream, which is a bug of the hub; it comes back")
            finally:
                self._lose()
            await asyncio.sleep(PAUSE)

    async def _connected(self, stack: contextlib.AsyncExitStack) -> Connection:
        connection = await Connection.make(self._server)
        stack.callback(connection.close)
        connection.on_cut = lambda reason: self._news.set()
        return connection

    async def _live(self, asks: Connection, hears: Connection) -> None:
        """Join under a new link, and stay. Raises Trouble when that has ended."""
        link, self._number = os.urandom(8).hex(), ""
        hears.heard = self._hear
        await hears.send("SUBSCRIBE", self._channel_of(link))
        await hears.send("SUBSCRIBE", self._channel)
        words = [word for pair in self._ears.names().items() for word in pair]
        # What is provided meanwhile is claimed only once there is a link, and this is the step in which there is one.
        joined = asks.run("hub_join", self._channel, self.id, link, _ms(LEASE), *words, keys=self._keys)
        self._asks, self.link = asks, link
        if taken := await joined:
            self._ears.refused([name.decode() for name in taken])
        self._judge.joined()
        while True:
            self._news.clear()
            await self._look(asks)
            self._joined.set()
            await hears.send("PING")
            with contextlib.suppress(TimeoutError):  # not wait_for, which on Python 3.11 can lose a cancellation
                async with asyncio.timeout(RENEW):
                    await self._news.wait()

    async def _look(self, asks: Connection) -> None:
        """Renew the lease, and tell who waits for what is found."""
        looked, self._looked = self._looked, None
        has_found = False
        try:
            await self._renew(asks)
            has_found = True
        finally:
            if looked is not None:
                looked.set_result(has_found)

    async def _renew(self, asks: Connection) -> None:
        words = self._channel, self.id, self.link, _ms(LEASE), self._number
        number, *found = await asks.run("hub_renew", *words, keys=self._keys)
        if not number:
            raise Away("the lease of this hub has ended")
        now = time.monotonic()
        if now - self._renewed > 2 * RENEW:  # the leases of others may have ended meanwhile, as perhaps its own
            self._settled = now + SETTLED
        self._renewed = now
        links = _links(found[0])
        links.pop(self.id, None)
        if len(found) > 1:
            self._number = number.decode()
            self._ears.offers(_offers(found[1], links))
        self._ears.alive(frozenset(links.values()))

    def _lose(self) -> None:
        looked, self._looked = self._looked, None
        if looked is not None:
            looked.set_result(False)
        if self.link:
            self._asks, self.link = None, ""
            self._ears.cut()

    def _hear(self, channel: bytes, message: bytes) -> None:
        if channel == self._channel.encode():
            self._news.set()
        elif channel == self._channel_of(self.link).encode():
            self._ears.message(message)


class RedisJudge:
    """Decides in the server, by its clock."""

    def __init__(self, peers: RedisPeers) -> None:
        self._peers = peers
        self._awaited = set[str]()

    async def ask(self, id: str, asked_at: str, seconds: float, record: bytes, over: str) -> bytes:
        found: bytes = await self._run("hub_ask", id, asked_at, _ms(seconds), record, over)
        return found

    async def is_asked(self, id: str) -> bool:
        return bool(await self._run("hub_asked", id))

    async def settle(self, id: str, asked_at: str, how: str, deadline: float, end: bytes) -> Verdict:
        keys = *QUESTIONS, f"w:{id}"
        what, *more = await self._peers.run("hub_settle", keys, self._peers.id, id, asked_at, how, _ms(deadline), end)
        return what.decode(), more[0] / 1000 if what == b"wait" else more[0] if more else b""

    def awaits(self, id: str) -> None:
        if id not in self._awaited:
            self._awaited.add(id)
            self._tell(id)

    def leaves(self, id: str) -> None:
        if id in self._awaited:
            self._awaited.discard(id)
            self._peers.tell("hub_unawait", [f"w:{id}"], self._peers.id)

    def joined(self) -> None:
        """Say again what was true only of the link before."""
        for id in self._awaited:
            self._tell(id)

    def _tell(self, id: str) -> None:
        self._peers.tell("hub_await", [f"w:{id}"], self._peers.id, self._peers.link, _ms(AWAITED))

    async def unsettle(self, id: str, asked_at: str) -> None:
        await self._run("hub_unsettle", id, asked_at)

    async def over(self, id: str, asked_at: str) -> None:
        await self._run("hub_over", id, asked_at)

    async def _run(self, name: str, *args: bytes | str | int) -> Any:
        return await self._peers.run(name, QUESTIONS, self._peers.id, *args)


class RedisTurns:
    """Gives them out in the server, by the leases of the hubs."""

    def __init__(self, peers: RedisPeers) -> None:
        assert KEPT.seconds is not None
        self._peers, self._kept = peers, (KEPT.events, KEPT.bytes, _ms(KEPT.seconds))

    async def take(self, place: bytes, what: bytes, unbegun: bool) -> bytes | None:
        other: bytes | None = await self._peers.run("hub_take", *self._at(place), what, int(unbegun), self._kept[-1])
        return other

    async def begin(self, place: bytes, what: bytes) -> None:
        await self._peers.run("hub_begin", *self._at(place), what, "0", b"", *self._kept)

    def leave(self, place: bytes, unbegun: bool) -> None:
        self._peers.tell("hub_leave", *self._at(place), int(unbegun))

    def _at(self, place: bytes) -> tuple[Sequence[str], str, str, bytes]:
        """The keys, and what the arguments of each begin with."""
        return (*STREAM, "l", f"t:{place.hex()}"), self._peers.id, self._peers.link, place


def _links(rows: list[bytes]) -> dict[str, str]:
    """The link of each hub. What counts the changes is none, nor is what another program has written there."""
    pairs = ((hub, lease.split()) for hub, lease in zip(rows[::2], rows[1::2], strict=True))
    return {
        hub.decode("latin-1"): words[1].decode("latin-1") for hub, words in pairs if hub != b"#" and len(words) == 2
    }


def _offers(rows: list[bytes], links: Mapping[str, str]) -> Mapping[str, Offer]:
    """What the hubs of these links have to offer; what another program has written there is passed over."""
    found = {}
    for name, row in zip(rows[::2], rows[1::2], strict=True):
        hub, _, rest = row.partition(b" ")
        link, _, described = rest.partition(b" ")
        if link and links.get(hub.decode("latin-1")) == link.decode("latin-1"):
            found[name.decode()] = Offer(link.decode(), described)
    return found


def _not_among() -> HubError:
    return unavailable("This hub is not among those of its stream just now.")


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _heed_not(answer: "asyncio.Future[Any]") -> None:
    """Nobody waits for it; where it fails, the link ends with it."""
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
