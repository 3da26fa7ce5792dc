"""The connection by which a client serves commands: opened for the first of them, and again whenever it breaks.

Each time it offers anew all that it has been given, before anything else; and it is read all the time, so that a call
that nobody waits for any more is heard of.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from ..errors import CommandError, HubError
from ..wire.ids import new_id
from .connections import (
    LEAST_PATIENCE,
    NO_EVENTS,
    NOT_A_HUB,
    Backoff,
    Connect,
    Left,
    Socket,
    command_frame,
    foreign,
    written,
)
from .discovery import NoHub, Refusal

LET_GO = 1.0  # seconds that handlers get to end after they were cancelled

log = logging.getLogger(__name__)


class ServedCall:
    """One call of a command that this client serves, as its handler gets it."""

    def __init__(self, id: str, command: str, args: dict[str, Any], send: Callable[[str], Awaitable[None]]) -> None:
        self.id, self.command, self.args = id, command, args
        self._send = send

    async def progress(self, data: Any) -> None:
        """Tell who called, and nobody else, how far this is: the members of `data`, or `data` itself if it is no
        mapping. Raises HubError `invalid_message` if it is not JSON, `too_large` for what no frame can hold."""
        members = data if isinstance(data, Mapping) else {"data": data}
        payload = {"event": "hub:progress", "data": {**members, "call": self.id}}
        await self._send(written("event", new_id(), payload))


Handler = Callable[[ServedCall], Awaitable[Any]]


class Served:
    """A command with its handler. `accepted` is done when the hub has taken it for the first time, or refused it."""

    def __init__(self, offer: Mapping[str, Any], handler: Handler, at_once: int, give_up: float) -> None:
        self.offer, self.handler, self.give_up = offer, handler, give_up
        self.slots = asyncio.Semaphore(at_once)
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def refuse(self, error: Exception) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)


class Providing:
    """What one client serves, and the task that keeps it served."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._served: dict[str, Served] = {}
        self._more = asyncio.Event()  # there is something new to be offered
        self._backoff = Backoff()
        self._task: asyncio.Task[None] | None = None

    async def add(self, served: Served) -> None:
        """Serve this, from now on and after every break. Raises HubError if the hub refuses it, NoHub if there is none
        in time."""
        name = served.offer["name"]
        before = self._served.get(name)
        self._served[name] = served
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_heard)
        try:
            await served.accepted
        except BaseException:
            if self._served.get(name) is served:
                del self._served[name]
                if before is not None:
                    self._served[name] = before
            raise

    async def ended(self) -> None:
        """Return never. Raises HubError when coming back cannot help."""
        if self._task is None:
            raise RuntimeError("This client serves nothing: call provide first.")
        await asyncio.shield(self._task)

    async def close(self) -> None:
        self._refuse_all(Left())  # also when the task has not begun yet
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._served:
                await self._until_it_breaks()
        except Exception as error:
            self._refuse_all(error)
            log.error("No command is served any more: %s", error)
            raise

    def _refuse_all(self, error: Exception) -> None:
        for served in self._served.values():
            served.refuse(error)

    async def _until_it_breaks(self) -> None:
        try:
            link = _Link(await self._connected(), self._served)
            try:
                await _first_to_end(link.read(), self._offer(link))
            finally:
                await link.end()
        except Exception as error:
            delay = self._backoff.after(error)
            self._give_up(error)
            await asyncio.sleep(min(delay, self._patience()))

    async def _connected(self) -> Socket:
        limit = max(self._patience(), LEAST_PATIENCE)
        try:
            async with asyncio.timeout(None if limit == math.inf else limit):
                return await self._connect({"topics": NO_EVENTS})
        except TimeoutError:
            raise NoHub("The hub does not answer in time.") from None

    def _patience(self) -> float:
        """Seconds until the first of those gives up that wait for their command to be accepted."""
        waiting = [served.give_up for served in self._served.values() if not served.accepted.done()]
        return max(0.0, min(waiting, default=math.inf) - asyncio.get_running_loop().time())

    def _give_up(self, error: Exception) -> None:
        """What was never accepted, and has been tried for long enough."""
        now = asyncio.get_running_loop().time()
        for name, served in list(self._served.items()):
            if not served.accepted.done() and served.give_up <= now:
                del self._served[name]
                served.refuse(error)

    async def _offer(self, link: "_Link") -> None:
        """All that was accepted before, then what is new, one by one: one that is refused harms no other."""
        link.largest = (await _until_taken(link, "hub:info", {}))["limits"]["max_frame"]
        if known := [served.offer for served in self._served.values() if served.accepted.done()]:
            await _until_taken(link, "hub:provide", {"commands": known})
        self._backoff.reset()
        while True:
            self._more.clear()
            for served in [served for served in self._served.values() if not served.accepted.done()]:
                try:
                    await link.call("hub:provide", {"commands": [served.offer]})
                except Refusal as error:
                    served.refuse(error)
                else:
                    if not served.accepted.done():
                        served.accepted.set_result(None)
            await self._more.wait()


