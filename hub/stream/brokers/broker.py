"""How events are kept and travel. A broker numbers events, keeps them, and hands every one on, in order."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from ..events import Draft, Event

Pump = Callable[[list[Event]], Awaitable[None]]


class Receipt(NamedTuple):
    """What became of a draft: its number, or that of the first event with the same id."""

    seq: int
    duplicate: bool


class Limits(NamedTuple):
    """How much of the stream is kept: events, their bytes, and seconds (None: as long as there is room)."""

    events: int
    bytes: int
    seconds: float | None = None


class Kept(NamedTuple):
    """The last event of a key, from before the start; `stale` if the end of its lease has been announced."""

    event: Event
    stale: bool


class Broker(Protocol):
    """What the hub needs of a broker. One stream of events, numbered from 1 without holes in each epoch."""

    epoch: str
    head: int  # the newest number given
    tail: int  # the oldest number kept; head + 1 if nothing is
    bytes: int  # of the kept events
    limits: Limits
    problem: str | None  # one sentence on why events cannot be kept just now

    async def open(self, pump: Pump) -> None:
        """Get ready; from here on give every event to `pump`, in order, in batches, one batch at a time.

        Raises UsageError if the hub cannot start like this.
        """

    async def last_values(self) -> list[Kept]:
        """Once after `open`: the last event of every key, longest unchanged first, also of those trimmed since."""

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Number and keep the drafts, all or none. What it returns is kept. Raises HubError `broker_unavailable`."""

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        """The oldest kept events behind `after`, in order, without holes between them: at most `limit`, and no more
        once they fill `size` bytes."""

    async def close(self) -> None:
        """Take no more; returns when all that was accepted has been through the pump."""


class Outlet:
    """The way from a broker to the pump, in the publisher's own step: no task has to wake for it."""

    def __init__(self, pump: Pump) -> None:
        self._pump, self._fresh, self._pumping = pump, list[Event](), False

    async def send(self, events: Sequence[Event]) -> None:
        """Hand events on. If the pump is at work already, it takes these, too, so that there is one order."""
        self._fresh += events
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._fresh:
                batch, self._fresh = self._fresh, []
                await self._pump(batch)
        finally:
            self._pumping = False
