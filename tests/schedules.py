"""Drive a store through random schedules, and look whether it keeps its word in each.

`python tests/schedules.py --minutes 60 --seed 1`; the suite runs some seconds of the same. Publishers that are
cancelled anywhere, calls that fail with any error, leases, trimming, checkpoints, stops, and crashes at any moment.
What a schedule does is given by its seed; threads make when it happens differ a little.
"""

import argparse
import asyncio
import contextlib
import errno
import itertools
import logging
import os
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from stores import STATE

from hub import signals
from hub.errors import HubError, UsageError
from hub.stream.brokers import database, storefile
from hub.stream.brokers.broker import Limits
from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.stream.bus import EventBus, Published
from hub.stream.events import Draft, Event
from hub.stream.eventtypes import EventTypes
from hub.stream.state import State
from hub.stream.window import Window
from hub.wire.names import EVERYTHING

PATIENCE = 5.0  # seconds until something that must come true has not
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # what a disk does is not what is tried here
SHORT, LONG = 0.02, 1000.0  # seconds of a lease that ends under the schedule, and of one that does not
ERRORS: Sequence[Callable[[], Exception]] = (
    lambda: OSError(errno.EIO, "Input/output error"),
    lambda: sqlite3.OperationalError("disk I/O error"),
    lambda: RuntimeError("can't start new thread"),
    MemoryError,
)
CALLS = {  # what can fail, by how its statement begins
    "write": ("INSERT INTO events", "BEGIN"),
    "commit": ("COMMIT",),
    "read": ("SELECT seq, name",),
    "trim": ("DELETE FROM events WHERE seq <=", "INSERT OR REPLACE INTO meta", "SELECT timestamp"),
    "remember": ("SELECT size", "INSERT OR REPLACE INTO calls"),
    "checkpoint": ("PRAGMA wal_checkpoint", "INSERT INTO meta"),
    "reopen": ("PRAGMA locking_mode", "DELETE FROM events WHERE seq >", "SELECT seq, size"),
}
PLACES = (*CALLS, "fdatasync", "thread", "pump", "settle")


class Broken(AssertionError):
    """The store has broken its word."""


def demand(condition: object, sentence: str) -> None:
    if not condition:
        raise Broken(sentence)


class Faults:
    """Stands in the way of the store's calls: each of `armed` fails once, before or after it has done its work."""

    def __init__(self, rng: random.Random) -> None:
        self.armed: dict[str, tuple[Exception, bool]] = {}
        self.lost = dict[int, Event]()  # what was on its way to the disk when that failed, by identity
        self._dirty = list[Event]()  # what has been committed since the disk was asked last
        self._rng = rng

    def arm(self, place: str) -> None:
        error, after = self._rng.choice(ERRORS)(), self._rng.random() < 0.5
        self.armed[place] = error, after and place != "thread"  # one that has begun does not say that it has not

    def clear(self) -> None:
        self.armed.clear()

    def around(self, place: str, work: Callable[[], Any]) -> Any:
        error, after = self.armed.pop(place, (None, False))
        if error is not None and not after:
            raise error
        found = work()
        if error is not None:
            if isinstance(found, sqlite3.Cursor):
                found.close()  # the traceback would hold it, and it the file
            raise error
        return found

    def statement(self, sql: str, work: Callable[[], Any]) -> Any:
        place = next((name for name, begins in CALLS.items() if sql.startswith(begins)), "")
        return self.around(place, work)

    @contextlib.contextmanager
    def in_the_way(self) -> Iterator[None]:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                work = super().execute
                found: sqlite3.Cursor = faults.statement(sql, lambda: work(sql, *args))
                return found

            def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
                work = super().executemany
                found: sqlite3.Cursor = faults.statement(sql, lambda: work(sql, *args))
                return found

        def connect(path: Path, patience: float) -> sqlite3.Connection:
            options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "factory": Connection}
            made: sqlite3.Connection = sqlite3.connect(path, timeout=patience, **options)
            return made

        def fdatasync(descriptor: int) -> None:
            dirty, self._dirty = self._dirty, []
            time.sleep(delays.choice((0, 0, 0.001, 0.003)))
            try:
                self.around("fdatasync", lambda: os.fstat(descriptor))
            except Exception:  # it is told once, and what it is about will never be there
                self.lost.update((id(event), event) for event in (*dirty, *self._dirty))
                raise

        delays = random.Random(self._rng.random())  # of their own: they are asked for in a thread
        start, settle, write = threading.Thread.start, database.Database.settle, database.Database.write

        def writes(db: database.Database, drafts: Sequence[Draft]) -> Any:
            written = write(db, drafts)
            self._dirty += written[0]
            return written

        patches = (
            mock.patch.object(storefile, "connect", connect),
            mock.patch.object(os, "fdatasync", fdatasync),
            mock.patch.object(database.Database, "write", writes),
            mock.patch.object(threading.Thread, "start", lambda t: self.around("thread", lambda: start(t))),
            mock.patch.object(
                database.Database, "settle", lambda db, events: self.around("settle", lambda: settle(db, events))
            ),
            mock.patch("hub.stream.brokers.care.RETRY_SECONDS", 0.01),
            mock.patch("hub.stream.state.RETRY_SECONDS", 0.01),
            mock.patch("hub.stream.brokers.sqlite.LOOK_SECONDS", 0.02),
            mock.patch("hub.stream.brokers.sqlite.WAL_PAGES", self._rng.choice((20, 2000))),
        )
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield


