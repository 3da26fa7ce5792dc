"""Random lives of an audit log: what was answered is in the chain, whatever fails, and no verdict is a false one.

`python tests/audit_schedules.py --minutes 60 --seed 1`; the suite runs some seconds of the same. A round that finds
something prints its seed: `--seed N --rounds 1` goes the same way again, as far as threads go the same way twice.
"""

import argparse
import asyncio
import contextlib
import errno
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.audit import commits
from hub.audit.files import CURRENT, closed_segments, read_head
from hub.audit.log import AuditLog
from hub.audit.rotation import Limits
from hub.audit.verdict import DAMAGED, INTACT, TORN, UNREADABLE
from hub.audit.verify import verify
from hub.errors import HubError

WRITING = ("write", "pwrite", "fdatasync", "fsync", "rename", "fchmod", "unlink", "ftruncate", "open", "stat", "fstat")
READING = ("open", "stat", "fstat", "pread")
ERRNOS = (
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EINVAL,
    errno.EMFILE,
    errno.EROFS,
)  # not ENOENT: a disk fails, it does not lie
STEPS = 60  # of a round
SOON = 10.0  # seconds in which a log without faults must be able to write again
REAL = {name: getattr(os, name) for name in {*WRITING, *READING}}


class Weather:
    """Stands in the way of the system's calls of the log's threads: they fail, are slow, or are the last of a process.

    `dice` is for the threads' own throws, `stored` keeps what the log itself has removed.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.failing: dict[str, float] = {}  # probability by call
        self.slow = 0.0  # probability
        self.crash: Callable[[], None] | None = None  # what is to be done at the next call of the writing thread
        self.copying = False  # this is no part of the play
        self.synced: dict[int, int] = {}  # inode: bytes that survive a power cut
        self.retired: list[bytes] = []
        self.faults: Counter[str] = Counter()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """Be there for a while."""
        for name in REAL:
            setattr(os, name, self._in_the_way(name))
        try:
            yield
        finally:
            for name, call in REAL.items():
                setattr(os, name, call)

    def clear(self) -> None:
        """Nothing fails any more."""
        self.failing, self.slow = {}, 0.0

    def _in_the_way(self, name: str) -> Callable[..., Any]:
        real = REAL[name]

        def call(*args: Any, **more: Any) -> Any:
            thread = threading.current_thread().name
            writing = thread == "hub-audit"
            reading = thread.startswith("asyncio") and name in READING
            if self.copying or not (writing or reading):
                return real(*args, **more)
            if self.slow and self.dice.random() < self.slow:
                time.sleep(self.dice.random() * 0.003)
            if writing and self.crash and self.dice.random() < 0.2:
                self._end_here(name, args)
            if self.dice.random() < self.failing.get(name, 0.0):
                self._fail(name, real, args, more)
            return self._done(name, real, args, more)

        return call

    def _end_here(self, name: str, args: tuple[Any, ...]) -> None:
        """The process ends before this call, or in the middle of it."""
        crash, self.crash = self.crash, None
        half = name == "write" and self.dice.random() < 0.7
        if half:
            self._part(args)
        self.copying = True
        try:
            assert crash is not None
            crash()
        finally:
            self.copying = False
        if half:
            raise OSError(errno.EIO, "the process is no more")

    def _part(self, args: tuple[Any, ...]) -> int:
        data = bytes(args[1])
        return int(REAL["write"](args[0], data[: self.dice.randrange(len(data) + 1)]))

    def _fail(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> None:
        self.faults[name] += 1
        if name == "write" and self.dice.random() < 0.7:
            self._part(args)
        elif name in ("fdatasync", "fsync", "rename", "unlink") and self.dice.random() < 0.3:
            self._done(name, real, args, more)  # done, and called a failure
        kind = self.dice.random()
        if kind < 0.1:
            raise RuntimeError("a bug")
        if kind < 0.2:
            raise MemoryError
        number = self.dice.choice(ERRNOS)
        raise OSError(number, os.strerror(number))

    def _done(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        if name == "write" and len(args[1]) > 1 and self.slow and self.dice.random() < 0.3:
            return real(args[0], bytes(args[1])[: self.dice.randrange(1, len(args[1]))])  # less, as it may
        if name == "fdatasync":
            facts = REAL["fstat"](args[0])
            self.synced[facts.st_ino] = facts.st_size
        if name == "unlink" and str(args[0]).endswith(".jsonl"):
            with contextlib.suppress(FileNotFoundError):
                data = Path(args[0]).read_bytes()
                real(*args, **more)
                self.retired.append(data)
                return None
        return real(*args, **more)


def ids(data: bytes) -> list[int]:
    """The records of this test in these lines, by number."""
    found = []
    for line in data.splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.append(json.loads(line)["details"]["n"])
    return found


def newest(data: bytes) -> int:
    """The number of the last whole record in these lines."""
    return max((json.loads(line)["seq"] for line in data.splitlines(keepends=True) if line.endswith(b"}\n")), default=0)


def stored(directory: Path) -> bytes:
    files = [*closed_segments(directory), directory / CURRENT]
    return b"".join(file.read_bytes() for file in files if file.exists())


@dataclass
class Found:
    """What was seen in all rounds, and what is wrong with it."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Life:
    """One round: a log, what it was asked for, and what it has answered. `careless`: a file that was moved away may be
    put back over the one in its place."""

    careless = False

    def __init__(self, folder: Path, seed: int, found: Found) -> None:
        self.rng = random.Random(seed)
        self.seed, self.folder, self.found = seed, folder, found
        self.weather = Weather(random.Random(seed + 1))
        self.limits = Limits(self.rng.choice([300, 900, 3000]), 0, self.rng.choice([0, 1, 2, 4]))
        if seed % 4 == 1:
            self.limits = Limits(300, 0, 1)
        self.directory = folder / "0"
        self.log = AuditLog(self.directory, limits=self.limits)
        self.number = 0  # of the newest record
        self.answered: list[int] = []
        self.refused: list[int] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.away: Path | None = None  # where audit.jsonl was moved to
        self.moved: list[tuple[Path, int]] = []  # files that are gone for good, and the newest record at that time
        self.overwritten: list[Any] = []  # files that something was put over
        self.moves = 0
        self.unnamed = False
        self.verified_from = 0  # faults there were when the verification began that runs
        self.names = threading.Lock()  # a file is away, or in the copy of a crash
        self.running = False
        self.crashed: tuple[Path, list[int], list[int]] | None = None

    def wrong(self, what: str) -> None:
        self.found.wrong.append(f"seed {self.seed}: {what}")

    # -- what is asked for

    async def record(self) -> None:
        self.number += 1
        number = self.number
        try:
            await self.log.record("x:y", None, "OPERATOR", {"n": number, "pad": "x" * self.rng.randrange(200)})
        except HubError:
            self.refused.append(number)
            self.found.counts["refused"] += 1
        else:
            self.answered.append(number)
            self.found.counts["answered"] += 1

    async def judge(self, look: Callable[[], Awaitable[Any]], kind: str, faults: int) -> None:
        """A verification beside everything else: what was not moved away is there. `faults`: when it began."""
        moves, directory = self.moves, self.directory
        available = self.log.available
        try:
            verdict = await look()
        except (RuntimeError, MemoryError):  # of the weather
            return
        self.found.counts[kind] += 1
        allowed = {INTACT}
        calm = available and self.log.available and not self.weather.failing
        if not calm or self.weather.faults.total() > faults:
            allowed |= {UNREADABLE, TORN}  # what could not be cut off, or read
        if moves or self.moves:
            allowed |= {*DAMAGED, UNREADABLE}
        if verdict.status not in allowed and directory == self.directory:
            self.wrong(f"{kind} beside the running log: {verdict}")

    async def inside(self) -> None:
        if self.log._verifying is None:  # who asks meanwhile gets the answer of the one that runs
            self.verified_from = self.weather.faults.total()
        await self.judge(self.log.verify, "verify", self.verified_from)

    async def outside(self) -> None:
        directory = self.directory
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def look() -> None:
            verdict = verify(directory)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(answer.set_result, verdict)

        threading.Thread(target=look, name="outside").start()
        await self.judge(lambda: asyncio.shield(answer), "outside", self.weather.faults.total())

    async def tail(self) -> None:
        before = self.answered[-1:] if not self.moves else []
        directory = self.directory
        try:
            records = await self.log.tail(self.rng.randrange(1, 30))
        except (OSError, RuntimeError, MemoryError):
            return
        self.found.counts["tail"] += 1
        seqs = [record["seq"] for record in records]
        if not self.moves and directory == self.directory:
            if seqs != list(range(seqs[0], seqs[0] + len(seqs)) if seqs else ()):
                self.wrong(f"the tail has gaps: {seqs}")
            mine = [record["details"]["n"] for record in records if "n" in record["details"]]
            if before and mine and max(mine) < before[0]:
                self.wrong(f"the tail ends with {max(mine)}, {before[0]} was answered")

    def ask(self, what: Callable[[], Any]) -> None:
        task = asyncio.get_running_loop().create_task(what())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- what happens

    def records(self) -> None:
        for _ in range(self.rng.choice([1, 1, 3, 10])):
            self.ask(self.record)

    def notes(self) -> None:
        for _ in range(self.rng.choice([1, 20])):
            self.log.note("a:b", None, "NONE", {"pad": "x"}, key=self.rng.choice([None, "a", "client.refused"]))

    def reads(self) -> None:
        self.ask(self.rng.choice([self.inside, self.outside, self.tail]))

    def cancel(self) -> None:
        if self.tasks:
            self.rng.choice(sorted(self.tasks, key=lambda task: task.get_name())).cancel()

    def faults(self) -> None:
        names = self.rng.sample(WRITING, self.rng.choice([1, 1, 2, len(WRITING)]))
        self.weather.failing = {name: self.rng.choice([0.05, 0.3, 1.0]) for name in names}
        self.weather.slow = self.rng.choice([0.0, 0.3])

    def failing_writes(self) -> None:
        self.weather.failing = {"write": 0.5, "fdatasync": 0.2}
        self.weather.slow = 0.5

    def calm(self) -> None:
        self.weather.clear()

    def slow(self) -> None:
        self.weather.slow = 0.5

    def move(self) -> None:
        """What a log rotation does; then, perhaps, somebody notices."""
        with self.names:
            if self.crashed is None:
                self._move()

    def _move(self) -> None:
        self.forget_refusals()
        if self.away is None:
            self.away = self.folder / f"moved-{self.moves}"
            try:
                REAL["rename"](self.directory / CURRENT, self.away)
            except FileNotFoundError:
                self.away = None
                return
            self.moves += 1
            self.at_move = self.number
            self.found.counts["moved"] += 1
        elif self.careless and self.rng.random() < 0.3:
            self._overwrite(self.away)
            self.away = None
        elif self.rng.random() < 0.7:
            try:  # a careful hand: nothing is overwritten
                os.link(self.away, self.directory / CURRENT)
                REAL["unlink"](self.away)
                self.found.counts["put back"] += 1
            except FileExistsError:
                self.moved.append((self.away, self.at_move))
            self.away = None

    def _overwrite(self, away: Path) -> None:
        """A careless hand: what was written since goes. It is read when nobody writes to it any more. It can be missed
        as far as audit.head names it, which does not where that could not be written."""
        with contextlib.suppress(FileNotFoundError):
            self.overwritten.append((self.directory / CURRENT).open("rb"))
            head = read_head(self.directory)
            if not self.running and (head is None or head.seq < newest((self.directory / CURRENT).read_bytes())):
                self.unnamed = True
        REAL["rename"](away, self.directory / CURRENT)
        self.found.counts["overwritten"] += 1

    def destroyed(self) -> set[int]:
        """What was answered, and was in the files that were overwritten."""
        found = set[int]()
        for file in self.overwritten:
            file.seek(0)
            found.update(ids(file.read()))
        return found & set(self.answered)

    async def restart(self) -> None:
        if self.running:
            await asyncio.gather(*(self.log.stop() for _ in range(self.rng.choice([1, 2]))))
            self.running = False
        if self.rng.random() < 0.5:
            self.begin_anew()
        await self.start()

    def begin_anew(self) -> None:
        """Another process."""
        self.log = AuditLog(self.directory, limits=self.limits)
        self.forget_refusals()

    def forget_refusals(self) -> None:
        """What could not be cut off a file before it, or the process, was gone may be found whole."""
        if self.weather.faults["ftruncate"]:
            self.refused.clear()

    async def start(self) -> None:
        starting = asyncio.get_running_loop().create_task(self.log.start())
        if self.rng.random() < 0.1:
            for _ in range(self.rng.randrange(5)):
                await asyncio.sleep(0)
            starting.cancel()
        (error,) = await asyncio.gather(starting, return_exceptions=True)
        self.running = error is None
        self.found.counts["starts"] += 1

    def crash(self) -> None:
        """A copy, in the middle of a call, of what a killed process or a power cut would leave."""

        def copy() -> None:
            with self.names:
                if self.away is None:
                    copied()

        def copied() -> None:
            answered, refused = list(self.answered), list(self.refused)
            target = self.folder / f"crash-{len(list(self.folder.iterdir()))}"
            target.mkdir()
            for file in self.directory.iterdir():
                shutil.copyfile(file, target / file.name)
            self._cut_power(target)
            self.crashed = target, answered, refused

        if self.running:
            self.weather.crash = copy

    def _cut_power(self, target: Path) -> None:
        dice = self.weather.dice
        with contextlib.suppress(FileNotFoundError):
            facts = REAL["stat"](self.directory / CURRENT)
            synced = self.weather.synced.get(facts.st_ino, facts.st_size)
            if dice.random() < 0.6 and facts.st_size > synced:
                with (target / CURRENT).open("r+b") as file:
                    left = dice.randrange(synced, facts.st_size + 1)
                    file.truncate(left)
                    file.truncate(facts.st_size if dice.random() < 0.5 else left)  # zeros

    async def after_the_crash(self) -> None:
        """The old process is no more: go on in the copy."""
        assert self.crashed is not None
        self.weather.crash = None
        (directory, answered, refused), self.crashed = self.crashed, None
        self.weather.clear()
        await self.log.stop()
        await self.idle()
        if self.away is not None:
            self.moved.append((self.away, self.at_move))
            self.away = None
        self.directory, self.answered, self.refused = directory, answered, refused
        self.found.counts["crashes"] += 1
        self.begin_anew()
        self.compare_looks("after a crash", TORN)
        await self.start()

    # -- what must hold

    async def idle(self) -> None:
        """Let everything that was asked for have its answer."""
        if self.tasks:
            _, late = await asyncio.wait(set(self.tasks), timeout=SOON)
            if late:
                self.wrong(f"no answer: {late}")

    def compare_looks(self, when: str, *more: int) -> None:
        """The quick look of a start and the whole one say the same; and nothing, if nothing was moved away."""
        quick, whole = verify(self.directory, quick=True), verify(self.directory)
        if quick.status != whole.status:
            self.wrong(f"{when}: a start sees {quick}, verify {whole}")
        empty = whole.status == UNREADABLE and not stored(self.directory)
        if not self.moves and not empty and whole.status not in (INTACT, *more):
            self.wrong(f"{when}: {whole}")

    async def comes_good(self) -> None:
        """Without faults the log can be written again, soon and without help."""
        end = time.monotonic() + SOON
        while not self.running and time.monotonic() < end:
            await self.start()
        before = len(self.answered)
        while len(self.answered) == before and time.monotonic() < end:
            await self.record()
            await asyncio.sleep(0.001)
        if len(self.answered) == before:
            self.wrong(f"it does not come good: {self.log.reason}")

    def compare_records(self) -> None:
        """What was answered is there once and in order; what was refused is not."""
        here = ids(stored(self.directory))
        if here != sorted(here) and not self.moves:  # what is put back late stands behind what went on without it
            self.wrong(f"out of order: {here}")
        gone = [number for data in self.weather.retired for number in ids(data)]
        moved = [(number, at) for path, at in self.moved for number in ids(path.read_bytes())]
        everything = Counter(here) + Counter(set(gone) | {number for number, _ in moved} | self.destroyed())
        missing = [number for number in self.answered if not everything[number]]
        twice = [number for number, count in Counter(here).items() if count > 1]
        if missing or twice:
            self.wrong(f"missing {missing}, twice {twice}")
        if kept := set(self.refused) & set(here):
            self.wrong(f"refused, and there all the same: {sorted(kept)}")
        if lost := [number for number, at in moved if number > at and number in self.answered]:
            self.wrong(f"called durable in a file that had been moved away: {lost}")

    async def step(self) -> None:
        happens: dict[Callable[[], Any], int] = {
            self.records: 30, self.notes: 8, self.reads: 14, self.cancel: 6, self.faults: 6, self.calm: 8, self.slow: 3,
            self.restart: 3, self.crash: 2,
        }  # fmt: skip
        if self.seed % 3 == 0:  # in every third life files are moved away
            happens[self.move] = 8
        if self.seed % 2:  # in every other one much is read while files come and go, or while writes fail
            happens[self.reads], happens[self.slow if self.seed % 4 == 1 else self.failing_writes] = 60, 20
        what = self.rng.choices(list(happens), list(happens.values()))[0]
        outcome = what()
        if outcome is not None:
            await outcome
        for _ in range(self.rng.choice([0, 1, 5])):
            await asyncio.sleep(self.rng.choice([0, 0, 0.001, 0.004]))
        if self.crashed is not None:
            await self.after_the_crash()

    async def live(self) -> None:
        with self.weather.over():
            await self.start()
            for _ in range(STEPS):
                await self.step()
            self.weather.clear()
            self.weather.crash = None
            await self.comes_good()
            await self.idle()
            if self.crashed is not None:
                await self.after_the_crash()
                await self.comes_good()
            if self.away is not None:
                self.moved.append((self.away, self.at_move))
                self.away = None
                await self.comes_good()
                await self.comes_good()
            await self.log.stop()
            await self.log.stop()
        self.compare_records()
        self.compare_looks("at the end")
        await self.start_agrees()
        if self.destroyed() and not self.unnamed and (verdict := verify(self.directory)).status not in DAMAGED:
            self.wrong(f"records were destroyed, and the log is called {verdict}")
        for file in self.overwritten:
            file.close()
        for name, count in self.weather.faults.items():
            self.found.counts[f"fault: {name}"] += count

    async def start_agrees(self) -> None:
        status = verify(self.directory).status
        log = AuditLog(self.directory, limits=self.limits)
        await log.start()
        if log.valid is not (status == INTACT):
            self.wrong(f"verify says {status}, the next start {log.valid}: {log.reason}")
        await log.stop()
        if verify(self.directory).status != (1 if status in DAMAGED else status):
            self.wrong(f"verify says {status} before a start and {verify(self.directory)} behind it")


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


