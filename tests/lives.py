"""Lives of a store that is stopped, killed, put back from copies in every way, and loses what the disk did not have.

Whoever has seen a cursor must never be given another event for it, nor be told of a gap where nothing is missing.
`python tests/lives.py --minutes 60 --seed 1`; the suite plays some seconds of the same.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from stores import PLENTY, STATE, Store, draft

from hub.stream.broadcaster import Broadcaster
from hub.stream.brokers import epochs
from hub.stream.brokers.sqlite import FILE, SqliteBroker
from hub.stream.events import Event
from hub.stream.window import Window
from hub.wire.names import Cursor

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # four times as fast
STORE = (FILE, f"{FILE}-wal")
STEPS = 14  # of a world


class Broken(AssertionError):
    """Somebody was told something that is not true."""


@dataclass
class Copy:
    """A copy of the state directory, what was in it, and the epochs that its store knew."""

    path: Path
    ids: tuple[str, ...]
    known: frozenset[str]


@dataclass
class World:
    """One state directory and everybody who has seen something of it."""

    folder: Path
    rng: random.Random
    copies: list[Copy] = field(default_factory=list)
    seen: dict[Cursor, tuple[str, ...]] = field(default_factory=dict)  # the events up to this one, as they were shown
    known: frozenset[str] = frozenset()  # the epochs that this store has had
    ids: tuple[str, ...] = ()  # what is in it
    up: Store | None = None
    count: int = 0

    @property
    def state(self) -> Path:
        return self.folder / "state"

    async def live(self) -> None:
        """Play it. Raises Broken."""
        self.state.mkdir()
        boot = self.folder / "boot"
        boot.write_text("0")
        with mock.patch.object(epochs, "BOOT", boot):
            try:
                for _ in range(STEPS):
                    await self.rng.choice((self.publish, self.publish, self.copy, self.end_and_begin))()
                await self.end_and_begin()
            finally:
                if self.up is not None:
                    await self.stop()

    # ---- what happens

    async def begin(self) -> None:
        """Boot, and look what everybody is told who comes back."""
        broker = SqliteBroker(self.state, PLENTY, STATE, full=False)
        self.up = Store(broker)
        await broker.open(self.up.pump)
        broadcaster = Broadcaster(Window(10, 2**20), broker)
        broadcaster.start_at(broker.head)
        self.known |= {broker.epoch}
        events = await broker.read(0, 10**6)
        self.ids = tuple(event.id for event in events)
        for cursor, before in self.seen.items():
            position, foreign = broadcaster.start(cursor)
            same = self.ids[: cursor.seq] == before
            if foreign is None and (not same or position != cursor.seq):
                raise Broken(f"{cursor} was {before} and goes on behind {self.ids[:position]}")
            if foreign is not None and same and cursor.epoch in self.known:
                raise Broken(f"{cursor} was told of a gap, and nothing is missing")
        self.show(events)

    def show(self, events: list[Event]) -> None:
        for event in events:
            before = self.ids[: event.seq]
            if self.seen.setdefault(event.cursor, before) != before:
                raise Broken(f"{event.cursor} is {before[-1:]} and was {self.seen[event.cursor][-1:]}")

    async def publish(self) -> None:
        if self.up is None:
            await self.begin()
        assert self.up is not None
        drafts = [draft(f"{self.count + number}") for number in range(self.rng.choice((1, 1, 3)))]
        self.count += len(drafts)
        await self.up.put(*drafts)
        self.ids += tuple(draft.id for draft in drafts)
        self.show(self.up.batches[-1])

    async def copy(self) -> None:
        """As it stands, also under a running hub: nothing is written meanwhile."""
        if not (self.state / FILE).exists():
            return
        path = self.folder / f"copy-{len(self.copies)}"
        shutil.copytree(self.state, path)
        self.copies.append(Copy(path, self.ids, self.known))

    async def end_and_begin(self) -> None:
        if self.up is not None:
            await self.rng.choice((self.stop, self.kill))()
        if self.rng.random() < 0.3:
            await self.copy()
        ways = [self.nothing, self.lose_power, self.touch]
        if self.copies:
            ways += [self.put_back, self.put_back, self.put_back, self.put_back]
        self.rng.choice(ways)()
        await self.begin()

    async def stop(self) -> None:
        assert self.up is not None
        await self.up.broker.close()
        self.up = None

    async def kill(self) -> None:
        assert self.up is not None
        await self.up.kill()
        self.up = None

    def nothing(self) -> None:
        """Only a restart."""

    def lose_power(self) -> None:
        """Another boot; some of the newest events, and perhaps the word of them, did not get to the disk."""
        boot = epochs.BOOT
        boot.write_text(f"{int(boot.read_text()) + 1}")
        if (self.state / FILE).exists():
            sql = sqlite3.connect(self.state / FILE, isolation_level=None)
            if not sql.execute("SELECT value FROM meta WHERE name = 'clean'").fetchone()[0]:
                lost = len(self.ids) - self.rng.choice((0, 0, 1, 2))
                sql.execute("DELETE FROM events WHERE seq > ?", (lost,))
                self.lose_the_head(min(lost, len(self.ids)))
            sql.close()

    def lose_the_head(self, left: int) -> None:
        """It is not synced: it may be gone, zeros, an older one, or the newest."""
        path = self.state / epochs.HEAD
        if path.exists():
            older = {**json.loads(path.read_bytes()), "seq": left}
            texts = (b"", b"\0" * epochs.SIZE, json.dumps(older).encode(), path.read_bytes())
            path.write_bytes(self.rng.choice(texts))

    def touch(self) -> None:
        """What people and programs do to files."""
        name = self.rng.choice((epochs.HEAD, epochs.HOME, FILE))
        if (self.state / name).exists():
            if self.rng.random() < 0.5 and name != FILE:
                (self.state / name).unlink()
            else:
                (self.state / name).chmod(0o600)

    # ---- putting back

    def put_back(self) -> None:
        copy = self.rng.choice(self.copies)
        self.rng.choice(WAYS)(self, copy)
        self.known = copy.known

    def anew(self, copy: Copy) -> None:
        """rm -r, and cp -a or cp -r."""
        shutil.rmtree(self.state)
        shutil.copytree(copy.path, self.state, copy_function=self.rng.choice((shutil.copy, shutil.copy2)))

    def moved(self, copy: Copy) -> None:
        """mv, of a copy that was made where it is now."""
        shutil.copytree(copy.path, self.folder / "spare")
        os.rename(self.state, self.folder / f"away-{time.monotonic_ns()}")
        os.rename(self.folder / "spare", self.state)

    def over(self, copy: Copy) -> None:
        """cp -a or cp -r over what is there: the files stay the same, and have other contents."""
        self.without_journal()
        function = self.rng.choice((shutil.copy, shutil.copy2))
        shutil.copytree(copy.path, self.state, copy_function=function, dirs_exist_ok=True)

    def synced(self, copy: Copy) -> None:
        """rsync -a --inplace: what has the same size and time is left alone."""
        self.without_journal()
        for file in copy.path.iterdir():
            other, facts = self.state / file.name, file.stat()
            same = other.exists() and (other.stat().st_size, other.stat().st_mtime_ns) == (
                facts.st_size,
                facts.st_mtime_ns,
            )
            if not same:
                shutil.copy2(file, other)

    def store_only(self, copy: Copy) -> None:
        """The store with its journal, into the same files or others; nothing else."""
        self.without_journal()
        if self.rng.random() < 0.5:
            (self.state / FILE).unlink(missing_ok=True)
        for name in STORE:
            if (copy.path / name).exists():
                self.rng.choice((shutil.copy, shutil.copy2))(copy.path / name, self.state / name)

    def without_journal(self) -> None:
        (self.state / f"{FILE}-wal").unlink(missing_ok=True)


WAYS: list[Callable[[World, Copy], None]] = [World.anew, World.moved, World.over, World.synced, World.store_only]


async def run(seconds: float, seed: int) -> int:
    """Worlds one after the other for so long; how many. Raises Broken, with the seed."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        place = MEMORY if (seed + count) % 4 else None  # a disk gives the number of a removed file out again
        with tempfile.TemporaryDirectory(dir=place) as folder:
            try:
                await World(Path(folder), random.Random(seed + count)).live()
            except Exception as error:
                error.add_note(f"seed {seed + count}")
                raise
        count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable()
    print(asyncio.run(run(60 * args.minutes, args.seed)), "worlds: nobody was told what is not true")
