"""HubClient: the events of a running hub, typed and in order, and its commands, for another Python process.

A client uses three connections, each with one duty, because one cannot both stand still and answer. The
stream's is read only as far as the iterator follows (and `READ_AHEAD` bytes), so that a slow reader costs it
no memory and the hub sees it lag; the calls' carries no events, so that answers come through while nobody
iterates; the third is for the commands that the client serves itself. Each is opened at its first use: who only
follows, or only calls, has one.
"""

import asyncio
import inspect
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from ..errors import HubError
from ..life import to_its_end
from ..wire.ids import new_id
from ..wire.names import Cursor, pattern_problem
from ..wire.vocabulary import Answered, Effect
from .calls import Calls
from .connections import Backoff, Socket, Stream
from .discovery import NoHub, Refusal, answer, credentials, named_hub, running_hub, verifying
from .items import Gap, Received
from .ownership import is_near
from .paging import joined, next_page
from .providing import Providing
from .serving import Handler, OnLost, Served
from .sockets import CONNECT_TIMEOUT, UNREACHABLE, Connector, Refused, WebSocket, no_hub

POSITION = "Hub-Cursor"  # the header of /readyz that says where the stream is
PATIENCE = 30.0  # seconds, where nothing is said of it
SETTLE_SECONDS = 1.0  # in which a hub says where the stream is
FINAL_STATUS = (400, 401, 403, 421)  # of a hub that says no; the other ones may pass