async def _until_taken(link: "_Link", command: str, args: Mapping[str, Any]) -> Any:
    """The hub may say no for a while: for it the connection of before is still there, and provides all of it; or it has
    no room now, or no audit log."""
    backoff = Backoff()
    while True:
        try:
            return await link.call(command, args)
        except Refusal as error:
            if error.code != "already_provided" and not error.retryable:
                raise
            delay = backoff.next()
            log.warning("%s Trying again in %.1f s.", error, delay)
            await asyncio.sleep(delay)


async def _first_to_end(*works: Awaitable[None]) -> None:
    """Do these side by side until one ends, and let it say why; the others end with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:
        task.add_done_callback(_heard)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _heard(task: "asyncio.Future[None]") -> None:
    """How it ended is told elsewhere, if anybody asks: asyncio need not log that nobody has."""
    if not task.cancelled():
        task.exception()


class _Link:
    """One such connection: what comes by it, and what is done about it."""

    def __init__(self, socket: Socket, served: Mapping[str, Served]) -> None:
        self._socket, self._served = socket, served
        self.largest = 0  # characters of a frame that the hub takes
        self._ids = itertools.count(1)
        self._asking: dict[str, asyncio.Future[Any]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}  # calls that are worked at, by id

    async def call(self, command: str, args: Mapping[str, Any]) -> Any:
        """As a client's call; the end of the connection is told by `read` alone."""
        id = str(next(self._ids))
        answer = self._asking[id] = asyncio.get_running_loop().create_future()
        await self._socket.send(command_frame(id, command, args))
        return await answer

    async def read(self) -> None:
        try:
            while True:
                self._take((await self._socket.receive())[0])
        except NOT_A_HUB:
            raise foreign() from None

    async def end(self) -> None:
        """Nobody waits for what is worked at any more."""
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=LET_GO)
        await self._socket.close()

    def _take(self, frame: Any) -> None:
        kind, id, payload = frame["type"], frame["id"], frame["payload"]
        if kind == "command":
            self._begin(id, payload["command"], payload["args"])
        elif (answer := self._asking.pop(id, None)) and not answer.done():
            if kind == "response":
                answer.set_result(payload)
            elif kind == "error":
                answer.set_exception(Refusal(payload))

    def _begin(self, id: str, command: str, args: dict[str, Any]) -> None:
        if command == "hub:cancel":
            if (running := self._running.get(args["id"])) is not None:
                running.cancel()
            return
        self._running[id] = task = asyncio.create_task(self._work(ServedCall(id, command, args, self._send)))
        task.add_done_callback(lambda task: self._running.pop(id))

    async def _work(self, call: ServedCall) -> None:
        """Answer one call. Nothing that a handler raises is told but its own refusal; it is in the log."""
        try:
            served = self._served[call.command]
            async with served.slots:
                result = await served.handler(call)
            text = written("response", call.id, result)
        except CommandError as error:
            text = _failure(call, error.message, error.details)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # nobody waits for the answer
            text = self._failed(call)  # something else that it has waited for
        except Exception:
            text = self._failed(call)
        if not self._fits(text):
            log.error("the answer of %s has %d characters: too many for a frame", call.command, len(text))
            text = _failure(call, f"The answer of {call.command} is larger than a frame can be, {self.largest} bytes.")
        with suppress(ConnectionError):  # `read` finds it broken, too
            await self._socket.send(text)

    async def _send(self, text: str) -> None:
        if not self._fits(text):
            raise HubError("too_large", f"This is larger than a frame can be, {self.largest} bytes.")
        await self._socket.send(text)

    def _fits(self, text: str) -> bool:
        """Whether the hub takes it: a larger frame would end the connection, and all that is served."""
        return len(text.encode()) <= self.largest

    def _failed(self, call: ServedCall) -> str:
        reference = new_id()[:8]
        log.exception("%s failed [%s]", call.command, reference)
        sentence = f"{call.command} failed; the log of its provider says why under the reference {reference}."
        return _failure(call, sentence)


def _failure(call: ServedCall, sentence: object, details: Mapping[str, Any] | None = None) -> str:
    """The frame of a refusal: without its details if they are no JSON, and what UTF-8 has no bytes for is escaped."""
    text = str(sentence).encode(errors="backslashreplace").decode()
    payload: dict[str, Any] = {"error": text, "code": "command_failed", "retryable": False}
    if details is not None:
        with suppress(HubError):
            return written("error", call.id, payload | {"details": details})
    return written("error", call.id, payload)
