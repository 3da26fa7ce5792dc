"""A made-up life: eight agents at work, what fails, what they vote on, and what they ask. The same for the same seed.

At every moment of it a question and a vote are open, a task has failed in the last minutes, and an agent is stale.
"""

import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator

from .roles import TASK_LEASE, Data, Step, Vote, Worker, agent, memory, threat
from .scenes import AGENTS, ASKER, OPEN_THREAT, SILENT, THREATS, TOPICS, WORKERS, scene

SEED = 3141
PACE = (0.5, 0.9)  # seconds between two steps
SILENT_LEASE = 5.0  # seconds until it is stale

UNDONE = ("queued", "running", "waiting_approval", "failed")


class Story:
    """The life itself. `steps` never ends; what people say changes it: `asked`, `decided`, `voted`."""

    def __init__(self, seed: int = SEED) -> None:
        self._dice = random.Random(seed)
        self._workers = [Worker(self._dice, name) for name in WORKERS]
        self._asker: deque[Step] = deque()  # what the one who asks does next
        self._vote = Vote(1)
        self._failed: Worker | None = None

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
                self._vote = Vote(int(number[:3]))

    def _opening(self) -> Iterator[Step]:
        """How things stand when somebody looks for the first time: in the middle of the day."""
        for name in (ASKER, SILENT):
            yield agent(name, "idle" if name == ASKER else "active", 0.02)
        yield from self._silent(0.02)
        for worker in self._workers:
            yield from worker.opening()
        yield threat(OPEN_THREAT, 0.02)
        yield threat(THREATS[0], 0.02)
        yield memory(self._dice, 0.02)
        yield from self._vote.opening(0.02)
        yield from self._fail(0.02)

    def _next(self, turn: int) -> Iterator[Step]:
        if self._asker:
            yield self._asker.popleft()
        yield from self._who_acts().act(self._wait())
        if turn % 7 == 0:
            yield memory(self._dice, self._wait())
        if turn % 12 == 0:
            yield from self._go_on_voting()
        if turn % 150 == 0:  # every two minutes or so
            yield from self._fail(self._wait())
        if turn % 90 == 0:
            yield threat(THREATS[turn // 90 % len(THREATS)], self._wait())
        if turn % 400 == 0:
            yield from self._silent(self._wait())

    def _who_acts(self) -> "Worker":
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
        data: Data = {
            "id": "board-meeting",
            "name": "Transcribe the board meeting",
            "agent": SILENT,
            "status": "running",
        }
        yield agent(SILENT, "active", wait, SILENT_LEASE, task=data["name"])
        data |= {"progress": 47, "message": "minute 31 of 66"}
        yield Step(wait, "task:progress", data, SILENT_LEASE, age=31 * 60.0)

    # ---- what people say

    def asked(self, number: int) -> None:
        """A question is open: the task that it is about waits."""
        what = scene(number)
        data = {"id": about(number), "name": what.task, "agent": ASKER, "status": "queued", "progress": 0}
        self._asker.append(Step(0.1, "task:progress", {**data, "message": "waits for an answer"}))
        self._asker.append(agent(ASKER, "active", 0.1, task=what.task, reason="waits for an answer"))

    def decided(self, number: int, answer: str) -> None:
        """The question has its answer: its task goes on, or is taken back."""
        what = scene(number)
        goes_on, message = what.outcomes[answer]
        data = {"id": about(number), "name": what.task, "agent": ASKER}
        if goes_on:
            for progress in (5, 20, 38, 55, 71, 88):
                more = {"status": "running", "progress": progress, "message": message}
                self._asker.append(Step(0.6, "task:progress", {**data, **more}, TASK_LEASE))
            done = {"status": "succeeded", "progress": 100}
            self._asker.append(Step(0.6, "task:progress", {**data, **done}))
        else:
            self._asker.append(Step(0.1, "task:progress", {**data, "status": "cancelled", "message": message}))
        self._asker.append(agent(ASKER, "idle", 0.1, reason=message if not goes_on else "done"))

    def voted(self, vote_id: str, by: str, option: str) -> None:
        """A person has voted."""
        if vote_id == self._vote.id and by not in AGENTS:
            self._vote.ballots[by] = option

    def _go_on_voting(self) -> Iterator[Step]:
        """Somebody votes, or it is over. The next vote is open before this one ends."""
        if (ballot := self._vote.next(self._dice)) is not None:
            yield Step(self._wait(), *ballot)
            return
        over, self._vote = self._vote, Vote(self._vote.number + 1)
        yield from self._vote.opening(self._wait())
        yield Step(self._wait(), *over.end())


def life(seed: int = SEED) -> Iterator[Step]:
    """The endless story when nobody says anything."""
    return Story(seed).steps()


def leftovers(tasks: Iterable[Data]) -> Iterator[Data]:
    """Tasks of these agents that an earlier life has not ended, or not well: nobody is at them any more."""
    return (task for task in tasks if task.get("agent") in AGENTS and task.get("status") in UNDONE)


def about(number: int) -> str:
    """The task that the question with this number is about."""
    return f"decision-{number}"
