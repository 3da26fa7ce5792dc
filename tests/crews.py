"""Several workers on one port, for tests: as processes, and two of them as far as they ask each other."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from engines import Engine
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from running import HubProcess, hub_process, until

from hub.web.seats import Seat, Workers
from hub.web.snapshots import Snapshots


@asynccontextmanager
async def crew(engine: Engine, tmp_path: Path, *flags: str, status: int = 0) -> AsyncIterator[HubProcess]:
    """Two workers on a free port."""
    url = engine.url(prefix=uuid4().hex)
    async with hub_process(tmp_path, "--workers", "2", "--broker", url, *flags, status=status) as hub:
        yield hub


def pids(hub: HubProcess) -> list[int]:
    """The processes of the workers."""
    return [int(pid) for pid in Path(f"/proc/{hub.process.pid}/task/{hub.process.pid}/children").read_text().split()]


async def scraped(hub: HubProcess) -> dict[str, float]:
    """What a scrape over a connection of its own shows, by name and labels."""
    async with hub.http.get(f"{hub.url}metrics", headers={"Connection": "close"}) as response:
        lines = (await response.text()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def published(hub: HubProcess, number: int) -> None:
    """One event, over a connection of its own."""
    body = {"event": "agent:status_change", "data": {"id": f"agent-{number}", "status": "active"}}
    async with hub.http.post(f"{hub.url}api/events", json=body, headers={"Connection": "close"}) as response:
        assert response.status == 200


def registry(value: float) -> CollectorRegistry:
    """One of each kind, with this value."""
    found = CollectorRegistry()
    Counter("hub_calls", "Calls.", ["outcome"], registry=found).labels("ok").inc(value)
    Counter("hub_audit_records", "Records.", registry=found).inc(value)
    Gauge("hub_clients", "Clients.", registry=found).set(value)
    Gauge("hub_state_items", "Items.", registry=found).set(value)
    Gauge("hub_broker_up", "Up.", registry=found).set(value)
    Gauge("hub_audit_chain_valid", "Intact.", registry=found).set(value)
    Histogram("hub_seconds", "Seconds.", buckets=(1, 10), registry=found).observe(value)
    return found


def lines(counted: Any) -> set[str]:
    """As they are exposed."""
    return set(generate_latest(counted).decode().splitlines())


class Pair:
    """Two workers of one port, in this process: `here`, and `there`, which answers."""

    def __init__(self, one: socket.socket, two: socket.socket) -> None:
        self.snapshots = Snapshots(2)
        self._sockets = {1: one, 2: two}
        for number in self._sockets:
            self.snapshots.begin(number)
        self.here, self.there = self.worker(1, registry(1)), self.worker(2, registry(2))

    def worker(self, number: int, counted: CollectorRegistry) -> Workers:
        """Another process in this seat, which has counted so much."""
        others = {other: sock.getsockname() for other, sock in self._sockets.items() if other != number}
        return Workers(Seat(number, 0, self._sockets[number], others, self.snapshots, -1, -1), counted)


@contextmanager
def pair() -> Iterator[Pair]:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for each in (one, two):
            each.bind("")
            each.listen()
            each.setblocking(False)
        found = Pair(one, two)
        try:
            yield found
        finally:
            found.snapshots.close()


@asynccontextmanager
async def answering(worker: Workers) -> AsyncIterator[None]:
    """While this one hears what it is asked."""
    task = asyncio.ensure_future(worker.answer())
    await until(lambda: worker._runs(worker._seat.number), "that it is there")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
