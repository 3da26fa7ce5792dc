"""HubClient: the events of a running hub, typed and in order, and its commands, for another Python process.

A client uses two connections, each with one duty, because one cannot both stand still and answer. The
stream's is read only as far as the iterator follows (and `READ_AHEAD` bytes), so that a slow reader costs it
no memory and the hub sees it lag; the calls' carries no events, so that answers come through while nobody
iterates. Each is opened at its first use: who only follows, or only calls, has one.
"""

import asyncio
import itertools
import json
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .config import state_directory
from .errors import HubError

if TYPE_CHECKING:  # at run time imported where it is used: `publish` from a shell must not pay 0.2 s for it
    import aiohttp

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds: what the wait before a reconnect is drawn below
READ_AHEAD = 256 * 1024  # characters of events read and not yet taken
LARGEST_FRAME = 64 * 1024 * 1024  # bytes of one frame of the hub
CONNECT_TIMEOUT = 10.0  # seconds for a connection and its handshake
CLOSE_TIMEOUT = 1.0  # seconds for a goodbye
HEARTBEAT = 30.0  # seconds of silence after which the client asks whether the hub is still there
PUBLISH_TRIES = 5
NO_EVENTS = "hub:none"  # a pattern that nothing can match: the domain is the hub's own
COME_BACK_STATUS = (408, 425, 429)  # of the handshake; the other 4xx will not change by asking again
FINAL_CLOSE = {
    1002: "internal",
    1003: "invalid_message",
    1007: "invalid_json",
    1008: "forbidden",
    1009: "too_large",
}

NOT_A_HUB = (ValueError, TypeError, LookupError)  # what a frame raises that no hub has written

log = logging.getLogger(__name__)


class NoHub(ConnectionError):
    """No hub answers; the sentence says where it was looked for."""


class Disconnected(HubError, ConnectionError):
    """The connection broke before the answer (code `shutting_down`). Whether the command ran is not known."""

    def __init__(self, message: str) -> None:
        super().__init__("shutting_down", message)


class Refusal(HubError):
    """The hub's own refusal, as it came over the wire: also its `code` and `retryable` are the hub's word."""

    def __init__(self, payload: Mapping[str, Any], status: int | None = None) -> None:
        super().__init__(
            str(payload.get("code", "internal")),
            str(payload.get("error", "The hub refused without a reason.")),
            payload.get("details"),
            retry_after=payload.get("retry_after"),
            status=status or 500,
        )
        self._retryable = bool(payload.get("retryable"))

    @property
    def retryable(self) -> bool:
        return self._retryable


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, at `timestamp` (RFC 3339, UTC). `cursor`: position, `envelope`: the frame."""

    name: str
    data: Any
    id: str
    timestamp: str
    cursor: str
    envelope: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that this client will not get: those strictly between `after` and `before`.

    `count` is how many those are, matching or not (None: not known); `reason` is slow, expired or epoch.
    """

    after: str | None
    before: str
    count: int | None
    reason: str
    envelope: Mapping[str, Any] = field(repr=False, compare=False)


Arrival = tuple[str, Event | Gap | None]  # the position that the stream has reached, and what to hand over


def running_hub(state_dir: Path | None = None) -> str:
    """The address of the running hub, from its `server.json`. Raises NoHub."""
    path = (state_dir or state_directory()) / "server.json"
    try:
        return checked_url(str(json.loads(path.read_bytes())["url"]))
    except FileNotFoundError:
        raise NoHub(f"No hub is running here: there is no {path}.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise NoHub(f"No hub can be found: {path} is not readable.") from None


def checked_url(url: str) -> str:
    """`http://host:port/prefix` without the last slash. Raises ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"The address of a hub begins with http:// or https://, not so {url!r}.")
    return url.rstrip("/")


def answer(url: str, status: int, body: bytes) -> Any:
    """What the hub answered over HTTP. Raises Refusal in its own words, NoHub if this is no hub's answer."""
    try:
        value = json.loads(body)
    except ValueError:
        raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).") from None
    if status == 200:
        return value
    if isinstance(value, dict) and {"error", "code"} <= value.keys():
        raise Refusal(value, status)
    raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).")


