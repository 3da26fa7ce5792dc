"""HubClients and a hub, and bad weather on the way between them: cuts, resets, black holes, closed and silent ports,
restarts, kills; and clients that cancel, leave and come again.

    python tests/weather.py --minutes 10

What must hold is judged in the end against what the hub has kept: every follower has got all of it behind its own
beginning, in order and once; every publish that was acknowledged is there once, where it was said to be; and
everything that was begun has ended.
"""

import argparse
import asyncio
import json
import random
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from running import HubProcess, hub_process

from hub import Gap, HubClient, HubError, NoHub, ServedCall
from hub.client import connections, sockets

LONGEST = 60.0  # seconds after which something that was begun has not ended
PATIENCE = 3.0  # of the clients


class Complaint(AssertionError):
    """What no client may see."""


class Way:
    """The way to the hub: a port of its own, from which bytes go on to wherever the hub is now."""

    def __init__(self) -> None:
        self.port = self.target = 0
        self.silent = False  # whoever comes is accepted, and that is all
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._holes: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Nobody comes in any more; those who are there stay."""
        assert self._server is not None
        self._server.close()

    @property
    def pairs(self) -> list["asyncio.Task[None]"]:
        return list(self._pairs)

    def cut(self, pair: "asyncio.Task[None]", *, reset: bool) -> None:
        """End one connection, for both sides."""
        for writer in self._pairs[pair]:
            if reset:
                writer.transport.abort()
            else:
                writer.close()

    def swallow(self, pair: "asyncio.Task[None]") -> None:
        """Nothing that is said by this connection arrives any more."""
        self._holes.add(pair)

    async def end(self) -> None:
        self.close()
        for pair in self.pairs:
            self.cut(pair, reset=True)
            pair.cancel()
        if self._pairs:
            await asyncio.wait(self._pairs)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = asyncio.current_task()
        assert pair is not None
        self._pairs[pair] = writers = [writer]
        try:
            if self.silent:
                self._holes.add(pair)
            with suppress(OSError):
                onward, back = await asyncio.open_connection("127.0.0.1", self.target)
                writers.append(back)
                await asyncio.gather(self._pass(pair, reader, back), self._pass(pair, onward, writer))
        except asyncio.CancelledError:
            pass
        finally:
            for open_writer in writers:
                with suppress(AttributeError):  # asyncio, of one that has gone
                    open_writer.transport.abort()
            self._holes.discard(pair)
            del self._pairs[pair]

    async def _pass(
        self, pair: "asyncio.Task[None]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if pair not in self._holes and not writer.transport.is_closing():
                writer.write(data)
                await writer.drain()
        if pair not in self._holes:
            writer.close()


@dataclass
class Follower:
    """What one has seen since its beginning."""

    start: str
    cursors: list[str] = field(default_factory=list)

    def take(self, item: Any) -> None:
        if isinstance(item, Gap):
            raise Complaint(f"{item}, although everything is kept")
        self.cursors.append(item.cursor)


class Weather:
    """The clients, what they have done, and what is done to them."""

    def __init__(self, seed: int) -> None:
        self.chance, self.way = random.Random(seed), Way()
        self.going, self.did = True, Counter[str]()
        self.said: dict[str, str] = {}  # where what was published is, as its publisher was told
        self.followers: list[Follower] = []
        self.begun = asyncio.Event()
        self.last = asyncio.Event()  # the weather is fine again, and the last event is published

    def client(self, **more: Any) -> HubClient:
        return HubClient(f"http://127.0.0.1:{self.way.port}", patience=PATIENCE, **more)

    @asynccontextmanager
    async def entered(self, client: HubClient) -> AsyncIterator[HubClient]:
        """Entering is no more than one attempt."""
        while True:
            try:
                await within(client.__aenter__(), "entering")
                break
            except (NoHub, HubError) as error:
                if isinstance(error, HubError) and not error.retryable:
                    raise
                await asyncio.sleep(0.05)
        try:
            yield client
        finally:
            await within(client.__aexit__(), "leaving")

    # ---- what clients do

    async def publish(self, name: str) -> None:
        number = 0
        while self.going:
            async with self.entered(self.client()) as client:
                for _ in range(self.chance.randint(1, 20)):
                    if not self.going:
                        return
                    count = self.chance.choice([1, 1, 5, 50])
                    names = [f"{name}-{number + n}" for n in range(count)]
                    number += count
                    works = [asyncio.create_task(self._publish(client, name)) for name in names]
                    await self._perhaps_cancelled(works)
                    await within(asyncio.wait(works), "publishing")
                    await asyncio.sleep(self.chance.choice([0, 0.01, 0.1]))

    async def _publish(self, client: HubClient, name: str) -> None:
        size = self.chance.choice([0, 0, 0, 1000, 20_000])
        try:
            cursor = (await client.publish("a:x", {"name": name, "pad": "x" * size}))["cursor"]
        except (NoHub, HubError) as error:
            self.did[f"publish: {type(error).__name__}"] += 1
        else:
            self.said[name] = cursor
            self.begun.set()
            self.did["published"] += 1

    async def call(self) -> None:
        async with self.entered(self.client()) as client:
            while self.going:
                command = self.chance.choice(["hub:ping", "a:slow", "hub:history"])
                work = asyncio.create_task(self._call(client, command))
                await self._perhaps_cancelled([work])
                await within(asyncio.wait([work]), f"a call of {command}")
                await asyncio.sleep(self.chance.choice([0, 0.01, 0.1]))

    async def _call(self, client: HubClient, command: str) -> None:
        try:
            await client.call(command)
            self.did["called"] += 1
        except (NoHub, HubError) as error:
            self.did[f"call: {getattr(error, 'code', 'NoHub')}"] += 1

    async def _perhaps_cancelled(self, works: list["asyncio.Task[None]"]) -> None:
        if self.chance.random() < 0.2:
            await asyncio.sleep(self.chance.choice([0, 0.001, 0.01]))
            for work in works:
                work.cancel()
            self.did["cancelled"] += len(works)

    async def serve(self) -> None:
        async def slow(call: ServedCall) -> str:
            await asyncio.sleep(0.01)
            return "done"

        while self.going:
            async with self.entered(self.client()) as client:
                with suppress(NoHub, HubError):
                    await within(client.provide("a:slow", slow, effect="read"), "providing")
                    self.did["provided"] += 1
                    await asyncio.sleep(self.chance.uniform(1, 5))

    async def follow(self) -> None:
        """Whoever leaves comes again with what it had, by the same client or another one."""
        client = self.client(topics=["a:*"])
        follower: Follower | None = None
        while not (self.last.is_set() and follower and follower.cursors and follower.cursors[-1] == self.end):
            async with self.entered(client):
                follower = follower or self._begin(client)
                await self._follow(client, follower)
            self.did["left and came again"] += 1
            if self.chance.random() < 0.5:
                client = self.client(topics=["a:*"], after=client.cursor)

    def _begin(self, client: HubClient) -> Follower:
        assert client.cursor
        self.followers.append(found := Follower(client.cursor))
        return found

    async def _follow(self, client: HubClient, follower: Follower) -> None:
        for _ in range(self.chance.randint(1, 300)):
            if self.last.is_set() and follower.cursors and follower.cursors[-1] == self.end:
                return
            with suppress(TimeoutError):  # a wait that was cancelled has taken nothing
                async with asyncio.timeout(self.chance.choice([0.001, 0.05, 1.0])):
                    follower.take(await anext(client))
            if not self.last.is_set() and self.chance.random() < 0.01:
                await asyncio.sleep(self.chance.choice([0.1, 0.5]))

    # ---- what is done to them

    async def storm(self, seconds: float) -> None:
        ends = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < ends:
            what = self.chance.choice(["cut", "cut", "reset", "reset", "hole", "all", "closed", "silent", "calm"])
            self.did[what] += 1
            pairs = self.way.pairs
            if what in ("cut", "reset", "hole") and pairs:
                pair = self.chance.choice(pairs)
                if what == "hole":
                    self.way.swallow(pair)
                else:
                    self.way.cut(pair, reset=what == "reset")
            elif what == "all":
                hole = self.chance.random() < 0.3
                for pair in pairs:
                    if hole:
                        self.way.swallow(pair)
                    else:
                        self.way.cut(pair, reset=self.chance.random() < 0.5)
            elif what == "closed":
                self.way.close()
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
                await self.way.open()
            elif what == "silent":
                self.way.silent = True
                await asyncio.sleep(self.chance.uniform(0.05, 0.5))
                self.way.silent = False
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def lives(self, folder: Path) -> None:
        """One hub after the other, until the weather is fine; the last one stays."""
        while self.going:
            how = self.chance.choice([signal.SIGKILL, signal.SIGTERM])
            async with self.hub(folder, status=-how if how == signal.SIGKILL else 0) as hub:
                for _ in range(self.chance.randint(10, 60)):
                    if self.going:
                        await asyncio.sleep(0.1)
                hub.signal(how)
                await hub.ended()
                self.did[how.name] += 1

    @asynccontextmanager
    async def hub(self, folder: Path, status: int = 0) -> AsyncIterator[HubProcess]:
        kept = ("--keep-events", "1000000", "--keep-bytes", str(2**32))  # all of it, however long this goes on
        flags = ("--allow-host", f"127.0.0.1:{self.way.port}", "--heartbeat", "1", *kept)
        async with hub_process(folder, *flags, status=status) as hub:
            self.way.target = hub.port
            yield hub

    # ---- how it ends

    async def judge(self, hub: HubProcess) -> None:
        kept = await history(hub)
        names = Counter(event["payload"]["data"]["name"] for event in kept)
        if twice := [name for name, count in names.items() if count > 1]:
            raise Complaint(f"published once and kept twice: {twice[:5]}")
        where = {event["payload"]["data"]["name"]: event["cursor"] for event in kept}
        if wrong := {name: cursor for name, cursor in self.said.items() if where.get(name) != cursor}:
            raise Complaint(f"acknowledged, and not there: {dict(list(wrong.items())[:5])}")
        for follower in self.followers:
            start = number(follower.start)
            expected = [event["cursor"] for event in kept if number(event["cursor"]) > start]
            if follower.cursors != expected:
                raise Complaint(difference(follower.cursors, expected))

    async def play(self, folder: Path, seconds: float) -> None:
        await self.way.open()
        try:
            async with asyncio.TaskGroup() as group:
                lives = group.create_task(self.lives(folder))
                works = [self.call(), self.serve(), *(self.publish(f"p{n}") for n in range(3))]
                busy = [group.create_task(work) for work in works]
                for _ in range(3):
                    group.create_task(self.follow())
                await within(self.begun.wait(), "the first event")
                await self.storm(seconds)
                self.going = False
                await lives
                async with self.hub(folder) as hub:
                    await within(asyncio.wait(busy), "everything")
                    await self._come_to_an_end()
                    await self.judge(hub)
        finally:
            await self.way.end()

    async def _come_to_an_end(self) -> None:
        async with self.entered(self.client()) as client:
            self.end = (await within(client.publish("a:end", {"name": "end"}), "the end"))["cursor"]
        self.last.set()
        while not self._all_there():
            seen = self._seen()
            await within(self._more_than(seen), f"reading to the end, behind {seen} events,")

    end = ""

    def _all_there(self) -> bool:
        return all(found.cursors and found.cursors[-1] == self.end for found in self.followers)

    def _seen(self) -> int:
        return sum(len(found.cursors) for found in self.followers)

    async def _more_than(self, seen: int) -> None:
        while self._seen() <= seen and not self._all_there():
            await asyncio.sleep(0.02)


async def within(work: Awaitable[Any], what: str) -> Any:
    try:
        async with asyncio.timeout(LONGEST):
            return await work
    except TimeoutError:
        raise Complaint(f"{what} has not ended in {LONGEST} s") from None


async def history(hub: HubProcess) -> list[dict[str, Any]]:
    """All that is kept."""
    found: list[dict[str, Any]] = []
    query = {"topics": "a:*", "limit": "1000", "after": "gone:0"}
    while True:
        async with hub.http.get(f"{hub.url}api/events", params=query) as response:
            page = json.loads(await response.text())
        found += page["events"]
        if not page["more"]:
            return found
        query["after"] = page["cursor"]


def number(cursor: str) -> int:
    return int(cursor.rpartition(":")[2])


def difference(seen: list[str], expected: list[str]) -> str:
    for place, (one, other) in enumerate(zip(seen, expected, strict=False)):
        if one != other:
            return f"{one} where {other} is due, behind {seen[max(0, place - 3) : place]}"
    return f"{len(seen)} events where {len(expected)} are due"


async def weather(seconds: float, seed: int) -> Counter[str]:
    """Play it for so long, and return how often what was done. Raises Complaint (in a group) for what may not be."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("running.PATIENCE", LONGEST)  # of the start of a hub, beside all that goes on here
        patch.setattr(sockets, "HEARTBEAT", 0.5)
        patch.setattr(sockets, "CONNECT_TIMEOUT", 1.0)
        patch.setattr(connections, "FIRST_DELAY", 0.05)
        patch.setattr(connections, "LONGEST_DELAY", 0.5)
        found = Weather(seed)
        await found.play(Path(folder), seconds)
        return found.did


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    did = asyncio.run(weather(60 * given.minutes, given.seed))
    print("  ".join(f"{what}: {count}" for what, count in sorted(did.items())))


if __name__ == "__main__":
    main()
