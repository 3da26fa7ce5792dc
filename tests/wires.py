"""Ends of wires for tests without sockets: what the broadcaster and the sessions write is read back here."""

import json
from collections.abc import Iterator
from typing import Any

from hub.stream.subscriber import Subscriber
from hub.wire.framing import WEBSOCKET, Framing


def frames(data: bytes) -> Iterator[dict[str, Any]]:
    """The JSON of unmasked WebSocket text frames (RFC 6455, section 5.2)."""
    while data:
        assert data[0] == 0x81
        size, head = data[1], 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head])
        yield json.loads(data[head : head + size])
        data = data[head + size :]


class Wire(Subscriber):
    """A client's socket. While nobody reads, it is full as soon as one write lies in it."""

    def __init__(self, framing: Framing = WEBSOCKET) -> None:
        super().__init__(self._take, framing)
        self.received: list[dict[str, Any]] = []
        self.writes = 0
        self.reading, self.turned_away, self.was_cut = True, False, False
        self._unread: list[bytes] = []

    @property
    def subscriber(self) -> Subscriber:
        return self

    def _take(self, data: bytes) -> None:
        self.writes += 1
        self._unread.append(data)
        if self.reading:
            self.read()
        elif not self.paused:
            self.pause()

    def turn_away(self) -> None:
        self.turned_away = True

    def cut(self) -> None:
        self.was_cut = True

    def read(self) -> None:
        for data in self._unread:
            self.received += frames(data)
        self._unread.clear()
        if self.paused:
            self.resume()

    def read_on(self) -> None:
        self.reading = True
        self.read()

    @property
    def events(self) -> list[int]:
        """The numbers of the events that came, in order."""
        return [int(m["cursor"].rpartition(":")[2]) for m in self.received if "cursor" in m]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        return [m["payload"]["data"] for m in self.received if m["payload"]["event"] == "hub:gap"]

    @property
    def marks(self) -> list[str]:
        return [m["payload"]["data"]["cursor"] for m in self.received if m["payload"]["event"] == "hub:mark"]
