"""What a call costs: python tests/bench/calls.py [--rounds 3] [--profile 40]

100 clients call one command as fast as they are answered, WINDOW at a time each; the audit log is on, and shares a
write among those that come at once. Printed, as medians: calls a second of the hub's CPU, and of the clock, for a
handler of the hub's own and for one that a client serves (a program in Python beside it, whose own time is not the
hub's).
"""

import argparse
import json
import os
import pstats
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bench import Server, upgrade
from bench.inward import PROFILED

CLIENTS, WINDOW = 100, 2  # together fewer than one provider takes at once
MODULE = '''
def setup(hub):
    @hub.command("bench:local", effect="read")
    async def local(call):
        """Return what it was given."""
        return call.args
'''


def frame(id: object, command: str, args: object) -> bytes:
    text = json.dumps({"type": "command", "id": str(id), "payload": {"command": command, "args": args}}).encode()
    return bytes([0x81, 0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text  # masked with zeros


class Loaded(Server):
    """A hub with a command of its own, under a profile if there is a file for it."""

    profile = ""

    def command(self, kind: str) -> list[str]:
        Path(self._state.name, "loaded.py").write_text(MODULE)
        os.environ["PYTHONPATH"] = os.pathsep.join((self._state.name, os.getcwd()))
        command = [*super().command(kind), "--load", "loaded"]
        return [command[0], "-c", PROFILED, self.profile, *command[3:]] if self.profile else command


def provider(port: int) -> None:
    """Serve bench:provided: answers whatever has come in one write."""
    server = argparse.Namespace(port=port)
    stream = upgrade(server, "?topics=no:such")  # type: ignore[arg-type]
    stream.sendall(frame("1", "hub:provide", {"commands": [{"name": "bench:provided", "effect": "read"}]}))
    rest = b""
    while data := stream.recv(1 << 20):
        rest, said = rest + data, []
        while len(rest) >= 4 and len(rest) >= 2 + (head := 2 * (rest[1] == 126)) + (
            size := int.from_bytes(rest[2:4], "big") if head else rest[1]
        ):
            text, rest = rest[2 + head : 2 + head + size], rest[2 + head + size :]
            found = json.loads(text or b'{"type": "ping"}')
            if found["type"] == "command":
                text = json.dumps({"type": "response", "id": found["id"], "payload": found["payload"]["args"]}).encode()
                said.append(bytes([0x81, 0x80 | 126]) + struct.pack(">H", len(text)) + bytes(4) + text)
        if said:
            stream.sendall(b"".join(said))


def measure(server: Server, command: str, calls: int) -> tuple[float, float]:
    """Calls a second: of the hub's CPU, and of the clock."""
    streams = [upgrade(server, "?topics=no:such") for _ in range(CLIENTS)]
    each, answer = calls // CLIENTS, b'"type":"response"'
    sent, done = dict.fromkeys(streams, 0), dict.fromkeys(streams, 0)
    before, begun = server.cpu(), time.perf_counter()
    while any(count < each for count in done.values()):
        for stream in streams:
            room = min(WINDOW - (sent[stream] - done[stream]), each - sent[stream])
            if room > 0:
                stream.sendall(b"".join(frame(sent[stream] + n, command, {"n": n}) for n in range(room)))
                sent[stream] += room
        for stream in streams:
            if done[stream] < sent[stream]:
                data = stream.recv(1 << 16)
                assert b'"type":"error"' not in data, data
                done[stream] += data.count(answer)
    found = calls / (server.cpu() - before), calls / (time.perf_counter() - begun)
    for stream in streams:
        stream.close()
    return found


def one_round(server: Server, calls: int) -> dict[str, tuple[float, float]]:
    """Local, then served by a client."""
    measure(server, "bench:local", CLIENTS * WINDOW)
    found = {"a handler of its own": measure(server, "bench:local", calls)}
    serving = subprocess.Popen([sys.executable, __file__, "--provide", str(server.port)])
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            for _ in range(100):
                plain.sendall(b"GET /api/commands HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port)
                time.sleep(0.05)
                if b"bench:provided" in plain.recv(1 << 20):
                    break
        found["served by a client"] = measure(server, "bench:provided", calls)
    finally:
        serving.kill()
        serving.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--profile", type=int, metavar="LINES", default=0)
    parser.add_argument("--provide", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provide:
        provider(options.provide)
        return
    with tempfile.NamedTemporaryFile() as file:
        Loaded.profile = file.name if options.profile else ""
        rounds = []
        for _ in range(1 if options.profile else options.rounds):
            server = Loaded("hub")
            try:
                rounds.append(one_round(server, options.calls))
            finally:
                server.stop()
        print("| calls a second | of the hub's CPU | of the clock |\n| --- | --- | --- |")
        for name in rounds[0]:
            cpu, clock = (statistics.median(found[name][n] for found in rounds) for n in (0, 1))
            print(f"| {name} | {cpu:,.0f} | {clock:,.0f} |")
        if options.profile:
            pstats.Stats(file.name).sort_stats(pstats.SortKey.TIME).print_stats(options.profile)


if __name__ == "__main__":
    main()
