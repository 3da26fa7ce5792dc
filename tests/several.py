"""Three hubs on one Redis, a thousand clients that go from hub to hub, and everything killed, stopped, cut and
restarted at random: nobody misses an event, gets one twice, or another one than everybody else; nothing that was
answered is lost.

    python tests/several.py --minutes 10 --seed 7

The Redis writes everything to its disk before it answers (`appendfsync always`), so nothing may be lost, and no client
may be told of a gap at all.
"""

import argparse
import asyncio
import json
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout
from engines import DURABLE, Engine, Line, engine, line, redis_program
from running import JSON, Raw, environment

HUBS, CLIENTS, PUBLISHERS = 3, 1000, 8
PAUSE = 0.3  # seconds of a publisher between two events, on average
SILENT = (3.0, 8.0)  # seconds without a word after which a client goes elsewhere
REST = 90.0  # seconds that everybody gets in the end
EVENT = re.compile(rb'"id":"([^"]*)","timestamp":"[^"]*","cursor":"(\w+):(\d+)","payload":\{"event":"([^"]*)"')
PING, PONG = 0x9, 0xA


class Complaint(AssertionError):
    """What must not be."""


class Member:
    """One of the hubs: a process on a port of its own, with a line of its own to the Redis."""

    def __init__(self, name: str, folder: Path, way: Line) -> None:
        self.name, self.folder, self.way = name, folder / name, way
        self.folder.mkdir()
        self.process: asyncio.subprocess.Process | None = None
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.log = (self.folder / "log").open("ab")

    async def start(self) -> bool:
        """Whether it runs; without its Redis it does not."""
        flags = ["--port", str(self.port), "--state-dir", str(self.folder / "state"), "--heartbeat", "5", "--rate", "0"]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", *flags),
            cwd=self.folder,
            env={**environment(), "HUB_BROKER": self.way.url()},
            stdout=asyncio.subprocess.PIPE,
            stderr=self.log,
            start_new_session=True,
        )
        assert self.process.stdout
        return b"http" in await self.process.stdout.readline()

    async def kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()

    def send(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Found:
    """What everybody has seen: which event each number is, and what was answered."""

    def __init__(self) -> None:
        self.ids: dict[int, bytes] = {}
        self.wide: set[int] = set()  # the numbers that only clients of everything get
        self.answered: dict[str, int] = {}
        self.did: Counter[str] = Counter()
        self.cursor = ""  # the newest that was answered
        self.going = True

    def came(self, seq: int, id: bytes, name: bytes) -> None:
        if self.ids.setdefault(seq, id) != id:
            raise Complaint(f"{seq} is {id!r} here, and {self.ids[seq]!r} elsewhere")
        if not name.startswith(b"a:"):
            self.wide.add(seq)


class Client:
    """Goes on behind the last cursor that it saw, on whichever hub there is."""

    def __init__(self, found: Found, members: list[Member], chance: random.Random, *, narrow: bool) -> None:
        self.found, self.members, self.chance, self.narrow = found, members, chance, narrow
        self.start = self.seq = 0
        self.cursor = ""
        self.seen = array("L")

    async def run(self) -> None:
        while True:
            member = self.chance.choice(self.members)
            try:
                await self._connected(member.port)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                self.found.did["moves"] += 1
            await asyncio.sleep(self.chance.uniform(0.05, 1.0))

    async def _connected(self, port: int) -> None:
        if not self.cursor:
            self.cursor = self.found.cursor
            self.start = self.seq = int(self.cursor.partition(":")[2])
        async with asyncio.timeout(self.chance.uniform(*SILENT)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            topics = "topics=a:*&" * self.narrow
            writer.write(
                f"GET /ws?{topics}after={self.cursor} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            async with asyncio.timeout(self.chance.uniform(*SILENT)):
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head[:20]:
                self.found.did["refused"] += 1
                if b" 503 " not in head[:20]:
                    raise Complaint(f"refused with {self.cursor}: {head!r} {await reader.read(1000)!r}")
                return
            while True:
                async with asyncio.timeout(self.chance.uniform(*SILENT)):
                    await self._frame(reader, writer)
        finally:
            writer.transport.abort()

    async def _frame(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, size = await reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
        data = await reader.readexactly(size)
        if first == 0x80 | PING:
            writer.write(Raw.packed(PONG, data))
        elif first == 0x88:
            raise ConnectionError
        elif first != 0x81:
            raise Complaint(f"torn: {first:x} {data[:80]!r}")
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        match = EVENT.search(data)
        if match is None:
            frame = json.loads(data)["payload"]
            if frame["event"] != "hub:mark":
                raise Complaint(f"at {self.cursor}: {frame}")
            self.cursor = frame["data"]["cursor"]
            return
        id, epoch, number, name = match.groups()
        seq = int(number)
        if seq <= self.seq or (seq > self.seq + 1 and not self.narrow):
            raise Complaint(f"{epoch!r}:{seq} came behind {self.cursor}")
        self.found.came(seq, id, name)
        self.seen.append(seq)
        self.seq, self.cursor = seq, f"{epoch.decode()}:{seq}"

    def judge(self, head: int) -> None:
        """Whether it has got everything from its start to the end."""
        numbers = range(self.start + 1, head + 1)
        wanted = [seq for seq in numbers if not (self.narrow and seq in self.found.wide)]
        if list(self.seen) != wanted:
            missing = sorted(set(wanted) - set(self.seen))
            raise Complaint(f"behind {self.start} it missed {len(missing)} of {len(wanted)}: {missing[:10]}")


class Publisher:
    """Publishes until it is answered, with an id; or once, without."""

    def __init__(self, name: str, found: Found, members: list[Member], chance: random.Random) -> None:
        self.name, self.found, self.members, self.chance = name, found, members, chance
        self.http = ClientSession(timeout=ClientTimeout(5.0))

    async def run(self) -> None:
        count = 0
        while self.found.going:
            count += 1
            tag, name = f"{self.name}-{count}", self.chance.choice(["a:x", "b:x"])
            if self.chance.random() < 0.8:
                while not await self.publish({"event": name, "data": tag, "id": tag}, tag):
                    await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            else:
                await self.publish({"event": name, "data": tag}, tag)
            await asyncio.sleep(self.chance.expovariate(1 / PAUSE))

    async def publish(self, record: dict[str, str], tag: str) -> bool:
        url = f"http://127.0.0.1:{self.chance.choice(self.members).port}/api/events"
        try:
            async with self.http.post(url, data=json.dumps(record), headers=JSON) as response:
                answer = await response.json()
                self.found.did[f"publish {response.status}"] += 1
        except (ClientError, OSError, TimeoutError):
            self.found.did["publish unanswered"] += 1
            return False
        if response.status == 200:
            self.found.answered[tag] = int(answer["cursor"].partition(":")[2])
            self.found.cursor = answer["cursor"]
        elif answer["code"] not in ("broker_unavailable", "shutting_down"):
            raise Complaint(f"a publish was refused: {answer}")
        return response.status == 200


class Chaos:
    """What happens to hubs, server and lines: one thing after the other, and two at once now and then."""

    def __init__(self, found: Found, members: list[Member], server: Engine, chance: random.Random) -> None:
        self.found, self.members, self.server, self.chance = found, members, server, chance
        self.busy: set[object] = set()

    async def run(self, ends: float) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self.kill_hub,
            self.stop_hub,
            self.cut,
            self.hole,
            self.slow,
            self.kill_server,
            self.stop_server,
        ]
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < ends:
                group.create_task(self._act(self.chance.choice(acts)))
                await asyncio.sleep(self.chance.uniform(1.0, 6.0))

    async def _act(self, act: Callable[[], Awaitable[None]]) -> None:
        self.found.did[act.__name__] += 1
        await act()

    async def kill_hub(self) -> None:
        member = self.chance.choice(self.members)
        if member in self.busy:
            return
        self.busy.add(member)
        await member.kill()
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        while not await member.start():
            await member.kill()
            await asyncio.sleep(0.2)
        self.busy.discard(member)

    async def stop_hub(self) -> None:
        member = self.chance.choice(self.members)
        if member not in self.busy:
            self.busy.add(member)
            member.send(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(0.5, 6.0))
            member.send(signal.SIGCONT)
            self.busy.discard(member)

    async def cut(self) -> None:
        self.chance.choice(self.members).way.cut()

    async def hole(self) -> None:
        way = self.chance.choice(self.members).way
        way.deaf, way.dumb = self.chance.choice([(True, True), (True, False), (False, True)])
        await asyncio.sleep(self.chance.uniform(0.2, 5.0))
        way.deaf = way.dumb = False

    async def slow(self) -> None:
        way = self.chance.choice(self.members).way
        way.delay = self.chance.uniform(0.01, 0.5)
        await asyncio.sleep(self.chance.uniform(0.2, 5.0))
        way.delay = 0.0

    async def kill_server(self) -> None:
        if self.server not in self.busy:
            self.busy.add(self.server)
            self.server.kill()
            await asyncio.sleep(self.chance.choice([0.0, 0.1, 1.5]))
            await asyncio.to_thread(self.server.start)
            self.busy.discard(self.server)

    async def stop_server(self) -> None:
        if self.server not in self.busy:
            self.busy.add(self.server)
            self.server.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.chance.uniform(0.2, 4.0))
            self.server.send_signal(signal.SIGCONT)
            self.busy.discard(self.server)


def judge_kept(found: Found, server: Engine) -> None:
    """What is kept is what was answered: each once, where it was said to be."""
    kept: dict[str, int] = {}
    for id, fields in server.ask("XRANGE", "{hub}:e", "-", "+"):
        tag = tag_of(fields[b"d"])
        seq = int(id.split(b"-")[0])
        if tag in kept:
            raise Complaint(f"{tag} is kept as {kept[tag]} and as {seq}")
        kept[tag] = seq
    if sorted(kept.values()) != list(range(1, len(kept) + 1)):
        raise Complaint("there are holes among the numbers")
    wrong = {tag: (seq, kept.get(tag)) for tag, seq in found.answered.items() if kept.get(tag) != seq}
    if wrong:
        raise Complaint(f"{len(wrong)} were answered, and are not kept so: {dict(list(wrong.items())[:5])}")


def tag_of(entry: bytes) -> str:
    """The data of an entry: a text without quotes in it."""
    return str(json.loads(entry[entry.rindex(b'"', 0, -1) :]))


async def several(minutes: float, seed: int, clients: int) -> Counter[str]:
    """Play it for so long; returns how often what was done. Raises Complaint."""
    chance, found = random.Random(seed), Found()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(engine(redis_program(), *DURABLE))
        members = list[Member]()
        for number in range(HUBS):
            way = await stack.enter_async_context(line(server, f"line{number}"))
            members.append(Member(f"hub{number}", folder, way))
            stack.push_async_callback(members[-1].kill)
            if not await members[-1].start():
                raise Complaint((folder / f"hub{number}" / "log").read_text())
        publishers = [Publisher(f"p{n}", found, members, chance) for n in range(PUBLISHERS)]
        for publisher in publishers:
            stack.push_async_callback(publisher.http.close)
        while not found.cursor:
            await publishers[0].publish({"event": "a:first", "data": "first"}, "first")
        guests = [Client(found, members, chance, narrow=number % 4 == 0) for number in range(clients)]
        async with asyncio.TaskGroup() as group:
            publishing = [group.create_task(each.run()) for each in publishers]
            going = [group.create_task(guest.run()) for guest in guests]
            await Chaos(found, members, server, chance).run(time.monotonic() + 60 * minutes)
            found.going = False
            await asyncio.wait(publishing)
            head = await settle(found, publishers[0], guests)
            for task in going:
                task.cancel()
        for guest in guests:
            guest.judge(head)
        judge_kept(found, server)
        for member in members:
            log = (member.folder / "log").read_text()
            if "Traceback" in log:
                raise Complaint(log[log.index("Traceback") - 500 :][:3000])
        found.did["events"] = head
        found.did["deliveries"] = sum(len(guest.seen) for guest in guests)
    return found.did


async def settle(found: Found, publisher: Publisher, guests: list[Client]) -> int:
    """Nothing happens any more, and nobody publishes: a last event, and time for everybody to get it. Its number."""
    ends = time.monotonic() + REST
    while not await publisher.publish({"event": "a:last", "data": "last", "id": "last"}, "last"):
        await asyncio.sleep(0.2)
    last = found.answered["last"]
    while behind := [guest for guest in guests if guest.seq < last]:
        if time.monotonic() > ends:
            raise Complaint(f"{len(behind)} clients never came up to {last}: {[guest.cursor for guest in behind[:10]]}")
        await asyncio.sleep(0.1)
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    print(f"seed {given.seed}", flush=True)
    did = asyncio.run(several(given.minutes, given.seed, given.clients))
    print("  ".join(f"{what}: {count}" for what, count in sorted(did.items())))


if __name__ == "__main__":
    main()
