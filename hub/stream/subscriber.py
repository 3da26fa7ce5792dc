"""A client's place in the stream, and the groups in which clients that are level share the work."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..wire.names import EVERYTHING, Patterns
from .events import Event

log = logging.getLogger("hub")


class Subscriber:
    """One client's place in the stream: what it wants and where it is. Whoever owns the socket derives from this.

    `write` takes bytes, whole and at once. `position` counts only while the subscriber is behind: a level one is where
    the stream is.
    """

    __slots__ = ("group", "implied", "patterns", "position", "reason", "task", "told", "write")
    sse = False

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        self.patterns: Patterns = EVERYTHING
        self.implied = True  # nobody asked for these patterns; the first that are asked for replace them
        self.position = 0
        self.told = 0  # the newest position that it knows of, while it is behind
        self.reason = "expired"  # of the next gap: it came back too late, or (once level) it reads too slowly
        self.group: Group | None = None
        self.task: asyncio.Task[None] | None = None

    def full(self) -> bool:
        """Whether the socket's buffer is over its limit."""
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until it is not. More than one task may wait."""
        raise NotImplementedError

    def turn_away(self) -> None:
        """End the connection, so that it comes back: what it is to get next cannot be had just now."""
        raise NotImplementedError

    @classmethod
    def handles(cls, members: Iterable[Any]) -> list[Any]:
        """What `write_all` needs of each of these subscribers, in their order; asked for when a group has changed."""
        return list(members)

    @classmethod
    def write_all(cls, handles: Sequence[Any], data: bytes) -> tuple[list[int], list[int]]:
        """Write to each; returns the places of those that are full now, and of those that cannot be written to.

        Once a flush and group: the hot loop. A transport that breaks must not cost the others their events.
        """
        full, broken = [], []
        for place, subscriber in enumerate(handles):
            try:
                subscriber.write(data)
                if subscriber.full():
                    full.append(place)
            except Exception:
                log.exception("a client cannot be written to and gets nothing more")
                broken.append(place)
        return full, broken

    @property
    def transport(self) -> str:
        return "sse" if self.sse else "websocket"


class Group:
    """Level subscribers of one kind with the same patterns. `told` is the newest position they know of."""

    __slots__ = ("_handles", "kind", "members", "patterns", "told")

    def __init__(self, patterns: Patterns, kind: type[Subscriber], told: int) -> None:
        self.patterns, self.kind, self.told = patterns, kind, told
        self.members: dict[Subscriber, None] = {}
        self._handles: list[Any] | None = None

    def add(self, subscriber: Subscriber) -> None:
        self.members[subscriber] = self._handles = None

    def remove(self, subscriber: Subscriber) -> None:
        del self.members[subscriber]
        self._handles = None

    def frames(self, events: Iterable[Event]) -> list[bytes]:
        """The bytes of the events that match."""
        if not self.patterns.everything:
            events = filter(self.wants, events)
        return [event.sse for event in events] if self.kind.sse else [event.frame for event in events]

    def wants(self, event: Event) -> bool:
        return self.patterns.match(event.name)

    def write(self, data: bytes) -> tuple[list[Subscriber], list[Subscriber]]:
        """Write to every member; returns those that are full now, and those that cannot be written to."""
        if self._handles is None:
            self._handles = self.kind.handles(self.members)
        full, broken = self.kind.write_all(self._handles, data)
        if not full and not broken:
            return [], []
        members = list(self.members)
        return [members[place] for place in full], [members[place] for place in broken]