def arrival(frame: Any) -> Arrival | None:
    """What one frame of the stream means; None for a frame that is no event."""
    if frame["type"] != "event":
        return None
    name, data = frame["payload"]["event"], frame["payload"]["data"]
    if name == "hub:mark":
        return data["cursor"], None
    if name == "hub:gap":
        gap = Gap(data["after"], data["before"], data["count"], data["reason"], frame)
        return _just_before(gap.before), gap
    event = Event(name, data, frame["id"], frame["timestamp"], frame["cursor"], frame)
    return event.cursor, event


def _just_before(cursor: str) -> str:
    """The position whose next event is `cursor`: resuming at a gap's `before` itself would skip that one."""
    epoch, _, seq = cursor.rpartition(":")
    return f"{epoch}:{int(seq) - 1}"


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


class HubClient:
    """A client of one hub; entering raises NoHub if none is there, and HubError if it does not let this
    client in.

    `async for item in client` gives Event and Gap in the hub's order from the moment of entering, or behind
    the cursor `after`. It reconnects by itself and goes on behind what it had: nothing twice, nothing missing
    without a Gap. `cursor` is the position of what the iterator has handed over (marks included): keep it to
    continue later. It ends with HubError when coming back cannot help: refused (HTTP 4xx, close code 1008),
    or `after` unknown.

    `url` is the hub's address; without it the hub is looked up in `state_dir` (default: where this account's
    hub lives), at every reconnect again. `patience` is how many seconds a call waits for a hub that is away.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        topics: Iterable[str] = ("*",),
        after: str | None = None,
        state_dir: Path | None = None,
        patience: float = 30.0,
    ) -> None:
        self.topics = tuple(topics)
        self.cursor = after
        self._url = None if url is None else checked_url(url)
        self._state_dir = state_dir
        self._session: aiohttp.ClientSession | None = None
        self._stream: _Stream | None = None
        self._calls = _Calls(self._connect, patience)

    async def __aenter__(self) -> Self:
        import aiohttp

        self._check_topics()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CONNECT_TIMEOUT))
        try:
            position = await self._position(self._session)
        except BaseException:
            await self._session.close()
            raise
        self.cursor = self.cursor or position
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._stream is not None:
            await self._stream.close()
        await self._calls.close()
        if self._session is not None:
            await self._session.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Gap:
        if self._stream is None:
            self._stream = _Stream(self._connect, self.topics, self.cursor)
        while True:
            self.cursor, item = await self._stream.next()
            if item is not None:
                return item

    async def call(self, command: str, args: Mapping[str, Any] | None = None) -> Any:
        """Run a command and return its result.

        Raises HubError with the hub's code, Disconnected if the connection broke while it ran (it is not run
        again: it may have run), NoHub if no hub was there within `patience`. A call that is cancelled is
        cancelled in the hub, too. `hub:subscribe` means the calls' own connection: the stream's topics are
        given at construction.
        """
        return await self._calls.call(command, args or {})

    async def publish(
        self, name: str, data: Any = None, *, id: str | None = None, ttl: float | None = None
    ) -> dict[str, str]:
        """Publish one event; returns `{id, cursor}`. Raises as `call`.

        It is tried again over a broken connection. That is safe, because every event gets its id here and the
        hub keeps an id once.
        """
        from .messages import new_id

        args = {"event": name, "data": data, "id": id or new_id()} | ({} if ttl is None else {"ttl": ttl})
        backoff = Backoff()
        for _ in range(PUBLISH_TRIES - 1):
            try:
                return await self._publish(args)
            except HubError as error:
                if error.code != "shutting_down":
                    raise
                await asyncio.sleep(backoff.next())
        return await self._publish(args)

    async def _publish(self, args: Mapping[str, Any]) -> dict[str, str]:
        accepted: dict[str, str] = await self.call("hub:publish", args)
        return accepted

    def _check_topics(self) -> None:
        """The handshake of a WebSocket can say no more than 400; so say here which pattern is none."""
        from .messages import pattern_problem

        for topic in self.topics:
            if problem := pattern_problem(topic):
                raise HubError("invalid_args", f"{topic!r}: {problem}")

    async def _position(self, session: "aiohttp.ClientSession") -> str | None:
        """Where the stream begins; asked for before it is opened, so that nothing in between is missed."""
        import aiohttp

        url, query = self._address(), {"limit": "1"} | ({"after": self.cursor} if self.cursor else {})
        try:
            async with session.get(f"{url}/api/events", params=query, allow_redirects=False) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise NoHub(f"No hub answers at {url} ({_reason(error)}).") from None
        page: dict[str, str | None] = answer(url, response.status, body)
        return page.get("cursor")

    def _address(self) -> str:
        return self._url or running_hub(self._state_dir)

    async def _connect(self, query: Mapping[str, str]) -> "_Socket":
        if self._session is None or self._session.closed:
            raise RuntimeError("This client is used outside of its 'async with'.")
        return await _Socket.open(self._session, self._address(), query)


class _Socket:
    """One WebSocket to the hub: frames in as objects, texts out.

    Whatever ends it is raised: a ConnectionError (NoHub, Disconnected) if coming back can help, else
    HubError.
    """

    def __init__(self, websocket: "aiohttp.ClientWebSocketResponse") -> None:
        self._websocket = websocket

    @classmethod
    async def open(cls, session: "aiohttp.ClientSession", url: str, query: Mapping[str, str]) -> Self:
        import aiohttp

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                websocket = await session.ws_connect(
                    f"{url}/ws",
                    params=query,
                    heartbeat=HEARTBEAT,
                    max_msg_size=LARGEST_FRAME,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(url, error.status, query) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoHub(f"No hub answers at {url} ({_reason(error)}).") from None
        return cls(websocket)

    async def send(self, text: str) -> None:
        await self._websocket.send_str(text)

    async def receive(self) -> tuple[Any, int]:
        """The next frame and its length in characters. Raises ValueError if it is not JSON."""
        message = await self._websocket.receive()
        kind = message.type.name
        if kind == "CLOSE":
            raise _closed(message.data or 1005, message.extra or "")
        if kind != "TEXT":  # cut off, or (ERROR) not a legal frame
            raise _closed(getattr(message.data, "code", 1006), "")
        return json.loads(message.data), len(message.data)

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._websocket.close()


def _foreign() -> HubError:
    return HubError("internal", "The other side does not speak as a hub.")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _refused(url: str, status: int, query: Mapping[str, str]) -> Exception:
    """A handshake carries no error object to a WebSocket client, only its HTTP status."""
    if status not in COME_BACK_STATUS and 400 <= status < 500:
        code = ("unknown_cursor" if "after" in query else "invalid_args") if status == 400 else "forbidden"
        sentence = f"The hub at {url} refused the connection (HTTP status {status})."
        return HubError(code, sentence, status=status)
    return NoHub(f"The hub at {url} takes no client now (HTTP status {status}).")


def _closed(code: int, reason: str) -> HubError:
    sentence = f"The hub closed the connection ({code}{': ' * bool(reason)}{reason})."
    return HubError(FINAL_CLOSE[code], sentence) if code in FINAL_CLOSE else Disconnected(sentence)


Connect = Callable[[Mapping[str, str]], Awaitable[_Socket]]


class _ReadAhead:
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


class _Stream:
    """The connection that events come by: read by a task of its own, which comes back when it breaks.

    The position to resume from is that of the last arrival put aside, and what is put aside outlives a
    connection: so an event is neither lost between the two nor asked for twice.
    """

    def __init__(self, connect: Connect, topics: tuple[str, ...], position: str | None) -> None:
        self._connect = connect
        self._topics = ",".join(topics) or NO_EVENTS
        self._position = position
        self._ahead = _ReadAhead()
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

    async def _read(self, socket: _Socket) -> None:
        while True:
            frame, size = await socket.receive()
            self._backoff.reset()
            if (found := arrival(frame)) is not None:
                await self._ahead.put(found, size)
                self._position = found[0]

    def _query(self) -> dict[str, str]:
        return {"topics": self._topics} | ({"after": self._position} if self._position else {})


class _Calls:
    """The connection that calls go by: opened when one is made, and again when one is made after it broke."""

    def __init__(self, connect: Connect, patience: float) -> None:
        self._connect = connect
        self._patience = patience
        self._socket: _Socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._ids = itertools.count(1)
        self._running: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def call(self, command: str, args: Mapping[str, Any]) -> Any:
        id = str(next(self._ids))
        text = _command_frame(id, command, args)
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

    async def _connected(self) -> _Socket:
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

    async def _read(self, socket: _Socket) -> None:
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

    def _withdraw(self, socket: _Socket, id: str) -> None:
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


def _command_frame(id: str, command: str, args: Mapping[str, Any]) -> str:
    """Raises HubError `invalid_message` if `args` is not JSON."""
    from .messages import dumps, plain

    return dumps({"type": "command", "id": id, "payload": {"command": command, "args": plain(dict(args))}})
