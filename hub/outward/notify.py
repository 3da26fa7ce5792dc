"""Telling a person: the stream goes through the rules, and each channel gets its messages, once, however often the hub
starts. Publishing never waits for any of it."""

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..configfile.shapes import Channel, Notify
from ..stream.broadcaster import Broadcaster
from ..stream.events import Event
from ..stream.state import State
from ..wire.names import Cursor
from ..wire.vocabulary import ChannelType, Notified
from . import channels
from .channels import Failed
from .follower import Follower, Missing
from .notes import Notes
from .outgoing import Post
from .rules import AGENT, QUESTION, STALE, TASK, Message, Rules, cut

log = logging.getLogger("hub")

MOST, WITHIN = 5, 10.0  # messages of a channel, in so many seconds
LONGEST_WAIT = 300.0  # seconds between two tries
WAITING, HELD = (
    1000,
    16 * 1024 * 1024,
)  # messages of a channel that wait, and bytes; the oldest go first, and are counted
TOLD = 2000  # messages of a channel that are remembered
NOTE_SECONDS = 5.0  # between two notes of where the stream was read to, while nothing is told
TITLES = 10  # of the messages that are told as one


class Notifier:
    """Everything between the stream and the channels. `on_sent(type, outcome)` is called for each try.

    `address()` is where the hub's page is, as links in messages have it.
    """

    def __init__(self, stream: Broadcaster, state: State, notes: Notes, address: Callable[[], str]) -> None:
        self.on_sent: Callable[[ChannelType, Notified], None] = lambda type, outcome: None
        self._stream, self._state, self._notes, self._address = stream, state, notes, address
        self._follower: Follower | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._boxes: list[_Outbox] = []
        self._due: list[tuple[float, int, Message]] = []
        self._count = itertools.count()
        self._later = asyncio.Event()

    async def apply(self, notify: Notify, post: Post) -> None:
        """Tell by these rules and channels from here on. What was not told yet is told by them, too."""
        await self.stop()
        if not notify.channels:
            return
        rules = Rules(notify)
        self._follower = Follower(self._stream, self._notes.values.get("cursor"))
        rules.begin(event for event in self._stands() if event.seq <= self._follower.position)
        self._due, self._later = [], asyncio.Event()
        told = self._notes.table("told")
        self._boxes = [
            _Outbox(channel, notify, self._still, _texts(told.get(channel.name)), self._words, post, self._sent)
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
            self._notes.values["told"] = {box.channel.name: box.told[-TOLD:] for box in self._boxes}
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


class _Outbox:
    """What a channel has to tell: in order, one at a time, at most MOST in WITHIN seconds, the rest as one."""

    def __init__(
        self,
        channel: Channel,
        notify: Notify,
        still: Callable[[Message], bool],
        told: list[str],
        words: Callable[[Message], dict[str, Any]],
        post: Post,
        on_sent: Callable[[ChannelType, Notified], None],
    ) -> None:
        self.channel, self.told = channel, told
        self.waiting: deque[Message] = deque()
        self._first, self._still, self._words, self._post, self._on_sent = (
            notify.retry_first,
            still,
            words,
            post,
            on_sent,
        )
        self._sends: deque[float] = deque(maxlen=MOST)
        self._known, self._lost, self._held = set(told), 0, 0
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Take a message, if this channel tells of such and has not."""
        if self.channel.rules is not None and message.rule not in self.channel.rules:
            return
        if message.id in self._known:
            return
        self._known.add(message.id)
        self.waiting.append(message)
        self._held += message.size
        while len(self.waiting) > WAITING or (self._held > HELD and len(self.waiting) > 1):
            self._done([self.waiting[0]])
            self._lost += 1
        self._news.set()

    async def run(self) -> None:
        """Send what is put in. What fails is tried again, after longer and longer waits."""
        wait = self._first
        while True:
            await self._wait()
            together = await self._room()
            batch = self._next(together)
            if not batch:
                continue
            try:
                self._sends.append(time.monotonic())
                await channels.send(self.channel, self._one(batch), self._post)
            except Exception as error:  # whatever one try has raised, the next may not
                self._on_sent(self.channel.type, "failed")
                if not isinstance(error, Failed):
                    log.exception(
                        "the channel %s has failed, which is a bug of the hub; it is tried again", self.channel.name
                    )
                elif wait == self._first:
                    log.warning(
                        "the channel %s fails: %s; it is tried again, what is no longer true is dropped",
                        self.channel.name,
                        error,
                    )
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                wait = self._first
                self._lost = 0
                self._done(batch)
                self._on_sent(self.channel.type, "sent")

    async def _wait(self) -> None:
        while not self.waiting:
            self._news.clear()
            await self._news.wait()

    async def _room(self) -> bool:
        """Wait until there is room for one more; return whether what has gathered meanwhile is told as one."""
        if len(self._sends) < MOST or time.monotonic() - self._sends[0] >= WITHIN:
            return False
        await asyncio.sleep(self._sends[0] + WITHIN - time.monotonic())
        return True

    def _next(self, together: bool) -> Sequence[Message]:
        """What is told now: one, or all as one. What is not true any more is dropped."""
        untrue = [message for message in self.waiting if not self._still(message)]
        for message in untrue:
            self._done([message])
            self._on_sent(self.channel.type, "dropped")
        return list(self.waiting) if together else list(self.waiting)[:1]

    def _one(self, batch: Sequence[Message]) -> dict[str, Any]:
        count = len(batch) + self._lost
        if count == 1:
            return self._words(batch[0])
        titles = [message.title for message in list(batch)[:TITLES]]
        more = [f"and {count - len(titles)} more"] * (count > len(titles))
        words = self._words(batch[0])
        return words | {
            "title": f"{count} more messages",
            "message": cut("; ".join([*titles, *more]), 1000),
            "priority": max(message.priority for message in batch),
            "click": words["click"].partition("#")[0].partition("?")[0],
        }

    def _done(self, batch: Sequence[Message]) -> None:
        """Told, or not to be told any more; each is remembered."""
        for message in batch:
            self.waiting.remove(message)
            self._held -= message.size
            self.told.append(message.id)
        if len(self.told) > TOLD:
            for id in self.told[:-TOLD]:
                self._known.discard(id)
            del self.told[:-TOLD]
