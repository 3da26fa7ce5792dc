"""The connection that calls go by: opened when one is made, and again when one is made after it broke.

What goes over it is bounded: so many calls at once, no faster than the hub wants them, and none that no frame can hold.
"""

import asyncio
import itertools
import math
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

from ..errors import HubError
from .connections import LEAST_PATIENCE, NO_EVENTS, Backoff, Connect, Left, command_frame
from .discovery import Disconnected, NoHub
from .links import Asked, Link

AT_ONCE = 128  # calls of one client; the hub refuses above 256, and gives each the room that it takes
UNBOUNDED = "hub:ask"  # waits for a person, for hours perhaps: it must keep nobody from publishing
TOLD = 1.0  # seconds that a hub gets, when the client is left, to hear of the calls that were cancelled
GAP = 0.001  # seconds between two calls, at least, once the hub has said that they come too fast


class Calls:
    """All calls of one client, as long as it is entered."""

    def __init__(self, connect: Connect, patience: float, *, is_near: bool) -> None:
        self._patience, self._is_near = patience, is_near
        self._door = Door(connect, is_near=is_near)
        self._ids = itertools.count(1)
        self._slots, self._pace = asyncio.Semaphore(AT_ONCE), Pace()

    async def call(
        self,
        command: str,
        args: Mapping[str, Any],
        key: str | None = None,
        confirm: str | None = None,
        *,
        again: bool = False,
        keyed: bool = False,
    ) -> Any:
        """Make one call, `again` also when nobody knows whether it ran, until it is answered or `patience` is over; so
        too where it is `keyed`, with a key by which the hub knows it.

        Raises Refusal, Disconnected, NoHub, and HubError `too_large` for what no frame can hold.
        """
        id = str(next(self._ids))
        text = command_frame(id, command, args, idempotency_key=key, confirm=confirm)
        asked = Asked(id, command, text, again, asyncio.get_running_loop().time(), keyed)
        async with nullcontext() if command == UNBOUNDED else self._slots:
            return await self._answer(asked)

    async def _answer(self, asked: Asked) -> Any:
        clock, backoff, lost = asyncio.get_running_loop().time, Backoff(is_near=self._is_near), None
        give_up = max(asked.at, self._door.seen()) + self._patience  # to stand in line is not to wait for a hub
        while True:
            try:
                link = await self._door.opened(asked.at, give_up)
            except (NoHub, HubError) as error:
                if lost is None or isinstance(error, Left):
                    raise
                raise lost from error  # whether the hub has it, nobody knows
            try:
                await self._pace.turn()
                await link.fit(asked)
                return await link.ask(asked)
            except HubError as error:
                left = give_up - clock()
                if left <= 0 or not asked.is_to_be_made_again(error):
                    raise
                lost = error if type(error) is Disconnected else lost
                await asyncio.sleep(min(left, self._pace.after(error, backoff)))

    async def withdrawn(self) -> None:
        """Return when the hub has heard of the calls that were cancelled, or gets no more time for it."""
        await asyncio.sleep(0)  # who was cancelled just now has not noticed it yet
        if self._door.link is not None and self._door.link.withdrawals:
            await asyncio.wait(self._door.link.withdrawals, timeout=TOLD)

    async def close(self) -> None:
        """Fail what still waits or runs, and close the connection."""
        await self._door.close()


class Pace:
    """How fast calls are made: as they come, until the hub says that this is too fast; then as it says."""

    def __init__(self) -> None:
        self._gap = self._next = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        at = max(now, self._next)
        self._next = at + self._gap
        if at > now:
            await asyncio.sleep(at - now)

    def after(self, error: HubError, backoff: Backoff) -> float:
        """Seconds before the call is made again. The hub says how long it takes until there is room for one, which is
        never longer than what lies between two: the longest that was ever heard, and a little more, is the pace."""
        if error.code == "rate_limited":
            self._gap = max(self._gap, 1.1 * max(error.retry_after or 0.0, GAP))
        return backoff.next() if error.retry_after is None else error.retry_after


class Door:
    """The way to the connection, for all who wait for it at once, each as long as it may."""

    def __init__(self, connect: Connect, *, is_near: bool) -> None:
        self.link: Link | None = None
        self._connect, self._is_near = connect, is_near
        self._opening: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[Link], float] = {}
        self._came = asyncio.Event()
        self._failure: ConnectionError | None = None  # of the last attempt, and
        self._failed = 0.0  # when that was
        self._closed = False

    def seen(self) -> float:
        """When there was a connection last, by the loop's clock."""
        if self.link is None:
            return -math.inf
        return asyncio.get_running_loop().time() if self.link.broken is None else self.link.ended

    async def opened(self, begun: float, give_up: float) -> Link:
        """The connection that there is, or a new one. Raises NoHub (or what else the last attempt has met) when there
        was none from when this was `begun` until `give_up`, by the loop's clock."""
        if self._closed:
            raise Left
        if self.link is not None and self.link.broken is None:
            return self.link
        loop = asyncio.get_running_loop()
        if self._failure is not None and begun <= self._failed and give_up <= loop.time():
            raise self._failure
        waiting: asyncio.Future[Link] = loop.create_future()
        self._waiting[waiting] = give_up
        self._came.set()
        if self._opening is None or self._opening.done():
            self._opening = loop.create_task(self._open())
        try:
            async with asyncio.timeout_at(max(give_up, loop.time() + LEAST_PATIENCE)):
                return await waiting
        except TimeoutError:
            raise self._failure or NoHub("The hub does not answer in time.") from None
        finally:
            del self._waiting[waiting]
            if not self._waiting and self._opening is not None:
                self._opening.cancel()
                self._opening = None  # who comes now begins anew

    async def close(self) -> None:
        self._closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Left())
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if self.link is not None:
            await self.link.close()

    async def _open(self) -> None:
        """Try, as long as anybody waits. Who comes has it tried soon, however long the hub has been away."""
        backoff = Backoff(is_near=self._is_near)
        while True:
            self._came.clear()
            try:
                self.link = Link(await self._connect({"topics": NO_EVENTS}))
                self._failure = None
            except ConnectionError as error:
                self._failure, self._failed = error, asyncio.get_running_loop().time()
                self._fail(error, self._failed)
            except Exception as error:  # coming back cannot help
                self._fail(error)
                return
            else:
                for waiting in self._waiting:
                    if not waiting.done():
                        waiting.set_result(self.link)
                return
            delay = backoff.next()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._came.wait()
                    backoff.reset()
                    await asyncio.sleep(backoff.next())

    def _fail(self, error: Exception, now: float | None = None) -> None:
        """Those whose time is over by now, or all."""
        for waiting, give_up in self._waiting.items():
            if not waiting.done() and (now is None or give_up <= now):
                waiting.set_exception(error)
