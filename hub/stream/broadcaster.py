"""Who gets what, and when it is written. One stream, many cursors.

Subscribers that are level with the stream stand in groups of equal patterns and framing; one flush joins the new
bytes once a group and writes them once a subscriber. One that is not level any more, because its socket is full or it
resumes from far behind, leaves its group with its position and is led up to the head (catchup.py); then it returns.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence

from ..errors import HubError
from ..wire.framing import Framing
from ..wire.names import Cursor, Patterns
from ..wire.vocabulary import GapReason, Transport
from .brokers.broker import Broker
from .catchup import CatchUp
from .events import Event
from .pages import Pages
from .subscriber import Group, Subscriber
from .window import Window

log = logging.getLogger("hub")

# When to flush (measured, see the README): four passes of the loop without news; or 2 ms after the first event, or
# twice as long as the last flush took, if that is more; or at 64 events or 256 KiB. Requests pipelined on one
# connection arrive a few passes apart; this joins them.
QUIET_PASSES = 4
LONGEST_WAIT = 0.002
MOST_EVENTS = 64
MOST_BYTES = 256 * 1024


class Broadcaster:
    """Delivers the stream. `position` is the newest number that every live subscriber has been written.

    `on_write(transport, events, subscribers, bytes)` and `on_gap(reason, count)` are called in place, for metrics;
    `on_flush(events, seconds)` once a flush, with what has just been written and how long that took.
    """

    def __init__(self, window: Window, broker: Broker) -> None:
        self.window, self.broker = window, broker
        self.position = 0
        self.on_flush: Callable[[Sequence[Event], float], None] = lambda events, seconds: None
        self.pages = Pages(window, broker)
        self._catchup = CatchUp(window, broker, self.pages, self._enter_group, self.leave, self._broken)
        self._groups: dict[tuple[Patterns, Framing, bool], Group] = {}
        self._untold: dict[Subscriber, int] = {}  # those that came level here without an event, unlike their groups
        self._next_pass: asyncio.Handle | None = None
        self._first, self._seen, self._quiet = 0.0, 0, 0
        self._waiting = 0  # bytes not flushed yet
        self._last_flush = 0.0  # how long it took

    def connect(
        self, on_write: Callable[[Transport, int, int, int], None], on_gap: Callable[[GapReason, int | None], None]
    ) -> None:
        """Tell from here on what is written, and what is told as missing."""
        self._catchup.on_write, self._catchup.on_gap = on_write, on_gap

    def start_at(self, head: int) -> None:
        """Begin behind `head`, with what the window has up to it from before."""
        if self.window.head != head:
            self.window.start_at(head)
        self.position = head

    @property
    def cursor(self) -> Cursor:
        """The newest position of the stream."""
        return Cursor(self.broker.epoch, self.window.head)

    @property
    def lagging(self) -> int:
        """How many subscribers are catching up."""
        return len(self._catchup.behind)

    def lag(self, subscriber: Subscriber) -> int:
        """Return how many numbers the subscriber has not been written yet."""
        return self.window.head - (self.position if subscriber.group else subscriber.position)

    # ---- events come in

    def deliver(self, batch: Sequence[Event]) -> None:
        """Take a batch from the pump; it is written soon, together with what follows closely. Never waits."""
        self.window.extend(batch)
        self._waiting += sum([event.size for event in batch])
        if self._waiting >= MOST_BYTES or self.window.head - self.position >= MOST_EVENTS:
            self.flush()
        elif not self._groups:
            self.position = self.window.head
        elif self._next_pass is None:
            self._first, self._seen, self._quiet = time.monotonic(), self.window.head, 0
            self._next_pass = asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """One pass of the event loop: flush, or see whether more arrives."""
        self._quiet = self._quiet + 1 if self.window.head == self._seen else 0
        self._seen = self.window.head
        waited = time.monotonic() - self._first
        if self._quiet >= QUIET_PASSES or waited >= max(LONGEST_WAIT, 2 * self._last_flush):
            self.flush()
        else:
            self._next_pass = asyncio.get_running_loop().call_soon(self._pass)

    def flush(self) -> None:
        """Write what lies between `position` and the head to every live subscriber. Never waits.

        Whoever cannot be written to is caught up from where it was: nobody is passed over, and it costs nobody else.
        """
        if self._next_pass is not None:
            self._next_pass.cancel()
            self._next_pass = None
        self._waiting = 0
        before, self.position = self.position, self.window.head
        if before == self.position:
            return
        if not self.window.covers(before):  # one batch larger than the whole window: the store has it
            for group in list(self._groups.values()):
                self._fall_behind(list(group.members), before)
            return
        started = time.monotonic()
        events = self.window.between(before, self.position)
        for group in list(self._groups.values()):
            self._fall_behind(self._write(group, events), before)
        self._last_flush = time.monotonic() - started
        self.on_flush(events, self._last_flush)

    def _write(self, group: Group, events: Sequence[Event]) -> list[Subscriber]:
        """Write the events that the group wants; return those members that have got nothing."""
        frames = group.frames(events)
        if not frames:
            return []
        data, members = group.framing.joined(frames), len(group.members)
        group.told = self.position
        missed = group.write(data)
        self._catchup.on_write(group.framing.transport, len(frames), members - len(missed), len(data))
        return missed

    # ---- subscribers come and go

    def join(self, subscriber: Subscriber, patterns: Patterns, after: Cursor | None = None) -> Cursor:
        """Put a subscriber into the stream: at the head, or behind `after`. One step, nothing is lost in between.

        Returns the position behind which its stream goes on. Raises HubError `unknown_cursor` for a cursor in the
        future of this epoch, `cancelled` for a subscriber that has ended.
        """
        self._refuse_ended(subscriber)
        position, foreign = self.start(after)
        self._detach(subscriber)
        subscriber.patterns, subscriber.position, subscriber.told = patterns, position, position
        if after is not None:
            subscriber.reason = "expired"
        try:
            if foreign:
                self._catchup.tell_gap(subscriber, str(foreign), position + 1, "epoch")
            self._catchup.advance(subscriber)
        except Exception:
            self._broken(subscriber)
        return Cursor(self.broker.epoch, position)

    def narrow(self, subscriber: Subscriber, patterns: Patterns) -> Cursor:
        """Change what a subscriber gets from here on; its position stays. Returns that.

        Raises HubError `cancelled` for a subscriber that has ended.
        """
        self._refuse_ended(subscriber)
        self.flush()  # what was accepted before still belongs to the old patterns
        subscriber.patterns = patterns
        if subscriber.group is None:
            return Cursor(self.broker.epoch, subscriber.position)
        self._leave_group(subscriber)
        subscriber.told = self.position
        self._enter_group(subscriber)
        return Cursor(self.broker.epoch, self.position)

    def leave(self, subscriber: Subscriber) -> None:
        """End a subscriber, for good: nothing is written to it from this step on. One that has ended is no error."""
        subscriber.ended = True
        self._leave_group(subscriber)
        self._catchup.stop(subscriber)

    def lose(self, epoch: str, kept: int) -> None:
        """Go on at the broker's new head: of what was seen in this epoch, the events behind `kept` are gone. Whoever
        may have got them is told, and goes on behind what is left. Never waits."""
        if self._next_pass is not None:
            self._next_pass.cancel()
            self._next_pass = None
        self._waiting, before = 0, self.position
        live = [subscriber for group in self._groups.values() for subscriber in group.members]
        places = [(subscriber, before) for subscriber in live]
        places += [(subscriber, subscriber.position) for subscriber in self._catchup.behind]
        self.pages.lose()
        self.window.start_at(self.broker.head)
        self.position = self.window.head
        for subscriber, position in places:
            self._leave_group(subscriber)
            self._catchup.stop(subscriber)
            self._go_on(subscriber, Cursor(epoch, position), kept)

    def _go_on(self, subscriber: Subscriber, seen: Cursor, kept: int) -> None:
        if seen.seq <= kept:
            self._catchup.begin(subscriber, seen.seq)
            return
        start = max(kept, self.broker.tail - 1)
        subscriber.reason = "expired"
        try:
            self._catchup.tell_gap(subscriber, str(seen), start + 1, "epoch")
            self._catchup.begin(subscriber, start)
        except Exception:
            self._broken(subscriber)

    def mark(self) -> None:
        """Tell narrowed subscribers where they are, if that moved without an event for them. Once a heartbeat."""
        self.flush()
        for group in list(self._groups.values()):
            if group.told < self.position and group.patterns.are_narrow:
                group.told = self.position
                self._fall_behind(group.write(self._mark(group.framing)), self.position)
        untold, self._untold = self._untold, {}
        for subscriber, position in untold.items():
            if subscriber.group is not None and subscriber.group.told <= position:
                self._tell(subscriber, self._mark(subscriber.framing))

    def _mark(self, framing: Framing) -> bytes:
        return framing.notice("hub:mark", {"cursor": str(Cursor(self.broker.epoch, self.position))})

    def _tell(self, subscriber: Subscriber, data: bytes) -> None:
        try:
            subscriber.write(data)
        except Exception:
            self._broken(subscriber)

    def _broken(self, subscriber: Subscriber) -> None:
        """End one that cannot be written to: nobody stays connected who would get nothing more and not know it."""
        if not isinstance(sys.exception(), ConnectionError):  # which only says that it has gone
            log.exception(
                "a client cannot be written to and gets nothing more, which is a bug of the hub; "
                "it was cut off and may come back"
            )
        self.leave(subscriber)
        subscriber.cut()

    def start(self, after: Cursor | None) -> tuple[int, Cursor | None]:
        """Return where a stream begins, and the cursor it asked for if what that has seen is not all here: it is of an
        unknown epoch, or behind the end of an earlier one. Raises HubError `unknown_cursor` for one in the future of
        this epoch."""
        if after is None:
            return self.window.head, None
        if after.epoch != self.broker.epoch:
            known = after.seq <= self.broker.lineage.get(after.epoch, -1)
            return (after.seq, None) if known else (self.broker.tail - 1, after)
        if after.seq > self.window.head:
            raise HubError("unknown_cursor", f"The cursor {after} lies in the future: the newest is {self.cursor}.")
        return after.seq, None

    @staticmethod
    def _refuse_ended(subscriber: Subscriber) -> None:
        """Nothing brings back who has gone: its socket may be somebody else's by now."""
        if subscriber.ended:
            raise HubError("cancelled", "The client has gone.")

    # ---- where they stand

    def _detach(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of the stream, to be put in again elsewhere."""
        self.flush()  # what was accepted before still belongs to where it was
        self._leave_group(subscriber)
        self._catchup.stop(subscriber)

    def _enter_group(self, subscriber: Subscriber) -> None:
        """Make a subscriber live that is alive, level with the head, and has nothing left over."""
        self.flush()
        key = (subscriber.patterns, subscriber.framing, subscriber.straight is not None)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(*key, self.position, self._lost)
        group.add(subscriber)
        subscriber.group, subscriber.reason = group, "slow"
        if subscriber.told < self.position and subscriber.patterns.are_narrow:
            self._untold[subscriber] = self.position

    def _leave_group(self, subscriber: Subscriber) -> None:
        group, subscriber.group = subscriber.group, None
        self._untold.pop(subscriber, None)
        if group is not None:
            group.remove(subscriber)
            if not group.members:
                del self._groups[group.patterns, group.framing, group.straight]

    def _lost(self, subscriber: Subscriber) -> None:
        self._fall_behind([subscriber], self.position)

    def _fall_behind(self, subscribers: Sequence[Subscriber], position: int) -> None:
        """Lead these members of groups on from `position`, the last that they have got."""
        for subscriber in subscribers:
            self._leave_group(subscriber)
            self._catchup.begin(subscriber, position)
