"""Who lives: the processes of agents and tasks are watched; whose has ended is stopped, or has failed."""

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..processes import Process, inner_numbers, is_new, machine, owner, process, sees_all
from ..wire.timestamps import now
from .events import Event
from .eventtypes import LARGEST_PID
from .passes import Passes
from .pidfds import Pidfds, is_running
from .pidfile import STATUS, TASK, WHAT, One, Pidfile
from .tasks import OpenTasks, is_open

if TYPE_CHECKING:
    from .bus import EventBus
    from .state import State

log = logging.getLogger("hub")

Claims = Mapping[int, Process]  # by number

OVER = {  # it has said so itself
    STATUS: ("stopped", "error"),
    TASK: ("succeeded", "failed", "cancelled"),
}
REASON = "process ended"
AT_ONCE, MOST = 50, 200  # ends that are published together, before others get their turn; of one agent so many
RETRY_SECONDS = 1.0
LATE_SECONDS = 5.0  # in which a task that an agent has reported before its end may arrive behind it
# Between two looks for what programs have left, while no process ends: at first, and later on.
SOON_SECONDS, LEFT_SECONDS = 0.5, 60.0
LOOK_SECONDS = 0.1  # between two looks through all processes


class Liveness:
    """The agents and tasks whose processes are known.

    A `pid` in agent:status_change or task:progress counts if its publisher was vouched for: the hub's own account, on
    this machine; and if its process runs, or is known to have run here. With the time at which it was started it is
    that one and no later one with its number. That is on disk, so who ended while the hub was down is stopped at the
    next start. Nobody waits for a process any more once it has ended, another one has taken its place, or its task has
    ended.
    """

    def __init__(self, bus: "EventBus", state: "State", directory: Path) -> None:
        self.on_ended: Callable[[str], None] = lambda agent: None  # its process has
        self.before_ends: Callable[[], Awaitable[None]] | None = None  # what else tells how they ended, for certain
        self._bus, self._state = bus, state
        self._pidfds = Pidfds(self._ended)
        self._claims: dict[int, Process] = {}  # while the events that name them are being published
        self._known: dict[One, Process] = {}
        self._pidfile = Pidfile(directory, self._known)
        self._machine = machine()
        self._of: dict[Process, set[One]] = {}
        self._over: dict[One, Process] = {}  # whose end is to be published
        self._gone: dict[str, tuple[float, Process]] = {}  # agents whose end was published just now, and until when
        self._inner: tuple[float, frozenset[int]] = -math.inf, frozenset()  # when it was looked at, and what was found
        self._wake, self._pause, self._turns = asyncio.Event(), SOON_SECONDS, Passes()

    def __len__(self) -> int:
        return len(self._known)

    # ---- from publishers

    def claims(self, records: Iterable[Any], machine: str = "") -> Claims:
        """The processes that these records name. Their publisher has this account; `machine` is where their numbers
        are those, as it says itself, if it does: what comes through a tunnel looks like what comes from here."""
        if machine not in ("", self._machine):
            return {}
        pids = {pid for record in records if (pid := _pid(record)) is not None}
        is_here = bool(machine)
        return {found.pid: found for pid in pids if (found := _own(pid) or self._ended_before(pid, is_here=is_here))}

    @contextlib.contextmanager
    def vouching(self, claims: Claims) -> Iterator[None]:
        """While what names them is published, believe these."""
        self._claims.update(claims)
        try:
            yield
        finally:
            for pid, found in claims.items():
                if self._claims.get(pid) is found:
                    del self._claims[pid]

    def apply(self, batch: Sequence[Event]) -> None:
        """Take a batch from the pump. Never waits, and looks at nothing while no process is known."""
        if not self._claims and not self._known and not self._gone:
            return
        for event in batch:
            if event.name not in WHAT or event.key is None:
                continue
            one = One(event.name, event.key)
            if self._gone:
                self._late(one, event)
            if one in self._known or b'"pid":' in event.body:
                if one.event == TASK and event.data.get("status") in OVER[TASK]:
                    self._drop(one)
                elif (pid := _number(event.data.get("pid"))) is not None:
                    self._named(one, pid)

    def _named(self, one: One, pid: int) -> None:
        claim, known = self._claims.get(pid), self._known.get(one)
        if claim is not None and claim != known:
            if known is not None and one not in self._over and known.pid != pid and not is_running(claim):
                return  # a late word of the process before: it ends nobody who goes on in another
            self._forget(one)
            self._watch(one, claim)
            self._pidfile.note(one, claim)
        elif claim is None and known is not None and known.pid != pid:  # it goes on somewhere else
            self._drop(one)

    def _ended_before(self, pid: int, *, is_here: bool) -> Process | None:
        """A process that had ended when its number came, and has never been seen here: where it `is_here`, for certain;
        else if its number is new. Any other was perhaps never one of here: it may run on another machine, where its
        number is another, or, as this hub is in a container, where the hub sees nobody."""
        found = process(pid)
        if found is not None:
            is_ours = found.has_ended and owner(pid) == os.geteuid()
            return Process(pid, "", found.state, 0, found.started) if is_ours else None
        if is_here:
            return Process(pid, "", "X", 0, 0)
        if not sees_all() or not is_new(pid):
            return None
        if time.monotonic() - self._inner[0] > LOOK_SECONDS:
            self._inner = time.monotonic(), inner_numbers()
        return None if pid in self._inner[1] else Process(pid, "", "X", 0, 0)

    def _late(self, one: One, event: Event) -> None:
        """A task of an agent whose process has ended ends, too, if it comes just behind that."""
        now = time.monotonic()
        while self._gone and self._gone[first := next(iter(self._gone))][0] <= now:  # they are in that order
            del self._gone[first]
        agent = one.id if one.event == STATUS else event.data.get("agent")
        if not isinstance(agent, str) or agent not in self._gone:
            return
        if one.event == STATUS and event.data["status"] not in OVER[STATUS]:
            del self._gone[agent]  # it has come back
        elif one.event == TASK and is_open(event.data):
            again = self._gone[agent][1]._replace()  # another one: not that whose end is being published just now
            self._over[one] = self._known[one] = again
            self._wake.set()

    def _watch(self, one: One, known: Process) -> None:
        self._known[one] = known
        self._of.setdefault(known, set()).add(one)
        self._pidfds.watch(known)

    def _drop(self, one: One) -> None:
        if one in self._known:
            self._forget(one)
            self._pidfile.note(one, None)

    def _forget(self, one: One) -> None:
        self._over.pop(one, None)
        known = self._known.pop(one, None)
        if known is not None and known in self._of:
            self._of[known].discard(one)
            if not self._of[known]:
                del self._of[known]
                self._pidfds.forget(known)

    # ---- from the kernel

    def _ended(self, known: Process) -> None:
        for one in self._of.pop(known, ()):
            self._over[one] = known
        self._wake.set()

    def look_soon(self) -> None:
        """Clients find the hub from now on. Who has ended just before that found none, and leaves in the next seconds
        how it was."""
        self._pause = SOON_SECONDS
        self._wake.set()

    async def run(self) -> None:
        """Publish the ends, those that programs have left before all others: they say how it was. Ends when
        cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._pause):
                    await self._wake.wait()
            except TimeoutError:
                self._pause = min(2 * self._pause, LEFT_SECONDS)
            self._wake.clear()
            is_first, tasks = True, OpenTasks(self._state)
            while self._over or is_first:
                try:
                    if self.before_ends is not None:
                        await self.before_ends()
                    is_first = False
                    await self._turns.turn()
                    await self._end(tasks)
                except HubError as error:
                    log.error("the end of a process could not be published: %s; it is tried again", error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def _end(self, tasks: OpenTasks) -> None:
        """Publish the ends of some, and what their agents have left running. Raises HubError; then all of it is to be
        done again."""
        if len(self._over) > 1 or tasks.has_looked:
            await tasks.look(self._turns.turn)
        some, batch, told = dict(islice(self._over.items(), AT_ONCE)), list[dict[str, Any]](), set[str]()
        for one, known in some.items():
            if self._over.get(one) is known:  # else it has come back meanwhile
                for record in self._records(one, known, tasks, told):
                    batch.append(record)
                    if len(batch) >= MOST:
                        await self._publish(batch)
                if len(batch) >= AT_ONCE:
                    await self._publish(batch)
        if batch:
            await self._publish(batch)
        for one, known in some.items():
            if self._over.get(one) is known:  # else it has come back, or something late has come
                self._drop(one)
                if one.event == STATUS:
                    self.on_ended(one.id)

    async def _publish(self, batch: list[dict[str, Any]]) -> None:
        await self._bus.publish(batch, many=True)
        batch.clear()
        await self._turns.turn()

    def _records(self, one: One, known: Process, tasks: OpenTasks, told: set[str]) -> Iterator[dict[str, Any]]:
        """What is true, each when it is taken, now that its process has gone. Who has said so itself is told nothing
        of, but what it has left running is; and of what there was no room for among the last values, this is all that
        is known."""
        event = self._state.get(*one)
        data = event.data if event is not None else {"id": one.id}
        has_ended = data.get("status") not in OVER[one.event]
        left: Iterable[Mapping[str, Any]] = [data] if has_ended else []
        if one.event == STATUS:
            self._gone.pop(one.id, None)
            self._gone[one.id] = time.monotonic() + LATE_SECONDS, known  # also what comes before this is published
            if has_ended:
                yield {"event": STATUS, "data": {"id": one.id, "status": "stopped", "reason": REASON}}
            left = tasks.of(one.id)
        for task in left:
            if task["id"] not in told:
                told.add(task["id"])
                yield self._failed(task)

    def _failed(self, task: Mapping[str, Any]) -> dict[str, Any]:
        data = {name: value for name, value in task.items() if name != "pid"}
        lease = self._lease(task["id"]) if One(TASK, task["id"]) in self._over else {}
        return {"event": TASK, "data": data | {"status": "failed", "error": REASON, "ended_at": now()}, **lease}

    def _lease(self, task: str) -> dict[str, Any]:
        """What is left of a lease runs on: only who has taken it can end it."""
        event = self._state.get(TASK, task)
        if event is None or event.ttl is None or self._state.is_stale(TASK, task):
            return {}
        return {"ttl": max(event.accepted + event.ttl - time.monotonic(), 0.001)}

    # ---- across restarts

    def start(self) -> None:
        """Go on with what was known; who has ended meanwhile is stopped as soon as `run` runs."""
        for one, (known, may_run) in self._pidfile.read().items():
            event = self._state.get(*one)
            if event is None or event.data.get("pid") not in (None, known.pid):
                continue  # noted of an earlier one: the hub was killed between the event and the note
            self._known[one] = known
            if may_run and is_running(known):
                self._watch(one, known)
            else:
                self._over[one] = known
        self._wake.set()
        self._pidfile.rewrite()

    def stop(self) -> None:
        """Wait for nobody any more; what is on disk stays."""
        self._pidfds.close()
        self._pidfile.close()


def _pid(record: Any) -> int | None:
    """The process that a record names, if it is one of an agent or a task."""
    if isinstance(record, dict) and record.get("event") in (STATUS, TASK):
        data = record.get("data")
        return _number(data.get("pid")) if isinstance(data, dict) else None
    return None


def _number(pid: Any) -> int | None:
    """The number of a process, also written as `1234.0`, which is an integer in JSON Schema; None for anything else."""
    is_number = isinstance(pid, int | float) and not isinstance(pid, bool)
    return int(pid) if is_number and 0 < pid <= LARGEST_PID and pid == int(pid) else None


def _own(pid: int) -> Process | None:
    """The process, if it runs here and is this account's. A number from within a container is another process's here,
    or nobody's."""
    found = process(pid)
    if found is None or found.has_ended or owner(pid) != os.geteuid():
        return None
    return Process(pid, "", "", 0, found.started)
