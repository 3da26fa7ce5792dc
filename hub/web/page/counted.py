"""What counts one by one: threats, what was cast of each vote, and events that have no rows of another kind. The last
values do not hold it."""

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ...stream.events import Event
from ...wire.timestamps import unix_time
from .rows import Own, Threat, Vote, count_cast, own_row, threat_row, vote_row

VOTE, THREAT = "governance:vote_cast", "security:threat_detected"
ONE_BY_ONE = {VOTE, THREAT}
THREATS = VOTES = 500  # that are kept
OWN = 200  # names, likewise


class Counted:
    """The newest threats, oldest first, and votes with their casts."""

    def __init__(self) -> None:
        self.votes: dict[str, Vote] = {}
        self.threats: deque[Threat] = deque(maxlen=THREATS)
        self.own: dict[str, Own] = {}  # by the event's name, the newest at the end

    @property
    def is_any(self) -> bool:
        return bool(self.votes or self.threats)

    def threat(self, event: Event, stale: bool) -> None:
        """Take the next threat."""
        self.threats.append(threat_row(event, stale))

    def own_events(self, events: Iterable[Event], is_own: Callable[[str], bool]) -> None:
        """Take of these the newest of each name that `is_own`, in place of the one before. However many there are, no
        more rows are made than are kept."""
        newest = {event.name: event for event in events}
        wanted = [event for name, event in newest.items() if is_own(name)]
        for event in heapq.nlargest(OWN, wanted, lambda event: event.seq)[::-1]:
            self.own.pop(event.name, None)
            self.own[event.name] = own_row(event)
        for name in [*self.own][:-OWN]:
            del self.own[name]

    def cast(self, event: Event, stale: bool) -> None:
        """Take the next cast of a vote; of one that is known already only whether it is stale."""
        key = event.key or ""
        vote = self.votes.get(key)
        if vote is not None and event.seq <= vote.seq:
            vote.stale = stale
            return
        if vote is None:
            if len(self.votes) >= VOTES:
                del self.votes[next(iter(self.votes))]
            vote = self.votes[key] = vote_row(event, stale)
        count_cast(vote, event, stale)

    def add_earlier(self, events: Sequence[Event], is_kept: Callable[[str], bool]) -> None:
        """Take in what was before all that is known here, the oldest first. `is_kept`: whether a vote is one still."""
        casts: dict[str, Vote] = {}
        for event in reversed(events):
            if event.name == THREAT and len(self.threats) < THREATS:
                self.threats.appendleft(threat_row(event, False))
        for event in events:
            if event.name == VOTE and is_kept(event.key or ""):
                count_cast(casts.setdefault(event.key or "", vote_row(event, False)), event, False)
        for key, earlier in casts.items():
            known = self.votes.get(key)
            if known is not None and known.seq > earlier.seq:
                earlier.join(known)
            elif known is not None:
                earlier.stale = known.stale
            self.votes[key] = earlier

    def open_votes(self) -> list[Vote]:
        """Those that are neither ended nor past their deadline."""
        now = time.time()
        return [vote for vote in self.votes.values() if vote.status == "open" and not _is_past(vote, now)]

    def next_deadline(self) -> float:
        """When the next of the open votes is over by its deadline, in seconds since 1970; infinite if none is."""
        return min((_deadline(vote) for vote in self.open_votes()), default=math.inf)


def _is_past(vote: Vote, now: float) -> bool:
    return _deadline(vote) <= now


def _deadline(vote: Vote) -> float:
    closed = unix_time(vote.deadline)
    return math.inf if closed is None else closed
