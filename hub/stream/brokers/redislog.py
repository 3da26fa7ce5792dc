"""What the log hears of the stream in Redis: each kind of news at most once a minute, an outage at its ends."""

import logging

from ...wire.names import Cursor
from .broker import Limits
from .entries import Stream
from .rarely import Outage, Rarely

log = logging.getLogger("hub")


class RedisLog:
    def __init__(self) -> None:
        self._rarely, self._outage = Rarely(), Outage()
        self._epochs_begun = 0  # that it has not told of

    def outage(self, problem: str | None) -> None:
        """See `Outage.say`."""
        self._outage.say(problem)

    def other_limits(self, limits: Limits) -> None:
        log.warning(
            "the stream in Redis has limits of its own: %d events, %d bytes, %g seconds; "
            "it keeps to them, those of this hub mean nothing",
            *limits,
        )

    def may_evict(self, place: str, policy: str) -> None:
        log.warning(
            "Redis at %s may throw away what it keeps when its memory is full (maxmemory-policy %s), "
            "and events with it; set it to noeviction",
            place,
            policy,
        )

    def other_epoch(self, epoch: str, policy: str) -> None:
        self._epochs_begun += 1
        if not self._rarely.may("epoch"):
            return
        often = f" ({self._epochs_begun} of them since this was told last)" * (self._epochs_begun > 1)
        evicts = (f"; its maxmemory-policy is {policy}, so it is likely to throw events away: set it to noeviction") * (
            policy != "noeviction"
        )
        log.warning(
            "another epoch of the stream in Redis begins: %s%s; "
            "clients go on as far as it is the same, and are told of what is gone%s",
            epoch,
            often,
            evicts,
        )
        self._epochs_begun = 0

    def lost(self, seen: Cursor, stream: Stream) -> None:
        """What this hub has seen, up to there, and the stream has not."""
        if self._rarely.may("loss"):
            kept = stream.lineage.get(seen.epoch, 0)
            log.error("events up to %s are gone from Redis; it has them up to %d", seen, kept)

    def skipped(self, epoch: str, first: int, last: int) -> None:
        if self._rarely.may("skip"):
            log.warning(
                "the events %s:%d to %d are gone from Redis before this hub had read them; its clients are told",
                epoch,
                first,
                last,
            )

    def foreign(self, key: str, count: int) -> None:
        if self._rarely.may("foreign"):
            log.error(
                "another program has written into %s, which is the stream of the hubs: %d entries that are no events "
                "were taken out; let it use another key, or give the hubs a prefix (?prefix=)",
                key,
                count,
            )

    def failed(self, error: Exception) -> None:
        """The pump has raised this; called where it is handled."""
        if self._rarely.may(repr(error)):
            log.exception("the events from Redis could not be handed on, which is a bug of the hub; it is tried again")