class Fact(NamedTuple):
    """What anybody may know of an event."""

    id: str
    key: str | None
    ttl: float | None


@dataclass
class Model:
    """What the world has been told: by answers, and by the stream."""

    known: dict[int, str] = field(default_factory=dict)  # ids
    facts: dict[int, Fact] = field(default_factory=dict)  # of those that were seen in the stream
    calls: dict[bytes, bytes | None] = field(default_factory=dict)  # that have begun, and their answers

    def told(self, seq: int, id: str) -> None:
        other = self.known.setdefault(seq, id)
        demand(other == id, f"the number {seq} was given to {other} and to {id}")

    def saw(self, event: Event) -> None:
        self.told(event.seq, event.id)
        self.facts[event.seq] = Fact(event.id, event.key, event.ttl)

    def last(self) -> dict[str, Fact]:
        """The newest of each key."""
        return {fact.key: fact for _, fact in sorted(self.facts.items()) if fact.key is not None}


class Life:
    """From one start to the next: the broker with what the hub has around it, and who publishes."""

    def __init__(self, folder: Path, limits: Limits, faults: Faults, model: Model, *, full: bool) -> None:
        self.folder, self.faults, self.model, self.full = folder, faults, model, full
        self.broker = SqliteBroker(folder, limits, STATE, full=full)
        self.bus = EventBus(self.broker, EventTypes())
        self.state, self.window = State(100, 2**26), Window(50, 2**20)
        self.state.on_stale = signals.stale(self.bus)
        for listener in (self._apply, self._fail, self._see):
            self.bus.on_event.append(listener)
        self.bus.on_event.freeze()
        self.publishes: set[asyncio.Task[Any]] = set()
        self.seen = 0

    async def _apply(self, batch: Sequence[Event]) -> None:
        self.state.apply(batch)
        self.window.extend(batch)

    async def _fail(self, batch: Sequence[Event]) -> None:
        self.faults.around("pump", lambda: None)

    async def _see(self, batch: Sequence[Event]) -> None:
        for event in batch:
            demand(event.seq == self.seen + 1, f"the pump gave {event.seq} behind {self.seen}")
            demand(not self.full or id(event) not in self.faults.lost, f"the disk does not have {event.seq}")
            self.seen = event.seq
            self.model.saw(event)

    # ---- life

    async def start(self) -> None:
        """Raises UsageError if it was told to fail, Broken if what was there before is not there."""
        await self.broker.open(self.bus.pump)
        try:
            await self._begin()
        except BaseException:
            await self.broker.close()
            raise
        self.leases = asyncio.get_running_loop().create_task(self.state.run())

    async def _begin(self) -> None:
        head = self.broker.head
        self.seen = self.bus.position = head
        self.window.start_at(head)
        kept = await self.broker.last_values()
        for value, _ in kept:  # also of an event that nobody had seen, and that has been trimmed since
            self.model.saw(value)
        self.state.restore(kept, head)
        await self._compare()
        self.values({k.event.key: (k.event.id, bool(k.stale)) for k in kept}, ended=False)

    async def _compare(self) -> None:
        """What the world was told is there."""
        kept = await self.read(0)
        head, tail = self.broker.head, self.broker.tail
        demand(head >= max(self.model.known, default=0), f"the numbers behind {head} are gone")
        demand([event.seq for event in kept] == list(range(tail, head + 1)), "there is a hole in the store")
        for event in kept:
            self.model.saw(event)
        for place, answer in self.model.calls.items():
            past = await self.again(self.broker.answers.recall, place)
            demand(past is not None, f"nothing is known of the call {place!r}")
            told = await self.again(self.broker.answers.told, place)
            demand(answer is None or told == answer, f"the call {place!r} was answered {answer!r}, not {told!r}")

    async def again(self, ask: Callable[[bytes], Awaitable[Any]], place: bytes) -> Any:
        """What it gives, again while a fault is in its way."""
        while True:
            try:
                return await ask(place)
            except HubError:
                await asyncio.sleep(0.001)

    async def read(self, after: int) -> list[Event]:
        """As `broker.read`, again while a fault is in its way."""
        for _ in itertools.count():
            try:
                return await self.broker.read(after, 10**6)
            except HubError as error:
                demand(error.code == "broker_unavailable", repr(error))
                await asyncio.sleep(0.001)
        raise AssertionError

    async def stop(self) -> None:
        await within(asyncio.shield(self.broker.close()), "closing")
        await self._leave()
        demand(self.broker._thread._shutdown, "a thread was left")

    async def crash(self, to: Path) -> None:
        """Go on with what is on the disk and in its cache, as after kill -9: a thread may write meanwhile, so the
        journal has to be the same before and behind the copy of the file that it is brought into."""
        os.mkdir(to)
        journal, file = (self.folder / f"{FILE}{suffix}" for suffix in ("-wal", ""))
        before, copied = None, {file: b""}
        while before is None or _bytes(journal) != before:
            before = _bytes(journal)
            copied = {journal: before, file: _bytes(file)}
        for path, data in copied.items():
            if data:
                (to / path.name).write_bytes(data)
                (to / path.name).chmod(0o600)
        self.model = Model()  # whatever it says from here on, nobody hears
        self.faults.clear()
        await self.stop()

    async def _leave(self) -> None:
        self.leases.cancel()
        await asyncio.wait([self.leases])
        for task in self.publishes:
            task.cancel()
        if self.publishes:
            await within(asyncio.wait(self.publishes), "the publishers' end")

    # ---- who publishes

    def publish(self, rng: random.Random, number: int) -> None:
        many = rng.choice((1, 1, 1, 2, 4))
        records = [self._record(rng, f"{number}.{index}") for index in range(many)]
        task = asyncio.get_running_loop().create_task(self._publish(records))
        self.publishes.add(task)
        task.add_done_callback(self._published)

    def remember(self, place: bytes) -> None:
        """As a call does that may be repeated."""
        task = asyncio.get_running_loop().create_task(self._remember(place))
        self.publishes.add(task)
        task.add_done_callback(self._published)

    async def _remember(self, place: bytes) -> None:
        for answer in (None, place):
            await self.broker.answers.remember(place, b"", answer)
            self.model.calls[place] = answer  # from a crash on, nobody hears it

    def _record(self, rng: random.Random, id: str) -> dict[str, Any]:
        if rng.random() < 0.4:
            return {"event": "a:x", "data": 1, "id": id} if rng.random() < 0.3 else {"event": "a:x", "data": 1}
        record = {"event": "task:progress", "data": {"id": rng.choice("klm")}}
        ttl = rng.choice((None, SHORT, SHORT, LONG))
        return record if ttl is None else {**record, "ttl": ttl}

    async def _publish(self, records: Sequence[dict[str, Any]]) -> Published:
        published = await self.bus.publish(records, many=True)
        last = published.cursor.seq
        for seq, id in zip(range(last - len(records) + 1, last + 1), published.ids, strict=True):
            self.model.told(seq, id)  # from a crash on, nobody hears it
        return published

    def _published(self, task: "asyncio.Task[Any]") -> None:
        self.publishes.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, HubError):
            self.broken = error

    broken: BaseException | None = None

    # ---- when it is over

    async def settle(self) -> None:
        """No more faults: everything comes right again, by itself."""
        self.faults.clear()
        if self.publishes:
            await within(asyncio.wait(self.publishes), "the publishers' answers")
        await within(self._works_again(), "publishing again")
        await within(self._leases_end(), "the ends of the leases")
        demand(self.broken is None, f"a publisher heard {self.broken!r}")
        head = self.broker.head
        places = self.seen, self.bus.position, self.window.head, self.state.position
        demand(places == (head,) * 4, f"the stream is at {places} and the store at {head}")
        for event in self.window.events():
            self.model.told(event.seq, event.id)
        await self._compare()

    async def _works_again(self) -> None:
        while True:
            try:
                await self._publish([{"event": "a:x", "data": 1}])
                return
            except HubError:
                await asyncio.sleep(0.002)

    async def _leases_end(self) -> None:
        def due() -> bool:
            items = {item["key"]: item["stale"] for item in self.state.snapshot(EVERYTHING)}
            told = {item.event.key: item.changed > item.event.seq for item in self.state._items.values()}
            ends = [key for key, fact in self.model.last().items() if fact.ttl == SHORT]
            return all(items[key] and told[key] for key in ends)

        while not due():
            await asyncio.sleep(0.002)
        items = self.state.snapshot(EVERYTHING)
        last = self.model.last()
        self.values({i["key"]: (last[i["key"]].id, i["stale"]) for i in items}, ended=True)

    def values(self, found: dict[Any, tuple[str, bool]], *, ended: bool) -> None:
        """The last value of each key is there; a held one is not stale, and the end of a short one has been told."""
        last = self.model.last()
        demand(set(found) == set(last), f"values of {set(found)}, not of {set(last)}")
        for key, fact in last.items():
            id, stale = found[key]
            demand(id == fact.id, f"the last of {key} is {fact.id}, not {id}")
            demand(not stale or fact.ttl == SHORT, f"{key} is held, and stale")
            demand(stale or not ended or fact.ttl != SHORT, f"{key} is held no more, and not stale")


