"""A made-up life of agents, tasks, votes, threats and memory, to see the page at work. `--demo` loads it."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .hub import Hub

SEED = 3141
WORKERS = ("builder", "reviewer", "researcher", "scribe")
JOBS = (
    ("build", "Build the wheel", ("resolving", "compiling", "packing")),
    ("review", "Review the change", ("reading", "running the tests", "writing remarks")),
    ("search", "Search the notes", ("collecting", "ranking", "summing up")),
    ("report", "Write the report", ("outlining", "drafting", "polishing")),
)
QUESTIONS = (
    "Release it today?",
    "Let the scribe write to the disk?",
    "Take the new model?",
    "Forget old notes?",
)
THREATS = (
    ("prompt_injection", "web page", "a page asked to ignore its instructions"),
    ("secret_in_output", "builder", "a key was taken out of an answer"),
    ("path_escape", "researcher", "a path led out of the workspace"),
    ("rate_anomaly", "scribe", "twenty calls in a second"),
)
REASONS = ("safe enough", "tests are green", "too early", "no opinion")
TASK_LEASE = 60.0  # seconds; nothing in this life is silent for so long


class Step(NamedTuple):
    """Wait so many seconds, then publish this event."""

    wait: float
    event: str
    data: dict[str, Any]
    ttl: float | None = None


def setup(hub: "Hub") -> None:
    """Let the hub publish this life for as long as it runs."""
    hub.spawn(lambda: play(hub))


async def play(hub: "Hub", seed: int = SEED, sleep: Callable[[float], Any] = asyncio.sleep) -> None:
    """Publish step after step; ends only when cancelled."""
    for step in life(seed):
        await sleep(step.wait)
        await hub.publish(step.event, step.data, ttl=step.ttl)


def life(seed: int = SEED) -> Iterator[Step]:
    """The endless story, the same for the same seed: about three events a second."""
    dice = random.Random(seed)
    cast = [_Worker(dice, name) for name in WORKERS]
    for agent in cast:
        yield Step(0.1, "agent:status_change", agent.status("starting"))
    entries = {"facts": 120, "episodes": 45, "skills": 12}
    for turn in itertools.count(1):
        working = dice.choice(cast)
        yield from working.act()
        if turn % 5 == 0:
            yield _memory(dice, entries)
        if turn % 12 == 0:
            yield from _vote(dice, turn // 12)
        if turn % 20 == 0:
            yield _threat(dice)


class _Worker:
    """An agent with at most one task at a time."""

    def __init__(self, dice: random.Random, name: str) -> None:
        self._dice, self._name = dice, name
        self._done = self._failed = self._number = 0
        self._job = JOBS[0]
        self._progress: float | None = None
        self._end_at = 100

    def status(self, status: str, **more: Any) -> dict[str, Any]:
        busy = self._progress is not None
        counts = {"tasks_completed": self._done, "tasks_failed": self._failed, "tasks_in_progress": int(busy)}
        return {"id": self._name, "type": "demo", "status": status, **counts, **more}

    def act(self) -> Iterator[Step]:
        """Begin a task, or go on with it until it ends."""
        if self._progress is None:
            yield from self._begin()
        elif self._progress < self._end_at:
            yield from self._go_on()
        else:
            yield from self._end()

    def _begin(self) -> Iterator[Step]:
        self._job, self._number, self._progress = self._dice.choice(JOBS), self._number + 1, 0
        self._end_at = 100 if self._dice.random() < 0.85 else self._dice.randint(30, 90)
        yield Step(0.3, "agent:status_change", self.status("active", task=self._job[1]))
        yield self._task("queued", message="waiting for its turn")

    def _go_on(self) -> Iterator[Step]:
        before = self._progress or 0
        self._progress = min(self._end_at, before + self._dice.randint(4, 24))
        phase = self._job[2][int(self._progress // 34)]
        if before < 60 <= self._progress and self._dice.random() < 0.25:
            yield self._task("waiting_approval", message="needs a person's word")
        yield self._task("running", message=phase)

    def _end(self) -> Iterator[Step]:
        well = self._end_at == 100
        self._done, self._failed = self._done + well, self._failed + (not well)
        took = {"duration_ms": self._dice.randint(4_000, 90_000)}
        if well:
            yield self._task("succeeded", **took)
        else:
            yield self._task("failed", error="the last step did not answer", **took)
        self._progress = None
        status = "idle" if well else "error"
        yield Step(0.2, "agent:status_change", self.status(status, reason="done" if well else "a task failed"))

    def _task(self, status: str, **more: Any) -> Step:
        kind, name, _ = self._job
        data = {
            "id": f"{self._name}-{kind}-{self._number}",
            "name": name,
            "agent": self._name,
            "status": status,
        }
        ended = status in ("succeeded", "failed")
        wait = round(self._dice.uniform(0.2, 0.5), 2)
        return Step(wait, "task:progress", {**data, "progress": self._progress, **more}, None if ended else TASK_LEASE)


def _vote(dice: random.Random, number: int) -> Iterator[Step]:
    vote = {
        "vote_id": f"vote-{number}",
        "topic": dice.choice(QUESTIONS),
        "threshold": "majority",
        "eligible": 4,
    }
    approved = 0
    for agent in WORKERS:
        option = dice.choice(("approve", "approve", "approve", "reject", "abstain"))
        approved += option == "approve"
        ballot = {"agent": agent, "option": option, "reasoning": dice.choice(REASONS), "status": "open"}
        yield Step(0.3, "governance:vote_cast", {**vote, **ballot})
    yield Step(0.5, "governance:vote_cast", {**vote, "status": "passed" if approved > 2 else "failed"})


def _threat(dice: random.Random) -> Step:
    kind, source, details = dice.choice(THREATS)
    score = round(dice.uniform(0.1, 0.99), 2)
    severity = ("low", "medium", "high", "critical")[min(3, int(score * 4))]
    data = {"type": kind, "source": source, "details": details, "severity": severity, "risk_score": score}
    return Step(0.2, "security:threat_detected", {**data, "mitigated": dice.random() < 0.8})


def _memory(dice: random.Random, entries: dict[str, int]) -> Step:
    entries[dice.choice(list(entries))] += dice.randint(1, 3)
    total = sum(entries.values())
    parts = {"shared": total // 3, "private": total - total // 3}
    figures = {"total_entries": total, "by_type": dict(entries), "by_partition": parts}
    more = {"verified": total * 9 // 10, "quarantined": total // 50, "bytes": total * 812}
    return Step(0.1, "memory:stats_update", {**figures, **more})
