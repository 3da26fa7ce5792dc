"""A hub for an hour under everyday load: does it grow, leak or lose anything?

`python tests/soak.py --minutes 2`: 500 events a second, 100 clients that come and go and resume, one command a second.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession, WSMsgType
from running import JSON, HubProcess, hub_process, run_hub, talk

TOPICS, CLIENTS, BATCH, PAUSE = 20, 100, 10, 0.02  # ten events every 20 ms; each client follows one topic
SLOPE = 20 * 1024  # bytes a minute that the second half of a run may grow by
FULL = 20.0  # minutes from which that holds: the store is full after four; a shorter run may grow by
NOISE = 8 * 2**20  # bytes
TASKS = '''
import asyncio

def setup(hub):
    @hub.command("soak:tasks", effect="read")
    async def tasks(call):
        """Count the tasks of the hub."""
        return len(asyncio.all_tasks())
'''


@dataclass
class Found:
    """What was seen, and what is wrong with it."""

    published: int = 0
    delivered: int = 0
    visits: int = 0
    calls: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)  # (seconds, bytes resident)
    wrong: list[str] = field(default_factory=list)

    def series(self) -> list[float]:
        """MiB resident, at twenty moments."""
        step = max(len(self.memory) // 20, 1)
        return [round(size / 2**20, 1) for _, size in self.memory[step - 1 :: step]]

    def slope(self) -> float:
        """Bytes a minute, over the second half: the window and the caches are full by then."""
        half = self.memory[len(self.memory) // 2 :]
        seconds, sizes = zip(*half, strict=True)
        return statistics.linear_regression(seconds, sizes).slope * 60


async def publish(hub: HubProcess, found: Found, end: float) -> None:
    counts, due = [0] * TOPICS, time.monotonic()
    while (now := time.monotonic()) < end:
        batch = []
        for _ in range(BATCH):
            topic = found.published % TOPICS
            found.published += 1
            counts[topic] += 1
            batch.append({"event": f"soak:t{topic}", "data": {"n": counts[topic], "pad": "x" * 100}})
        async with hub.http.post(hub.url + "api/events", data=json.dumps(batch), headers=JSON) as response:
            if response.status != 200:
                found.wrong.append(f"a publish was refused: {await response.text()}")
        due += PAUSE
        await asyncio.sleep(max(0.0, due - now))


async def follow(hub: HubProcess, found: Found, number: int, end: float) -> None:
    """A client that stays a few seconds, goes, and comes back behind what it had: every number of its topic, once."""
    rng, topic, after, last = random.Random(number), number % TOPICS, "", 0
    async with ClientSession() as http:
        while time.monotonic() < end:
            found.visits += 1
            query = f"?topics=soak:t{topic}" + (f"&after={after}" if after else "")
            leave = min(end, time.monotonic() + rng.uniform(0.5, 8))
            async with http.ws_connect(f"{hub.url}ws{query}", max_msg_size=0) as ws:
                while time.monotonic() < leave:
                    message = await ws.receive(timeout=10)
                    if message.type is not WSMsgType.TEXT:
                        found.wrong.append(f"client {number} was sent away: {message}")
                        return
                    frame = json.loads(message.data)
                    event = frame["payload"]
                    if event["event"] == "hub:mark":
                        after = event["data"]["cursor"]
                        continue
                    if event["event"] != f"soak:t{topic}":
                        found.wrong.append(f"client {number} got {frame}")
                        return
                    after = frame["cursor"]
                    if last and event["data"]["n"] != last + 1:
                        found.wrong.append(f"client {number} got {event['data']['n']} behind {last}")
                    last = event["data"]["n"]
                    found.delivered += 1
            await asyncio.sleep(rng.uniform(0, 2))


def resident(process: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def call(hub: HubProcess, found: Found, end: float) -> None:
    began = time.monotonic()
    async with talk(hub.url, "?topics=soak:none") as client:
        while time.monotonic() < end:
            await client.call("hub:ping")
            found.calls += 1
            found.memory.append((time.monotonic() - began, resident(hub.process.pid)))
            await asyncio.sleep(1)


async def idle(hub: HubProcess) -> tuple[int, int]:
    """Descriptors and tasks of the hub while one client is there."""
    async with talk(hub.url, "?topics=soak:none") as client:
        counted = (0, 0)
        while True:  # until what has gone is gone
            tasks = await client.call("soak:tasks")
            new = (len(os.listdir(f"/proc/{hub.process.pid}/fd")), tasks)
            if new == counted:
                return counted
            counted = new
            await asyncio.sleep(0.5)


async def main(minutes: float) -> int:
    """Print what was found; 1 if anything is wrong."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "soaked.py").write_text(TASKS)
        async with hub_process(path, "--load", "soaked", "--rate", "0") as hub:
            await publish(hub, Found(), time.monotonic() + 0.5)  # everything has run once
            async with talk(hub.url):
                pass
            before = await idle(hub)
            end = time.monotonic() + minutes * 60
            found_by_clients = (follow(hub, found, number, end) for number in range(CLIENTS))
            await asyncio.gather(publish(hub, found, end + 1), call(hub, found, end), *found_by_clients)
            await hub.http.close()
            behind = await idle(hub)
            if behind[0] > before[0] or behind[1] > before[1]:
                found.wrong.append(f"descriptors and tasks were {before}, and are {behind}")
        status, said, _ = await run_hub(path, "audit", "verify", str(path / "state"))
    if status:
        found.wrong.append(f"audit verify: {status}, {said}")
    if found.slope() * minutes / 2 > (SLOPE * minutes / 2 if minutes >= FULL else NOISE):
        found.wrong.append("the hub grows")
    print(f"{found.published} events, {found.delivered} delivered in {found.visits} visits, {found.calls} calls")
    print("memory, MiB:", *found.series())
    print(f"memory {found.memory[-1][1] / 2**20:.1f} MiB, {found.slope() / 1024:+.0f} KiB a minute in the second half")
    print(f"descriptors and tasks {before}, then {behind}; audit: {said.strip()}")
    for line in found.wrong[:20]:
        print("WRONG:", line)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    raise SystemExit(asyncio.run(main(parser.parse_args().minutes)))
