"""One connection that calls go by: what is asked by it, and the task that reads the answers."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import HubError
from .connections import NOT_A_HUB, Left, Socket, command_frame, foreign
from .discovery import Disconnected, Refusal

SMALL = 32 * 1024  # bytes of a frame about which no hub need be asked; by default it takes twice as many
NEVER_RAN = ("rate_limited", "busy")  # refusals of a call that is made again by itself, whatever it does
FOR_A_WHILE = (*NEVER_RAN, "shutting_down", "broker_unavailable", "audit_unavailable")  # and a broken connection


class NotSent(Disconnected):
    """The connection broke before the call was sent by it."""


class Asked(NamedTuple):
    """One call: its frame, whether it is made `again` when nobody knows if it ran, when it was begun, and whether it is
    `keyed`: then the hub runs it once, however often it is made."""

    id: str
    command: str
    text: str
    again: bool = False
    at: float = 0.0
    keyed: bool = False

    def is_to_be_made_again(self, error: HubError) -> bool:
        if self.keyed:
            return error.retryable and error.code in FOR_A_WHILE
        return error.retryable if self.again else isinstance(error, NotSent) or error.code in NEVER_RAN


class Link:
    """One such connection: what is asked by it, and the task that reads the answers."""

    def __init__(self, socket: Socket) -> None:
        self.broken: HubError | None = None
        self.ended = 0.0  # when it broke, by the loop's clock
        self.withdrawals: set[asyncio.Task[None]] = set()
        self._socket = socket
        self._running: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._largest: int | None = None
        self._reader = asyncio.create_task(self._read())

    async def ask(self, asked: Asked) -> Any:
        """Send one call and return its answer. Who is cancelled has it cancelled in the hub, too."""
        result = self._begin(asked.id, asked.command)
        try:
            await self._send(asked.text)
            return await result
        except asyncio.CancelledError:
            if self.broken is None:
                task = asyncio.create_task(self._cancel(asked.id))
                self.withdrawals.add(task)
                task.add_done_callback(self.withdrawals.discard)
            raise
        finally:
            self._running.pop(asked.id, None)

    async def fit(self, asked: Asked) -> None:
        """Raises HubError `too_large` for what no frame can hold: the hub would end the connection, and with it what
        others ask by it."""
        size = len(asked.text) if asked.text.isascii() else len(asked.text.encode())
        if size <= SMALL:
            return
        if self._largest is None:
            self._largest = await self._ask_largest(f"info-{asked.id}")
        if size > self._largest:
            sentence = f"This call has {size} bytes; the hub takes {self._largest}. Publish larger events with a POST."
            raise HubError("too_large", sentence)

    async def _ask_largest(self, id: str) -> int:
        try:
            info = await self.ask(Asked(id, "hub:info", command_frame(id, "hub:info", {})))
        except Disconnected as error:
            raise error if isinstance(error, Left) else NotSent(error.message) from None
        return int(info["limits"]["max_frame"])

    async def close(self) -> None:
        self._end(Left())
        self._reader.cancel()
        await asyncio.wait({self._reader})
        await self._socket.close()

    def _begin(self, id: str, command: str) -> "asyncio.Future[Any]":
        if self.broken is not None:
            raise NotSent(self.broken.message)
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        result.add_done_callback(_heard)
        self._running[id] = command, result
        return result

    async def _send(self, text: str) -> None:
        with suppress(ConnectionError):  # the reader finds it broken, too, and fails the call
            await self._socket.send(text)

    async def _cancel(self, id: str) -> None:
        own = f"cancel-{id}"
        try:
            with suppress(HubError):
                result = self._begin(own, "hub:cancel")
                await self._send(command_frame(own, "hub:cancel", {"id": id}))
                await result
        finally:
            self._running.pop(own, None)

    async def _read(self) -> None:
        try:
            while True:
                self._take((await self._socket.receive())[0])
        except HubError as error:
            self._end(error)
        except NOT_A_HUB:
            self._end(foreign())
        finally:
            self._end(Left())  # who has cancelled this, has left
        await self._socket.close()

    def _take(self, frame: Any) -> None:
        kind, payload = frame["type"], frame["payload"]
        _, result = self._running.get(frame["id"], (None, None))
        if kind not in ("response", "error") or result is None or result.done():
            return  # a mark; or the answer to a call that is no longer waited for
        if kind == "response":
            result.set_result(payload)
        else:
            result.set_exception(Refusal(payload))

    def _end(self, broken: HubError) -> None:
        """Nothing more is asked by this connection; whether what runs was done, nobody knows."""
        if self.broken is None:
            self.broken, self.ended = broken, asyncio.get_running_loop().time()
            for command, result in self._running.values():
                if not result.done():
                    result.set_exception(_while_running(broken, command))


def _while_running(broken: HubError, command: str) -> HubError:
    if isinstance(broken, Left):
        return Left()
    return Disconnected(f"{broken} The call of {command} was running; whether it was done is not known.")


def _heard(result: "asyncio.Future[Any]") -> None:
    """How it ended is told to who waits: asyncio need not log that nobody does any more."""
    if not result.cancelled():
        result.exception()
