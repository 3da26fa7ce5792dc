"""Sixty clients that subscribe, unsubscribe, stall, violate, reset and leave at random while events flow: no foreign
byte, no torn frame, no silent loss.

`python tests/crowd.py --minutes 10 --seed 7`, against `python -m hub` in a process of its own.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path

from aiohttp import ClientSession
from running import JSON, HubProcess, Raw, hub_process
from visitors import BINARY, CLOSE, TEXT, SSEVisitor, Stranger, Stream, Visitor, WebSocketVisitor

CLIENTS, STRANGERS = 60, 8
NAMES = ["a:x", "a:y", "b:x", "b:y:z"]
TOPICS = ["*", "a:*", "b:*", "*:x", "a:y", "c:d"]
ACTS = ["read", "read", "stall", "call", "call", "subscribe", "unsubscribe", "again", "break"]
REST = 20.0  # seconds that everybody gets in the end to read what there is
BREAKING = [b"\x81\x02{}", Raw.packed(BINARY, b"{}"), Raw.packed(TEXT, b"\xff"), Raw.packed(TEXT, b"x" * 100)[:50]]


class Crowd:
    """The clients, and what they have done and seen."""

    def __init__(self, hub: HubProcess, seed: int) -> None:
        self.hub, self.chance = hub, random.Random(seed)
        self.stream, self.did = Stream(), Counter[str]()
        self.begun = asyncio.Event()
        self.epoch, self.head, self.going = "", 0, True

    async def publish(self, http: ClientSession) -> None:
        """One after the other, so that the numbers are known before anybody gets them."""
        while self.going:
            names = self.chance.choices(NAMES, k=self.chance.randint(1, 10))
            size = self.chance.choice([0, 0, 100, 5000, 20_000])
            head = max(self.stream.names, default=0)
            self.stream.names.update({head + n: name for n, name in enumerate(names, 1)})
            body = json.dumps([{"event": name, "data": "x" * size} for name in names])
            async with http.post(f"{self.hub.url}api/events", data=body, headers=JSON) as response:
                cursor = (await response.json())["cursor"]
            assert cursor.endswith(f":{head + len(names)}"), cursor
            self.epoch, self.head = cursor.partition(":")[0], head + len(names)
            self.begun.set()
            self.did["events"] += len(names)
            await asyncio.sleep(self.chance.choice([0, 0.002, 0.02]))

    async def client(self) -> None:
        """One seat of the crowd: who leaves makes room for the next."""
        await self.begun.wait()
        while self.going:
            visitor = await self._arrive()
            ends = time.monotonic() + self.chance.expovariate(1 / 5)
            while self.going and time.monotonic() < ends and not (visitor.ended or visitor.goodbye):
                self._act(visitor)
                await asyncio.sleep(self.chance.choice([0, 0.001, 0.01, 0.1]))
                if visitor.reading:
                    visitor.read(self.chance.choice([10, 3000, 1 << 20]))
            if self.going:
                self._go(visitor)
            else:
                await self._read_to_the_end(visitor)
            visitor.socket.close()

    async def _arrive(self) -> Visitor:
        topics = self.chance.choice([None, self.chance.sample(TOPICS, self.chance.randint(1, 3))])
        buffer = self.chance.choice([None, 4096])
        kinds: list[type[WebSocketVisitor] | type[SSEVisitor]] = [WebSocketVisitor, WebSocketVisitor, SSEVisitor]
        visitor = self.chance.choice(kinds)(self.hub.port, self.stream, buffer=buffer)
        await visitor.connect()
        position = max(0, self.head - self.chance.randint(0, 300))
        after = f"{self.epoch}:{position}"
        visitor.joined(topics, position)
        if isinstance(visitor, WebSocketVisitor):
            visitor.upgrade(topics, after)
        else:
            visitor.ask_for(topics, after)
        self.did[type(visitor).__name__] += 1
        return visitor

    def _act(self, visitor: Visitor) -> None:
        what = self.chance.choice(
            ["read", "read", "stall", "call", "call", "subscribe", "unsubscribe", "again", "break"]
        )
        if what in ("read", "stall"):
            visitor.reading = what == "read"
        if not isinstance(visitor, WebSocketVisitor) or visitor.view is None or not visitor.handshaken:
            return
        topics = self.chance.sample(TOPICS, self.chance.randint(1, 3))
        match what:
            case "call":
                command = self.chance.choice(["hub:ping", "hub:history", "hub:info"])
                visitor.call(command, {"limit": 500} if command == "hub:history" else {})
            case "subscribe":
                visitor.call("hub:subscribe", {"topics": topics})
            case "unsubscribe" if not visitor.waits and visitor.call("hub:unsubscribe", {"topics": topics}):
                visitor.view.unsubscribing(topics)
            case "again" if self.chance.random() < 0.1:
                after = max(0, visitor.view.position - self.chance.randint(0, 50))
                if visitor.call("hub:subscribe", {"topics": topics, "after": f"{self.epoch}:{after}"}):
                    visitor.view.restarted(after)
            case "break" if self.chance.random() < 0.1:
                visitor.broken = True
                asked = visitor.ask("hub:subscribe", {"topics": ["*"], "after": f"{self.epoch}:0"})
                visitor.view.restarted(0)
                visitor.say(self.chance.choice([b"", asked]) + self.chance.choice(BREAKING))
            case _:
                return
        self.did[what] += 1

    def _go(self, visitor: Visitor) -> None:
        how = self.chance.choice(["leave", "reset", "half-close", "goodbye", "subscribe and goodbye"])
        visitor.broken = True
        self.did[how] += 1
        if how == "reset":
            visitor.reset()
        elif how == "half-close":
            visitor.half_close()
            visitor.read()
        elif isinstance(visitor, WebSocketVisitor) and "goodbye" in how:
            asked = visitor.ask("hub:subscribe", {"topics": ["*"], "after": f"{self.epoch}:0"})
            visitor.say(asked * (how != "goodbye") + Raw.packed(CLOSE, b"\x03\xe8"))

    async def _read_to_the_end(self, visitor: Visitor) -> None:
        """Until nothing has come for a while; through a small window half a megabyte would take a minute."""
        head, ends, quiet = max(self.stream.names), time.monotonic() + REST, 0
        if not visitor.ended:
            visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        while quiet < 500 and time.monotonic() < ends and not visitor.ended:
            came = visitor.read()
            if came:
                ends = time.monotonic() + REST
            quiet = 0 if came or visitor.waits else quiet + 1
            await asyncio.sleep(0.01)
        visitor.end(head)
        self.did["judged to the end"] += not (visitor.ended or visitor.broken or visitor.goodbye)

    async def stranger(self) -> None:
        """Somebody whose descriptor was a client's before, perhaps."""
        while self.going:
            stranger = Stranger(self.hub.port, self.stream, asks=self.chance.random() < 0.5)
            await stranger.connect()
            stranger.greet()
            ends = time.monotonic() + self.chance.uniform(0.05, 3)
            while self.going and time.monotonic() < ends:
                await asyncio.sleep(0.02)
                stranger.read()
            stranger.socket.close()
            self.did["strangers"] += 1


async def crowd(minutes: float, seed: int) -> Counter[str]:
    """Play it for so long; returns how often what was done. Raises Complaint for what no client may get."""
    with tempfile.TemporaryDirectory() as folder:
        async with hub_process(Path(folder), "--rate", "0") as hub, ClientSession() as http:
            found = Crowd(hub, seed)
            async with asyncio.TaskGroup() as group:
                group.create_task(found.publish(http))
                for _ in range(CLIENTS):
                    group.create_task(found.client())
                for _ in range(STRANGERS):
                    group.create_task(found.stranger())
                await asyncio.sleep(60 * minutes)
                found.going = False
            assert "Traceback" not in hub.log, hub.log
            with contextlib.suppress(ValueError):
                found.did["lines of the hub's log"] = hub.log.count("\n")
            return found.did


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    did = asyncio.run(crowd(given.minutes, given.seed))
    print("  ".join(f"{what}: {count}" for what, count in sorted(did.items())))


if __name__ == "__main__":
    main()
