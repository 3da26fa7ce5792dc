"""What a publish costs with each broker: alone, many at once, in batches; and reading what is kept.

    python tests/bench/brokers.py [--valkey]

In one run, one after the other, each in this process, with the extra `speed` if it is there: SQLite, and a Redis on a
socket of its own that writes to its disk each second. Limits of 10,000 events, so that both let go of old ones.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1]))

from engines import broker, engine, redis_program, valkey_program
from stores import STATE, Store, draft

from hub.stream.brokers.broker import Limits
from hub.stream.brokers.sqlite import SqliteBroker

LIMITS = Limits(10_000, 2**26, 86400.0)
ALONE, AT_ONCE, EACH, BATCHES, READ = 3000, 64, 500, 60, 10_000


@asynccontextmanager
async def opened(name: str) -> AsyncIterator[Store]:
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found = Store(SqliteBroker(folder, LIMITS, STATE))
        else:
            program = valkey_program() if name == "valkey" else redis_program()
            server = stack.enter_context(engine(program, "--appendonly", "yes", "--appendfsync", "everysec"))
            found = Store(broker(server, LIMITS))
        await found.open()
        yield found
        await found.broker.close()


async def alone(it: Store) -> str:
    took = []
    for number in range(ALONE):
        began = time.perf_counter()
        await it.put(draft(f"alone{number}"))
        took.append(time.perf_counter() - began)
    took.sort()
    return f"p50 {1000 * statistics.median(took):.3f} ms, p99 {1000 * took[int(0.99 * ALONE)]:.3f} ms"


async def at_once(it: Store) -> str:
    async def publish(name: int) -> None:
        for number in range(EACH):
            await it.put(draft(f"{name}-{number}", given=True))

    return await rate(AT_ONCE * EACH, *(publish(name) for name in range(AT_ONCE)))


async def batches(it: Store) -> str:
    async def publish() -> None:
        for batch in range(BATCHES):
            await it.put(*(draft(f"{batch}-{number}") for number in range(1000)))

    return await rate(BATCHES * 1000, publish())


async def rate(count: int, *work: Awaitable[None]) -> str:
    began, used = time.perf_counter(), cpu()
    await asyncio.gather(*work)
    took = time.perf_counter() - began
    return f"{count / took:,.0f} events/s, {1e6 * (cpu() - used) / count:.1f} µs of this process each"


async def read(it: Store) -> str:
    position = it.broker.head - READ
    began = time.perf_counter()
    while events := await it.broker.read(position, 256, 64 * 1024):
        position = events[-1].seq
    return f"{1000 * (time.perf_counter() - began):.0f} ms for {READ:,}"


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(names: list[str]) -> None:
    for name in names:
        async with opened(name) as it:
            for what, work in {
                "alone": alone,
                f"{AT_ONCE} at once, with ids": at_once,
                "batches of 1,000": batches,
                "read": read,
            }.items():
                it.batches.clear()
                print(f"{name:8} {what:22} {await work(it)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--valkey", action="store_true", help="a Valkey, too")
    names = ["sqlite", "redis", *(["valkey"] * parser.parse_args().valkey)]
    print(f"load {os.getloadavg()[0]:.1f}")
    try:
        import uvloop

        uvloop.run(measure(names))
    except ImportError:
        asyncio.run(measure(names))


if __name__ == "__main__":
    main()
