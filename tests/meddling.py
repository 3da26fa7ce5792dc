"""Two hubs on one Redis or Valkey in whose keys somebody meddles at random: writes, deletes, puts back from copies.
Whatever that is, no client misses a number that it is not told of, no number means two events in one epoch, and in the
end all is taken and delivered again.

    python tests/meddling.py --steps 1000 --seed 7
"""

import argparse
import asyncio
import random
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from engines import Engine, engine, redis_program, valkey_program
from redis.exceptions import ResponseError
from running import PATIENCE, HubInside, hub_app, talk

from hub.errors import HubError

STREAM = [f"{{hub}}:{name}" for name in "emivxz"]
ENTRIES, META, IDS = STREAM[:3]
FIELDS, VALUES = ("seq", "tail", "bytes", "epoch", "lineage", "run", "holes"), ("x", "1", "5", "-1", "999999")
QUIET = 0.05  # of all steps, those behind which the hubs get a moment to look


class Complaint(AssertionError):
    """What must not be."""


class Client:
    """Goes on behind the last cursor that it saw. `ids` are what everybody has seen under each cursor."""

    def __init__(self, hub: HubInside, ids: dict[str, str], did: Counter[str]) -> None:
        self.hub, self.ids, self.did, self.cursor, self.last = hub, ids, did, str(hub.hub.cursor), ""

    async def run(self) -> None:
        while True:
            async with talk(self.hub.url, f"?after={self.cursor}") as client:
                while (frame := await client.frame()) is not None:
                    self._take(frame)
            self.did["turned away"] += 1  # the store could not be read
            await asyncio.sleep(0.05)

    def _take(self, frame: dict[str, Any]) -> None:
        data, seq = frame["payload"]["data"], int(self.cursor.partition(":")[2])
        if frame["payload"]["event"] == "hub:gap":
            epoch, _, before = data["before"].partition(":")
            self.cursor = f"{epoch}:{int(before) - 1}"
            self.did["gaps"] += 1
            return
        if int(frame["cursor"].partition(":")[2]) != seq + 1:
            raise Complaint(f"{frame['cursor']} came behind {self.cursor}")
        self.cursor, self.last = frame["cursor"], frame["id"]
        if self.ids.setdefault(self.cursor, self.last) != self.last:
            raise Complaint(f"{self.cursor} is {self.last} here, and {self.ids[self.cursor]} elsewhere")


class Meddler:
    """Does to the keys of the stream what hubs do not."""

    def __init__(self, server: Engine, hubs: list[HubInside], chance: random.Random) -> None:
        self.server, self.hubs, self.chance = server, hubs, chance
        self.copies = list[dict[str, bytes]]()

    def meddle(self) -> str:
        """One thing; returns what."""
        acts = [self.write, self.write_next, self.delete_some, self.delete_key, self.change, self.copy, self.put_back]
        act = self.chance.choices([*acts, self.empty, self.unload, self.cut], [15, 10, 15, 15, 6, 13, 16, 3, 3, 4])[0]
        with suppress(ResponseError):  # the number is there, or nothing is
            act()
        return act.__name__

    def write(self) -> None:
        self.server.ask("XADD", ENTRIES, "*", "a", "1")

    def write_next(self) -> None:
        self.server.ask("XADD", ENTRIES, f"{self.hubs[0].hub.cursor.seq + 1}-0", "d", "garbage")

    def delete_some(self) -> None:
        head = self.hubs[0].hub.cursor.seq
        self.server.ask("XDEL", ENTRIES, *(f"{max(1, head - self.chance.randrange(10))}-0" for _ in range(3)))

    def delete_key(self) -> None:
        self.server.ask("DEL", self.chance.choice([META, ENTRIES, IDS]))

    def change(self) -> None:
        self.server.ask("HSET", META, self.chance.choice(FIELDS), self.chance.choice(VALUES))

    def copy(self) -> None:
        found = {key: self.server.ask("DUMP", key) for key in STREAM}
        self.copies.append({key: data for key, data in found.items() if data})

    def put_back(self) -> None:
        with self.server.client() as client, client.pipeline() as together:
            for key, data in self.chance.choice(self.copies[-3:] or [{}]).items():
                together.execute_command("RESTORE", key, 0, data, "REPLACE")
            together.execute()

    def empty(self) -> None:
        self.server.ask("FLUSHALL")

    def unload(self) -> None:
        self.server.ask("FUNCTION", "FLUSH")

    def cut(self) -> None:
        for hub in self.hubs:
            its: Any = hub.hub.broker
            if its._link is not None:
                its._link.close()


async def meddling(server: Engine, folder: Path, steps: int, seed: int) -> Counter[str]:
    """Play it; returns how often what was done. Raises Complaint."""
    chance, did, ids = random.Random(seed), Counter[str](), dict[str, str]()
    settings: Any = {"keep_events": chance.choice([50, 100_000]), "window_events": chance.choice([3, 1000])}
    async with AsyncExitStack() as stack:
        hubs = [
            await stack.enter_async_context(hub_app(folder / name, broker=server.url(), **settings))
            for name in ("one", "two")
        ]
        meddler = Meddler(server, hubs, chance)
        clients = [Client(hub, ids, did) for hub in hubs for _ in range(2)]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        try:
            for step in range(steps):
                if chance.random() < 0.3:
                    did[meddler.meddle()] += 1
                else:
                    did["published"] += await publish(chance.choice(hubs), f"{seed}-{step}")
                if chance.random() < QUIET:
                    await asyncio.sleep(chance.random())
                raise_of(tasks)
            async with asyncio.timeout(PATIENCE):
                while not await publish(hubs[0], "last"):
                    await asyncio.sleep(0.05)
                while any(client.last != "last" for client in clients):
                    raise_of(tasks)
                    await asyncio.sleep(0.02)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    return did


async def publish(hub: HubInside, id: str) -> bool:
    """Whether it was taken."""
    try:
        await hub.hub.publish("a:x", id, id=id)
    except HubError as error:
        if error.code != "broker_unavailable":
            raise Complaint(f"refused: {error}") from error
        return False
    return True


def raise_of(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        if task.done():
            task.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    for program in (redis_program(), valkey_program()):
        with engine(program) as server, tempfile.TemporaryDirectory() as folder:
            did = asyncio.run(meddling(server, Path(folder), given.steps, given.seed))
        print("  ".join(f"{what}: {count}" for what, count in sorted(did.items())))


if __name__ == "__main__":
    main()
