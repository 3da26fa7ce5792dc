"""Events in a Redis or Valkey, for several hubs at once: one stream, and every hub sees the same of it.

Whatever goes wrong with a connection ends in `_run`: both are made anew, and the hub asks first whether the stream is
still the one that it knows. What it has seen and the stream has not is told to everybody who may have seen it.

Other programs may write to the same server. What they have written into the stream is passed over and taken out,
numbers whose events they have deleted are told as missing, and a stream that was put back from a copy is found out
(`witness.py`).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import HubError, UsageError
from ...wire.names import Cursor
from ..events import Draft, Event
from .answers import ServerAnswers
from .appends import Appends
from .broker import Answers, Kept, Limits, Lost, OnLost, Pump, Receipt, unavailable
from .connection import PATIENCE
from .entries import FACTS, Stream, epoch_of, parted, unbroken, unpacked, values_of
from .link import Link
from .peers import Peers
from .redislog import RedisLog
from .redispeers import RedisPeers
from .server import Away, Moved, Refused, Server, Trouble
from .witness import Witness

BLOCK = 1.0  # seconds that a read waits for news; the stream is looked at as often
FEW = 8  # events that come without being asked for; what else there is, is read, because that is faster
MOST_READ, READ_BYTES = 256, 1024 * 1024  # events of one such read, and the bytes at which it ends, too
PAUSES = (0.0, 0.05, 0.1, 0.2)  # seconds between tries to come back; the last one again and again
SOON = 0.05  # seconds until the next look when there is more to trim, or something foreign cannot be taken out
MOVES = 4  # tries in which the stream may become another one while a hub comes to it, before that is a problem
START = 10.0  # seconds that a server gets to load its data when a hub starts
VALUES = 1000  # last values that are read at once


class RedisBroker:
    """Keeps events where `server` is. `limits` and `state` are those of a stream that this hub is the first to open;
    after that they are the stream's. In `directory` it notes what it has seen of the stream."""

    def __init__(
        self, server: Server, limits: Limits, state: Limits, name: str = "", directory: Path | None = None
    ) -> None:
        self.server = server
        self.epoch, self.head, self.tail, self.bytes = "", 0, 1, 0
        self.lineage: Mapping[str, int] = {}
        self.limits, self._state = limits, state
        self.problem: str | None = None
        self.answers: Answers = ServerAnswers(self._ask)
        self.peers: Peers | None = RedisPeers(server, name)
        self._stream = Stream.read([None] * FACTS)
        self._seen = Witness(directory)
        self._newest: Event | None = None  # that this start has read
        self._link: Link | None = None
        self._appends = Appends(self._trouble)
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self._behind = 0.0  # the server's clock behind the monotonic one, in seconds
        self._epochs = set[bytes]()  # that entries of the stream can be of
        self._look_at = 0.0  # when the stream is looked at next, on the monotonic clock
        self._moved = asyncio.Event()  # set, and replaced, when position or epoch have changed
        self._log = RedisLog()

    # ---- life

    async def open(self, pump: Pump) -> None:
        self._pump = pump
        self._seen.load()
        self.epoch, self.head = self._seen.epoch, self._seen.head
        link, stream = await self._first()
        if self.epoch and not stream.holds(self.epoch, self.head):
            self._log.lost(Cursor(self.epoch, self.head), stream)
        self.head = stream.head
        self._adopt(link, stream)
        mine = Limits(stream.events, stream.most, stream.seconds)
        if self.limits != mine:
            self._log.other_limits(mine)
            self.limits = mine
        if link.eviction != "noeviction":
            self._log.may_evict(self.server.place, link.eviction)

    async def _first(self) -> tuple[Link, Stream]:
        """Attach at the start. Raises UsageError; a server that is starting, too, is waited for."""
        ends = time.monotonic() + START
        while True:
            try:
                return await self._attach()
            except Trouble as error:
                if not (isinstance(error, Away) and error.there) or time.monotonic() > ends:
                    raise UsageError(str(error)) from None
            await asyncio.sleep(PAUSES[-1])

    def begin(self, on_lost: OnLost) -> None:
        self._on_lost = on_lost
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def last_values(self) -> list[Kept]:
        async with self._readable() as link:
            return await self._values(link, self._stream)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._running is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * PATIENCE):
                    await self._appends.drain()
            self._running.cancel()
            await asyncio.wait([self._running])
        self._appends.refuse(_stopping())
        self._seen.close()
        if self._link is not None:
            self._link.close()

    # ---- events

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closing:
            raise _stopping()
        if self._link is None and self.problem:
            raise unavailable(self.problem)
        return await self._appends.put(drafts) if drafts else []

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        stream = self._stream
        rows = await self._ask("hub_read", after, self.head, limit, "" if size is None else size)
        events = list(next(unbroken(unpacked(parted(*rows), stream, self._clock)), ()))
        if self._newest is None and events and events[-1].seq == self.head:  # the hub's window, at the start
            self._newest = events[-1]
        return events

    async def names(self, after: int, limit: int) -> list[tuple[int, str]]:
        found = list[tuple[int, str]]()
        while len(found) < limit and (rows := await self._ask("hub_names", after, self.head, limit - len(found))):
            found += [(seq, name.decode()) for seq, name in zip(rows[::2], rows[1::2], strict=True)]
            after = found[-1][0]
        return found

    async def reach(self, cursor: Cursor) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not self._has_reached(cursor) and await self._may_reach(cursor):
                    await self._moved.wait()
        except TimeoutError:
            raise unavailable(f"This hub has not come up to the cursor {cursor} yet.") from None

    def _has_reached(self, cursor: Cursor) -> bool:
        known = self.head if cursor.epoch == self.epoch else self.lineage.get(cursor.epoch, -1)
        return cursor.seq <= known

    async def _may_reach(self, cursor: Cursor) -> bool:
        """Whether the stream has what this hub has not; or nobody can say just now."""
        with contextlib.suppress(Trouble):
            if self._link is not None:
                stream = Stream.read(await self._link.asks.run("hub_look"))
                return stream.holds(*cursor) and not self._has_reached(cursor)
        return True

    async def _ask(self, function: str, *args: bytes | str | int) -> Any:
        async with self._readable() as link:
            return await link.asks.run(function, *args)

    @contextlib.asynccontextmanager
    async def _readable(self) -> AsyncIterator[Link]:
        if self._link is None:
            raise unavailable(self.problem or "The connection to Redis is being made anew.")
        try:
            yield self._link
        except Trouble as error:
            self._trouble(error)
            raise unavailable(str(error)) from None

    def _clock(self, at: float) -> float:
        """The server's time on the monotonic clock of this process."""
        return min(time.monotonic(), at + self._behind)

    async def _values(self, link: Link, stream: Stream) -> list[Kept]:
        """The last values, in the order of their last change: what changes meanwhile comes once more."""
        found, after = list[Kept](), 0
        while rows := await link.asks.run("hub_values", after, VALUES):
            found += values_of(rows, stream, self._clock)
            after = int(rows[-3])
        return found

    # ---- the stream

    async def _run(self) -> None:
        """Follow the stream, for as long as there is a hub."""
        while True:
            try:
                if self._link is not None:
                    await self._follow(self._link)
                await self._come_back()
            except Trouble as error:
                self._drop(error)
            except Exception as error:  # of the pump: a bug, and what it did not take comes again
                self._log.failed(error)
                self._drop(Away("Events cannot be handed on, which is a bug of the hub: its log has the error."))
                await asyncio.sleep(PAUSES[-1])

    def _drop(self, error: Exception) -> None:
        """Let go of the connections. Nobody is refused yet if it is only that the stream is another one."""
        if self._link is not None:
            self._link.close(error)
            self._link = None
            self._appends.detach(error)
        if not isinstance(error, Moved):
            self._say(str(error))
            self._appends.refuse(unavailable(str(error)))

    async def _come_back(self) -> None:
        tries = 0
        while True:
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1
            try:
                link, stream = await self._attach()
                try:
                    await self._go_on(link, stream)
                except BaseException:
                    link.close()
                    raise
                return
            except Trouble as error:
                self._drop(error if isinstance(error, Moved) and tries < MOVES else Away(str(error)))

    async def _attach(self) -> tuple[Link, Stream]:
        """Connect, and see which stream there is. Raises Away, Refused or Moved."""
        try:
            async with asyncio.timeout(2 * PATIENCE):
                link = await Link.make(self.server)
                try:
                    return link, await link.open(self._seen.words, self.limits, self._state)
                except BaseException:
                    link.close()
                    raise
        except TimeoutError:
            raise Away(f"Redis at {self.server.place} does not answer.", there=True) from None

    async def _go_on(self, link: Link, stream: Stream) -> None:
        """Go on in this stream; where it has lost what this hub has handed on, behind what is left."""
        lost = None
        if not stream.holds(self.epoch, self.head):
            lost = Lost(self.epoch, stream.lineage.get(self.epoch, 0), await self._values(link, stream))
        if stream.epoch != self.epoch:
            self._log.other_epoch(stream.epoch, link.eviction)
        if lost is not None:
            self._log.lost(Cursor(self.epoch, self.head), stream)
            self.head = stream.head
        self._adopt(link, stream)
        if lost is not None:
            self._on_lost(lost)

    def _adopt(self, link: Link, stream: Stream) -> None:
        self._link = link
        if (stream.epoch, self.head) != (self._seen.epoch, self._seen.head):
            same = self.head if stream.epoch == self.epoch else stream.lineage.get(self.epoch, 0)
            self._seen.begin(stream.epoch, self.head, same)
        self._stream = stream  # of which nothing foreign is news
        self._note(stream)
        self._look_at = 0.0  # whether it takes anything, too
        self._appends.attach(link.asks, stream.epoch, self.head)

    def _note(self, stream: Stream) -> None:
        foreign = stream.foreign - self._stream.foreign
        if foreign > 0:
            self._log.foreign(self.server.keys[0], foreign)
        self._stream, self.epoch, self.lineage = stream, stream.epoch, stream.lineage
        self._epochs = {epoch.encode() for epoch in (stream.epoch, *stream.lineage)}
        self.tail, self.bytes = stream.tail, stream.size
        self._behind = time.monotonic() - stream.time
        self._look_at = time.monotonic() + BLOCK
        self._has_moved()

    async def _follow(self, link: Link) -> None:
        """Hand on what comes. Raises Away or Moved, and what the pump raises."""
        while True:
            if time.monotonic() >= self._look_at:
                await self._look(link)
            wait = max(1, round(1000 * (self._look_at - time.monotonic())))
            words = "COUNT", FEW, "BLOCK", wait, "STREAMS", self.server.keys[0], f"{self.head}-0"
            if reply := await link.news.send("XREAD", *words):
                if events := self._next(reply[0][1]):
                    await self._hand_on(events)
                    while len(events) >= FEW:
                        events = await self._read_on(link)
                else:
                    await self._sort_out(link)

    def _next(self, rows: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Event]:
        """The events of these rows of the stream; none, if they are not the next ones, or not all of a hub. There are
        no rows where one was written and deleted in one step."""
        entries = [(int(id[:-2]), fields[1]) for id, fields in rows if id.endswith(b"-0")]
        if {epoch_of(entry) for _, entry in entries} <= self._epochs:
            events = unpacked(entries, self._stream, self._clock)
            wanted = self.head + 1, self.head + len(rows)
            if events and len(events) == len(rows) and (events[0].seq, events[-1].seq) == wanted:
                return events if self._is_news(events) else []
        return []

    def _is_news(self, events: Sequence[Event]) -> bool:
        """Whether these may be handed on without asking: not where one is the same as the one before it, or older. It
        may be a copy by another program, or the server's clock was set back: the server knows."""
        before = self._newest
        for event in events:
            if before is not None and (event.timestamp < before.timestamp or event.id == before.id):
                return False
            before = event
        return True

    async def _sort_out(self, link: Link) -> None:
        """Something is missing, or not of a hub: take that out, and hand on what is left."""
        head = self.head
        await self._look(link)
        await self._read_on(link)
        if self.head == head:  # it cannot be taken out just now, and would come again at once
            await asyncio.sleep(SOON)

    async def _read_on(self, link: Link) -> list[Event]:
        """Hand on some of what is behind what this hub has, and tell what of it is missing. Returns these events."""
        head, stream = self._stream.head, self._stream
        rows = parted(*await link.news.run("hub_read", self.head, "", MOST_READ, READ_BYTES))
        if not {epoch_of(entry) for _, entry in rows} <= self._epochs:
            if Stream.read(await link.asks.run("hub_look")).epoch != self.epoch:
                raise Moved("The stream is of another epoch now.")
            rows = [(seq, entry) for seq, entry in rows if epoch_of(entry) in self._epochs]  # else of another stream
        events = unpacked(rows, stream, self._clock)
        missing = (events[-1].seq - self.head > len(events)) if events else head > self.head
        values = await self._values(link, stream) if missing else []
        for piece in unbroken(events):
            if piece[0].seq > self.head + 1:
                self._skip(piece[0].seq - 1, values)
            await self._hand_on(piece)
        if not events and missing:
            self._skip(head, values)
        return events

    async def _hand_on(self, events: Sequence[Event]) -> None:
        await self._pump(list(events))
        self._newest = events[-1]
        self.head = self._newest.seq
        self._seen.see(events[-1])
        self.bytes += sum(event.size for event in events if event.seq > self._stream.head)
        self._appends.passed(self.head)
        self._has_moved()

    def _skip(self, last: int, values: list[Kept]) -> None:
        """Go on behind this number: up to there nothing is left that this hub has not read yet."""
        self._log.skipped(self.epoch, self.head + 1, last)
        lost = Lost(self.epoch, self.head, values)
        self.head = last
        self._seen.begin(self.epoch, last, last)
        self._on_lost(lost)
        self._appends.passed(self.head)
        self._has_moved()

    async def _look(self, link: Link) -> None:
        """Once a second: let go what is too old or foreign, see whether the stream is the same, and takes events."""
        try:
            facts = await link.asks.run("hub_tidy", self.epoch, self.head, *self._seen.newest)
        except Refused as error:
            self._say(str(error))
            facts = await link.asks.run("hub_look")
        else:
            self._say(None)
        stream = Stream.read(facts)
        if stream.epoch != self.epoch:
            raise Moved("The stream is of another epoch now.")
        self._note(stream)
        self._seen.note()
        if facts[FACTS:] == [b"1"]:
            self._look_at = time.monotonic() + SOON
        if stream.head > self.head:
            await self._read_on(link)

    def _has_moved(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # ---- what is wrong

    def _trouble(self, error: Exception) -> None:
        """Somebody was refused: the server is at hand, or the stream is another one."""
        if isinstance(error, Refused):
            self._say(str(error))
        elif isinstance(error, Moved) and self._link is not None:
            self._link.close(error)

    def _say(self, problem: str | None) -> None:
        self.problem = problem
        self._log.outage(problem)


def _stopping() -> HubError:
    return HubError("broker_unavailable", "The hub is stopping and takes no more events.")