class HubClient:
    """A client of one hub; entering raises NoHub if none is there (with `patience`: within that many seconds), and
    HubError if it does not let this client in.

    `async for item in client` gives Received and Gap in the hub's order from the moment of entering, or behind
    the cursor `after`. It reconnects by itself and goes on behind what it had: nothing twice, nothing missing
    without a Gap. `cursor` is the position of what the iterator has handed over (marks included): keep it to
    continue later. It ends with HubError when coming back cannot help: the hub refuses this client, or its cursor. What
    only one that is no hub, or a torn frame, or a token that was replaced has said, is no end. Left and entered again,
    it goes on behind `cursor`; what it has served must be provided anew.

    `url` is the hub's address (else HUB_URL); without it the hub is looked up in `state_dir` (default: where this
    account's hub lives), at every reconnect again. In this machine nothing is sent to a server of another account.
    `patience` is how many seconds a call waits for a hub that is away, or too busy (30 if it is not given); where it is
    given, entering waits as long, so that a program may start before its hub. To a hub in this machine it comes back
    within 2 s, to others within 30 s, of the hub's own return. Leaving takes a few seconds at most, also when the hub
    does not answer, and goes to its end also when it is cancelled.

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
        patience: float | None = None,
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
        self._patience, self._waits = (PATIENCE, 0.0) if patience is None else (patience, patience)
        self._near = {"is_near": is_near(self._url)}
        self._calls = Calls(self._connect, self._patience, **self._near)
        self._providing = Providing(self._connect, **self._near)

    async def __aenter__(self) -> Self:
        self._check_topics()
        if self._session is not None:
            raise RuntimeError("This client is entered already; make another one.")
        if self.cursor is not None:
            Cursor.parse(self.cursor)
        self._session = aiohttp.ClientSession(
            connector=Connector(), timeout=aiohttp.ClientTimeout(total=CONNECT_TIMEOUT)
        )
        self._stream = None
        self._calls = Calls(self._connect, self._patience, **self._near)
        self._providing = Providing(self._connect, **self._near)
        try:
            position = await self._beginning()
        except BaseException:
            await self.__aexit__()
            raise
        self.cursor = self.cursor or position
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if await to_its_end(self._end()):
            raise asyncio.CancelledError

    async def _end(self) -> None:
        """The hub hears of what was cancelled, as long as there is a connection; then each of the three is closed, and
        last what they rest on, whatever the others do, or who cancels this."""
        async with AsyncExitStack() as last:
            last.push_async_callback(self._session_closed)
            await self._calls.withdrawn()
            closing = [self._calls.close(), self._providing.close()]
            if self._stream is not None:
                closing.append(self._stream.close())
            await asyncio.gather(*closing)

    async def _session_closed(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received | Gap:
        if self._stream is None:
            self._stream = Stream(self._connect, self.topics, self.cursor, **self._near)
        while True:
            self.cursor, item = await self._stream.next()
            if item is not None:
                return item

    async def settle(self) -> None:
        """Bring `cursor` up to where the stream is, or up to the next item: what matches nothing moves it once a
        heartbeat only. For who keeps it, and goes. Nothing changes if the hub does not say it within a second."""
        if self._stream is None or "*" in self.topics:
            return
        self.cursor = self._stream.pass_marks() or self.cursor
        with suppress(TimeoutError, HubError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._stream.locate()
        self.cursor = self._stream.pass_marks() or self.cursor

    async def call(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        confirm: str | None = None,
        key: str | None = None,
    ) -> Any:
        """Run a command and return its result. `confirm` is `details["confirm"]` of the refusal of a dangerous one
        (`confirmation_required`). With a `key` (an idempotency key) a command that writes runs once, however often it
        is called: so it is called again over a broken connection, until it is answered or `patience` is over.

        Raises HubError with the hub's code, Disconnected if the connection broke while it ran (without a key it is not
        run again: it may have run), NoHub if no hub was there within `patience`. A call that is cancelled is
        cancelled in the hub, too. `hub:subscribe` means the calls' own connection: the stream's topics are
        given at construction.
        """
        return await self._calls.call(command, args or {}, key, confirm, keyed=key is not None)

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
        clock, backoff, key = asyncio.get_running_loop().time, Backoff(**self._near), key or new_id()
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
        goes on and misses nothing of them. It only reads, so it is asked for again over a broken connection. Raises as
        `call`.
        """
        args = {"topics": list(topics)}
        answer: dict[str, Any] = await self._calls.call("hub:state", args, again=True)
        while further := next_page("hub:state", args, answer):
            answer = joined("hub:state", answer, await self._calls.call("hub:state", further, again=True))
        return answer

    async def publish(
        self, name: str, data: Any = None, *, id: str | None = None, ttl: float | None = None
    ) -> dict[str, str]:
        """Publish one event; returns `{id, cursor}`: it is kept.

        Until the hub has said so, it is sent again, over as many connections as it takes, as long as a hub is there
        within `patience`. That is safe, because every event gets its id here and the hub keeps an id once. Any number
        may be under way; the client sends them as the hub takes them, and over a broken connection those under way may
        change places: where their order matters, wait for one before the next. Raises as `call`; after Disconnected
        publish it again with the same `id`.
        """
        args = {"event": name, "data": data, "id": id or new_id()} | ({} if ttl is None else {"ttl": ttl})
        accepted: dict[str, str] = await self._calls.call("hub:publish", args, again=True)
        return accepted

    async def provide(
        self,
        name: str,
        handler: Handler,
        *,
        args: Mapping[str, Any] | None = None,
        summary: str | None = None,
        effect: Effect = "write",
        at_once: int = 16,
        on_lost: OnLost | None = None,
    ) -> None:
        """Serve a command: `await handler(call)` for each call of it, `at_once` of them side by side. Returns when the
        hub has taken it; it is provided again by itself whenever the connection had to be made anew.

        `call.args` has passed `args`, a JSON Schema, if there is one; `await call.progress(data)` says how far it is.
        What the handler returns is the answer. A CommandError is told to who called; of anything else it raises only a
        reference that the log here has, too. It is cancelled when nobody waits for it any more. `summary` is, if not
        given, the first sentence of its docstring. Raises HubError if the hub refuses it, NoHub if none was there
        within `patience`.

        Where there are several hubs, another client may have taken the name while the hub of this one was cut off, or
        this one was. Then `on_lost(error)` is called (`already_provided`), once; it is provided again by itself as soon
        as the name is free.
        """
        if summary is None:
            summary = (inspect.getdoc(handler) or "").partition("\n\n")[0].replace("\n", " ")
        offer = {"name": name, "summary": summary, "effect": effect} | ({} if args is None else {"args": args})
        give_up = asyncio.get_running_loop().time() + self._patience
        await self._providing.add(Served(offer, handler, at_once, give_up, on_lost))

    async def serve(self) -> None:
        """Serve what was provided, until this is cancelled. Raises HubError when coming back cannot help."""
        await self._providing.ended()

    def _check_topics(self) -> None:
        """The handshake of a WebSocket can say no more than 400; so say here which pattern is none."""
        for topic in self.topics:
            if problem := pattern_problem(topic):
                near = f"{topic.rstrip('*:')}:*"
                meant = "" if pattern_problem(near) or near in problem else f" Did you mean {near}?"
                raise HubError("invalid_args", f"{topic!r}: {problem}{meant}")

    async def _beginning(self) -> str | None:
        """Where the stream begins, as soon as there is a hub; of one that says no for good nothing is waited for."""
        clock, backoff = asyncio.get_running_loop().time, Backoff(**self._near)
        give_up = clock() + self._waits
        while True:
            try:
                return await self._position()
            except (NoHub, HubError) as error:
                left = give_up - clock()
                if left <= 0 or (isinstance(error, HubError) and not error.retryable):
                    raise
            await asyncio.sleep(min(left, backoff.next()))

    async def _position(self) -> str | None:
        """Where the stream begins; asked for before it is opened, so that nothing in between is missed, and of a route
        that calls no command: the audit log has nothing of it."""
        position = (await self._get("/readyz", {}))[1].get(POSITION)
        if position is None:
            raise NoHub(f"What answers at {self._address()} does not answer as a hub.")
        return position

    async def _get(self, path: str, query: Mapping[str, str]) -> tuple[Any, Mapping[str, str]]:
        """What the hub answers, and the headers. Raises Refusal, NoHub; no hub that is not ready refuses."""
        session, url = self._entered(), self._address()
        try:
            way_in = self._way_in(url)
            async with session.get(f"{url}{path}", params=query, allow_redirects=False, **way_in) as response:
                body = await response.read()
        except UNREACHABLE as error:
            raise no_hub(url, error) from None
        status = 200 if POSITION in response.headers else response.status
        return answer(url, status, body), response.headers

    def _address(self) -> str:
        return self._url or running_hub(self._state_dir)

    def _way_in(self, url: str) -> dict[str, Any]:
        """What aiohttp is given to get in: the token, and how to know the hub's certificate."""
        way: dict[str, Any] = {"headers": credentials(url, self._state_dir, self._token)}
        if url.startswith("https:"):
            self._verifying = self._verifying or verifying(self._ca)
            way["ssl"] = self._verifying
        return way

    async def _connect(self, query: Mapping[str, str]) -> Socket:
        session, url = self._entered(), self._address()
        try:
            return await WebSocket.open(session, url, query, self._way_in(url))
        except Refused as refused:
            raise await self._refusal(url, refused.status, query) from None

    def _entered(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("This client is used outside of its 'async with'.")
        return self._session

    async def _refusal(self, url: str, status: int, query: Mapping[str, str]) -> Exception:
        """Why the handshake was refused. It carries no error object to a WebSocket client, and a status alone may be
        anybody's; so ask for the same over HTTP. What a hub says there, and asking again will not change, is final."""
        if status in FINAL_STATUS:
            try:
                await self._get("/api/events", {"limit": "1", **query})
            except Refusal as error:
                if error.status in FINAL_STATUS and not (error.status == 401 and self._may_get_another_token()):
                    return error
                return NoHub(f"The hub at {url} does not let this client in yet: {error.message}")
            except NoHub as error:
                return error
        return NoHub(f"The hub at {url} takes no client now (HTTP status {status}).")

    def _may_get_another_token(self) -> bool:
        """Whether it is looked for at each attempt: the hub may have a new one, or not have said yet where it is."""
        return not (self._token or os.environ.get("HUB_TOKEN"))


class PromptClient(HubClient):
    """One whose patience is for its calls alone: entering tells at once that no hub is there, to who looks again."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waits = 0.0


def _may_be_open(error: HubError | NoHub) -> bool:
    """Whether a question is perhaps still open, although the call that waits for its answer has failed."""
    return isinstance(error, NoHub) or (error.retryable and error.code != "timeout")
