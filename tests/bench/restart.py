"""How long a start takes with much to find: python tests/bench/restart.py [--events 100000] [--rounds 5]

A hub gets so many events of 200 bytes, every tenth with a key of its own, and is killed with SIGKILL. Printed: seconds
until the next one listens, interpreter included, and until it has served a page of the oldest; 2 s is the promise.
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from running import JSON, HubProcess, hub_process

BATCH = 1000


async def fill(hub: HubProcess, events: int, first: int) -> None:
    for start in range(first, first + events, BATCH):
        numbers = range(start, start + BATCH)
        names = ["task:progress" if number % 10 == 0 else "bench:event" for number in numbers]
        batch = [
            {"event": name, "data": {"id": f"{number}", "pad": "x" * 60}}
            for name, number in zip(names, numbers, strict=True)
        ]
        async with hub.http.post(hub.url + "api/events", data=json.dumps(batch), headers=JSON) as response:
            assert response.status == 200, await response.text()


async def start(folder: Path, events: int) -> tuple[float, float]:
    begun = time.perf_counter()
    async with hub_process(folder, "--rate", "0", status=-signal.SIGKILL) as hub:
        listening = time.perf_counter() - begun
        async with hub.http.get(hub.url + "api/events", params={"after": "x:0", "limit": "1000"}) as response:
            page = await response.json()
        served = time.perf_counter() - begun
        assert len(page["events"]) == 1000
        assert int(page["events"][0]["cursor"].rpartition(":")[2]) >= 1
        hub.process.kill()
        await hub.ended()
    return listening, served


async def main(events: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with hub_process(folder, "--rate", "0", status=-signal.SIGKILL) as hub:
            await fill(hub, events, 1)
            hub.process.kill()
            await hub.ended()
        found = [await start(folder, events) for _ in range(rounds)]
    for what, values in (("listens", [f[0] for f in found]), ("has served a page", [f[1] for f in found])):
        print(f"{what}: median {statistics.median(values):.2f} s, slowest {max(values):.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.events, given.rounds))
