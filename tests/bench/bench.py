"""What the hub costs, beside a bare aiohttp application in the same run. See README.md in this folder."""

import argparse
import contextlib
import json
import re
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAP = 0.0002
SEQ = re.compile(rb'"seq":(\d+)')


class Server:
    """A server in a process of its own, and what it has cost so far."""

    def __init__(self, kind: str) -> None:
        self.kind, self._state = kind, tempfile.TemporaryDirectory(prefix="hub-bench-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process = subprocess.Popen(self.command(kind), stdout=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                break
        before = -1.0
        while self.cpu() - before > NAP:  # what it does at first, for itself, is the cost of a start
            before = self.cpu()
            time.sleep(0.2)

    def command(self, kind: str) -> list[str]:
        """What is run."""
        if kind != "hub":
            return [sys.executable, str(HERE / "plain.py"), str(self.port)]
        return [sys.executable, "-m", "hub", "--port", str(self.port), "--state-dir", self._state.name, "--rate", "0"]

    def cpu(self) -> float:
        """User and system seconds (clock_getcpuclockid(3): the clock of another process)."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self) -> int:
        """Bytes of its own, shared pages in part."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) * 1024  # type: ignore[index]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._state.cleanup()


def event(seq: int) -> dict[str, object]:
    return {"event": "task:progress", "data": {"id": "bench", "seq": seq, "pad": "x" * 20}}


def post(port: int, body: object) -> bytes:
    text = json.dumps(body, separators=(",", ":")).encode()
    head = f"POST /api/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(text), text)


def command(seq: int) -> bytes:
    args = event(seq)
    frame = {"type": "command", "id": str(seq), "payload": {"command": "hub:publish", "args": args}}
    text = json.dumps(frame, separators=(",", ":")).encode()
    return bytes([0x81, 0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text  # masked with zeros


def upgrade(server: Server, query: str = "") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port))
    lines = [f"GET /ws{query} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
    sock.sendall("\r\n".join(lines).encode())
    assert b" 101 " in sock.recv(4096)
    return sock


class Clients:
    """N WebSocket clients that check the number and the order of everything they get."""

    def __init__(self, server: Server, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.sockets = [upgrade(server) for _ in range(count)]
        self.next = dict.fromkeys(self.sockets, 0)
        self.tails = dict.fromkeys(self.sockets, b"")
        self.first_seen: dict[int, float] = {}
        for sock in self.sockets:
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)

    def read(self) -> None:
        ready = self.selector.select(0)
        if not ready:
            time.sleep(NAP)
        for key, _ in ready:
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = self.tails[sock] + sock.recv(1 << 20)
            end = 0
            for found in SEQ.finditer(data):
                if found.end() == len(data):
                    break  # the number may go on
                seq, end = int(found[1]), found.end()
                assert seq == self.next[sock], f"event {self.next[sock]} is missing: {seq} came"
                self.next[sock] = seq + 1
                self.first_seen.setdefault(seq, time.perf_counter())
            self.tails[sock] = data[end:][-64:]

    def have(self, count: int) -> bool:
        return all(seen >= count for seen in self.next.values())

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.selector.close()


def fan_out(server: Server, clients: int, events: int, window: int, rate: float, group: int) -> tuple[float, float]:
    """Server CPU in µs for one event to one client, and the median latency in ms from POST to the first client."""
    every = Clients(server, clients)
    publisher = socket.create_connection(("127.0.0.1", server.port))
    publisher.setblocking(False)
    sent_at: list[float] = []
    started, before = time.perf_counter(), server.cpu()
    while not every.have(events):
        due = len(sent_at) < events and (
            len(sent_at) - min(every.next.values()) < window
            if window
            else time.perf_counter() - started >= len(sent_at) // group * group / rate
        )
        if due:
            publisher.sendall(post(server.port, event(len(sent_at))))
            sent_at.append(time.perf_counter())
        if not due or len(sent_at) % group == 0:
            every.read()
            with contextlib.suppress(BlockingIOError):
                publisher.recv(1 << 20)
    cost = (server.cpu() - before) / (events * clients) * 1e6
    latency = statistics.median(every.first_seen[i] - at for i, at in enumerate(sent_at)) * 1e3
    publisher.close()
    every.close()
    return cost, latency


def written(server: Server) -> float:
    """The hub's own word, from its histogram hub_delivery_seconds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        text = response.read().decode()
    found = {part: re.search(rf"^hub_delivery_seconds_{part} (\S+)", text, re.M) for part in ("sum", "count")}
    total, count = (float(match[1]) for match in found.values() if match)
    return total / count * 1e3


def way_in(server: Server, requests: list[bytes], answer: bytes, sock: socket.socket, window: int = 32) -> float:
    """Server CPU in µs for one request."""
    done = sent = 0
    before = server.cpu()
    while done < len(requests):
        while sent < len(requests) and sent - done < window:
            sock.sendall(requests[sent])
            sent += 1
        time.sleep(NAP)
        done += sock.recv(1 << 20).count(answer)
    return (server.cpu() - before) / len(requests) * 1e6


def at_once(server: Server, requests: list[bytes], answer: bytes, count: int = 32) -> float:
    """As `way_in`, by so many connections with one request each, as clients send them that do not know each other."""
    socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    before = server.cpu()
    for start in range(0, len(requests), count):
        asked = list(zip(socks, requests[start : start + count], strict=False))
        for sock, request in asked:
            sock.sendall(request)
        time.sleep(NAP)
        for sock, _ in asked:
            assert answer in sock.recv(1 << 16)
    cost = (server.cpu() - before) / len(requests) * 1e6
    for sock in socks:
        sock.close()
    return cost


def one_round(kind: str, quick: bool) -> Iterator[tuple[str, float]]:
    n = 500 if quick else 3000
    server = Server(kind)
    try:
        plain = socket.create_connection(("127.0.0.1", server.port))
        requests = [post(server.port, event(i)) for i in range(n)]
        way_in(server, requests[:200], b" 200 ", plain)
        yield "a POST, µs: one after the other", way_in(server, requests, b" 200 ", plain, window=1)
        yield "a POST, µs: 32 connections at once", at_once(server, requests, b" 200 ")
        yield "a POST, µs: 32 on their way on one connection", way_in(server, requests, b" 200 ", plain)
        if kind == "hub":
            arrays = [post(server.port, [event(i) for i in range(100)])] * (n // 50)
            yield "an event in an array of 100, µs", way_in(server, arrays, b" 200 ", plain) / 100
            stream = upgrade(server, "?topics=no:such")
            answer = b'"type":"response"'
            yield "hub:publish on /ws, µs", way_in(server, [command(i) for i in range(n)], answer, stream)
            stream.close()
        plain.close()
    finally:
        server.stop()
    server = Server(kind)
    try:
        cost, latency = fan_out(server, 100, 100 if quick else 300, 0, 50, 1)
        yield "isolated, 100 clients: µs a delivery", cost
        yield "isolated, 100 clients: median ms to the first client", latency
        if kind == "hub":
            yield "isolated, 100 clients: mean ms from accepted to written", written(server)
    finally:
        server.stop()
    for name, count, window, rate, group in (("groups of 8", 480, 0, 160.0, 8), ("saturated", 1000, 32, 0.0, 1)):
        server = Server(kind)
        try:
            yield (
                f"{name}, 300 clients: µs a delivery",
                fan_out(server, 300, count // (4 if quick else 1), window, rate, group)[0],
            )
        finally:
            server.stop()
    server = Server(kind)
    try:
        before, idle = server.memory(), [upgrade(server) for _ in range(200 if quick else 1000)]
        time.sleep(0.5)
        yield "an idle client, KiB", (server.memory() - before) / len(idle) / 1024
        for sock in idle:
            sock.close()
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(1 if options.quick else options.rounds):
        for kind in ("hub", "aiohttp"):
            for name, value in one_round(kind, options.quick):
                found.setdefault(name, {}).setdefault(kind, []).append(value)
    print("| | hub | bare aiohttp | ratio |\n| --- | --- | --- | --- |")
    for name, kinds in found.items():
        hub, other = kinds["hub"], kinds.get("aiohttp", [])
        ratio = [a / b for a, b in zip(hub, other, strict=False)]
        cells = [f"{statistics.median(values):.2f}" if values else "–" for values in (hub, other, ratio)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
