"""An event's bytes: its envelope, and the frame around it for WebSocket and Server-Sent Events."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

from .ids import new_id
from .names import Cursor
from .strictjson import dumpb, dumps
from .timestamps import now


def envelope(id: str, timestamp: str, cursor: Cursor | str, name: str, body: bytes) -> bytes:
    """The JSON of one event; `id` and `body` (its data) are JSON already. On the path of every event, so by hand."""
    head = (
        f'{{"type":"event","id":{id},"timestamp":"{timestamp}","cursor":"{cursor}","payload":{{"event":"{name}","data":'
    )
    return b"%b%b}}" % (head.encode(), body)


def last_value(name: str, key: str, timestamp: str, body: bytes, stale: bool) -> bytes:
    """The JSON of an item of hub:state; `body` is JSON already."""
    head = f'{{"event":"{name}","key":{dumps(key)},"timestamp":"{timestamp}","data":'
    return b'%b%b,"stale":%b}' % (head.encode(), body, b"true" if stale else b"false")


def notice(name: str, data: Any) -> bytes:
    """The JSON of an event of the hub's own that has no number: `hub:gap`, `hub:mark` and `hub:progress`."""
    payload = {"event": name, "data": data}
    return dumpb({"type": "event", "id": new_id(), "timestamp": now(), "payload": payload})


def websocket_frame(text: bytes) -> bytes:
    """One unmasked, final text frame (RFC 6455, section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


# U+2028, U+2029 and U+0085, as they stand inside of JSON strings; outside of them they cannot
_LINE_ENDS = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))


def sse_frame(text: bytes, name: str, cursor: Cursor | None) -> bytes:
    """One Server-Sent Event (HTML standard, section 9.2). Compact JSON has no line breaks, so `data:` is one line; what
    some readers take for one is escaped, and the JSON is the same."""
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        for character, escape in _LINE_ENDS:
            text = text.replace(character, escape)
    line = f"id: {cursor}\n" if cursor else ""
    return b"%bevent: %b\ndata: %b\n\n" % (line.encode(), name.encode(), text)


# ---- how events travel to one kind of client


class Framed(Protocol):
    """What a framing needs of an event."""

    frame: bytes

    @property
    def sse(self) -> bytes: ...


class Framing(Protocol):
    """How events, notices and what is joined of them look to one kind of client."""

    transport: Literal["websocket", "sse"]

    def events(self, events: Iterable[Framed]) -> list[bytes]:
        """Return the bytes of each."""

    def notice(self, name: str, data: Any) -> bytes:
        """Return an event of the hub's own that has no number, ready to be written."""

    def joined(self, frames: Sequence[bytes]) -> bytes:
        """Return the bytes of one write."""


class _WebSocket:
    transport: Literal["websocket", "sse"] = "websocket"

    def events(self, events: Iterable[Framed]) -> list[bytes]:
        return [event.frame for event in events]

    def notice(self, name: str, data: Any) -> bytes:
        return websocket_frame(notice(name, data))

    def joined(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class _ServerSentEvents:
    transport: Literal["websocket", "sse"] = "sse"

    def events(self, events: Iterable[Framed]) -> list[bytes]:
        return [event.sse for event in events]

    def notice(self, name: str, data: Any) -> bytes:
        return self.joined([sse_frame(notice(name, data), name, None)])

    def joined(self, frames: Sequence[bytes]) -> bytes:
        """One chunk of the response (RFC 9112, section 7.1)."""
        data = b"".join(frames)
        return b"%x\r\n%b\r\n" % (len(data), data)


WEBSOCKET: Framing = _WebSocket()
SSE: Framing = _ServerSentEvents()
