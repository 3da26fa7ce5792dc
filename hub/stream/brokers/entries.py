"""An event as it stands in a Redis stream, and how it gets there: `library.lua` has the other half of this."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...wire.framing import envelope
from ...wire.names import Cursor
from ...wire.strictjson import dumps
from ...wire.timestamps import now, stamp
from ..events import Draft, Event
from .broker import Kept

# The bytes of an envelope but for its id, its cursor, its name and its data.
WEIGHT = len(envelope("", now(), "", "", b""))

FACTS = 13  # what hub_look returns, before what only some ask for

Clock = Callable[[float], float]  # from the server's seconds since 1970 to those of the monotonic clock


class Stream(NamedTuple):
    """What a stream says of itself."""

    epoch: str
    head: int
    tail: int
    size: int  # of what is kept, in bytes
    events: int  # the limits, from here on
    most: int
    seconds: float
    items: int
    room: int
    lineage: Mapping[str, int]
    run: str
    foreign: int  # entries that no hub has written, and that were taken out
    time: float  # of the server, in seconds since 1970

    @classmethod
    def read(cls, facts: Sequence[Any]) -> "Stream":
        """What hub_look has returned; of a stream that is not there, the epoch ''."""
        epoch, head, tail, size, events, most, seconds, items, room, lineage, run, foreign, time = (
            (fact or b"").decode() for fact in facts[:FACTS]
        )
        words = lineage.split()
        return cls(
            epoch,
            int(head or 0),
            int(tail or 1),
            int(size or 0),
            int(events or 0),
            int(most or 0),
            float(seconds or 0),
            int(items or 0),
            int(room or 0),
            dict(zip(words[::2], map(int, words[1::2]), strict=True)),
            run,
            int(foreign or 0),
            int(time or 0) / 1000,
        )

    def holds(self, epoch: str, seq: int) -> bool:
        """Whether this number of that epoch means here what it meant there."""
        return seq <= (self.head if epoch == self.epoch else self.lineage.get(epoch, -1))


def packed(draft: Draft) -> tuple[bytes, bytes]:
    """The end of an entry, and what the event does to a last value, as hub_append takes them."""
    id, key, ttl = draft.id.encode(), draft.key, "" if draft.ttl is None else repr(draft.ttl)
    lines = draft.name, "1" if draft.given else "", draft.id, ttl, *(() if key is None else (key,))
    head = "\n".join(lines).encode()
    recognised, does = id if draft.given else b"", b""
    if key is not None:
        does = f"k{draft.name}\0{key}".encode()
        if draft.given and draft.name.startswith("hub:"):  # as of hub:stale
            recognised = b"\0" + id
    elif draft.name == "hub:stale":  # every hub says it; nobody can publish an id like this one, and keep it from us
        ended = json.loads(draft.body)
        recognised = b"\0" + id
        does = f"s{ended['seq']} {ended['event']}\0{ended['key']}".encode()
    size = len(dumps(draft.id).encode()) if draft.given else len(id) + 2
    weight = WEIGHT + size + len(draft.name) + len(draft.body)
    return b"%d %d %d %b%b%b" % (weight, len(recognised), len(head), recognised, head, draft.body), does


def parted(lengths: bytes, entries: bytes) -> list[tuple[int, bytes]]:
    """What hub_read has returned: numbers and entries."""
    words, found, start = list(map(int, lengths.split())), [], 0
    for place in range(0, len(words), 2):
        end = start + words[place + 1]
        found.append((words[place], entries[start:end]))
        start = end
    return found


def unpacked(rows: Iterable[tuple[int, bytes]], stream: Stream, clock: Clock) -> list[Event]:
    """The events of these entries, as every hub makes them: each in its own epoch, as long as that is known. What no
    hub has written is none."""
    events, moment, epoch = list[Event](), b"", b""
    timestamp, accepted, known = "", 0.0, ""
    for seq, entry in rows:
        try:
            at, of, _, length, more, rest = entry.split(b" ", 5)
            if at != moment:  # those of one publish have it in common
                milliseconds = int(at)
                timestamp = stamp((milliseconds + 0.5) / 1000)  # in its middle: a float must not fall below
                moment, accepted = at, clock(milliseconds / 1000)
            if of != epoch:
                known = of.decode()
                epoch, known = of, known if known in stream.lineage else stream.epoch
            start = int(length)
            end = start + int(more)
            name, given, id, ttl, *key = rest[start:end].decode().split("\n", 4)
            draft = Draft(name, id, rest[end:], key[0] if key else None, float(ttl) if ttl else None, given == "1")
        except (ValueError, OverflowError, OSError):
            continue
        events.append(Event(draft, Cursor(known, seq), timestamp, accepted))
    return events


def values_of(rows: Sequence[bytes], stream: Stream, clock: Clock) -> list[Kept]:
    """What hub_values has returned. One that another program has deleted, or written, is none."""
    found = list[Kept]()
    for value, ended in zip(rows[1::3], rows[2::3], strict=True):
        seq, _, entry = value.partition(b" ")
        events = unpacked([(int(seq), entry)], stream, clock) if seq.isdigit() else []
        found += [Kept(event, int(ended or 0)) for event in events if event.key is not None]
    return found


def unbroken(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """The same, in pieces without a hole between their numbers. Nearly always it is one."""
    start = 0
    while start < len(events):
        first, end = events[start].seq, len(events)
        if events[-1].seq - first != end - 1 - start:
            end = next(at for at in range(start + 1, end) if events[at].seq != first + at - start)
        yield events[start:end]
        start = end


def epoch_of(entry: bytes) -> bytes:
    return entry.partition(b" ")[2].partition(b" ")[0]
