"""One connection that the calls of served commands come by: what is worked at, and what is answered."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from ..errors import CommandError, HubError
from ..wire.ids import new_id
from .connections import NOT_A_HUB, Socket, command_frame, foreign, written
from .discovery import Refusal

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
OnLost = Callable[[HubError], object]


class Served:
    """A command with its handler. `accepted` is done when the hub has taken it for the first time, or refused it."""

    def __init__(
        self, offer: Mapping[str, Any], handler: Handler, at_once: int, give_up: float, on_lost: OnLost | None = None
    ) -> None:
        self.offer, self.handler, self.give_up, self.on_lost = offer, handler, give_up, on_lost
        self.slots = asyncio.Semaphore(at_once)
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lost(self, error: HubError) -> None:
        """Another client serves it by now. Whoever asked for it hears of it; what that raises is in the log."""
        if self.on_lost is not None:
            try:
                self.on_lost(error)
            except Exception:
                log.exception("on_lost of %s failed", self.offer["name"])

    def refuse(self, error: Exception) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(error)


class Link:
    """One such connection: what comes by it, and what is done about it."""

    def __init__(self, socket: Socket, served: Mapping[str, Served]) -> None:
        self._socket, self._served = socket, served
        self.largest = 0  # characters of a frame that the hub takes
        self._ids = itertools.count(1)
        self._asking: dict[str, asyncio.Future[Any]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}  # calls that are worked at, by id
        self.offering = set[str]()  # commands that are offered until the hub takes them
        self.on_lost: Callable[[Iterable[str]], None] = lambda names: None

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
        elif kind == "error" and id is None and payload["code"] == "already_provided":
            self.on_lost(payload["details"]["commands"])

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
            text = _failure(call, f"The answer of {call.command} is too large: {self._limit}")
        with suppress(ConnectionError):  # `read` finds it broken, too
            await self._socket.send(text)

    async def _send(self, text: str) -> None:
        if not self._fits(text):
            raise HubError("too_large", f"This is too large: {self._limit}")
        await self._socket.send(text)

    @property
    def _limit(self) -> str:
        where = f"what a provider sends may have {self.largest} bytes (--max-frame of the hub)"
        return f"{where}. It has to say less, or part of it at a time, as its args ask for."

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
