"""An event: what waits for its number, and what has one, with its bytes."""

import json
from dataclasses import dataclass
from typing import Any

from ..wire.framing import envelope, last_value, notice, sse_frame, websocket_frame
from ..wire.names import Cursor
from ..wire.strictjson import dumps
from ..wire.timestamps import now


@dataclass(slots=True)
class Draft:
    """An event that has been checked and redacted and waits for its number. `body` is the JSON of its data."""

    name: str
    id: str
    body: bytes
    key: str | None = None
    ttl: float | None = None
    given: bool = False  # the publisher chose the id, so it must not be accepted twice


class Event:
    """An accepted event. Its bytes are made once, as a WebSocket frame; everything else is cut out of that.

    `seq` counts from 1 in its epoch; `size` is that of its frame, in bytes. `timestamp` is when the hub accepted it,
    `accepted` the same on the monotonic clock in seconds. `data` is parsed anew at each access, so that no listener can
    change what others see.
    """

    withheld = False
    __slots__ = (
        "_body",
        "_text",
        "accepted",
        "cursor",
        "frame",
        "id",
        "key",
        "name",
        "seq",
        "size",
        "timestamp",
        "ttl",
    )

    def __init__(self, draft: Draft, cursor: Cursor, timestamp: str, accepted: float) -> None:
        id = dumps(draft.id) if draft.given else f'"{draft.id}"'
        text = envelope(id, timestamp, cursor, draft.name, draft.body)
        self.seq, self.cursor, self.name, self.id = cursor.seq, cursor, draft.name, draft.id
        self.timestamp, self.accepted = timestamp, accepted
        self.key, self.ttl = draft.key, draft.ttl
        self.frame = websocket_frame(text)
        self.size = len(self.frame)
        self._text = self.size - len(text)
        self._body = self.size - len(draft.body) - 2

    @property
    def json(self) -> bytes:
        """The whole envelope."""
        return self.frame[self._text :]

    @property
    def sse(self) -> bytes:
        """The event as a Server-Sent Event."""
        return sse_frame(self.json, self.name, self.cursor)

    @property
    def body(self) -> bytes:
        """The JSON of its data."""
        return self.frame[self._body : -2]

    @property
    def data(self) -> Any:
        """Its data, parsed anew."""
        return json.loads(self.body)

    def item(self, stale: bool) -> bytes:
        """The JSON of the last value of a key, as hub:state shows it."""
        return last_value(self.name, self.key or "", self.timestamp, self.body, stale)

    def __repr__(self) -> str:
        return f"<Event {self.cursor} {self.name}>"


class Withheld(Event):
    """An event of an older version, which took larger ones than can be sent: clients would close the connection, again
    at each resume. Where it would stand they are told of a gap, and the stream goes on."""

    withheld = True
    __slots__ = ("_whole",)

    def __init__(self, draft: Draft, cursor: Cursor, timestamp: str, accepted: float) -> None:
        super().__init__(draft, cursor, timestamp, accepted)
        before, after = (str(Cursor(cursor.epoch, cursor.seq + step)) for step in (1, -1))
        text = notice("hub:gap", {"after": after, "before": before, "count": 1, "reason": "expired"})
        self._whole, self.frame = self.frame, websocket_frame(text)
        self._text = len(self.frame) - len(text)

    @property
    def body(self) -> bytes:
        return self._whole[self._body : -2]

    @property
    def sse(self) -> bytes:
        return sse_frame(self.json, "hub:gap", None)


def weights(draft: Draft, cursor: Cursor) -> tuple[int, int]:
    """How many bytes the envelope will have, and the last value, in which a key stands once more."""
    event = Event(draft, cursor, now(), 0.0)
    return len(event.json), len(event.item(False)) if event.key is not None else 0
