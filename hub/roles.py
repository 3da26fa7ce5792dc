"""Who acts in the made-up life, and how: an agent with one task after the other, and a vote that is cast bit by bit."""

import random
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from .scenes import ASKER, SILENT, TOPICS, WORKERS

TASK_LEASE = 120.0  # seconds; nothing in this life is silent for so long, but for who is meant to
KEPT = 20  # tasks of one agent that are told apart; then their names come again
MIDDLE = (60, 400)  # seconds for which a task runs already when somebody looks for the first time

Data = dict[str, Any]


class Step(NamedTuple):
    """Wait so many seconds, then publish this event. `age`: for so many seconds a task has run then, if it has not been
    told of before."""

    wait: float
    event: str
    data: Data
    ttl: float | None = None
    age: float = 0.0


class Worker:
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
        yield self._task("running", 0.02, message=self._phase())._replace(age=float(self._dice.randint(*MIDDLE)))

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
            yield self._task("succeeded", wait)
            self._progress = None
            yield self._status("idle", wait, reason="done")

    def fail(self, wait: float) -> Iterator[Step]:
        """Fail with what is at hand."""
        if self._progress is None:
            self._begin()
        self._progress, self._failed = min(max(self._progress or 0, 20), 95), self._failed + 1
        yield self._task("failed", wait, error=self._job.error)
        yield self._status("idle", wait, reason="a task failed")

    def try_again(self, wait: float) -> Iterator[Step]:
        """The same task once more, from its beginning."""
        self._progress = 0
        yield self._status("active", wait)
        yield self._task("running", wait, message=f"again: {self._phase()}")

    def _begin(self) -> None:
        self._job, self._number, self._progress = self._dice.choice(self._jobs), self._number + 1, 0

    def _phase(self) -> str:
        progress = self._progress or 0
        return self._job.phases[min(2, progress // 34)].format(f"{max(1, self._job.size * progress // 100):,}")

    def _status(self, status: str, wait: float, **more: Any) -> Step:
        busy = self._progress is not None and status == "active"
        counts = {"tasks_completed": self._done, "tasks_failed": self._failed, "tasks_in_progress": int(busy)}
        task = {"task": self._job.name} if busy else {}
        return agent(self._name, status, wait, **{"type": self._type, **counts, **task, **more})

    def _task(self, status: str, wait: float, **more: Any) -> Step:
        self.is_running = status == "running"
        id = f"{self._job.kind}-{self._number % KEPT}"
        data = {"id": id, "name": self._job.name, "agent": self._name, "status": status, "progress": self._progress}
        return Step(wait, "task:progress", {**data, **more}, TASK_LEASE if status in ("queued", "running") else None)


class Vote:
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


def agent(name: str, status: str, wait: float, ttl: float | None = None, **more: Any) -> Step:
    kind = {ASKER: "release", SILENT: "speech"}.get(name, "agent")
    return Step(wait, "agent:status_change", {"id": name, "type": kind, "status": status, **more}, ttl)


def threat(what: tuple[str, str, str, str, float, bool], wait: float) -> Step:
    """Something looks like an attack."""
    names = ("type", "source", "details", "severity", "risk_score", "mitigated")
    return Step(wait, "security:threat_detected", dict(zip(names, what, strict=True)))


def memory(dice: random.Random, wait: float) -> Step:
    facts, episodes, skills = dice.randint(11_800, 12_200), dice.randint(5_500, 5_800), dice.randint(700, 720)
    total = facts + episodes + skills
    figures = {"total_entries": total, "by_type": {"facts": facts, "episodes": episodes, "skills": skills}}
    parts = {"by_partition": {"shared": total // 3, "private": total - total // 3}}
    more = {"verified": total * 9 // 10, "quarantined": 12, "bytes": total * 4_700}
    return Step(wait, "memory:stats_update", {**figures, **parts, **more})
