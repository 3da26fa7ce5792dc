"""Who gets what, and when it is written. One stream, many cursors.

Subscribers that are level with the stream stand in groups of equal patterns and framing; one flush joins the new
bytes once a group and writes them once a subscriber. A subscriber whose socket is full, or that resumes from far
behind, leaves its group with its position and is led up to the head in pieces; then it returns.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from ..errors import HubError
from ..wire.framing import notice, sse_frame, websocket_frame
from ..wire.names import Cursor, Patterns
from .brokers.broker import Broker
from .events import Event
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
PIECE = 64 * 1024  # bytes of one write to a subscriber that is behind
PAGE = 1000  # events of one read from the store


class Broadcaster:
    """Delivers the stream. `position` is the newest number that every level subscriber has been written.

    `on_write(transport, events, subscribers, bytes)` and `on_gap(reason, count)` are called in place, for metrics;
    `on_flush(events, seconds)` once a flush, with what has just been written and how long that took.
    """

    def __init__(self, window: Window, broker: Broker) -> None:
        self.window, self.broker = window, broker
        self.position = 0
        self.behind: set[Subscriber] = set()
        self.on_write: Callable[[str, int, int, int], None] = lambda transport, events, subscribers, size: None
        self.on_gap: Callable[[str, int | None], None] = lambda reason, count: None
        self.on_flush: Callable[[Sequence[Event], float], None] = lambda events, seconds: None
        self._groups: dict[tuple[Patterns, type[Subscriber]], Group] = {}
        self._untold: dict[Subscriber, int] = {}  # those that came level here without an event, unlike their groups
        self._next_pass: asyncio.Handle | None = None
        self._first, self._seen, self._quiet = 0.0, 0, 0
        self._waiting = 0  # bytes not flushed yet
        self._last_flush = 0.0  # how long it took

    def start_at(self, head: int, newest: Sequence[Event] = ()) -> None:
        """Begin behind `head`, with the `newest` events up to it from before."""
        self.window.start_at(head - len(newest))
        if newest:
            self.window.extend(newest)
        self.position = head

    @property
    def cursor(self) -> Cursor:
        """The newest position of the stream."""
        return Cursor(self.broker.epoch, self.window.head)

    @property
    def lagging(self) -> int:
        """How many subscribers are behind."""
        return len(self.behind)

    def lag(self, subscriber: Subscriber) -> int:
        """How many numbers the subscriber has not been written yet."""
        return self.window.head - (subscriber.position if subscriber in self.behind else self.position)

    # ---- events come in

    def deliver(self, batch: Sequence[Event]) -> None:
        """Take a batch from the pump; it is written soon, together with what follows closely. Never waits."""
        self.window.extend(batch)
        self._waiting += sum(map(len, batch))
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
        """Write what lies between `position` and the head to every level subscriber. Never waits."""
        if self._next_pass is not None:
            self._next_pass.cancel()
            self._next_pass = None
        self._waiting = 0
        if self.position == self.window.head:
            return
        if not self.window.covers(self.position):  # one batch larger than the whole window: the store has it
            for group in list(self._groups.values()):
                self._fall_behind(list(group.members))
            self.position = self.window.head
            return
        started = time.monotonic()
        events = self.window.between(self.position, self.window.head)
        self.position = self.window.head
        for group in list(self._groups.values()):
            self._write(group, events)
        self._last_flush = time.monotonic() - started
        self.on_flush(events, self._last_flush)

    def _write(self, group: Group, events: Sequence[Event]) -> None:
        frames = group.frames(events)
        if not frames:
            return
        data = _joined(frames, group.kind.sse)
        self.on_write("sse" if group.kind.sse else "websocket", len(frames), len(group.members), len(data))
        self._send(group, data)

    def _send(self, group: Group, data: bytes) -> None:
        group.told = self.position
        full, broken = group.write(data)
        self._fall_behind(full)
        for subscriber in broken:
            self.leave(subscriber)

    # ---- subscribers come and go

    def join(self, subscriber: Subscriber, patterns: Patterns, after: Cursor | None = None) -> Cursor:
        """Put a subscriber into the stream: at the head, or behind `after`. One step, nothing is lost in between.

        Returns the position behind which its stream goes on. Raises HubError `unknown_cursor` for a cursor in the
        future of this epoch.
        """
        position, foreign = self.start(after)
        self.leave(subscriber)
        subscriber.patterns, subscriber.position, subscriber.told = patterns, position, position
        if foreign:
            self._tell_gap(subscriber, str(foreign), position + 1, "epoch")
        if after is not None:
            subscriber.reason = "expired"
        self._advance(subscriber)
        return Cursor(self.broker.epoch, position)

    def narrow(self, subscriber: Subscriber, patterns: Patterns) -> Cursor:
        """Change what a subscriber gets from here on; its position stays. Returns that."""
        self._leave_group(subscriber)
        subscriber.patterns = patterns
        if subscriber in self.behind:
            return Cursor(self.broker.epoch, subscriber.position)
        self._enter_group(subscriber)
        return Cursor(self.broker.epoch, self.position)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber. Unknown ones are no error."""
        self._leave_group(subscriber)
        self._untold.pop(subscriber, None)
        self.behind.discard(subscriber)
        if subscriber.task is not None:
            subscriber.task.cancel()
            subscriber.task = None

    def mark(self) -> None:
        """Tell narrowed subscribers where they are, if that moved without an event for them. Once a heartbeat."""
        self.flush()
        for group in list(self._groups.values()):
            if group.told < self.position and not group.patterns.everything:
                self._send(group, self._mark(group.kind.sse))
        untold, self._untold = self._untold, {}
        for subscriber, position in untold.items():
            if subscriber.group is not None and subscriber.group.told <= position:
                subscriber.write(self._mark(subscriber.sse))

    def _mark(self, sse: bool) -> bytes:
        return self._notice("hub:mark", {"cursor": str(Cursor(self.broker.epoch, self.position))}, sse)

    def start(self, after: Cursor | None) -> tuple[int, Cursor | None]:
        """Where a stream begins, and the cursor it asked for if that is of another epoch. Raises HubError
        `unknown_cursor` for one in the future of this epoch."""
        if after is None:
            return self.window.head, None
        if after.epoch != self.broker.epoch:
            return self.broker.tail - 1, after
        if after.seq > self.window.head:
            raise HubError("unknown_cursor", f"The cursor {after} lies in the future: the newest is {self.cursor}.")
        return after.seq, None

    def _enter_group(self, subscriber: Subscriber) -> None:
        self.flush()
        key = (subscriber.patterns, type(subscriber))
        group = self._groups.get(key) or self._groups.setdefault(key, Group(*key, self.position))
        group.add(subscriber)
        subscriber.group, subscriber.reason = group, "slow"
        self.behind.discard(subscriber)

    def _leave_group(self, subscriber: Subscriber) -> None:
        if subscriber.group is not None:
            self.flush()  # what was accepted before still belongs to it
        if subscriber.group is not None:
            self._remove(subscriber, subscriber.group)

    def _remove(self, subscriber: Subscriber, group: Group) -> None:
        subscriber.group = None
        group.remove(subscriber)
        if not group.members:
            del self._groups[group.patterns, group.kind]

    # ---- subscribers that are behind

    def _fall_behind(self, subscribers: Sequence[Subscriber]) -> None:
        for subscriber in subscribers:
            assert subscriber.group is not None
            self._remove(subscriber, subscriber.group)
            subscriber.position = subscriber.told = self.position
            self.behind.add(subscriber)
            self._follow_up(subscriber)

    def _follow_up(self, subscriber: Subscriber) -> None:
        subscriber.task = asyncio.get_running_loop().create_task(self._catch_up(subscriber))

    def _advance(self, subscriber: Subscriber) -> None:
        """Bring a subscriber level in this very step if that takes no waiting, else behind the scenes."""
        self.behind.add(subscriber)
        start = self._start_of_kept(subscriber)
        if start == subscriber.position and self.window.covers(start) and not subscriber.full():
            self._write_piece(subscriber, self._ahead(subscriber.position))
            self._join_if_level(subscriber)
        if subscriber in self.behind:
            self._follow_up(subscriber)

    def _join_if_level(self, subscriber: Subscriber) -> None:
        if subscriber.position == self.window.head and not subscriber.full():
            self._enter_group(subscriber)
            if subscriber.told < subscriber.position and not subscriber.patterns.everything:
                self._untold[subscriber] = subscriber.position

    async def _catch_up(self, subscriber: Subscriber) -> None:
        """Lead one subscriber up to the head, as fast as it reads. The only task a client can cost, while behind."""
        try:
            while subscriber in self.behind:
                await subscriber.room()
                events = await self._next(subscriber)
                first = events[0].seq if events else self.window.head + 1
                if first > subscriber.position + 1:
                    self._tell_missing(subscriber, first)
                self._write_piece(subscriber, events)
                self._join_if_level(subscriber)
                await asyncio.sleep(0)
        except HubError as error:  # not a gap: what it asks for is kept
            log.warning("a client that is behind cannot be served from the store: %s", error)
            self._drop(subscriber)
            subscriber.turn_away()
        except Exception as error:
            if not isinstance(error, ConnectionError):  # which only says that it has gone
                log.exception("a client cannot be written to and gets nothing more")
            self._drop(subscriber)

    def _drop(self, subscriber: Subscriber) -> None:
        """Let go of a subscriber from within its own task."""
        subscriber.task = None
        self.leave(subscriber)

    async def _next(self, subscriber: Subscriber) -> list[Event]:
        """The next events for this subscriber: from the window, or behind it from the store; none if nothing more is
        kept. Raises HubError `broker_unavailable` if the store cannot be read."""
        start = self._start_of_kept(subscriber)
        if not self.window.covers(start):
            events = await self.broker.read(start, PAGE, PIECE)
            if events and events[0].seq < self.window.tail:
                return events
        return self._ahead(max(start, self.window.tail - 1))

    def _start_of_kept(self, subscriber: Subscriber) -> int:
        """Where it can go on. Who comes back gets what is kept, the same as from hub:history, and not what happens to
        be in the window; who was level and reads slowly is not made to lose that by a short retention."""
        if subscriber.reason == "slow":
            return subscriber.position
        return max(subscriber.position, self.broker.tail - 1)

    def _ahead(self, position: int) -> list[Event]:
        """The window's next page behind a position."""
        return self.window.between(position, min(position + PAGE, self.window.head))

    def _write_piece(self, subscriber: Subscriber, events: Sequence[Event]) -> None:
        """Write events up to a piece's size and move the subscriber behind them."""
        frames, size, count = [], 0, 0
        for event in events:
            if size >= PIECE:
                break
            subscriber.position = event.seq
            if subscriber.patterns.match(event.name):
                subscriber.told = event.seq
                frame = event.sse if subscriber.sse else event.frame
                frames.append(frame)
                size += len(frame)
                count += 1
        if frames:
            subscriber.write(_joined(frames, subscriber.sse))
            self.on_write(subscriber.transport, count, 1, size)

    def _tell_missing(self, subscriber: Subscriber, first: int) -> None:
        at = str(Cursor(self.broker.epoch, subscriber.position))
        self._tell_gap(subscriber, at, first, subscriber.reason, first - subscriber.position - 1)
        subscriber.position = first - 1
        subscriber.reason = "slow"

    def _tell_gap(self, subscriber: Subscriber, after: str, before: int, reason: str, count: int | None = None) -> None:
        data = {"after": after, "before": str(Cursor(self.broker.epoch, before)), "count": count, "reason": reason}
        subscriber.write(self._notice("hub:gap", data, subscriber.sse))
        self.on_gap(reason, count)

    @staticmethod
    def _notice(name: str, data: object, sse: bool) -> bytes:
        text = notice(name, data)
        return _joined([sse_frame(text, name, None)], True) if sse else websocket_frame(text)


def _joined(frames: Sequence[bytes], sse: bool) -> bytes:
    """The bytes of one write. For SSE they are one chunk of the response (RFC 9112, section 7.1)."""
    data = b"".join(frames)
    return b"%x\r\n%b\r\n" % (len(data), data) if sse else data
