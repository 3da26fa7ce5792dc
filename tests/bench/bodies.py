"""How long one request or frame holds the loop: everything that a client can send, in 64 KiB, 256 KiB and 1 MiB.

    python tests/bench/bodies.py [-v] [WORD …]

At most 100 ms for 64 KiB and 400 ms for 1 MiB are promised, and linear work: four times as much takes four times as
long. `-v` shows every row, a WORD those that hold it. A frame has 64 KiB at most, so it is measured at 16 and 64 KiB.

What is measured is the longest single step of the event loop, in CPU time of its thread, so that a busy machine makes
nothing longer; what is too much is tried three times. The client is another thread, whose time does not count.
"""

import asyncio
import contextlib
import http.client
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import burdens
from running import Raw, hub_app

from hub.web import program

KIB = 1024
TRIES = 3


class Hub(threading.Thread):
    """A hub on an asyncio loop in a thread, and the longest step that the loop has taken."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = self.whole = 0.0
        self._ready, self._over = threading.Event(), asyncio.Event()

    def run(self) -> None:
        original = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            start = time.thread_time()
            original(handle)
            took = time.thread_time() - start
            self.longest, self.whole = max(self.longest, took), self.whole + took

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
            async with hub_app(Path(folder), rate=0) as inside:
                self.port, self.loop, self.hub = inside.port, asyncio.get_running_loop(), inside.hub
                self.fields = {
                    command.name: list(command.schema.fields) if command.schema else ["any"]
                    for command in self.hub.commands
                }
                self.types = {type.name: list(type.schema.fields) for type in self.hub.types}
                program._calm_collector()
                self._ready.set()
                await self._over.wait()

    def __enter__(self) -> "Hub":
        self.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self.join()

    def measured(self, send: Callable[[], Any]) -> tuple[float, float, Any]:
        """The longest step of the loop while this is sent and answered, all of them together, and the answer."""
        self.longest = self.whole = 0.0
        found = send()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result()  # the step that has answered is over
        return self.longest, self.whole, found


# ---- what is sent


def post(hub: Hub, path: str, kind: str, body: bytes) -> str:
    """Status and size of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=120)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return f"{answer.status} {len(answer.read())}"
    finally:
        connection.close()


def get(hub: Hub, head: bytes) -> str:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=120) as sock:
        sock.sendall(head.replace(b"PORT", str(hub.port).encode()))
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
            if answer.startswith(b"HTTP/1.1 101") or b"text/event-stream" in answer:  # it stays open
                break
    return f"{answer[9:12].decode()} {len(answer)}"


def stream(hub: Hub, wire: bytes) -> str:
    head = f"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nContent-Type: application/json\r\n"
    more = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hub.port), timeout=120) as sock, contextlib.suppress(ConnectionError):
        answer = b""
        with contextlib.suppress(ConnectionError):  # cut off
            sock.sendall((head + more).encode() + wire + b"0\r\n\r\n")
        while data := sock.recv(1 << 16):
            answer += data
    return f"{answer[9:12].decode()} {len(answer)}"


def frame(hub: Hub, text: bytes) -> str:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=120) as sock:
        sock.sendall(
            f"GET /ws?topics=no:such HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\nConnection: Upgrade\r\n".encode()
            + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(1 << 16)
        hub.longest = hub.whole = 0.0
        sock.sendall(Raw.packed(0x1, text))
        head = sock.recv(1 << 16)
        size = {126: int.from_bytes(head[2:4]) + 4, 127: int.from_bytes(head[2:10]) + 10}.get(head[1], head[1] + 2)
        while len(head) < size:
            head += sock.recv(1 << 16)
    return f"ws  {len(head)}"


def corpus(hub: Hub) -> Iterator[tuple[str, Callable[[int], Callable[[], str]], tuple[int, int]]]:
    """(name, size → what sends it, the two sizes to compare)."""
    large, small = (256 * KIB, 1024 * KIB - 64), (16 * KIB, 64 * KIB)

    def posting(path: str, kind: str, body: burdens.Body) -> Callable[[int], Callable[[], str]]:
        def sending(size: int) -> Callable[[], str]:
            data = body(size)
            return lambda: post(hub, path, kind, data)

        return sending

    def framing(body: burdens.Body) -> Callable[[int], Callable[[], str]]:
        def sending(size: int) -> Callable[[], str]:
            data = body(size)
            return lambda: frame(hub, data)

        return sending

    def asking(body: burdens.Body) -> Callable[[int], Callable[[], str]]:
        def sending(size: int) -> Callable[[], str]:
            data = body(size)
            return lambda: get(hub, data)

        return sending

    def streaming(body: burdens.Body) -> Callable[[int], Callable[[], str]]:
        def sending(size: int) -> Callable[[], str]:
            wire = body(size)
            return lambda: stream(hub, wire)

        return sending

    events = "/api/events"
    for name, body in burdens.VALUES.items():
        yield f"data: {name}", posting(events, burdens.JSON, burdens.data("a:b", body)), large
        yield f"body: {name}", posting(events, burdens.JSON, body), large
        yield (
            f"ping: {name}",
            posting("/api/commands/hub:ping", burdens.JSON, burdens.inside('{"any":', body, "}")),
            large,
        )
        head, tail = burdens.frame_of("hub:ping", "")
        yield f"frame: {name}", framing(burdens.inside(f'{head}"any":', body, tail)), small
    for name, body in burdens.EVENTS.items():
        yield f"events: {name}", posting(events, burdens.JSON, body), large
    for name, body in burdens.LINES.items():
        yield f"NDJSON: {name}", posting(events, burdens.NDJSON, body), large
    for name, body in burdens.CHUNKS.items():
        yield f"chunks: {name}", streaming(body), large
    for name, body in burdens.ENVELOPES.items():
        yield f"envelope: {name}", framing(body), small
    for name, body in burdens.SCHEMAS.items():
        yield f"schema: {name}", framing(body), small
    for name, body in burdens.of_fields(hub.types, burdens.event_of):
        yield name, posting(events, burdens.JSON, body), large
    for command, known in hub.fields.items():
        for name, body in burdens.of_fields({command: known}, burdens.args_of):
            yield name, posting(f"/api/commands/{command}", burdens.JSON, body), large
        for name, body in burdens.of_fields({command: known}, burdens.frame_of):
            yield f"frame: {name}", framing(body), small
    for name, body in burdens.HEADS.items():
        yield f"head: {name}", asking(body), (4 * KIB, 16 * KIB)


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "-v"]
    bad = count = 0
    with Hub() as hub:
        for name, sending, (quarter, whole) in corpus(hub):
            if not all(word in name for word in words):
                continue
            for _ in range(TRIES):
                found = {size: hub.measured(sending(size)) for size in (quarter, whole)}
                longest, total, answer = found[whole]
                most = 0.4 if whole > 64 * KIB else 0.1
                ratio = longest / max(found[quarter][0], 1e-6)
                answered = int(answer.split()[1])
                heavy = longest > most or (ratio > 12 and longest > 0.05) or answered > 1024 * KIB + 10
                if not heavy:
                    break
            count, bad = count + 1, bad + heavy
            if heavy or "-v" in sys.argv:
                verdict = "  TOO MUCH" if heavy else ""
                n, four_n = (f"{size / KIB:5.0f} KiB {found[size][0] * 1e3:7.1f} ms" for size in (quarter, whole))
                print(
                    f"{name:62.62} {n}, {four_n} = {ratio:5.1f} x, in all {total * 1e3:7.1f} ms, {answer}{verdict}",
                    flush=True,
                )
    print(f"{count - bad} of {count} are linear and in time")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
