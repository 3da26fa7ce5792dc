"""A client's place in the stream, and the groups in which clients that are level share the work."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..wire.framing import Framing
from ..wire.names import EVERYTHING, Patterns
from ..wire.vocabulary import GapReason
from .events import Event

if TYPE_CHECKING:
    from socket import socket

log = logging.getLogger("hub")


class Subscriber:
    """One client's place in the stream: what it wants and where it is. Whoever owns the socket derives from this.

    A subscriber is *live* (in a group: alive, level, nothing left over in its socket), *catching up* (it has a task),
    or *ended*, for good. Whatever ends one of these calls `pause` or `Broadcaster.leave` in that very step.

    `write` takes bytes, whole and at once, and keeps what the socket does not take. `straight` is the socket itself, if
    bytes may go there around `write` while nothing is left over. `position` counts only while the subscriber is
    catching up: a live one is where the stream is.
    """

    __slots__ = (
        "_waiters", "deaf", "ended", "framing", "group", "implied", "patterns", "paused", "position", "reason",
        "straight", "task", "told", "write",
    )  # fmt: skip

    def __init__(self, write: Callable[[bytes], None], framing: Framing, straight: "socket | None" = None) -> None:
        self.write, self.framing, self.straight = write, framing, straight
        self.patterns: Patterns = EVERYTHING
        self.implied = True  # nobody asked for these patterns; the first that are asked for replace them
        self.deaf = False  # it gets no events, whatever it asks for
        self.position = 0
        self.told = 0  # the newest position that it knows of, while it is catching up
        self.reason: GapReason = "expired"  # of the next gap: it came back too late, or (once level) reads too slowly
        self.group: Group | None = None
        self.task: asyncio.Task[None] | None = None
        self.ended = False
        self.paused = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def pause(self) -> None:
        """Something is left over in the socket: from this step on nothing may be written around it."""
        self.paused = True
        if self.group is not None:
            self.group.lose(self)

    def resume(self) -> None:
        """Nothing is left over any more."""
        self.paused = False
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self) -> None:
        """Wait until nothing is left over. More than one task may wait."""
        while self.paused:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    def turn_away(self) -> None:
        """End the connection, so that it comes back: what it is to get next cannot be had just now."""
        raise NotImplementedError

    def cut(self) -> None:
        """End the connection at once: it cannot be written to, or is in the middle of a frame that has no end."""
        raise NotImplementedError


class Group:
    """Live subscribers with the same patterns and framing. `told` is the newest position they know of.

    `lost(subscriber)` is called for one that has to catch up from where the group is.
    """

    __slots__ = ("_lost", "_members", "_sends", "framing", "members", "patterns", "straight", "told")

    def __init__(
        self, patterns: Patterns, framing: Framing, straight: bool, told: int, lost: Callable[[Subscriber], None]
    ) -> None:
        self.patterns, self.framing, self.straight, self.told = patterns, framing, straight, told
        self.members: dict[Subscriber, None] = {}
        self._members: list[Subscriber] | None = None  # the same, in a list: made anew when the group has changed
        self._sends: list[Callable[[bytes], int]] = []
        self._lost = lost

    def add(self, subscriber: Subscriber) -> None:
        self.members[subscriber] = self._members = None

    def remove(self, subscriber: Subscriber) -> None:
        del self.members[subscriber]
        self._members = None

    def lose(self, subscriber: Subscriber) -> None:
        """Let one go that is not level any more: it has to catch up."""
        self._lost(subscriber)

    def frames(self, events: Iterable[Event]) -> list[bytes]:
        """Return the bytes of the events that match."""
        if not self.patterns.everything:
            events = filter(self.wants, events)
        return self.framing.events(events)

    def wants(self, event: Event) -> bool:
        return self.patterns.match(event.name)

    def write(self, data: bytes) -> list[Subscriber]:
        """Write to every member: the hot loop, once a flush. Return those that have got nothing of it.

        Members may leave while it runs; whom it could not be written to costs no other anything.
        """
        if self._members is None:
            self._members = list(self.members)
            self._sends = [member.straight.send for member in self._members if member.straight is not None]
        members, missed = self._members, []
        if self.straight:
            return _send(self._sends, members, data)
        for member in members:
            try:
                member.write(data)
            except Exception:  # it is led on by itself; if that fails, too, it is ended
                missed.append(member)
        return missed


def _send(sends: list[Callable[[bytes], int]], members: list[Subscriber], data: bytes) -> list[Subscriber]:
    """Write around the transports, which nothing is left over in: measured over 500 clients 7.2 µs a write, 9 through
    asyncio's. What the kernel does not take, the transport keeps, and pauses its subscriber in that step.

    It is the socket's own `send`, never a descriptor: a closed socket refuses, a number may be somebody else's by now.
    """
    size, missed = len(data), []
    for place, send in enumerate(sends):
        try:
            taken = send(data)
        except BlockingIOError:
            taken = 0
        except OSError:  # it has gone, and its transport is about to hear of it
            missed.append(members[place])
            continue
        if taken != size:
            try:
                members[place].write(data[taken:])
            except Exception:
                log.exception(
                    "a client cannot be written to, which is a bug of the hub; it was cut off and may come back"
                )
                members[place].cut()
    return missed
