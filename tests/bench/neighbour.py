"""What a flood costs its neighbour: python tests/bench/neighbour.py [--seconds 5]

A hub of its own; one client sends calls as fast as it can and never reads more than it must, another asks 200 times a
second. Printed: the neighbour's median and 99th percentile, alone and beside the flood; 50 ms is the promise.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from running import Raw, Talk, hub_process, talk

PING = json.dumps({"type": "command", "id": "x", "payload": {"command": "hub:info"}}).encode()


async def ask(client: Talk, seconds: float) -> str:
    took, ends = [], time.perf_counter() + seconds
    while time.perf_counter() < ends:
        begun = time.perf_counter()
        await client.call("hub:publish", event="a:x", data=1)
        took.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.005)
    p99 = statistics.quantiles(took, n=100)[98]
    return f"{len(took)} calls, median {statistics.median(took):.2f} ms, p99 {p99:.2f} ms, worst {max(took):.2f} ms"


async def flood(port: int) -> None:
    """Come back whenever the hub has closed: it does, after 2,000 refusals."""
    frames = Raw.packed(0x1, PING) * 200
    while True:
        with contextlib.suppress(ConnectionError, AssertionError):
            async with Raw(port) as raw:
                await raw.upgrade()
                while True:
                    await raw.write(frames)
                    if not await raw.read():
                        break


async def flood_alone(port: int) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, "--flood", str(port))
    try:
        await process.wait()
    finally:
        process.kill()


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with hub_process(Path(folder)) as hub, talk(hub.url, "?topics=none:*") as client:
            print("alone:          ", await ask(client, seconds))
            flooding = asyncio.create_task(flood_alone(hub.port))
            await asyncio.sleep(0.5)
            print("beside a flood: ", await ask(client, seconds))
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(flood(options.flood) if options.flood else main(options.seconds))
