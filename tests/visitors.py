"""Clients down to the bytes that do everything a client can do, in any order, and judge what they get.

A visitor knows what it asked for, takes each byte that it gets as a frame that is meant for it or complains, and holds
the hub to the promise of PROTOCOL 3: each event that it wants once and in order, or a gap that names it.
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from running import Raw

from hub.wire.names import Patterns

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


class Complaint(AssertionError):
    """A client got what no client may get."""


class Stream:
    """The numbers and names of what was published: the model is just this."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def wanted(self, after: int, before: int, view: "View") -> list[int]:
        return [seq for seq in range(after + 1, before) if view.wants(seq, self.names[seq])]


class View:
    """What one client may conclude from what it got. `position`: everything up to here is known.

    Patterns change at a number that the answer tells, and that may come behind events that were chosen by them: so
    events are judged when no answer is waited for.
    """

    def __init__(self, stream: Stream, topics: list[str] | None, position: int) -> None:
        self.stream, self.position = stream, position
        self.topics = set(topics if topics is not None else ["*"])
        patterns = Patterns(self.topics)
        self._choices: list[tuple[int, Patterns, Patterns]] = [(-1, patterns, patterns)]  # since, must come, may come
        self._certain = -1  # the newest number at which the hub has said what was chosen
        self._restarts: list[int] = []
        self._loose = False  # it has asked for a part of the stream again: what it misses cannot be told any more
        self._left: list[tuple[str, Any]] = []  # what has come and is not judged yet

    def subscribed(self, topics: list[str], cursor: int) -> None:
        """From behind this number on it has these patterns."""
        self._certain = cursor
        self._choose(cursor, topics, topics)

    def unsubscribing(self, topics: list[str]) -> None:
        """From somewhere on, no earlier than what is known, it does not get these any more."""
        left = [topic for topic in self.topics if topic not in topics]
        self._choose(max(self.position, self._certain), left, list(self.topics))

    def unsubscribed(self, topics: list[str]) -> None:
        """By now, at the latest, it does not."""
        self._choose(max(self.stream.names, default=0), topics, topics)

    def _choose(self, since: int, must: list[str], may: list[str]) -> None:
        """What was thought to hold longer did not."""
        while self._choices[-1][0] > since:
            self._choices.pop()
        self.topics = set(must)
        self._choices.append((since, Patterns(must), Patterns(may)))

    def restarted(self, after: int) -> None:
        self._restarts.append(after)
        self._loose = True

    def wants(self, seq: int, name: str) -> bool:
        """Whether it has to get this."""
        return not self._loose and self._choice(seq)[1].match(name)

    def may(self, seq: int, name: str) -> bool:
        return self._loose or self._choice(seq)[2].match(name)

    def _choice(self, seq: int) -> tuple[int, Patterns, Patterns]:
        return [choice for choice in self._choices if choice[0] < seq][-1]

    def came(self, frame: Mapping[str, Any]) -> None:
        name, data = frame["payload"]["event"], frame["payload"]["data"]
        if "cursor" in frame:
            self._left.append((name, int(frame["cursor"].rpartition(":")[2])))
        elif name in ("hub:gap", "hub:mark"):
            self._left.append((name, data))
        else:
            raise Complaint(f"an event of the hub's without a number: {frame}")

    def judge(self) -> None:
        left, self._left = self._left, []
        for name, what in left:
            if name == "hub:gap":
                self._gap(what)
            elif name == "hub:mark":
                self._know(_seq(what["cursor"]), "a mark")
            else:
                self._event(name, what)

    def _event(self, name: str, seq: int) -> None:
        while seq <= self.position and self._restarts:  # those that changed nothing did not show
            self.position = self._restarts.pop(0)
        if seq <= self.position:
            raise Complaint(f"{seq} came when {self.position} was known: twice, or out of order")
        if self.stream.names[seq] != name:
            raise Complaint(f"{seq} came as {name}, it is {self.stream.names[seq]}")
        self._know(seq - 1, f"event {seq}")
        if not self.may(seq, name):
            raise Complaint(f"{seq} {name} came, and was not asked for: {self._choices}")
        self.position = seq

    def _gap(self, gap: Mapping[str, Any]) -> None:
        after, before = _seq(gap["after"]), _seq(gap["before"])
        self._know(after, "a gap")
        if gap["count"] != before - after - 1 or before <= after + 1:
            raise Complaint(f"a gap that cannot be: {gap}")
        self.position = max(self.position, before - 1)

    def _know(self, seq: int, what: str) -> None:
        missing = self.stream.wanted(self.position, seq + 1, self)
        if missing:
            chosen = [(since, must.texts, may.texts) for since, must, may in self._choices]
            raise Complaint(f"{missing} lost silently before {what}; behind {self.position}, with {chosen}")
        self.position = max(self.position, seq)

    def end(self, head: int) -> None:
        """Everything has been read: nothing may be missing up to the head."""
        self.judge()
        self._know(head, "the end")


