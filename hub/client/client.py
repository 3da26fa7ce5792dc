"""HubClient: the events of a running hub, typed and in order, and its commands, for another Python process.

A client uses three connections, each with one duty, because one cannot both stand still and answer. The
stream's is read only as far as the iterator follows (and `READ_AHEAD` bytes), so that a slow reader costs it
no memory and the hub sees it lag; the calls' carries no events, so that answers come through while nobody
iterates; the third is for the commands that the client serves itself. Each is opened at its first use: who only
follows, or only calls, has one.
"""

import asyncio
import inspect
import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from ..errors import Code, HubError
from ..wire.messages import Answered
from ..wire.names import new_id, pattern_problem
from ..wire.vocabulary import Effect
from .connections import Backoff, Calls, Stream
from .discovery import Disconnected, NoHub, answer, credentials, named_hub, running_hub, verifying
from .items import Gap, Received
from .ownership import check_server
from .paging import joined, next_page
from .providing import Handler, Providing, Served

LARGEST_FRAME = 64 * 1024 * 1024  # bytes of one frame of the hub
CONNECT_TIMEOUT = 10.0  # seconds for a connection and its handshake
CLOSE_TIMEOUT = 1.0  # seconds for a goodbye
HEARTBEAT = 30.0  # seconds of silence after which the client asks whether the hub is still there
PUBLISH_TRIES = 5
UNREACHABLE = (aiohttp.ClientError, OSError, UnicodeError)  # UnicodeError: a name that no host can have
COME_BACK_STATUS = (408, 425, 429)  # of the handshake; the other 4xx will not change by asking again
FINAL_CLOSE: Mapping[int, Code] = {
    1002: "internal",
    1003: "invalid_message",
    1007: "invalid_json",
    1008: "forbidden",
    1009: "too_large",
}


class HubClient:
    """A client of one hub; entering raises NoHub if none is there, and HubError if it does not let this
    client in.

    `async for item in client` gives Received and Gap in the hub's order from the moment of entering, or behind
    the cursor `after`. It reconnects by itself and goes on behind what it had: nothing twice, nothing missing
    without a Gap. `cursor` is the position of what the iterator has handed over (marks included): keep it to
    continue later. It ends with HubError when coming back cannot help: refused (HTTP 4xx, close code 1008),
    or `after` unknown.

    `url` is the hub's address (else HUB_URL); without it the hub is looked up in `state_dir` (default: where this
    account's hub lives), at every reconnect again. In this machine nothing is sent to a server of another account.
    `patience` is how many seconds a call waits for a hub that is away.

    A hub in token mode is given `token`, else HUB_TOKEN, else the token in `state_dir` (without one: in this account's
    state directory, if `url` is the hub that runs there). The certificate of an https hub is checked, against the file
    `ca` or HUB_CA if there is one.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        topics: Iterable[str] = ("*",),
        after: str | None = None,
        state_dir: str | Path | None = None,
        patience: float = 30.0,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        self.topics = tuple(topics)
        self.cursor = after
        self._state_dir = Path(state_dir) if state_dir is not None else None
        self._url = named_hub(url, self._state_dir)
        self._token, self._ca = token, ca
        self._verifying: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._stream: Stream | None = None
        self._calls = Calls(self._connect, patience)
        self._patience = patience
        self._providing = Providing(self._connect)

    async def __aenter__(self) -> Self:
        self._check_topics()
        self._session = aiohttp.ClientSession(
            connector=_Connector(), timeout=aiohttp.ClientTimeout(total=CONNECT_TIMEOUT)
        )
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
        await self._providing.close()
        await self._calls.close()
        if self._session is not None:
            await self._session.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received | Gap:
        if self._stream is None:
            self._stream = Stream(self._connect, self.topics, self.cursor)
        while True:
            self.cursor, item = await self._stream.next()
            if item is not None:
                return item

    async def call(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        confirm: str | None = None,
        key: str | None = None,
    ) -> Any:
        """Run a command and return its result. `confirm` is `details["confirm"]` of the refusal of a dangerous one
        (`confirmation_required`). With a `key` (an idempotency key) a command that writes runs once: after a broken
        connection call again with the same.

        Raises HubError with the hub's code, Disconnected if the connection broke while it ran (it is not run
        again: it may have run), NoHub if no hub was there within `patience`. A call that is cancelled is
        cancelled in the hub, too. `hub:subscribe` means the calls' own connection: the stream's topics are
        given at construction.
        """
        return await self._calls.call(command, args or {}, key, confirm)

    async def ask(
        self,
        question: str,
        options: Sequence[str],
        *,
        default: str | None = None,
        timeout: float = 600.0,  # noqa: ASYNC109 - of the question, for whoever is asked
        details: Any = None,
        key: str | None = None,
        while_connected: bool = False,
    ) -> Answered:
        """Ask a person, and return the answer: one of the options, or the default when `timeout` seconds are over.

        The question outlives a broken connection and a restart of the hub: it is asked for again by its `key` (default:
        one made here), until the time is over. With `while_connected` it is taken back instead, as it is when this is
        cancelled. Raises HubError `timeout` when nobody has answered and there is no default; else as `call`.
        """
        given = {"default": default, "details": details, "while": "connected" if while_connected else None}
        args = {"question": question, "options": list(options), "timeout": timeout}
        args |= {name: value for name, value in given.items() if value is not None}
        clock, backoff, key = asyncio.get_running_loop().time, Backoff(), key or new_id()
        ends = clock() + timeout
        while True:
            try:
                return Answered(**await self._calls.call("hub:ask", args, key))
            except (HubError, NoHub) as error:
                if while_connected or clock() > ends or not _may_be_open(error):
                    raise
            await asyncio.sleep(backoff.next())

    async def state(self, topics: Iterable[str] = ("*",)) -> dict[str, Any]:
        """Return `{cursor, items, more: False}`: all last values of these topics, and the cursor from which the stream
        goes on and misses nothing of them. Raises as `call`.
        """
        args = {"topics": list(topics)}
        answer: dict[str, Any] = await self.call("hub:state", args)
        while further := next_page("hub:state", args, answer):
            answer = joined("hub:state", answer, await self.call("hub:state", further))
        return answer

    async def publish(
        self, name: str, data: Any = None, *, id: str | None = None, ttl: float | None = None
    ) -> dict[str, str]:
        """Publish one event; returns `{id, cursor}`. Raises as `call`.

        It is tried again over a broken connection. That is safe, because every event gets its id here and the
        hub keeps an id once.
        """
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

    async def provide(
        self,
        name: str,
        handler: Handler,
        *,
        args: Mapping[str, Any] | None = None,
        summary: str | None = None,
        effect: Effect = "write",
        at_once: int = 16,
    ) -> None:
        """Serve a command: `await handler(call)` for each call of it, `at_once` of them side by side. Returns when the
        hub has taken it; it is provided again by itself whenever the connection had to be made anew.

        `call.args` has passed `args`, a JSON Schema, if there is one; `await call.progress(data)` says how far it is.
        What the handler returns is the answer. A CommandError is told to who called; of anything else it raises only a
        reference that the log here has, too. It is cancelled when nobody waits for it any more. `summary` is, if not
        given, the first sentence of its docstring. Raises HubError if the hub refuses it, NoHub if none was there
        within `patience`.
        """
        if summary is None:
            summary = (inspect.getdoc(handler) or "").partition("\n\n")[0].replace("\n", " ")
        offer = {"name": name, "summary": summary, "effect": effect} | ({} if args is None else {"args": args})
        give_up = asyncio.get_running_loop().time() + self._patience
        await self._providing.add(Served(offer, handler, at_once, give_up))

    async def serve(self) -> None:
        """Serve what was provided, until this is cancelled. Raises HubError when coming back cannot help."""
        await self._providing.ended()

    async def _publish(self, args: Mapping[str, Any]) -> dict[str, str]:
        accepted: dict[str, str] = await self.call("hub:publish", args)
        return accepted

    def _check_topics(self) -> None:
        """The handshake of a WebSocket can say no more than 400; so say here which pattern is none."""
        for topic in self.topics:
            if problem := pattern_problem(topic):
                raise HubError("invalid_args", f"{topic!r}: {problem}")

    async def _position(self, session: aiohttp.ClientSession) -> str | None:
        """Where the stream begins; asked for before it is opened, so that nothing in between is missed."""
        url, query = self._address(), {"limit": "1"} | ({"after": self.cursor} if self.cursor else {})
        try:
            way_in = self._way_in(url)
            async with session.get(f"{url}/api/events", params=query, allow_redirects=False, **way_in) as response:
                body = await response.read()
        except UNREACHABLE as error:
            raise NoHub(f"No hub answers at {url} ({_reason(error)}).") from None
        page: dict[str, str | None] = answer(url, response.status, body)
        return page.get("cursor")

    def _address(self) -> str:
        return self._url or running_hub(self._state_dir)

    def _way_in(self, url: str) -> dict[str, Any]:
        """What aiohttp is given to get in: the token, and how to know the hub's certificate."""
        way: dict[str, Any] = {"headers": credentials(url, self._state_dir, self._token)}
        if url.startswith("https:"):
            self._verifying = self._verifying or verifying(self._ca)
            way["ssl"] = self._verifying
        return way

    async def _connect(self, query: Mapping[str, str]) -> "_Socket":
        if self._session is None or self._session.closed:
            raise RuntimeError("This client is used outside of its 'async with'.")
        url = self._address()
        return await _Socket.open(self._session, url, query, self._way_in(url))


