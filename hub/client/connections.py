"""The two connections of a client: the stream that events come by, and the one that calls go by.

Each is given a way to open a socket, and opens it again when it breaks. No socket is made here.
"""

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ..errors import HubError
from ..wire.strictjson import dumps, plain
from .discovery import Disconnected, Refusal
from .items import Arrival, arrival

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds: what the wait before a reconnect is drawn below
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


Connect = Callable[[Mapping[str, str]], Awaitable[Socket]]  # opens one, with the query of its handshake


class Stream:
    """The connection that events come by: read by a task of its own, which comes back when it breaks.

    The position to resume from is that of the last arrival put aside, and what is put aside outlives a
    connection: so an event is neither lost between the two nor asked for twice.
    """

    def __init__(self, connect: Connect, topics: tuple[str, ...], position: str | None) -> None:
        self._connect = connect
        self._topics = ",".join(topics) or NO_EVENTS
        self._position = position
        self._ahead = ReadAhead()
        self._backoff = Backoff()
        self._task = asyncio.create_task(self._run())

    async def next(self) -> Arrival:
        return await self._ahead.get()

    async def close(self) -> None:
        self._ahead.end(StopAsyncIteration())
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                await self._until_it_breaks()
        except NOT_A_HUB:
            self._ahead.end(_foreign())
        except Exception as error:
            self._ahead.end(error)

    async def _until_it_breaks(self) -> None:
        try:
            socket = await self._connect(self._query())
            try:
                await self._read(socket)
            finally:
                await socket.close()
        except ConnectionError as error:
            delay = self._backoff.next()
            log.warning("%s Trying again in %.1f s.", error, delay)
            await asyncio.sleep(delay)

    async def _read(self, socket: Socket) -> None:
        while True:
            frame, size = await socket.receive()
            self._backoff.reset()
            if (found := arrival(frame)) is not None:
                await self._ahead.put(found, size)
                self._position = found[0]

    def _query(self) -> dict[str, str]:
        return {"topics": self._topics} | ({"after": self._position} if self._position else {})


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

    async def get(self) -> Arrival:
        """A cancelled `get` has taken nothing."""
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._filled.clear()
            await self._filled.wait()
        arrival, size = self._waiting.popleft()
        self._size -= size
        self._room.set()
        return arrival

    def end(self, error: Exception) -> None:
        """Raised by every `get` behind what is still waiting."""
        self._end = self._end or error
        self._filled.set()


class Calls:
    """The connection that calls go by: opened when one is made, and again when one is made after it broke."""

    def __init__(self, connect: Connect, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._socket: Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._ids = itertools.count(1)
        self._running: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def call(
        self, command: str, args: Mapping[str, Any], key: str | None = None, confirm: str | None = None
    ) -> Any:
        id = str(next(self._ids))
        text = _command_frame(id, command, args, idempotency_key=key, confirm=confirm)
        socket = await self._connected()
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._running[id] = command, result
        try:
            with suppress(ConnectionError):  # the reader finds it broken, too, and fails the call
                await socket.send(text)
            return await result
        except asyncio.CancelledError:
            self._withdraw(socket, id)
            raise
        finally:
            self._running.pop(id, None)

    async def close(self) -> None:
        tasks = [*self._withdrawals, *filter(None, [self._reader])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _connected(self) -> Socket:
        clock = asyncio.get_running_loop().time
        give_up, backoff = clock() + self._patience, Backoff()
        async with self._one_at_a_time:
            while self._socket is None:
                try:
                    self._socket = await self._connect({"topics": NO_EVENTS})
                except ConnectionError:
                    delay = backoff.next()
                    if clock() + delay > give_up:
                        raise
                    await asyncio.sleep(delay)
                else:
                    self._reader = asyncio.create_task(self._read(self._socket))
            return self._socket

    async def _read(self, socket: Socket) -> None:
        broken: HubError = Disconnected("The client was closed.")
        try:
            while True:
                self._take((await socket.receive())[0])
        except HubError as error:
            broken = error
        except NOT_A_HUB:
            broken = _foreign()
        finally:
            self._socket = None
            self._fail_all(broken)
            await socket.close()

    def _take(self, frame: Any) -> None:
        kind, payload = frame["type"], frame["payload"]
        _, result = self._running.get(frame["id"], (None, None))
        if kind not in ("response", "error") or result is None or result.done():
            return  # a mark; or the answer to a call that is no longer waited for
        if kind == "response":
            result.set_result(payload)
        else:
            result.set_exception(Refusal(payload))

    def _fail_all(self, broken: HubError) -> None:
        for command, result in self._running.values():
            if not result.done():
                result.set_exception(_while_running(broken, command))

    def _withdraw(self, socket: Socket, id: str) -> None:
        async def cancel() -> None:
            with suppress(ConnectionError):
                await socket.send(_command_frame(f"cancel-{id}", "hub:cancel", {"id": id}))

        if self._socket is socket:
            task = asyncio.create_task(cancel())
            self._withdrawals.add(task)
            task.add_done_callback(self._withdrawals.discard)


def _while_running(broken: HubError, command: str) -> HubError:
    if isinstance(broken, Disconnected):
        return Disconnected(f"{broken} The call of {command} was running; whether it was done is not known.")
    return HubError(broken.code, broken.message)


def _command_frame(id: str, command: str, args: Mapping[str, Any], **beside: str | None) -> str:
    """Raises HubError `invalid_message` if `args` is not JSON."""
    payload = {"command": command, "args": plain(dict(args))}
    payload |= {name: value for name, value in beside.items() if value is not None}
    return dumps({"type": "command", "id": id, "payload": payload})


def _foreign() -> HubError:
    return HubError("internal", "The other side does not speak as a hub.")


class Backoff:
    """Waits before another attempt: full jitter, so that a thousand clients do not come back as one."""

    def __init__(self) -> None:
        self._attempt = 0

    def reset(self) -> None:
        self._attempt = 0

    def next(self) -> float:
        """Seconds: anything up to 0.5, then up to 1, 2, 4 … 30."""
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._attempt, 16))
        self._attempt += 1
        return random.uniform(0, ceiling)
