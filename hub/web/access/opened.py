"""What requests have opened, by what has let them in: a token, or a session that stands for it. It ends with that.

Nothing here costs anything in local mode, where nothing that lets a request in can end.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from ...wire.vocabulary import Trust

log = logging.getLogger("hub")


@dataclass(frozen=True, slots=True)
class Grant:
    """What has let a request in: the token of this trust, or the session of this digest, good until then
    (monotonic)."""

    trust: Trust
    session: bytes | None = None
    until: float = math.inf


class Revocable(Protocol):
    """Something that lives longer than the step in which it was let in."""

    def revoke(self, sentence: str) -> None:
        """End it, in this step: what had let it in is good no more, as the sentence says. Never waits."""


class Opened:
    """All of it, of one hub."""

    def __init__(self) -> None:
        self._by: dict[Grant, dict[Revocable, None]] = {}

    def add(self, grant: Grant, one: Revocable) -> None:
        """Have it end with what has let it in."""
        self._by.setdefault(grant, {})[one] = None

    def discard(self, grant: Grant, one: Revocable) -> None:
        """It has ended by itself; no error if it was never there."""
        same = self._by.get(grant, {})
        same.pop(one, None)
        if not same:
            self._by.pop(grant, None)

    def end(self, is_over: Callable[[Grant], bool], sentence: str) -> None:
        """End all that these have let in. Never raises: one that fails is a bug, and no reason that others go on."""
        for grant in [grant for grant in self._by if is_over(grant)]:
            for one in self._by.pop(grant):
                try:
                    one.revoke(sentence)
                except Exception:
                    log.exception(
                        "the hub failed to end what a token that is good no more has opened, which is a bug of the "
                        "hub; restart it to end that, too"
                    )


class Running:
    """A request that is being answered. `ended` is the sentence with which it was ended, None as long as it was not.

    `ends_itself()`, where there is one, asks what the request waits for to end, and returns whether it does.
    """

    __slots__ = ("_look", "_request", "_task", "begun", "ended", "ends_itself")

    def __init__(self, request: web.Request, look: Callable[[], object]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._request, self._look, self._task = request, look, task
        self.begun = False  # something of the answer is written
        self.ended: str | None = None
        self.ends_itself: Callable[[], bool] | None = None

    def revoke(self, sentence: str) -> None:
        self.ended = sentence
        if self.begun and self._request.transport is not None:
            self._request.transport.abort()
        if self.ends_itself is not None and self.ends_itself():
            return
        if self._task is not asyncio.current_task():
            self._task.cancel()

    def is_good(self) -> bool:
        """Whether it may go on, by what the token's file says in this step."""
        self._look()
        return self.ended is None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Run its handler in here: that it was ended is no cancellation for who waits for it."""
        try:
            yield
        except asyncio.CancelledError:
            if self.ended is None or self._task.uncancel():
                raise