def _seq(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


class Visitor:
    """One connection. Nothing here waits: what the socket does not take now is not said, as by a client that breaks."""

    count = 0

    def __init__(self, port: int, stream: Stream, *, buffer: int | None = None) -> None:
        Visitor.count += 1
        self.name, self.port, self.stream = f"v{Visitor.count}", port, stream
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.view: View | None = None
        self.ended = self.goodbye = False  # nothing more comes; the hub has said that nothing more will come
        self.broken = False  # it did what a client may not do: what it gets may end anywhere
        self.reading = True
        self._bytes = bytearray()
        self._head = False  # the head of the answer has been read
        self._asked: dict[str, str] = {}  # calls without an answer yet
        self._calls = 0

    async def connect(self) -> None:
        self.socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.port))

    def joined(self, topics: list[str] | None, position: int) -> None:
        """The hub has it in its stream, from this position on."""
        self.view = View(self.stream, topics, position)

    # ---- what it does

    def say(self, data: bytes) -> bool:
        """Whether all of it went out. A client that has said half of a frame is broken from there on."""
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            self.ended = True
            return False
        self.broken |= sent != len(data)
        return sent == len(data)

    def ask(self, command: str, args: Mapping[str, Any]) -> bytes:
        """The frame of a call; its answer is waited for from here on."""
        self._calls += 1
        id = f"{self.name}-{self._calls}"
        self._asked[id] = command
        text = json.dumps({"type": "command", "id": id, "payload": {"command": command, "args": args}})
        return Raw.packed(TEXT, text.encode())

    def call(self, command: str, args: Mapping[str, Any]) -> bool:
        """Call, unless the hub has not read what came before."""
        frame, id = self.ask(command, args), f"{self.name}-{self._calls}"
        if not self.say(frame):
            del self._asked[id]
            return False
        return True

    def reset(self) -> None:
        """Vanish, so that the hub's socket gets an error."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.leave()

    def leave(self) -> None:
        self.ended = True
        self.socket.close()

    def half_close(self) -> None:
        self.broken = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    # ---- what it gets

    @property
    def waits(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._asked)

    def read(self, most: int = 1 << 30) -> int:
        """Take what has come, at most so many bytes; how many they were."""
        taken = 0
        while not self.ended and taken < most:
            try:
                data = self.socket.recv(min(65536, most - taken))
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.ended = True
            taken += len(data)
            self._bytes += data
        self.take()
        return taken

    def take(self) -> None:
        """Judge what has come."""
        raise NotImplementedError

    def judge(self) -> None:
        """Only when no answer can change what was asked for when."""
        if self.view is not None and not self.waits:
            self.view.judge()

    def end(self, head: int) -> None:
        """Hold the hub to the promise, now that everything has come: unless this client broke its own side of it."""
        if self.view is not None and not self.ended and not self.broken and not self.goodbye:
            if self.waits:
                raise Complaint(f"{self.name}: never answered: {self._asked}")
            self.view.end(head)

    @property
    def handshaken(self) -> bool:
        """Whether the head of the hub's answer has come."""
        return self._head

    def _http_head(self) -> bytes | None:
        if self._head or b"\r\n\r\n" not in self._bytes:
            return None
        head, _, rest = bytes(self._bytes).partition(b"\r\n\r\n")
        self._bytes, self._head = bytearray(rest), True
        return head


def _query(topics: list[str] | None, after: str | None) -> str:
    given = {"topics": topics and ",".join(topics), "after": after}
    return "&".join(f"{name}={value}" for name, value in given.items() if value is not None)


