"""Many clients come back from far behind: python tests/bench/behind.py [--clients 40] [--events 100000] [--reads 0]

A hub of its own with that many events kept; that many clients connect at once, each with the first cursor, and read as
fast as they can. Printed: how long connecting took, and until all have everything; what a neighbour waits for the
answer of hub:ping meanwhile (and alone, before); the hub's memory. With `--reads N` the clients are of another kind:
each sends N calls of hub:history that match nothing.
"""

import argparse
import json
import re
import selectors
import socket
import statistics
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bench import Server, post, upgrade

CURSOR = re.compile(rb'"cursor":"([^":]+):(\d+)"')


def command(id: str, name: str, **args: object) -> bytes:
    frame = {"type": "command", "id": id, "payload": {"command": name, "args": args}}
    text = json.dumps(frame, separators=(",", ":")).encode()
    return bytes([0x81, 0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text


class Neighbour(threading.Thread):
    """Asks for a pong, waits 5 ms, asks again."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.sock, self.took, self.ended = upgrade(server, "?topics=no:such"), list[float](), False
        self.start()

    def run(self) -> None:
        while not self.ended:
            begun = time.perf_counter()
            self.sock.sendall(command("1", "hub:ping"))
            self.sock.recv(65536)
            self.took.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.005)

    def end(self) -> str:
        self.ended = True
        self.join()
        self.sock.close()
        p99 = statistics.quantiles(self.took, n=100)[98] if len(self.took) > 1 else self.took[0]
        return f"p50 {statistics.median(self.took):.1f} ms, p99 {p99:.1f} ms, worst {max(self.took):.1f} ms"


def fill(server: Server, count: int) -> str:
    """Publish, and return the cursor before the first."""
    sock = socket.create_connection(("127.0.0.1", server.port))
    for start in range(0, count, 1000):
        events = [
            {"event": "task:progress", "data": {"id": f"t{n % 50}", "seq": n}} for n in range(start, start + 1000)
        ]
        sock.sendall(post(server.port, events))
        answer = sock.recv(1 << 20)
        while answer.count(b'"ids"') != 1 or not answer.endswith(b"}"):
            answer += sock.recv(1 << 20)
    sock.close()
    found = CURSOR.search(answer)
    assert found
    return f"{found[1].decode()}:{int(found[2]) - count}"


def memory(server: Server) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) // 1024  # type: ignore[index]


def follow(server: Server, after: str, clients: int, size: int) -> tuple[float, float]:
    """Seconds until the last has connected, and until the last has all its bytes."""
    selector, begun = selectors.DefaultSelector(), time.perf_counter()
    left, buffer = dict[socket.socket, int](), bytearray(1 << 20)
    for _ in range(clients):
        sock = upgrade(server, f"?after={after}")
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        left[sock] = size
    connected = time.perf_counter() - begun
    while selector.get_map():
        for key, _ in selector.select():
            reader = key.fileobj
            assert isinstance(reader, socket.socket)
            left[reader] -= reader.recv_into(buffer)
            if left[reader] <= 0:
                selector.unregister(reader)
    took = time.perf_counter() - begun
    for sock in left:
        sock.close()
    return connected, took


def sized(server: Server, after: str, count: int) -> int:
    """Bytes of the whole stream, each event of which is there in its order. Some may come with the head: it is cut off
    in `follow` as it is here, so a little is left out of both."""
    sock, got, seen = upgrade(server, f"?after={after}"), 0, 0
    tail = b""
    head = int(after.rpartition(":")[2]) + count
    while seen < head:
        data = sock.recv(1 << 20)
        got += len(data)
        text = tail + data
        for found in CURSOR.finditer(text):
            number = int(found[2])
            assert number == seen + 1 or not seen, f"{number} came behind {seen}"
            seen = number
            tail = text[found.end() :]
        tail = tail[-400:]
    sock.close()
    return got


def read(server: Server, clients: int, calls: int, after: str) -> float:
    """Seconds until all reads of all clients are answered."""
    socks, begun = [upgrade(server, "?topics=no:such") for _ in range(clients)], time.perf_counter()
    for sock in socks:
        sock.sendall(b"".join(command(str(n), "hub:history", topics=["no:such"], after=after) for n in range(calls)))
    for sock in socks:
        answers = 0
        while answers < calls:
            answers += sock.recv(1 << 20).count(b'"timestamp"')
        sock.close()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=0)
    options = parser.parse_args()
    server = Server("hub")
    try:
        after = fill(server, options.events)
        size = sized(server, after, options.events) - 64 * 1024
        neighbour = Neighbour(server)
        time.sleep(1)
        print("alone:", neighbour.end(), f"| {memory(server)} MiB")
        neighbour, before = Neighbour(server), server.cpu()
        if options.reads:
            took = read(server, options.clients, options.reads, after)
            print(f"{options.clients} × {options.reads} reads without a match: {took:.2f} s")
        else:
            connected, took = follow(server, after, options.clients, size)
            what = f"{options.clients} clients × {options.events} events ({size >> 20} MiB each)"
            print(f"{what}: connected {connected:.2f} s, all have everything {took:.2f} s")
        print(f"CPU of the hub: {server.cpu() - before:.2f} s")
        print("neighbour:", neighbour.end(), f"| {memory(server)} MiB")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
