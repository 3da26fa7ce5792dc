"""What last values and leases weigh: python tests/bench/weighed.py

Memory and the store's file after 300 keys × 1 MB, at once and after a restart, and after 30,000 renewals of a lease;
and how long a neighbour waits for a ping beside 40 × `hub:state` of 10,000 items, and while 10,000 leases end together
(50 ms is the promise).
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from running import JSON, HubProcess, hub_process, talk


async def publish(hub: HubProcess, *events: dict[str, Any]) -> None:
    body = json.dumps(events).encode()
    async with hub.http.post(f"{hub.url}api/events", data=body, headers=JSON) as response:
        assert response.status == 200, await response.text()


def task(key: object, size: int, **more: Any) -> dict[str, Any]:
    return {"event": "task:progress", "data": {"id": str(key), "message": "x" * size}, **more}


def weight(hub: HubProcess) -> str:
    status = Path(f"/proc/{hub.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024
    kept = sum(file.stat().st_size for file in hub.state_dir.glob("events.sqlite*")) >> 20
    return f"{resident} MiB in memory, {kept} MiB on disk"


async def ten_thousand(hub: HubProcess, **more: Any) -> None:
    for first in range(0, 10_000, 1000):
        await publish(hub, *(task(key, 60, **more) for key in range(first, first + 1000)))


@asynccontextmanager
async def neighbour(hub: HubProcess, beside: str) -> AsyncIterator[None]:
    """Ping, for as long as this lasts, and print how long that took."""
    took, done = list[float](), asyncio.Event()

    async def ask() -> None:
        async with talk(hub.url, "?topics=none:*") as client:
            while not done.is_set():
                begun = time.perf_counter()
                await client.call("hub:ping")
                took.append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(0.002)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.2)
    yield
    done.set()
    await asking
    p99 = statistics.quantiles(took, n=100)[98]
    print(f"beside {beside}: median {statistics.median(took):.2f} ms, p99 {p99:.2f} ms, worst {max(took):.2f} ms")


async def state(folder: Path) -> None:
    async with hub_process(folder) as hub:
        print("300 keys × 1 MB, before: ", weight(hub))
        for key in range(300):
            await publish(hub, task(key, 1_000_000))
        print("300 keys × 1 MB:         ", weight(hub))
    async with hub_process(folder) as hub:
        print("after a restart:         ", weight(hub))


async def renewals(folder: Path) -> None:
    async with hub_process(folder) as hub:
        for count in range(30):
            if count == 15:
                print("15,000 renewals of 1 KB: ", weight(hub))
            for _ in range(10):
                await publish(hub, *(task("k", 1000, ttl=30 * 86400) for _ in range(100)))
        print("30,000 renewals of 1 KB: ", weight(hub))


async def reads(folder: Path) -> None:
    async with hub_process(folder, "--rate", "0") as hub:
        await ten_thousand(hub)
        async with neighbour(hub, "40 × hub:state"):
            process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--read", hub.url)
            assert await process.wait() == 0


async def read(url: str) -> None:
    """In a process of its own, so that the neighbour does not wait for the parsing."""

    async def one() -> None:
        async with talk(url, "?topics=none:*") as client:
            await client.call("hub:state")

    await asyncio.gather(*(one() for _ in range(40)))


async def ends(folder: Path) -> None:
    async with hub_process(folder, "--rate", "0") as hub:
        ending = time.time() + 6
        for first in range(0, 10_000, 1000):
            await publish(hub, *(task(key, 60, ttl=ending - time.time()) for key in range(first, first + 1000)))
        async with neighbour(hub, "10,000 leases that end together"):
            await asyncio.sleep(ending + 1 - time.time())


async def main() -> None:
    for part in (state, renewals, reads, ends):
        with tempfile.TemporaryDirectory() as folder:
            await part(Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(read(options.read) if options.read else main())