class WebSocketVisitor(Visitor):
    """A client of /ws."""

    def upgrade(self, topics: list[str] | None, after: str | None, behind: bytes = b"") -> None:
        """Ask for a stream; with frames `behind` the request, which a client may not send so early."""
        query = _query(topics, after)
        self.say(
            f"GET /ws?{query} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            + behind
        )

    def take(self) -> None:
        head = self._http_head()
        if head is not None and not head.startswith(b"HTTP/1.1 101 "):
            self.broken = True  # refused before it was a client
        if not self._head:
            return
        for opcode, payload in self._frames():
            if self.goodbye:
                raise Complaint(f"{self.name}: something behind the goodbye: {opcode} {payload[:80]!r}")
            if opcode == TEXT:
                self._text(payload)
            elif opcode == CLOSE:
                self.goodbye = True
            elif opcode == PING:
                self.say(Raw.packed(PONG, payload))
            elif opcode != PONG:
                raise Complaint(f"{self.name}: opcode {opcode}")
        self.judge()

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data = self._bytes
        while len(data) >= 2 and self._head:
            first, size, start = data[0], data[1], 2
            if first not in (0x81, 0x88, 0x89, 0x8A) or size > 127:
                raise Complaint(f"{self.name}: this begins no frame of the hub's: {bytes(data[:80])!r}")
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(data[2:start]) if len(data) >= start else 1 << 62
            if len(data) < start + size:
                return
            payload = bytes(data[start : start + size])
            del data[: start + size]
            yield first & 0x0F, payload

    def _text(self, payload: bytes) -> None:
        try:
            frame = json.loads(payload)
        except ValueError:
            raise Complaint(f"{self.name}: a torn frame: {payload[:80]!r} … {payload[-80:]!r}") from None
        if frame["type"] == "event":
            if self.view is None:
                raise Complaint(f"{self.name}: an event before it was in the stream: {frame}")
            self.view.came(frame)
            return
        command = self._asked.pop(frame["id"], None)
        if command is None:
            raise Complaint(f"{self.name}: the answer to somebody else: {frame['id']}")
        if frame["type"] == "response" and self.view is not None:
            self._answered(self.view, command, frame["payload"])

    def _answered(self, view: View, command: str, result: Any) -> None:
        if command == "hub:subscribe":
            view.subscribed(result["topics"], _seq(result["cursor"]))
        elif command == "hub:unsubscribe":
            view.unsubscribed(result["topics"])


class SSEVisitor(Visitor):
    """A client of /events."""

    def ask_for(self, topics: list[str] | None, after: str | None) -> None:
        query = _query(topics, after)
        self.say(f"GET /events?{query} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())

    def take(self) -> None:
        head = self._http_head()
        if head is not None and not head.startswith(b"HTTP/1.1 200 "):
            raise Complaint(f"{self.name}: refused: {head!r}")
        for chunk in self._chunks():
            for block in filter(None, chunk.split(b"\n\n")):
                lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
                if lines and self.view is not None:
                    self.view.came(json.loads(lines[b"data"]))
        self.judge()

    def _chunks(self) -> Iterator[bytes]:
        data = self._bytes
        while self._head and b"\r\n" in data:
            size, _, rest = bytes(data).partition(b"\r\n")
            try:
                length = int(size, 16)
            except ValueError:
                raise Complaint(f"{self.name}: this begins no chunk: {bytes(data[:80])!r}") from None
            if len(rest) < length + 2:
                return
            if rest[length : length + 2] != b"\r\n":
                raise Complaint(f"{self.name}: a torn chunk")
            del data[: len(size) + 2 + length + 2]
            if not length:
                self.goodbye = True
                return
            if not rest[:length].endswith(b"\n\n"):
                raise Complaint(f"{self.name}: half an event: {rest[:length][-80:]!r}")
            yield rest[:length]


class Stranger(Visitor):
    """Whoever is no client of the stream: it asks for /healthz, or for nothing, and gets that and not one byte more."""

    def __init__(self, port: int, stream: Stream, *, asks: bool) -> None:
        super().__init__(port, stream)
        self.asks = asks
        self._got = False

    def greet(self) -> None:
        if self.asks:
            self.say(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())

    def take(self) -> None:
        if self._bytes and not self.asks:
            raise Complaint(f"somebody who asked for nothing got {bytes(self._bytes[:80])!r}")
        head = self._http_head()
        if head is not None and (b'"status":"ok"' not in self._bytes or self._bytes[-1:] != b"}"):
            raise Complaint(f"somebody who asked for /healthz got {bytes(self._bytes[:200])!r}")
        if self._head and self._bytes.count(b"}") > 1:
            raise Complaint(f"somebody who asked for /healthz got {bytes(self._bytes[:200])!r}")