async def within(work: Awaitable[Any], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await work
    except TimeoutError:
        raise Broken(f"{what} did not come") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


async def schedule(folder: Path, seed: int, *, full: bool) -> None:
    """One schedule: some lives of a store. Raises Broken."""
    rng = random.Random(seed)
    faults, model = Faults(rng), Model()
    limits = Limits(rng.choice((10, 1000)), 2**26, 86400.0)
    with faults.in_the_way():
        path, ended = folder, False
        for number in range(rng.randrange(2, 5)):
            life = await begin(path, limits, faults, model, full=full, rng=rng)
            try:
                if ended:
                    life.values(stale_now(life), ended=True)
                await live(life, rng, number)
                if ended := rng.random() < 0.5:
                    await life.settle()
            except BaseException:
                await life.stop()
                raise
            if rng.random() < 0.5:
                path = folder / str(number)
                await life.crash(path)
            else:
                await life.stop()
            demand(life.broken is None, f"a publisher heard {life.broken!r}")
            faults.clear()


def stale_now(life: Life) -> dict[Any, tuple[str, bool]]:
    return {item.event.key: (item.event.id, item.stale) for item in life.state._items.values()}


async def begin(path: Path, limits: Limits, faults: Faults, model: Model, *, full: bool, rng: random.Random) -> Life:
    """A start; it may be told to fail once."""
    if rng.random() < 0.3:
        faults.arm(rng.choice(PLACES))
        life = Life(path, limits, faults, model, full=full)
        with contextlib.suppress(UsageError):
            await life.start()
            return life
        faults.clear()
    life = Life(path, limits, faults, model, full=full)
    await life.start()
    return life


async def live(life: Life, rng: random.Random, number: int) -> None:
    """What happens in one life."""
    for step in range(rng.randrange(5, 60)):
        match rng.randrange(13):
            case 0 | 1 | 2 | 3:
                for extra in range(rng.choice((1, 1, 3))):
                    life.publish(rng, (number * 100 + step) * 10 + extra)
            case 4 if life.publishes:
                rng.choice(sorted(life.publishes, key=lambda task: task.get_name())).cancel()
            case 5:
                life.faults.arm(rng.choice(PLACES))
            case 6:
                if rng.random() < 0.5:
                    life.faults.arm("fdatasync")
                life.broker._database.unsaved = 10**6
                life.broker._care.soon()
            case 7:
                with contextlib.suppress(HubError):
                    await life.broker.read(rng.randrange(1 + life.broker.head), 10)
            case 8:
                await asyncio.sleep(rng.choice((0.001, 0.005, SHORT)))
            case 9:
                life.remember(b"%d" % (number * 100 + step))
            case _:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)


async def run(seconds: float, seed: int, *, full: bool) -> int:
    """Schedules one after the other for so long; how many. Raises Broken, with the seed."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            try:
                await schedule(Path(folder), seed + count, full=full)
            except Exception as error:
                error.add_note(f"seed {seed + count}, {'sync full' if full else 'sync normal'}")
                raise
        count += 1
    return count


def main(minutes: float, seed: int) -> int:
    """Print what was found; 1 if the store has broken its word."""
    logging.disable()
    done = [0, 0]
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        for full in (False, True):
            done[full] += asyncio.run(run(min(10.0, max(0.1, end - time.monotonic())), seed + done[full], full=full))
    print(f"{done[0]} schedules, and {done[1]} with --sync full (from seed {seed}): the store kept its word")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    raise SystemExit(main(args.minutes, args.seed))
