"""What one, two and three hubs on one Redis cost: each event goes to one of them, and to the clients of all.

    python tests/bench/scaling.py [--rounds 3]

Rounds of one, two and three hubs take turns, with 200 clients at each hub that check number and order. Grouped: 8
events 20 times a second. Flooded: arrays of 100, as fast as they come to everybody. µs are CPU (user and system) of the
process named; a hub's divided by what it delivered, the server's by the events.
"""

import argparse
import contextlib
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bench import Clients, Server, event, post
from engines import Engine, engine, redis_program

CLIENTS, GROUPS, GROUP, PER_SECOND, FLOOD, ARRAY = 200, 60, 8, 160.0, 3000, 100
AHEAD = 500  # events that nobody may be behind
NUMBERS = "hub that publishes: µs a delivery", "another hub: µs a delivery", "Redis: µs an event", "events a second"


class Hub(Server):
    """A hub of the stream in that Redis."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        super().__init__("hub")

    def command(self, kind: str) -> list[str]:
        return [*super().command(kind), "--broker", self._broker]


def cost(redis: Engine, hubs: Sequence[Hub], bodies: Sequence[bytes], each: int, pause: float) -> list[float]:
    """The NUMBERS of these requests to the first of the hubs, of `each` events, a `pause` apart."""
    assert redis.process is not None
    server = (~redis.process.pid << 3) | 2  # clock_getcpuclockid(3)
    everybody = [Clients(hub, CLIENTS) for hub in hubs]
    publisher = socket.create_connection(("127.0.0.1", hubs[0].port))
    publisher.setblocking(False)
    began, before = time.perf_counter(), [hub.cpu() for hub in hubs]
    used, sent, total = time.clock_gettime(server), 0, each * len(bodies)
    while not all(clients.have(total) for clients in everybody):
        behind = sent * each - min(min(clients.next.values()) for clients in everybody)
        if sent < len(bodies) and behind < AHEAD and time.perf_counter() - began >= sent * pause:
            publisher.sendall(bodies[sent])
            sent += 1
        for clients in everybody:
            clients.read()
        with contextlib.suppress(BlockingIOError):
            publisher.recv(1 << 20)
    took = time.perf_counter() - began
    costs = [1e6 * (hub.cpu() - then) / (total * CLIENTS) for hub, then in zip(hubs, before, strict=True)]
    for clients in everybody:
        clients.close()
    publisher.close()
    others = statistics.mean(costs[1:]) if costs[1:] else float("nan")
    return [costs[0], others, 1e6 * (time.clock_gettime(server) - used) / total, total / took]


def one_round(count: int, name: str) -> list[float]:
    numbers = range(GROUPS * GROUP) if name == "grouped" else range(FLOOD)
    each = GROUP if name == "grouped" else ARRAY
    port = 0
    with engine(redis_program(), "--appendonly", "yes", "--appendfsync", "everysec") as redis:
        hubs = [Hub(redis.url()) for _ in range(count)]
        try:
            port = hubs[0].port
            parts = [numbers[at : at + each] for at in range(0, len(numbers), each)]
            bodies = [post(port, [event(number) for number in part]) for part in parts]
            return cost(redis, hubs, bodies, each, GROUP / PER_SECOND if name == "grouped" else 0.0)
        finally:
            for hub in hubs:
                hub.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(options.rounds):
        for name in ("grouped", "flooded"):
            for count in (1, 2, 3):
                found.setdefault((name, count), []).append(one_round(count, name))
    print("| | hubs |", " | ".join(NUMBERS), "|\n| --- | --- |", " | ".join("---" for _ in NUMBERS), "|")
    for (name, count), rounds in found.items():
        cells = [statistics.median(values) for values in zip(*rounds, strict=True)]
        print(f"| {name} | {count} |", " | ".join("–" if cell != cell else f"{cell:.2f}" for cell in cells), "|")


if __name__ == "__main__":
    main()
