"""One attempt of a task: when it began, how it stands, and how long it took: one figure, wherever it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...stream.liveness import REASON
from ...stream.tasks import OVER, End, end_of
from ...wire.timestamps import unix_time

RUN_ENDED = "hub run was killed; what it ran may still run"


@dataclass(slots=True)
class Attempt:
    """From when a task began to run until it was over. Take its events in order: `follow` says which attempt is meant.

    `began` and `ended` are timestamps, as the publisher says them, else of the events; `began` is empty while the task
    has only waited for its turn. `is_cut`: it may have begun before the first event that is known. `end` is how it is
    over, `told` the number with which that was heard first: told again, it is no news.
    """

    began: str = ""
    ended: str = ""
    status: str = ""
    progress: Any = None
    error: str = ""
    message: str = ""
    asked: str = ""  # what it said while it waited for a person: that is over with the waiting
    measured: Any = None  # the milliseconds that its publisher has measured
    is_cut: bool = False
    end: End | None = None
    told: int = 0
    seq: int = 0  # of the newest event that is taken
    first: int = 0  # and of the one with which it was heard of

    def take(self, seq: int, timestamp: str, data: Mapping[str, Any]) -> None:
        """Go on with the next event."""
        self.seq, self.status, self.progress = seq, data.get("status") or "running", data.get("progress")
        self.first = self.first or seq
        self.error, self.message = error_of(data) or "", data.get("message") or ""
        before, self.end = self.end, end_of(data, self.end)
        if self.end != before or self.end is None or not data.get("ended_at"):  # without a time nobody can tell
            self.told = seq
        given = data.get("started_at")
        if given and given != self.began and unix_time(given) is not None:
            self.began, self.is_cut = given, False
        if self.is_over:
            given = data.get("ended_at")
            self.ended = given if given and unix_time(given) is not None else timestamp
            self.measured = data.get("duration_ms")
            if self.message == self.asked:
                self.message = ""
        elif self.status != "queued":
            self.began = self.began or timestamp
            if self.status == "waiting_approval":
                self.asked = self.message

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def took(self) -> float | None:
        """Milliseconds from its beginning to its end: as they were measured, else between these two. None if that is
        not known, or it is not over."""
        if not self.is_over or isinstance(self.measured, int | float):
            return self.measured if self.is_over else None
        began, ended = unix_time(self.began), unix_time(self.ended)
        is_known = began is not None and ended is not None and began <= ended and not self.is_cut
        return round((ended - began) * 1000) if is_known else None  # type: ignore[operator]


def error_of(data: Mapping[str, Any]) -> Any:
    """What went wrong with a task, as people are told. Where the process has ended that reports what `hub run` runs,
    it was that itself which was killed: it says of every other end how it came."""
    error = data.get("error")
    is_run = str(data.get("id")).startswith("run:") and not data.get("agent")
    return RUN_ENDED if is_run and error == REASON else error


def follow(attempt: Attempt | None, seq: int, timestamp: str, data: Mapping[str, Any], *, is_cut: bool) -> Attempt:
    """Take an event of a task; return the attempt that it is of: another one, if the one before is over and this is no
    end. What was taken already changes nothing. `is_cut`: of a first one, whether events before it may be missing."""
    if attempt is not None and seq <= attempt.seq:
        return attempt
    if attempt is None:
        attempt = Attempt(is_cut=is_cut)
    elif attempt.is_over and data.get("status") not in OVER:
        attempt = Attempt()
    attempt.take(seq, timestamp, data)
    return attempt
