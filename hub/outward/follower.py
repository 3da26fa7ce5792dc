"""One more cursor in the stream: for what is not a client, and takes its time."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import HubError
from ..stream.broadcaster import Broadcaster
from ..stream.brokers.broker import RETRY_SECONDS
from ..stream.events import Event
from ..wire.names import Cursor


@dataclass(frozen=True, slots=True)
class Missing:
    """Events that are not kept any more: those between `after` and `before`, as `hub:gap` tells it."""

    after: str
    before: Cursor
    count: int | None
    reason: str

    @property
    def data(self) -> dict[str, Any]:
        return {"after": self.after, "before": str(self.before), "count": self.count, "reason": self.reason}


class Follower:
    """A place in the stream. `position` is the last number that is done with; its owner moves it.

    `after`: the cursor that it goes on behind, from an earlier life perhaps; None begins at now.
    """

    def __init__(self, stream: Broadcaster, after: str | None) -> None:
        self._stream, self._news = stream, asyncio.Event()
        self.position, self._foreign = self._begin(after)
        self._epoch = stream.broker.epoch  # that the position is of

    def _begin(self, after: str | None) -> tuple[int, str | None]:
        try:
            position, foreign = self._stream.start(Cursor.parse(str(after)) if after is not None else None)
        except HubError:  # it is ahead of the stream, and so of a store that is gone
            return self._stream.broker.tail - 1, after
        return position, str(foreign) if foreign else None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._epoch, self.position)

    @property
    def lag(self) -> int:
        """How many numbers are not done with yet."""
        return self._stream.window.head - self.position

    def wake(self) -> None:
        """There is something new. Never waits."""
        self._news.set()

    async def next(self) -> list[Event | Missing]:
        """Wait for what comes behind `position`, and return some of it, in order; what is missing stands in its place.
        A store that cannot be read is waited for."""
        while True:
            self._news.clear()
            self._keep_up()
            try:
                page = await self._stream.pages.behind(self.position)
            except HubError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if page is not None:
                return list(self._told(page.first, [e for e in page.events if e.seq > self.position]))
            if self._foreign is not None:
                return list(self._told(self.position + 1, []))
            await self._news.wait()

    def _keep_up(self) -> None:
        """Go on in another epoch of the stream; what was done with may not be there any more."""
        if self._epoch != self._stream.broker.epoch:
            self.position, foreign = self._begin(str(self.cursor))
            self._epoch, self._foreign = self._stream.broker.epoch, self._foreign or foreign

    def _told(self, first: int, events: list[Event]) -> Iterator[Event | Missing]:
        epoch = self._stream.broker.epoch
        before = Cursor(epoch, max(first, self.position + 1))
        if self._foreign is not None:
            yield Missing(self._foreign, before, None, "epoch")
            self._foreign = None
        elif before.seq > self.position + 1:
            yield Missing(str(self.cursor), before, before.seq - self.position - 1, "expired")
        for event in events:
            if event.withheld:
                after = str(Cursor(epoch, event.seq - 1))
                yield Missing(after, Cursor(epoch, event.seq + 1), 1, "expired")
            else:
                yield event