class _Connector(aiohttp.TCPConnector):
    """Connections that were seen to end at a hub of this account, wherever the kernel can tell."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        connection = await super().connect(req, *args, **options)
        transport = connection.transport
        try:
            if transport is not None and not req.is_ssl():
                check_server(*(transport.get_extra_info(name) for name in ("peername", "sockname", "socket")))
        except BaseException:
            connection.close()
            raise
        return connection


class _Socket:
    """A Socket of `wires`, with aiohttp beneath."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, url: str, query: Mapping[str, str], way_in: Mapping[str, Any]
    ) -> Self:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                websocket = await session.ws_connect(
                    f"{url}/ws",
                    params=query,
                    **way_in,
                    heartbeat=HEARTBEAT,
                    max_msg_size=LARGEST_FRAME,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(url, error.status, query) from None
        except UNREACHABLE as error:
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


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _refused(url: str, status: int, query: Mapping[str, str]) -> Exception:
    """A handshake carries no error object to a WebSocket client, only its HTTP status."""
    if status not in COME_BACK_STATUS and 400 <= status < 500:
        code: Code = ("unknown_cursor" if "after" in query else "invalid_args") if status == 400 else "forbidden"
        why = ": it wants another token" * (status == 401)
        sentence = f"The hub at {url} refused the connection (HTTP status {status}{why})."
        return HubError(code, sentence, status=status)
    return NoHub(f"The hub at {url} takes no client now (HTTP status {status}).")


def _closed(code: int, reason: str) -> HubError:
    sentence = f"The hub closed the connection ({code}{': ' * bool(reason)}{reason})."
    return HubError(FINAL_CLOSE[code], sentence) if code in FINAL_CLOSE else Disconnected(sentence)


def _may_be_open(error: HubError | NoHub) -> bool:
    """Whether a question is perhaps still open, although the call that waits for its answer has failed."""
    return isinstance(error, NoHub) or (error.retryable and error.code != "timeout")
