"""A connection to a Redis or Valkey.

The client library repeats commands by itself, and ends a read that waits: neither may be. What has been sent and not
answered may have been done; nobody but a publisher with an id may send it again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import connection as library
from redis.exceptions import ResponseError

from .server import Away, Server

PATIENCE = 2.0  # seconds that an answer may take; then the server is away
STALL = 0.25  # seconds that an answer gets once more if it was this process that stood still

Answered = asyncio.Future[Any]


def _is_numbers(reply: Any) -> bool:
    """A number, and pairs of them."""
    return isinstance(reply, list) and len(reply) % 2 == 1 and all(isinstance(number, int) for number in reply)


def _is_list(reply: Any) -> bool:
    return isinstance(reply, list)


def _may_be_anything(reply: Any) -> bool:
    return True


# What the functions return that every hub lives by. Another is of a library that is not the hubs'.
RETURNS: dict[str, Callable[[Any], bool]] = dict.fromkeys(("look", "open", "tidy", "read", "names", "values"), _is_list)
RETURNS = {f"hub_{name}": is_right for name, is_right in {**RETURNS, "append": _is_numbers}.items()}


class Connection:
    """Commands to the server. They go out with all others of the same pass of the loop, and are answered in order.

    Once it is cut, by whatever it may be, all that were not answered fail with the reason, and so do all further ones.
    """

    def __init__(self, server: Server, wire: library.AbstractConnection) -> None:
        self.server = server
        self.cut: Exception | None = None  # why
        self.on_cut: Callable[[Exception], None] = lambda reason: None
        self.heard: Callable[[bytes, bytes], None] | None = None  # channel and message, of what it subscribes to
        self._wire: Any = wire  # half of it has no types
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, Answered, str]] = deque()  # since when, who, and for which function
        self._news, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = [self._loop.create_task(work) for work in (self._write(), self._read())]

    @classmethod
    async def make(cls, server: Server) -> "Connection":
        """Connect. Raises Away, Refused, and UsageError for a URL that it cannot be done with."""
        wire = server.wire(PATIENCE)
        try:
            async with asyncio.timeout(PATIENCE):
                await wire.connect()
        except BaseException as error:
            with contextlib.suppress(Exception):
                await wire.disconnect(nowait=True)
            if isinstance(error, Exception):
                raise server.trouble(error) from None
            raise
        server.reached = True
        return cls(server, wire)

    def send(self, *words: bytes | str | int, function: str = "") -> Answered:
        """Send a command. The answer raises Away, Refused or Moved."""
        answer: Answered = self._loop.create_future()
        if self.cut is not None:
            answer.set_exception(self.cut)
            return answer
        self._out += self._wire.pack_command(*words)
        self._waiting.append((self._loop.time(), answer, function))
        self._news.set()
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._look, self._loop.time() + PATIENCE)
        return answer

    def run(self, name: str, *args: bytes | str | int, keys: Sequence[str] | None = None) -> Answered:
        """Send the call of a function of the library."""
        keys = self.server.keys if keys is None else keys
        return self.send("FCALL", name, len(keys), *keys, *args, function=name)

    def close(self, reason: Exception | None = None) -> None:
        """Cut it. Never waits."""
        if self.cut is None:
            self.cut = reason or Away("The connection was closed.")
            for task in self._tasks:
                task.cancel()
            if self._timer is not None:
                self._timer.cancel()
            self._loop.create_task(self._disconnect())
            waiting, self._waiting = self._waiting, deque()
            for _, answer, _ in waiting:
                _fail(answer, self.cut)
            self.on_cut(self.cut)

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):
            await self._wire.disconnect(nowait=True)

    async def _write(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                out, self._out = self._out, []
                await self._wire.send_packed_command(out, check_health=False)
        except Exception as error:
            self.close(self.server.trouble(error))

    async def _read(self) -> None:
        try:
            while True:
                try:
                    result = await self._wire.read_response(disable_decoding=True)
                except ResponseError as error:
                    _fail(self._waiting.popleft()[1], self.server.trouble(error))
                else:
                    if self.heard is not None and result[0] == b"message":
                        self.heard(result[1], result[2])
                        continue
                    _, answer, function = self._waiting.popleft()
                    if not RETURNS.get(function, _may_be_anything)(result):
                        _fail(answer, self.server.foreign_library())
                    elif not answer.done():  # else whoever asked has gone
                        answer.set_result(result)
        except Exception as error:
            self.close(self.server.trouble(error))

    def _look(self, due: float) -> None:
        """Whether the oldest command has waited too long."""
        now, self._timer = self._loop.time(), None
        if self._waiting:
            ends = self._waiting[0][0] + PATIENCE
            if now - due > STALL:  # nobody can know who was slow
                ends = max(ends, now + STALL)
            if ends <= now:
                self.close(Away(f"Redis at {self.server.place} does not answer."))
            else:
                self._timer = self._loop.call_at(ends, self._look, ends)


def _fail(answer: Answered, error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # nobody need ask
