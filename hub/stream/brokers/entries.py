"""An event as it stands in a Redis stream, and how it gets there: `library.lua` has the other half of this."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...wire.framing import envelope
from ...wire.messages import now, stamp
from ...wire.names import Cursor
from ...wire.strictjson import dumps
from ..events import Draft, Event

# The bytes of an envelope but for its id, its cursor, its name and its data.
WEIGHT = len(envelope("", now(), "", "", b""))

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
    time: float  # of the server, in seconds since 1970

    @classmethod
    def read(cls, facts: Sequence[Any]) -> "Stream":
        """What hub_look has returned; of a stream that is not there, the epoch ''."""
        epoch, head, tail, size, events, most, seconds, items, room, lineage, run, time = (
            (fact or b"").decode() for fact in facts[:12]
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
            int(time or 0) / 1000,
        )

    def holds(self, epoch: str, seq: int) -> bool:
        """Whether this number of that epoch means here what it meant there."""
        return seq <= (self.head if epoch == self.epoch else self.lineage.get(epoch, -1))

    def knows(self, epoch: str) -> bool:
        """Whether entries of this epoch are its own. Of one that ended long ago only the entry knows."""
        return epoch == self.epoch or epoch in self.lineage


def packed(draft: Draft) -> tuple[bytes, bytes]:
    """The end of an entry, and what the event does to a last value, as hub_append takes them."""
    id = dumps(draft.id) if draft.given else f'"{draft.id}"'
    more = f",{dumps(draft.key)},{json.dumps(draft.ttl)}" if draft.key is not None else ""
    head = f'["{draft.name}",{id},{int(draft.given)}{more}]\n'.encode()
    text = id.encode()
    recognised, does = draft.id.encode() if draft.given else b"", b""
    if draft.key is not None:
        does = f"k{draft.name}\0{draft.key}".encode()
    elif draft.name == "hub:stale":  # every hub says it; nobody can publish an id like this one, and keep it from us
        ended = json.loads(draft.body)
        recognised = f"\0{draft.id}".encode()
        does = f"s{ended['seq']} {ended['event']}\0{ended['key']}".encode()
    weight = WEIGHT + len(text) + len(draft.name) + len(draft.body)
    return b"%d %d %b%b%b" % (weight, len(recognised), recognised, head, draft.body), does


def unpacked(seq: int, entry: bytes, stream: Stream, clock: Clock) -> Event:
    """The event of an entry, as every hub makes it: in its own epoch, as long as that is known."""
    moment, epoch, _, length, rest = entry.split(b" ", 4)
    head, _, body = rest[int(length) :].partition(b"\n")
    name, id, given, *more = json.loads(head)
    key, ttl = more or (None, None)
    cursor = Cursor(known if (known := epoch.decode()) in stream.lineage else stream.epoch, seq)
    at = int(moment) / 1000
    return Event(Draft(name, id, body, key, ttl, bool(given)), cursor, _stamp(int(moment)), clock(at))


def epoch_of(entry: bytes) -> str:
    return entry.split(b" ", 2)[1].decode()


def _stamp(milliseconds: int) -> str:
    return stamp((milliseconds + 0.5) / 1000)  # in the middle: what a float makes of it must not fall below
