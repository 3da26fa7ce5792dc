"""What every connection of a client has in common, and the stream's own: the one that events come by.

Each is given a way to open a socket, and opens it again when it breaks. No socket is made here.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

from ..wire.strictjson import text_of
from .discovery import Barred, Disconnected
from .items import Arrival, arrival

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds: what the wait before a reconnect is drawn below
NEAR_DELAY = 2.0  # the same of a hub in this machine: to look for it costs next to nothing
LEAST_PATIENCE = 1.0  # seconds that an attempt under way gets from those who have no patience
READ_AHEAD = 256 * 1024  # characters of events read and not yet taken
NO_EVENTS = "hub:none"  # a pattern that nothing can match: the domain is the hub's own
NOT_A_HUB = (ValueError, TypeError, LookupError)  # what a frame raises that no hub has written

log = logging.getLogger(__name__)


class Socket(Protocol):
    """One WebSocket to the hub: frames in as objects, texts out.

    Whatever ends it is raised: a ConnectionError (NoHub, Disconnected) if coming back can help, else
    HubError.
    """

    async def send(self, text: str) -> None: ...

    async def receive(self) -> tuple[Any, int]:
        """The next frame and its length in characters. Raises ValueError if it is not JSON."""

    async def close(self) -> None: ...


Kind = Literal["command", "response", "error", "event"]
Connect = Callable[[Mapping[str, str]], Awaitable[Socket]]  # opens one, with the query of its handshake


class Left(Disconnected):
    """The client was left meanwhile."""

    def __init__(self) -> None:
        super().__init__("The client was closed.")

    @property
    def retryable(self) -> bool:
        return False


class Backoff:
    """Whether to come back, and when: full jitter, so that a thousand clients do not come back as one. `is_near`: to a
    hub in this machine, whose people see how long its return takes."""

    def __init__(self, *, is_near: bool = False) -> None:
        self._is_near = is_near
        self._attempt = 0
        self._barred = False

    def reset(self) -> None:
        """Begin anew: the other side has said what only a hub says."""
        self._attempt, self._barred = 0, False

    def next(self) -> float:
        """Seconds: anything up to 0.5, then up to 1, 2, 4 … 30, or no more than 2."""
        longest = min(LONGEST_DELAY, NEAR_DELAY) if self._is_near else LONGEST_DELAY
        ceiling = min(longest, FIRST_DELAY * 2 ** min(self._attempt, 16))
        self._attempt += 1
        return random.uniform(0, ceiling)

    def after(self, error: Exception) -> float:
        """Return the seconds before the next attempt. Raises `error` if coming back cannot help: refused in so many
        words, or barred (1008) twice in a row. Once may be the token that was replaced: the next attempt reads it anew.
        """
        if not isinstance(error, ConnectionError):
            if self._barred or not isinstance(error, Barred):
                raise error
            self._barred = True
        delay = self.next()
        log.warning("%s Trying again in %.1f s.", error, delay)
        return delay


class Stream:
    """The connection that events come by: read by a task of its own, which comes back when it breaks.

    The position to resume from is that of the last arrival put aside, and what is put aside outlives a
    connection: so an event is neither lost between the two nor asked for twice.
    """

    def __init__(self, connect: Connect, topics: tuple[str, ...], position: str | None, *, is_near: bool) -> None:
        self._connect = connect
        self._topics = topics or (NO_EVENTS,)
        self._socket: Socket | None = None  # while it is read
        self._position = position
        self._ahead = ReadAhead()
        self._backoff = Backoff(is_near=is_near)
        self._task = asyncio.create_task(self._run())

    async def next(self) -> Arrival:
        return await self._ahead.get()

    def pass_marks(self) -> str | None:
        """The position before the next item that is here, or behind the last mark; None if no mark is in front."""
        return self._ahead.pass_marks()

    async def locate(self) -> None:
        """Ask where the stream is, and return when that, or something else, has come. It may wait for ever: of a socket
        that breaks no answer comes."""
        if self._socket is not None and not self._ahead.is_filled:
            # For what it has anyway. The answer stands behind what matches and was sent before it (PROTOCOL 2).
            await self._socket.send(command_frame("where", "hub:subscribe", {"topics": self._topics[:1]}))
            await self._ahead.filled()

    async def close(self) -> None:
        self._ahead.end(StopAsyncIteration())
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                await self._until_it_breaks()
        except Exception as error:
            self._ahead.end(error)

    async def _until_it_breaks(self) -> None:
        try:
            socket = await self._connect(self._query())
            try:
                self._socket = socket
                await self._read(socket)
            finally:
                self._socket = None
                await socket.close()
        except Exception as error:
            await asyncio.sleep(self._backoff.after(error))

    async def _read(self, socket: Socket) -> None:
        while True:
            try:
                frame, size = await socket.receive()
                found = arrival(frame)
            except NOT_A_HUB:
                raise foreign() from None
            self._backoff.reset()
            if found is not None:
                await self._ahead.put(found, size)
                self._position = found[0]

    def _query(self) -> dict[str, str]:
        return {"topics": ",".join(self._topics)} | ({"after": self._position} if self._position else {})


class ReadAhead:
    """What was read from the socket and not yet taken: at most `READ_AHEAD` characters and one event more."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Arrival, int]] = deque()
        self._size = 0
        self._end: Exception | None = None
        self._filled, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, arrival: Arrival, size: int) -> None:
        """Waits while it is full: then nobody reads the socket, and the hub keeps the rest."""
        while self._size >= READ_AHEAD:
            self._room.clear()
            await self._room.wait()
        self._waiting.append((arrival, size))
        self._size += size
        self._filled.set()

    @property
    def is_filled(self) -> bool:
        return bool(self._waiting)

    async def filled(self) -> None:
        """Wait until there is something to take. Raises what has ended it."""
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._filled.clear()
            await self._filled.wait()

    async def get(self) -> Arrival:
        """A cancelled `get` has taken nothing."""
        await self.filled()
        return self._take()

    def pass_marks(self) -> str | None:
        """Take what hands nothing over, up to the first that does: the last position, None if there was none."""
        position = None
        while self._waiting and self._waiting[0][0][1] is None:
            position, _ = self._take()
        return position

    def _take(self) -> Arrival:
        arrival, size = self._waiting.popleft()
        self._size -= size
        self._room.set()
        return arrival

    def end(self, error: Exception) -> None:
        """Raised by every `get` behind what is still waiting."""
        self._end = self._end or error
        self._filled.set()


def command_frame(id: str, command: str, args: Mapping[str, Any], **beside: str | None) -> str:
    """Raises HubError `invalid_message` if this would be no JSON that the hub takes."""
    payload = {"command": command, "args": dict(args)}
    payload |= {name: value for name, value in beside.items() if value is not None}
    return written("command", id, payload)


def written(kind: Kind, id: str, payload: Any) -> str:
    """The text of one frame. Raises HubError `invalid_message` if the hub could not read it: it could not even say
    whose frame it is, and whoever waits for an answer would wait for ever."""
    return text_of({"type": kind, "id": id, "payload": payload})


def foreign() -> Disconnected:
    """What listens there is no hub, or none any more: one may be back there later."""
    return Disconnected("The other side does not speak as a hub.")
