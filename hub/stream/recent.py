"""The last 15 minutes, counted: events and failures, minute by minute. Across a restart as far as kept events reach."""

import math
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from ..errors import HubError

if TYPE_CHECKING:
    from .brokers.broker import Broker
    from .events import Event
    from .window import Window

MINUTES = 15
SLOT = 10.0  # seconds that are counted together, so that the newest minute is nearly a whole one at any moment
SLOTS = 6  # of a minute
PAGE = 200  # kept events that are read at once, at the start: some 2 ms
# What is a failure, and the word that its data must have in it: so hardly any need be parsed.
FAILURES = {"task:progress": ("status", "failed", b'"failed"'), "agent:status_change": ("status", "error", b'"error"')}


class Minute(NamedTuple):
    """What happened in a minute."""

    events: int
    failures: int


class Recent:
    """Counts events by when they were accepted, some hundred numbers in all."""

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}  # by slot: events, failures
        self._since = -math.inf  # the first slot that is known from its beginning

    def apply(self, batch: Sequence["Event"]) -> None:
        """Count a batch from the pump. Never waits."""
        first, last = _slot(batch[0].accepted), _slot(batch[-1].accepted)
        if first == last:
            self._add(last, len(batch), sum(map(_is_failure, batch)))
        else:  # the store was away meanwhile
            for event in batch:
                self._add(_slot(event.accepted), 1, _is_failure(event))
        self._forget()

    def minutes(self) -> list[Minute | None]:
        """The last MINUTES, oldest first; the newest is not over yet. None: nobody knows any more."""
        return [self._minute(_slot(monotonic()) - SLOTS * ago) for ago in reversed(range(MINUTES))]

    def _minute(self, last: int) -> Minute | None:
        slots = range(last - SLOTS + 1, last + 1)
        if slots[0] < self._since:
            return None
        found = [self._counts[slot] for slot in slots if slot in self._counts]
        return Minute(sum(events for events, _ in found), sum(failures for _, failures in found))

    # ---- at the start

    def begin(self, window: "Window", tail: int) -> None:
        """Count what is in the window; `tail` is the oldest number that is kept at all. Never waits."""
        self._restore(window.events(), window.tail, tail)

    async def go_on(self, broker: "Broker", before: int) -> None:
        """Count kept events older than this number, too, until they are too old. In pages, beside everything else."""
        while before > broker.tail and self._since > _oldest():
            try:
                page = await broker.read(max(before - 1 - PAGE, broker.tail - 1), min(PAGE, before - broker.tail))
            except HubError:
                return  # the store is away: what is not counted is not known
            if not page or page[-1].seq != before - 1:
                return
            self._restore(page, page[0].seq, broker.tail)
            before = page[0].seq

    def _restore(self, events: Iterable["Event"], first: int, tail: int) -> None:
        """Count these; all between them and what is counted already is. Before the first event that there ever was,
        nothing happened."""
        oldest, since = _oldest(), None
        for event in events:
            slot = _slot(event.accepted)
            since = slot + 1 if since is None else since  # some of its slot may be missing
            if slot >= oldest:
                self._add(slot, 1, _is_failure(event))
        if first == tail == 1:
            self._since = -math.inf
        elif since is not None:
            self._since = since
        else:
            self._since = _slot(monotonic()) + 1

    def _add(self, slot: int, events: int, failures: int) -> None:
        counts = self._counts.setdefault(slot, [0, 0])
        counts[0] += events
        counts[1] += failures

    def _forget(self) -> None:
        if len(self._counts) > 2 * MINUTES * SLOTS:
            oldest = _oldest()
            self._counts = {slot: counts for slot, counts in self._counts.items() if slot >= oldest}


def _slot(moment: float) -> int:
    return int(moment // SLOT)


def _oldest() -> int:
    """The first slot that can still be shown."""
    return _slot(monotonic()) - MINUTES * SLOTS + 1


def _is_failure(event: "Event") -> bool:
    """Whether a task has failed, or an agent is in error."""
    known = FAILURES.get(event.name)
    if known is None:
        return False
    name, value, word = known
    if word not in event.frame:
        return False
    data = event.data
    return isinstance(data, dict) and data.get(name) == value
