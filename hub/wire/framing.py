"""An event's bytes: its envelope, and the frame around it for WebSocket and Server-Sent Events."""

from collections.abc import Callable
from typing import Any

from .messages import now
from .names import Cursor, new_id
from .strictjson import dumpb

Framing = Callable[[bytes], bytes]


def envelope(id: str, timestamp: str, cursor: Cursor | str, name: str, body: bytes) -> bytes:
    """The JSON of one event; `id` and `body` (its data) are JSON already. On the path of every event, so by hand."""
    head = (
        f'{{"type":"event","id":{id},"timestamp":"{timestamp}","cursor":"{cursor}","payload":{{"event":"{name}","data":'
    )
    return b"%b%b}}" % (head.encode(), body)


def notice(name: str, data: Any) -> bytes:
    """The JSON of an event of the hub's own that has no number: `hub:gap` and `hub:mark`."""
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


def sse_frame(text: bytes, name: str, cursor: Cursor | None) -> bytes:
    """One Server-Sent Event (HTML standard, section 9.2). Compact JSON has no line breaks, so `data:` is one line."""
    line = f"id: {cursor}\n" if cursor else ""
    return b"%bevent: %b\ndata: %b\n\n" % (line.encode(), name.encode(), text)
