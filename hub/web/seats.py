"""A worker's place among the workers of one port: what it was given by the process that started it, and what they tell
each other: what they have counted, who is connected, and which page has fetched its news from another worker than the
one that told it.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry

from ..collectors import workers
from ..commands.clients import Page
from ..errors import HubError
from .snapshots import Snapshots
from .sums import Family, Summed, before, families, lasting, of_worker

PATIENCE = 0.5  # seconds that another worker gets to answer; then what it has counted is what it said last
FOR_GOOD = 60.0  # seconds after which it is asked again what it has counted
LONGEST = 128  # characters of the id of a page
LARGEST = 8 * 1024 * 1024  # bytes of an answer
ASKED = 4096  # bytes of what is asked
READY, REFUSED = b"+", b"-"  # what a worker tells: that it listens, or in a sentence why it cannot start


class Seat(NamedTuple):
    """What a worker is given. `asked` is where the others ask it, `others` are their addresses by number; `parent` can
    be read when the process that started it has gone, to `told` it writes how its start has ended."""

    number: int
    port: int
    asked: socket.socket
    others: Mapping[int, bytes]
    snapshots: Snapshots
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
    """The workers of one port, as one of them sees them.

    `on_fetched(viewer, position)`: a page fetched elsewhere. `on_clients(after)`: who is connected here.
    """

    def __init__(self, seat: Seat, registry: CollectorRegistry) -> None:
        self._seat, self._registry = seat, registry
        self.on_fetched: Callable[[str, int], None] = lambda viewer, position: None
        self.on_clients: Callable[[str], Awaitable[Page]] = _nobody
        self._before = before(seat.snapshots.read(seat.number)[1])  # what those have counted that had this seat earlier
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[int, tuple[float, asyncio.Task[Any]]] = {}  # what was asked last of each of the others

    async def answer(self) -> None:
        """Hear every worker that asks or tells. Ends when cancelled."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # without memory it is not there yet
            self._note()
        try:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._seat.asked)
                except OSError:  # no descriptors just now; whoever asks is told what was said last
                    await asyncio.sleep(PATIENCE)
                    continue
                connection.setblocking(False)
                self._begin(self._hear(connection))
        finally:
            for task in (*self._tasks, *(task for _, task in self._asking.values())):
                task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hear(self, connection: socket.socket) -> None:
        """By itself: who stands still in the middle of it keeps nobody else waiting."""
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, TimeoutError, ValueError):
            if _is_ours(connection):
                async with asyncio.timeout(PATIENCE):
                    what, word, position = json.loads(await loop.sock_recv(connection, ASKED))
                    await loop.sock_sendall(connection, json.dumps(await self._answer(what, word, position)).encode())

    async def _answer(self, what: str, word: str, position: int) -> Any:
        if what == "count":
            self._note()
        elif what == "clients":
            return await self.on_clients(word)
        else:
            self.on_fetched(word, position)
        return True

    # ---- what is asked and told

    def fetched(self, viewer: str, position: int) -> None:
        """Tell the others that this page, which none here tells of news, has fetched what was there at `position`. One
        that does not hear it tells the page nothing more until that connects again."""
        for address in self._seat.others.values() if len(viewer) <= LONGEST else ():
            self._begin(_told(address, viewer, position))

    async def clients(self, after: str) -> list[Page]:
        """Who is connected to the others, behind this id. Raises HubError `busy` if one of them does not answer."""
        running = [number for number in self._seat.others if self._runs(number)]
        answers = await asyncio.gather(*(_asked(self._seat.others[number], "clients", after) for number in running))
        pages = dict(zip(running, answers, strict=True))
        for number, page in pages.items():
            if page is None and self._runs(number):
                sentence = f"Worker {number} does not answer, so who is connected to it is not known; ask again."
                raise HubError("busy", sentence, retry_after=1)
        return [([(id, text) for id, text in page[0]], page[1]) for page in pages.values() if page is not None]

    def _runs(self, number: int) -> bool:
        """Whether this worker has said something in its present life: before, it is starting."""
        life = self._seat.snapshots.life(number)
        return life != 0 and life == self._seat.snapshots.read(number)[0]

    # ---- what is counted

    def _note(self) -> None:
        """Say what has been counted in this seat until now. Raises OSError."""
        so_far = Summed([self._before, families(self._registry.collect())])
        self._seat.snapshots.write(self._seat.number, families(so_far.collect()))

    async def counted(self) -> Summed:
        """What all have counted. Of one that does not answer, what it said last; of one that has ended, what only
        grows. So whoever asks again never sees less, whichever worker answers. Raises OSError."""
        self._note()
        answered = await self._answered()
        found = [self._said(number, answered) for number in sorted((self._seat.number, *self._seat.others))]
        states = Counter(state for state, _ in found)
        return Summed([*(said for _, said in found), families([workers(states)])])

    async def _answered(self) -> set[int]:
        """Have those that run note what they have counted; return who has. One that has not answered in time is not
        asked again before it does, and nobody waits for it meanwhile."""
        loop = asyncio.get_running_loop()
        for number, address in self._seat.others.items():
            if self._runs(number) and (number not in self._asking or self._asking[number][1].done()):
                self._asking[number] = loop.time(), loop.create_task(_asked(address, "count", patience=FOR_GOOD))
        ends = {task: began + PATIENCE for began, task in self._asking.values()}
        while waiting := [task for task, end in ends.items() if not task.done() and end > loop.time()]:
            await asyncio.wait(waiting, timeout=min(ends[task] for task in waiting) - loop.time())
        done = (
            number
            for number, (_, task) in self._asking.items()
            if task.done() and not task.cancelled() and task.result()
        )
        return {self._seat.number, *done}

    def _said(self, number: int, answered: set[int]) -> tuple[str, list[Family]]:
        """How a worker is, and what it has counted."""
        is_running, said = self._runs(number), self._seat.snapshots.read(number)[1]
        named = [family for family in of_worker(number, said) if family[0] != "hub_workers"]
        if not is_running:
            return "down", lasting(named)
        return "up" if number in answered else "stale", named


WORKERS: web.AppKey[Workers] = web.AppKey("workers", Workers)


async def _nobody(after: str) -> Page:
    return [], False


async def _told(address: bytes, viewer: str, position: int) -> None:
    await _asked(address, "fetched", viewer, position)


async def _asked(address: bytes, what: str, word: str = "", position: int = 0, *, patience: float = PATIENCE) -> Any:
    """What a worker answers; None if it does not: it has ended, is starting, or stands still."""
    loop, found = asyncio.get_running_loop(), bytearray()
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(patience):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
                await loop.sock_connect(connection, address)
                if _is_ours(connection):
                    await loop.sock_sendall(connection, json.dumps([what, word, position]).encode())
                    while (data := await loop.sock_recv(connection, 65536)) and len(found) < LARGEST:
                        found += data
                    return json.loads(found)
    return None


def _is_ours(connection: socket.socket) -> bool:
    """Stops other accounts of this machine, who can reach such an address, too, from asking or from answering."""
    facts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", facts)[1] == os.geteuid())
