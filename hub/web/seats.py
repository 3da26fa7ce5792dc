"""A worker's place among the workers of one port: what it was given by the process that started it, and what they tell
each other: what they have counted, and which page has fetched its news from another worker than the one that told it.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

PATIENCE = 1.0  # seconds that another worker gets to say what it has counted; then it is what it said last
LONGEST = 128  # characters of the id of a page
LARGEST = 16 * 1024 * 1024  # bytes of that
READY, REFUSED = b"+", b"-"  # what a worker tells: that it listens, or in a sentence why it cannot start

# Gauges that are not added up. Of what belongs to the stream, which all see alike: whoever sees the most of it.
MOST = frozenset(
    {
        "hub_build_info",
        "hub_history_events",
        "hub_history_bytes",
        "hub_state_items",
        "hub_state_bytes",
        "hub_questions_open",
        "process_max_fds",
        "python_info",
    }
)
LEAST = frozenset({"hub_broker_up", "hub_audit_chain_valid", "process_start_time_seconds"})  # one that fails is enough

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]  # name, text, type, samples


class Seat(NamedTuple):
    """What a worker is given. `asked` is where the others ask for what it has counted, `others` are their addresses;
    `parent` can be read when the process that started it has gone, to `told` it writes how its start has ended."""

    number: int
    port: int
    asked: socket.socket
    others: tuple[bytes, ...]
    parent: int
    told: int

    def tell(self, word: bytes, sentence: str = "") -> None:
        """Tell how the start has ended."""
        with contextlib.suppress(OSError):  # nobody is there to hear it
            os.write(self.told, word + sentence.encode("utf-8", "replace")[:4000])
            os.close(self.told)

    def watch(self, stop: Callable[[], None]) -> None:
        """Have `stop` called when the parent has gone: nobody would stop this worker any more."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self.parent)
            stop()

        loop.add_reader(self.parent, gone)


class Workers:
    """The workers of one port, as one of them sees them. `on_fetched(viewer, position)`: a page fetched elsewhere."""

    def __init__(self, seat: Seat, registry: CollectorRegistry) -> None:
        self._seat, self._registry = seat, registry
        self.on_fetched: Callable[[str, int], None] = lambda viewer, position: None
        self._telling: set[asyncio.Task[None]] = set()
        self._last: dict[bytes, list[Family]] = {}  # what each of the others has said last

    async def answer(self) -> None:
        """Hear every worker that asks or tells. Ends when cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._seat.asked)
            with connection, contextlib.suppress(OSError, TimeoutError, ValueError):
                if _is_ours(connection):
                    async with asyncio.timeout(PATIENCE):
                        await self._hear(connection)

    async def _hear(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        viewer, position = json.loads(await loop.sock_recv(connection, 1024))
        if viewer:
            self.on_fetched(viewer, position)
        else:
            await loop.sock_sendall(connection, json.dumps(families(self._registry)).encode())

    def fetched(self, viewer: str, position: int) -> None:
        """Tell the others that this page, which none here tells of news, has fetched what was there at `position`."""
        for address in self._seat.others if len(viewer) <= LONGEST else ():
            task = asyncio.get_running_loop().create_task(self._tell(address, viewer, position))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, address: bytes, viewer: str, position: int) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # then the page hears nothing more until it connects again
            async with asyncio.timeout(PATIENCE):
                await _said(address, viewer, position)

    async def counted(self) -> "Summed":
        """What all have counted."""
        await asyncio.gather(*map(self._ask, self._seat.others))
        return Summed([families(self._registry), *self._last.values()])

    async def _ask(self, address: bytes) -> None:
        """One that does not answer is starting, or stands still: what it has said last is true of it, or nothing."""
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(PATIENCE):
                self._last[address] = json.loads(await _said(address))


WORKERS: web.AppKey[Workers] = web.AppKey("workers", Workers)


async def _said(address: bytes, viewer: str = "", position: int = 0) -> bytes:
    """What a worker answers."""
    loop, found = asyncio.get_running_loop(), bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, address)
        if not _is_ours(connection):
            return b""
        await loop.sock_sendall(connection, json.dumps([viewer, position]).encode())
        while (data := await loop.sock_recv(connection, 65536)) and len(found) < LARGEST:
            found += data
    return bytes(found)


def _is_ours(connection: socket.socket) -> bool:
    """Stops other accounts of this machine, who can reach such an address, too, from asking or from answering."""
    facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", facts)[1] == os.geteuid())


def families(registry: CollectorRegistry) -> list[Family]:
    """What is in a registry, as it can be sent."""
    return [
        (metric.name, metric.documentation, metric.type, [(s.name, dict(s.labels), s.value) for s in metric.samples])
        for metric in registry.collect()
    ]


class Summed(Collector):
    """What several processes have counted, as if it were one."""

    def __init__(self, said: Iterable[Iterable[Family]]) -> None:
        self._found: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
        for registry in said:
            for name, text, kind, samples in registry:
                self._add(name, text, kind, samples)

    def _add(self, name: str, text: str, kind: str, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> None:
        join = max if name in MOST else min if name in LEAST else float.__add__
        _, _, values = self._found.setdefault(name, (text, kind, {}))
        for sample, labels, value in samples:
            place = sample, tuple(sorted(labels.items()))
            join_created = min if sample.endswith("_created") else join
            values[place] = join_created(values[place], float(value)) if place in values else float(value)

    def collect(self) -> Iterator[Metric]:
        for name, (text, kind, values) in self._found.items():
            metric = Metric(name, text, kind)
            for (sample, labels), value in values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
