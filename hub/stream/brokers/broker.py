"""How events are kept and travel. A broker numbers events, keeps them, and hands every one on, in order."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ...errors import HubError
from ...wire.names import Cursor
from ..events import Draft, Event
from .peers import Peers

RETRY_SECONDS = 1.0  # after which it is worth to try again

Pump = Callable[[list[Event]], Awaitable[None]]


class Receipt(NamedTuple):
    """What became of a draft: its number, or that of the first event with the same id."""

    seq: int
    duplicate: bool


class Limits(NamedTuple):
    """How much is kept of the stream, or of the last values: events, their bytes, and seconds (None: as long as there
    is room)."""

    events: int
    bytes: int
    seconds: float | None = None


class Kept(NamedTuple):
    """The last event of a key, from before the start, and which hub:stale has announced the end of its lease: its
    number, or 0."""

    event: Event
    stale: int


class Past(NamedTuple):
    """What is known of a call that may be repeated: a digest of what was called, and whether it was answered, else
    nobody knows whether it has run."""

    what: bytes
    answered: bool


class Answers(Protocol):
    """How calls that may be repeated have ended. `place` is a digest of who called with which key.

    Kept for an hour, within bounds. Every method raises HubError `broker_unavailable`.
    """

    async def recall(self, place: bytes) -> Past | None:
        """What is known of the call there."""

    async def told(self, place: bytes) -> bytes | None:
        """What it was answered; None if that is not kept any more."""

    async def remember(self, place: bytes, what: bytes, answer: bytes | None) -> None:
        """Keep that a call is about to run, or what it is answered, as safely as an event is kept. What it returns from
        is kept; where it raises, or is cancelled, it may have been."""


class Lost(NamedTuple):
    """Events are gone from the stream: of those that have been through the pump all behind the number `kept`, or all
    that had still to come, up to the new head. It goes on behind the broker's new `head`, with these last values."""

    epoch: str  # in which they were seen
    kept: int
    values: list[Kept]


OnLost = Callable[[Lost], None]


class Broker(Protocol):
    """What the hub needs of a broker. One stream of events, numbered from 1 without holes, on into each new epoch."""

    epoch: str
    lineage: Mapping[str, int]  # earlier epochs, and the last number that is still the same in each
    head: int  # the newest number given
    tail: int  # the oldest number kept; head + 1 if nothing is
    bytes: int  # of the kept events
    limits: Limits
    answers: Answers
    problem: str | None  # one sentence on why events cannot be kept just now
    peers: Peers | None  # the other hubs of the stream, if there can be any

    async def open(self, pump: Pump) -> None:
        """Get ready; from `begin` on give every event to `pump`, in order, in batches, one batch at a time.

        Raises UsageError if the hub cannot start like this.
        """

    def begin(self, on_lost: OnLost) -> None:
        """Once after `open`, when the hub has read what is kept up to `head`: hand on what comes behind it.

        `on_lost` is called in the step in which a broker that others write to finds that events are gone.
        """

    async def last_values(self) -> list[Kept]:
        """Once after `open`: the last event of every key, longest unchanged first, also of those trimmed since."""

    async def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Number and keep the drafts, all or none. What it returns is kept. Raises HubError `broker_unavailable`."""

    async def read(self, after: int, limit: int, size: int | None = None) -> list[Event]:
        """The oldest kept events behind `after`, in order, without holes between them: at most `limit`, and no more
        once they fill `size` bytes."""

    async def names(self, after: int, limit: int) -> list[tuple[int, str]]:
        """The numbers and names of the oldest kept events behind `after`, at most `limit`: a tenth of the cost of
        reading the events."""

    async def reach(self, cursor: Cursor) -> None:
        """Return when the hub knows of this cursor, if the stream does. Raises HubError `broker_unavailable` if that
        takes too long."""

    async def close(self) -> None:
        """Take no more; returns when all that was accepted has been through the pump. Raises nothing."""


class Outlet:
    """The way from a broker to the pump, in the publisher's own step: no task has to wake for it.

    What has been taken goes through once, in order and without holes; if the pump fails, it stays here and goes first
    next time.
    """

    def __init__(self, pump: Pump, head: int = 0) -> None:
        self._pump, self._head = pump, head
        self._fresh, self._pumping = list[Event](), False

    def take(self, events: Sequence[Event]) -> None:
        """Take the next events; `flush` hands them on. Raises RuntimeError if they are not the next ones: a hole would
        never close again."""
        if events[0].seq != self._head + 1:
            raise RuntimeError(f"the event {events[0].seq} came behind {self._head}")
        self._fresh += events
        self._head = events[-1].seq

    async def flush(self) -> None:
        """Hand on what is here. If the pump is at work already, it takes this, too, so that there is one order."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._fresh:
                batch = self._fresh.copy()
                await self._pump(batch)
                del self._fresh[: len(batch)]
        finally:
            self._pumping = False


def unavailable(sentence: str) -> HubError:
    """Refuse, for now."""
    return HubError("broker_unavailable", sentence, retry_after=RETRY_SECONDS)
