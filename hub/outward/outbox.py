"""What a channel has to tell: each message once, one at a time, and none for long behind another one that fails.

A message that the channel refuses is given up, and told of. What fails otherwise is repeated after growing waits of its
own, while the others go on; only what is about the same thing keeps its order.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..configfile.shapes import Channel, Notify
from ..wire.vocabulary import ChannelType, Notified
from . import channels
from .channels import Failed, Refused
from .outgoing import Post
from .pace import Pace, as_one, is_told
from .rules import Message

log = logging.getLogger("hub")

LONGEST_WAIT = 300.0  # seconds between two tries of one message
# Seconds that a try which failed keeps others waiting: those that have failed before, and those that have not.
LONGEST_PAUSE, SHORT_PAUSE = 10.0, 2.0
PATIENCE = 86_400.0  # seconds for which a message is tried
REMEMBERED = 3600.0  # seconds for which it is told that some were given up
# Messages of a channel that wait, and bytes; the oldest go first, and are counted.
WAITING, HELD = 1000, 16 * 1024 * 1024
TOLD = 2000  # messages of a channel that are remembered


@dataclass(slots=True)
class Repeat:
    """When a message that has failed is tried next, how long was waited for that, and since when it is tried."""

    due: float
    wait: float
    since: float


class Outbox:
    """The messages of one channel. `told` are the ids of those that it is done with, the newest last."""

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
        self._first, self._still, self._words = notify.retry_first, still, words
        self._post, self._on_sent = post, on_sent
        self._waiting: dict[str, Message] = {}  # by id, in their order
        self._repeats: dict[str, Repeat] = {}  # of those that have failed
        self._pace = Pace()
        self._known, self._lost, self._held = set(told), 0, 0
        self._news = asyncio.Event()
        self._together = WAITING  # so many at most are told as one: fewer when that has failed, because of one of them
        self._pause = self._paused_until = self._closed_until = 0.0
        self._turn = False
        self._why, self._failing = "", set[str]()  # since something got through: why it fails, and for which
        self._given_up, self._given_up_at, self._given_up_why = 0, -math.inf, ""

    # ---- what is seen from outside

    @property
    def waiting(self) -> Sequence[Message]:
        """What is to be told yet, in order."""
        return list(self._waiting.values())

    @property
    def problem(self) -> str | None:
        """What is wrong: while nothing gets through, and for a while when messages were given up."""
        name = self.channel.name
        if self._why:
            return f"The channel {name} fails: {self._why}; it is tried again."
        if time.monotonic() - self._given_up_at < REMEMBERED:
            count = f"{self._given_up} message{'s' * (self._given_up != 1)}"
            return f"The channel {name} has not told {count}, the last because {self._given_up_why}."
        return None

    def put(self, message: Message) -> None:
        """Take a message, if this channel tells of such and has not."""
        if self.channel.rules is not None and message.rule not in self.channel.rules:
            return
        if message.id in self._known:
            return
        self._known.add(message.id)
        self._waiting[message.id] = message
        self._held += message.size
        while len(self._waiting) > WAITING or (self._held > HELD and len(self._waiting) > 1):
            self._done([next(filter(is_told, self._waiting.values()), next(iter(self._waiting.values())))])
            self._lost += 1
        self._news.set()

    async def run(self) -> None:
        """Tell what is put in."""
        while True:
            await self._due()
            if batch := self._next():
                await self._tell(batch)

    # ---- what is told next

    async def _due(self) -> None:
        """Wait until there is something whose time has come, and room for it."""
        while (wait := self._seconds()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else wait):
                    await self._news.wait()

    def _seconds(self) -> float:
        now, dues = time.monotonic(), [math.inf]
        for message in self._heads():
            due = self._due_at(message)
            self._pace.is_crowded |= due <= now < self._pace.free_at
            dues.append(max(due, self._pace.free_at))
        return min(dues) - now

    def _due_at(self, message: Message) -> float:
        repeat = self._repeats.get(message.id)
        return max(repeat.due, self._paused_until) if repeat else self._closed_until

    def _heads(self) -> Iterator[Message]:
        """The first about each thing: those about the same wait for it, and no other does."""
        seen = set[tuple[str, ...]]()
        for message in self._waiting.values():
            if message.subject not in seen:
                seen.add(message.subject)
                yield message

    def _next(self) -> Sequence[Message]:
        """What is told now: one, or as one what has gathered while there was no room. What is not true any more is
        dropped."""
        for message in [message for message in self._waiting.values() if not self._still(message)]:
            self._done([message])
            self._on_sent(self.channel.type, "dropped")
        self._turn = not self._turn
        now = time.monotonic()
        due = (message for message in self._heads() if max(self._due_at(message), self._pace.free_at) <= now)
        first = min(due, key=self._rank, default=None)
        if first is None:
            return []
        if not self._pace.is_crowded or self._together == 1:
            return [first]
        # With what has failed the others would fail, too.
        batch = self._together_due(with_repeats=False) or self._together_due(with_repeats=True)
        return sorted(batch[: self._together], key=self._rank)

    def _together_due(self, *, with_repeats: bool) -> list[Message]:
        """What can be told as one; none before another one about the same."""
        now, found, held = time.monotonic(), list[Message](), set[tuple[str, ...]]()
        for message in self._waiting.values():
            is_fit = with_repeats or message.id not in self._repeats
            if is_fit and message.subject not in held and self._due_at(message) <= now:
                found.append(message)
            else:
                held.add(message.subject)
        return found

    def _rank(self, message: Message) -> tuple[int, float]:
        """Who waits for an answer comes first. What has failed, and what was never tried, take turns; of what has
        failed, what has the least often."""
        repeat, is_question = self._repeats.get(message.id), not is_told(message)
        if repeat is None:
            return 0 if is_question else 1, 0.0
        return 2 * self._turn if is_question else 3, repeat.wait

    # ---- one try

    async def _tell(self, batch: Sequence[Message]) -> None:
        self._pace.tries.append(time.monotonic())
        self._pace.is_crowded = False
        try:
            await channels.send(self.channel, self._one(batch), self._post)
        except Exception as error:  # whatever one try has raised, the next may not
            self._on_sent(self.channel.type, "failed")
            if len(batch) > 1:  # because of one of them, perhaps
                self._together = len(batch) // 2
            elif isinstance(error, Refused):
                self._give_up(batch[0], str(error))
            if not isinstance(error, Refused):
                self._say(error)
                self._pause_for(getattr(error, "retry_after", None))
                self._repeat(batch)
        else:
            self._succeed(batch)

    def _succeed(self, batch: Sequence[Message]) -> None:
        if self._why:
            log.info("the channel %s works again", self.channel.name)
        if len(self._failing) > 1:  # it was the channel, and not the message: they need not wait any longer
            for repeat in self._repeats.values():
                repeat.due = 0.0
        self._why, self._pause, self._together = "", 0.0, min(2 * self._together, WAITING)
        self._paused_until = self._closed_until = 0.0
        self._failing.clear()
        self._lost = 0
        self._done(batch)
        self._on_sent(self.channel.type, "sent")

    def _say(self, error: Exception) -> None:
        """Note why it fails; the log has it once."""
        if not isinstance(error, Failed):
            log.exception("the channel %s has failed, which is a bug of the hub; it is tried again", self.channel.name)
        elif not self._why:
            log.warning(
                "the channel %s fails: %s; it is tried again, what is no longer true is dropped",
                self.channel.name,
                error,
            )
        self._why = str(error) if isinstance(error, Failed) else "of a bug of the hub, which its log tells"

    def _pause_for(self, asked: float | None) -> None:
        """Leave the channel alone for a while; `asked`: for so many seconds, the receiver says."""
        self._pause = min(2 * self._pause or self._first, LONGEST_PAUSE)
        now, least = time.monotonic(), min(asked or 0.0, LONGEST_WAIT)
        self._paused_until = now + max(self._pause, least)
        self._closed_until = now + max(min(self._pause, SHORT_PAUSE), least)

    def _repeat(self, batch: Sequence[Message]) -> None:
        """Try one again, after a longer wait than before. Of many together nobody knows which it was."""
        message, now = batch[0], time.monotonic()
        if len(batch) > 1 or message.id not in self._waiting:
            return
        before = self._repeats.get(message.id)
        repeat = (
            Repeat(now, min(2 * before.wait, LONGEST_WAIT), before.since) if before else Repeat(now, self._first, now)
        )
        if now - repeat.since > PATIENCE:
            self._give_up(message, self._why)
            return
        repeat.due += repeat.wait
        self._repeats[message.id] = repeat
        self._failing.add(message.id)

    def _give_up(self, message: Message, why: str) -> None:
        log.warning(
            "the channel %s does not tell %r: %s; nobody is told of it there", self.channel.name, message.id, why
        )
        self._given_up += 1
        self._given_up_at, self._given_up_why = time.monotonic(), why
        self._done([message])
        self._on_sent(self.channel.type, "given_up")

    # ---- what it says

    def _one(self, batch: Sequence[Message]) -> dict[str, Any]:
        return as_one(batch, self._lost, self._words)

    def _done(self, batch: Sequence[Message]) -> None:
        """Told, or not to be told any more; each is remembered."""
        for message in batch:
            if self._waiting.pop(message.id, None) is None:
                continue
            self._repeats.pop(message.id, None)
            self._failing.discard(message.id)
            self._held -= message.size
            self.told.append(message.id)
        if len(self.told) > TOLD:
            for id in self.told[:-TOLD]:
                self._known.discard(id)
            del self.told[:-TOLD]
