"""What it costs to get in: a POST, an event of an array, a publish on /ws, a connection; beside bare aiohttp.

`python tests/bench/inward.py [--rounds 5]` prints medians of paired rounds, server CPU in µs. With `--profile 40` a hub
runs under cProfile, and the 40 functions are printed in which the time goes (at half the speed, and Python's functions
look dearer than they are: for the order, not for the figure).
"""

import argparse
import pstats
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bench import Server, at_once, command, event, post, upgrade, way_in

PROFILED = """
import cProfile, sys
from hub.cli.main import main
profile = cProfile.Profile()
try:
    profile.runcall(main, sys.argv[2:])
finally:
    profile.dump_stats(sys.argv[1])
"""


def connections(server: Server, count: int) -> float:
    """Server CPU in µs for one WebSocket that comes and goes."""
    before = server.cpu()
    for _ in range(count):
        upgrade(server).close()
    return (server.cpu() - before) / count * 1e6


def one_round(server: Server, n: int) -> Iterator[tuple[str, float]]:
    plain = socket.create_connection(("127.0.0.1", server.port))
    requests = [post(server.port, event(i)) for i in range(n)]
    way_in(server, requests[:200], b" 200 ", plain)
    yield "a POST, one after the other", way_in(server, requests, b" 200 ", plain, window=1)
    yield "a POST, 32 connections at once", at_once(server, requests, b" 200 ")
    yield "a POST, 32 on their way on one connection", way_in(server, requests, b" 200 ", plain)
    if server.kind == "hub":
        arrays = [post(server.port, [event(i) for i in range(100)])] * (n // 50)
        yield "an event of an array of 100", way_in(server, arrays, b" 200 ", plain) / 100
        stream = upgrade(server, "?topics=no:such")
        yield "hub:publish on /ws", way_in(server, [command(i) for i in range(n)], b'"type":"response"', stream)
        stream.close()
    plain.close()
    connections(server, 50)
    yield "a connection to /ws", connections(server, n // 6)


def profile(n: int, lines: int) -> None:
    """Print where the hub's time goes."""
    with tempfile.NamedTemporaryFile() as file:

        class Profiled(Server):
            def command(self, kind: str) -> list[str]:
                return [sys.executable, "-c", PROFILED, file.name, *super().command(kind)[3:]]

        server = Profiled("hub")
        for name, cost in one_round(server, n):
            print(f"{name}: {cost:.0f} µs, profiled")
        server.stop()
        pstats.Stats(file.name).sort_stats(pstats.SortKey.TIME).print_stats(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--profile", type=int, metavar="LINES", default=0)
    options = parser.parse_args()
    if options.profile:
        profile(options.requests, options.profile)
        return
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.rounds):
        for kind in ("hub", "aiohttp"):
            server = Server(kind)
            try:
                for name, value in one_round(server, options.requests):
                    found.setdefault(name, {}).setdefault(kind, []).append(value)
            finally:
                server.stop()
    print("| µs | hub | bare aiohttp | ratio |\n| --- | --- | --- | --- |")
    for name, kinds in found.items():
        hub, other = kinds["hub"], kinds.get("aiohttp", [])
        ratio = [a / b for a, b in zip(hub, other, strict=False)]
        cells = [f"{statistics.median(values):.2f}" if values else "–" for values in (hub, other, ratio)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