async def one(seed: int, found: Found) -> None:
    """One round of that seed."""
    with tempfile.TemporaryDirectory() as folder:
        await Life(Path(folder), seed, found).live()
        end = time.monotonic() + SOON
        while (left := left_over(folder)) and time.monotonic() < end:
            await asyncio.sleep(0.001)
        if left:
            found.wrong.append(f"seed {seed}: left over: {left}")
    found.counts["rounds"] += 1


def left_over(folder: str) -> list[str]:
    """Descriptors and threads of a round that has ended."""
    files = [name for name in descriptors() if folder in name]
    return files + [t.name for t in threading.enumerate() if t.name in ("hub-audit", "outside")]


async def many(seeds: Iterator[int], end: float, found: Found) -> None:
    """Rounds until the time is over, or something is wrong."""
    commits.RETRY = 0.01
    for seed in seeds:
        if time.monotonic() >= end or found.wrong:
            return
        await one(seed, found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10**9)
    parser.add_argument("--go-on", action="store_true", help="do not end with the first fault")
    parser.add_argument("--careless", action="store_true", help="put files back over newer ones, too")
    options = parser.parse_args()
    Life.careless = options.careless
    found = Found()
    end, seed, wrong = time.monotonic() + options.minutes * 60, options.seed, 0
    while time.monotonic() < end and seed < options.seed + options.rounds:
        found.wrong.clear()
        asyncio.run(many(iter(range(seed, seed + min(50, options.rounds))), end, found))
        seed = options.seed + found.counts["rounds"]
        for line in found.wrong:
            print(line, flush=True)
        wrong += len(found.wrong)
        if wrong and not options.go_on:
            break
    print(f"{found.counts.pop('rounds')} rounds from seed {options.seed}, {wrong} faults; {dict(found.counts)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
