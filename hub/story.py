"""A made-up life: eight agents at work, what fails, what they vote on, and what they ask. The same for the same seed.

At every moment of it a question and a vote are open, a task has failed in the last minutes, and an agent is stale.
"""

import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .scenes import AGENTS, ASKER, OPEN_THREAT, SILENT, THREATS, TOPICS, WORKERS, scene

SEED = 3141
PACE = (0.5, 0.9)  # seconds between two steps
TASK_LEASE = 120.0  # seconds; nothing in this life is silent for so long, but for who is meant to
SILENT_LEASE = 5.0  # seconds until it is stale
KEPT = 20  # tasks of one agent that are told apart; then their names come again

UNDONE = ("queued", "running", "waiting_approval", "failed")

Data = dict[str, Any]


class Step(NamedTuple):
    """Wait so many seconds, then publish this event."""

    wait: float
    event: str
    data: Data
    ttl: float | None = None


class Story:
    """The life itself. `steps` never ends; what people say changes it: `asked`, `decided`, `voted`."""

    def __init__(self, seed: int = SEED) -> None:
        self._dice = random.Random(seed)
        self._workers = [_Worker(self._dice, name) for name in WORKERS]
        self._asker: deque[Step] = deque()  # what the one who asks does next
        self._vote = _Vote(1)
        self._failed: _Worker | None = None

    def steps(self) -> Iterator[Step]:
        """All that happens, one after the other."""
        yield from self._opening()
        for turn in itertools.count(1):
            yield from self._next(turn)

    def resume(self, votes: Iterable[Data]) -> None:
        """Go on with the vote that an earlier life has left open."""
        for vote in votes:
            number = str(vote["vote_id"]).removeprefix("vote-")
            if vote.get("topic") in TOPICS and vote.get("status") == "open" and number.isdecimal():
                self._vote = _Vote(int(number[:3]))

    def _opening(self) -> Iterator[Step]:
        """How things stand when somebody looks for the first time: in the middle of the day."""
        for agent in (ASKER, SILENT):
            yield _agent(agent, "idle" if agent == ASKER else "active", 0.02)
        yield from self._silent(0.02)
        for worker in self._workers:
            yield from worker.opening()
        yield _threat(OPEN_THREAT, 0.02)
        yield _threat(THREATS[0], 0.02)
        yield _memory(self._dice, 0.02)
        yield from self._vote.opening(0.02)
        yield from self._fail(0.02)

    def _next(self, turn: int) -> Iterator[Step]:
        if self._asker:
            yield self._asker.popleft()
        yield from self._who_acts().act(self._wait())
        if turn % 7 == 0:
            yield _memory(self._dice, self._wait())
        if turn % 12 == 0:
            yield from self._go_on_voting()
        if turn % 150 == 0:  # every two minutes or so
            yield from self._fail(self._wait())
        if turn % 90 == 0:
            yield _threat(THREATS[turn // 90 % len(THREATS)], self._wait())
        if turn % 400 == 0:
            yield from self._silent(self._wait())

    def _who_acts(self) -> "_Worker":
        """Not the one that has failed; and so that most of the others are at work."""
        able = [worker for worker in self._workers if worker is not self._failed]
        resting = [worker for worker in able if not worker.is_running]
        return self._dice.choice(resting if len(resting) > 2 else able)

    def _wait(self) -> float:
        return round(self._dice.uniform(*PACE), 2)

    def _fail(self, wait: float) -> Iterator[Step]:
        """Something else fails, and what has failed before is tried again."""
        before = self._failed
        others = [worker for worker in self._workers if worker is not before]
        self._failed = self._workers[1] if before is None else self._dice.choice(others)
        yield from self._failed.fail(wait)
        if before is not None:
            yield from before.try_again(wait)

    def _silent(self, wait: float) -> Iterator[Step]:
        """It says that it works, and then nothing more."""
        data = {"id": "board-meeting", "name": "Transcribe the board meeting", "agent": SILENT, "status": "running"}
        yield _agent(SILENT, "active", wait, SILENT_LEASE, task=data["name"])
        yield Step(wait, "task:progress", {**data, "progress": 47, "message": "minute 31 of 66"}, SILENT_LEASE)

    # ---- what people say

    def asked(self, number: int) -> None:
        """A question is open: the task that it is about waits."""
        what = scene(number)
        data = {"id": about(number), "name": what.task, "agent": ASKER, "status": "queued", "progress": 0}
        self._asker.append(Step(0.1, "task:progress", {**data, "message": "waits for an answer"}))
        self._asker.append(_agent(ASKER, "active", 0.1, task=what.task, reason="waits for an answer"))

    def decided(self, number: int, answer: str) -> None:
        """The question has its answer: its task goes on, or is taken back."""
        what = scene(number)
        goes_on, message = what.outcomes[answer]
        data = {"id": about(number), "name": what.task, "agent": ASKER}
        if goes_on:
            for progress in (5, 20, 38, 55, 71, 88):
                more = {"status": "running", "progress": progress, "message": message}
                self._asker.append(Step(0.6, "task:progress", {**data, **more}, TASK_LEASE))
            done = {"status": "succeeded", "progress": 100, "duration_ms": 38_000}
            self._asker.append(Step(0.6, "task:progress", {**data, **done}))
        else:
            self._asker.append(Step(0.1, "task:progress", {**data, "status": "cancelled", "message": message}))
        self._asker.append(_agent(ASKER, "idle", 0.1, reason=message if not goes_on else "done"))

    def voted(self, vote_id: str, agent: str, option: str) -> None:
        """A person has voted."""
        if vote_id == self._vote.id and agent not in AGENTS:
            self._vote.ballots[agent] = option

    def _go_on_voting(self) -> Iterator[Step]:
        """Somebody votes, or it is over. The next vote is open before this one ends."""
        if (ballot := self._vote.next(self._dice)) is not None:
            yield Step(self._wait(), *ballot)
            return
        over, self._vote = self._vote, _Vote(self._vote.number + 1)
        yield from self._vote.opening(self._wait())
        yield Step(self._wait(), *over.end())


class _Worker:
    """An agent with at most one task at a time."""

    def __init__(self, dice: random.Random, name: str) -> None:
        self._dice, self._name = dice, name
        self._type, self._jobs = WORKERS[name]
        self._done = self._failed = self._number = 0
        self._job = self._jobs[0]
        self._progress: int | None = None
        self.is_running = False

    def opening(self) -> Iterator[Step]:
        """In the middle of something."""
        self._done = self._dice.randint(3, 30)
        self._begin()
        self._progress = self._dice.randint(10, 80)
        yield self._status("active", 0.02)
        yield self._task("running", 0.02, message=self._phase())

    def act(self, wait: float) -> Iterator[Step]:
        """Begin a task, or go on with it until it ends."""
        if self._progress is None:
            self._begin()
            yield self._status("active", wait)
            yield self._task("queued", wait, message="waiting for its turn")
        elif self._progress < 100:
            self._progress = min(100, self._progress + self._dice.randint(3, 14))
            yield self._task("running", wait, message=self._phase())
        else:
            self._done += 1
            yield self._task("succeeded", wait, duration_ms=self._dice.randint(20_000, 240_000))
            self._progress = None
            yield self._status("idle", wait, reason="done")

    def fail(self, wait: float) -> Iterator[Step]:
        """Fail with what is at hand."""
        if self._progress is None:
            self._begin()
        self._progress, self._failed = min(max(self._progress or 0, 20), 95), self._failed + 1
        yield self._task("failed", wait, error=self._job.error, duration_ms=self._dice.randint(40_000, 400_000))
        yield self._status("idle", wait, reason="a task failed")

    def try_again(self, wait: float) -> Iterator[Step]:
        """The same task once more, from its beginning."""
        self._progress = 0
        yield self._status("active", wait)
        yield self._task("running", wait, message=f"again: {self._phase()}")

    def _begin(self) -> None:
        self._job, self._number, self._progress = self._dice.choice(self._jobs), self._number + 1, 0

    def _phase(self) -> str:
        return self._job.phases[min(2, int((self._progress or 0) // 34))]

    def _status(self, status: str, wait: float, **more: Any) -> Step:
        busy = self._progress is not None and status == "active"
        counts = {"tasks_completed": self._done, "tasks_failed": self._failed, "tasks_in_progress": int(busy)}
        task = {"task": self._job.name} if busy else {}
        return _agent(self._name, status, wait, **{"type": self._type, **counts, **task, **more})

    def _task(self, status: str, wait: float, **more: Any) -> Step:
        self.is_running = status == "running"
        id = f"{self._job.kind}-{self._number % KEPT}"
        data = {"id": id, "name": self._job.name, "agent": self._name, "status": status, "progress": self._progress}
        return Step(wait, "task:progress", {**data, **more}, TASK_LEASE if status in ("queued", "running") else None)


class _Vote:
    """One vote: every agent that works has a ballot, and so has whoever looks at the page."""

    def __init__(self, number: int) -> None:
        self.number, self.id = number, f"vote-{number % KEPT}"
        self.ballots: dict[str, str] = {}
        self._voters = deque(WORKERS)
        self._about = {"topic": TOPICS[number % len(TOPICS)], "threshold": "majority", "eligible": len(WORKERS) + 1}

    def opening(self, wait: float) -> Iterator[Step]:
        first = self._voters.popleft()
        self.ballots[first] = "approve"
        yield Step(wait, *self._said(agent=first, option="approve", votes=dict(self.ballots)))

    def next(self, dice: random.Random) -> tuple[str, Data] | None:
        """One more ballot; None when all have voted."""
        if not self._voters:
            return None
        agent, option = self._voters.popleft(), dice.choice(("approve", "approve", "reject", "abstain"))
        self.ballots[agent] = option
        return self._said(agent=agent, option=option)

    def end(self) -> tuple[str, Data]:
        options = list(self.ballots.values())
        passed = 2 * options.count("approve") > len(WORKERS) + 1
        return self._said(status="passed" if passed else "failed", votes=dict(self.ballots))

    def _said(self, **more: Any) -> tuple[str, Data]:
        return "governance:vote_cast", {"vote_id": self.id, **self._about, "status": "open", **more}


def life(seed: int = SEED) -> Iterator[Step]:
    """The endless story when nobody says anything."""
    return Story(seed).steps()


def leftovers(tasks: Iterable[Data]) -> Iterator[Data]:
    """Tasks of these agents that an earlier life has not ended, or not well: nobody is at them any more."""
    return (task for task in tasks if task.get("agent") in AGENTS and task.get("status") in UNDONE)


def about(number: int) -> str:
    """The task that the question with this number is about."""
    return f"decision-{number}"


def _agent(name: str, status: str, wait: float, ttl: float | None = None, **more: Any) -> Step:
    kind = {ASKER: "release", SILENT: "speech"}.get(name, "agent")
    return Step(wait, "agent:status_change", {"id": name, "type": kind, "status": status, **more}, ttl)


def _threat(threat: tuple[str, str, str, str, float, bool], wait: float) -> Step:
    names = ("type", "source", "details", "severity", "risk_score", "mitigated")
    return Step(wait, "security:threat_detected", dict(zip(names, threat, strict=True)))


def _memory(dice: random.Random, wait: float) -> Step:
    facts, episodes, skills = dice.randint(11_800, 12_200), dice.randint(5_500, 5_800), dice.randint(700, 720)
    total = facts + episodes + skills
    figures = {"total_entries": total, "by_type": {"facts": facts, "episodes": episodes, "skills": skills}}
    parts = {"by_partition": {"shared": total // 3, "private": total - total // 3}}
    more = {"verified": total * 9 // 10, "quarantined": 12, "bytes": total * 4_700}
    return Step(wait, "memory:stats_update", {**figures, **parts, **more})
