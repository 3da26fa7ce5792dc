"""Telling a person: the stream goes through the rules, and each channel gets its messages, once, however often the hub
starts. Publishing never waits for any of it."""

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..configfile.shapes import Notify
from ..stream.broadcaster import Broadcaster
from ..stream.events import Event
from ..stream.state import State
from ..wire.names import Cursor
from ..wire.vocabulary import ChannelType, Notified
from .follower import Follower, Missing
from .notes import Notes
from .outbox import Outbox
from .outgoing import Post
from .rules import AGENT, QUESTION, STALE, TASK, Message, Rules

log = logging.getLogger("hub")

NOTE_SECONDS = 5.0  # between two notes of where the stream was read to, while nothing is told


class Notifier:
    """Everything between the stream and the channels. `on_sent(type, outcome)` is called for each try.

    `address()` is where the hub's page is, as links in messages have it.
    """

    def __init__(self, stream: Broadcaster, state: State, notes: Notes, address: Callable[[], str]) -> None:
        self.on_sent: Callable[[ChannelType, Notified], None] = lambda type, outcome: None
        self._stream, self._state, self._notes, self._address = stream, state, notes, address
        self._follower: Follower | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._boxes: list[Outbox] = []
        self._due: list[tuple[float, int, Message]] = []
        self._count = itertools.count()
        self._later = asyncio.Event()

    async def apply(self, notify: Notify, post: Post) -> None:
        """Tell by these rules and channels from here on. What was not told yet is told by them, too; without a channel
        nobody is to be told, so whoever is told later is told from then on."""
        await self.stop()
        if not notify.channels:
            if self._notes.values.pop("cursor", None) is not None:
                self._notes.save()
            return
        rules = Rules(notify)
        self._follower = Follower(self._stream, self._notes.values.get("cursor"))
        rules.begin(event for event in self._stands() if event.seq <= self._follower.position)
        self._due, self._later = [], asyncio.Event()
        told = self._notes.table("told")
        self._boxes = [
            Outbox(channel, notify, self._still, _texts(told.get(channel.name)), self._words, post, self._sent)
            for channel in notify.channels
        ]
        if "cursor" not in self._notes.values:
            for event in self._state.of(QUESTION):
                self._offer(rules.of(event))
        self._note()
        works = (self._follow(rules), self._ripen(), self._keep(), *(box.run() for box in self._boxes))
        self._tasks = [asyncio.get_running_loop().create_task(_heard(work)) for work in works]

    def wake(self) -> None:
        """There are new events. Never waits."""
        if self._follower is not None:
            self._follower.wake()

    def problems(self) -> dict[str, str]:
        """What is wrong with channels, by `channel NAME`."""
        return {f"channel {box.channel.name}": box.problem for box in self._boxes if box.problem}

    async def stop(self) -> None:
        """End, and note what was told. A message that is on its way is told again at the next start."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            self._note()
        self._follower, self._boxes = None, []

    # ---- from the stream into the boxes

    def _stands(self) -> Iterable[Event]:
        return [*self._state.of(TASK), *self._state.of(AGENT)]

    async def _follow(self, rules: Rules) -> None:
        follower = self._follower
        assert follower is not None
        while True:
            for event in await follower.next():
                if isinstance(event, Missing):
                    follower.position = event.before.seq - 1
                    log.warning(
                        "some events are not kept any more, and nobody is told of them: %s; "
                        "keep more (--keep-events), or find what held this up",
                        event.data,
                    )
                    continue
                self._offer(rules.of(event))
                follower.position = event.seq
            await asyncio.sleep(0)

    def _offer(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.due > time.time():
                heapq.heappush(self._due, (message.due, next(self._count), message))
                self._later.set()
            else:
                self._put(message)

    def _put(self, message: Message) -> None:
        for box in self._boxes:
            box.put(message)

    async def _ripen(self) -> None:
        """Put what waits for its time into the boxes when it has come."""
        while True:
            self._later.clear()
            wait = self._due[0][0] - time.time() if self._due else None
            if wait is not None and wait <= 0:
                self._put(heapq.heappop(self._due)[2])
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._later.wait(), wait)

    # ---- what is true, and where it stands

    def _still(self, message: Message) -> bool:
        """Whether a message is true yet: nobody is told to answer what has been answered."""
        if message.while_ is None:
            return True
        name, key, status = message.while_
        if status == STALE:
            return self._state.is_stale(name, key)
        event = self._state.get(name, key)
        return event is not None and event.data.get("status") == status

    def _words(self, message: Message) -> dict[str, Any]:
        return {
            "rule": message.rule,
            "title": message.title,
            "message": message.message,
            "priority": message.priority,
            "tags": list(message.tags),
            "click": f"{self._address()}{message.page}",
            "event": message.event,
        }

    def _sent(self, type: ChannelType, outcome: Notified) -> None:
        self.on_sent(type, outcome)
        if outcome != "failed":
            self._note()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            if self._notes.values.get("cursor") != self._settled():
                self._note()

    def _note(self) -> None:
        if self._follower is not None:
            self._notes.values["cursor"] = self._settled()
            self._notes.values["told"] = {box.channel.name: box.told for box in self._boxes}
            self._notes.save()

    def _settled(self) -> str:
        """The cursor up to which nobody has anything left to be told."""
        assert self._follower is not None
        waiting = [message.seq for _, _, message in self._due]
        waiting += [message.seq for box in self._boxes for message in box.waiting]
        cursor = self._follower.cursor
        return str(Cursor(cursor.epoch, min([cursor.seq, *(seq - 1 for seq in waiting)])))


def _texts(noted: Any) -> list[str]:
    return [text for text in noted if isinstance(text, str)] if isinstance(noted, list) else []


async def _heard(work: Any) -> None:
    """A part that dies is heard of."""
    try:
        await work
    except Exception:
        log.exception(
            "a part of what tells people has ended, which is a bug of the hub; "
            "nobody may be told of anything until hub.toml is read again (SIGHUP)"
        )
