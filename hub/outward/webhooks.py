"""Webhooks: each is one more cursor in the stream, kept on disk. In order, at least once, across restarts."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from ..configfile.shapes import Webhook
from ..errors import HubError
from ..stream.broadcaster import Broadcaster
from ..stream.events import Event
from ..wire.names import Patterns
from ..wire.vocabulary import Delivery
from .bodies import Outgoing, headers, of_event, of_gap
from .follower import Follower, Missing
from .notes import Notes
from .outgoing import Post, Unreached, retry_after

log = logging.getLogger("hub")

STATUS = "hub:webhook"  # the event that says how one is; it is sent to none
LONGEST_WAIT = 3600.0  # seconds between two tries
NOTED = 500  # numbers that a cursor moves on without a word before that is noted
GONE = 410
NOT_THERE = "It is not in hub.toml any more."

Status = Literal["on", "failing", "off"]
Tell = Callable[[str, dict[str, Any]], Awaitable[None]]


class Webhooks:
    """All webhooks of hub.toml. `on_delivery(outcome)` is called for each try.

    `tell(key, data)` publishes the last value that says how one is.
    """

    def __init__(self, stream: Broadcaster, notes: Notes, tell: Tell) -> None:
        self.on_delivery: Callable[[Delivery], None] = lambda outcome: None
        self.post: Post
        self._stream, self._notes, self._tell = stream, notes, tell
        self._running: dict[str, tuple[_Sender, asyncio.Task[None]]] = {}

    async def apply(self, entries: Sequence[Webhook], post: Post) -> None:
        """Send to these from here on, and to no other. One whose entry is the same goes on undisturbed."""
        wanted = {entry.name: entry for entry in entries}
        for name, (sender, task) in list(self._running.items()):
            if name not in wanted or sender.entry.digest != wanted[name].digest or task.done():
                del self._running[name]
                await sender.end(task, 0.0)
                if name not in wanted:
                    await sender.say("off", NOT_THERE)
        for name, entry in wanted.items():
            if name not in self._running:
                sender = _Sender(entry, self._stream, self._notes, self._tell, post, self.on_delivery)
                self._running[name] = sender, _started(sender)

    def wake(self) -> None:
        """There are new events. Never waits."""
        for sender, _ in self._running.values():
            sender.follower.wake()

    @property
    def lag(self) -> int:
        """How many numbers the hindmost has before it."""
        return max((sender.follower.lag for sender, _ in self._running.values() if not sender.off), default=0)

    def problems(self) -> dict[str, str]:
        """What is wrong with webhooks, by `webhook NAME`."""
        return {f"webhook {name}": sender.problem for name, (sender, _) in self._running.items() if sender.problem}

    async def stop(self, seconds: float) -> None:
        """Give what is on its way some time to be acknowledged, then end."""
        running, self._running = list(self._running.values()), {}
        await asyncio.gather(*(sender.end(task, seconds) for sender, task in running))


def _started(sender: "_Sender") -> "asyncio.Task[None]":
    task = asyncio.get_running_loop().create_task(sender.run())

    def over(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error(
                "the webhook %s has ended, which is a bug of the hub: %r; "
                "it gets nothing until hub.toml is read again (SIGHUP)",
                sender.entry.name,
                error,
                exc_info=error,
            )

    task.add_done_callback(over)
    return task


class _Sender:
    """One webhook: one event on its way at a time."""

    def __init__(
        self,
        entry: Webhook,
        stream: Broadcaster,
        notes: Notes,
        tell: Tell,
        post: Post,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        self.entry = entry
        self._notes, self._tell, self._post, self._on_delivery = notes, tell, post, on_delivery
        self._patterns = Patterns(entry.topics)
        self._noted: dict[str, Any] = notes.table(entry.name)
        self.off = self._noted.get("off") == entry.digest
        self.follower = Follower(stream, self._noted.get("cursor"))
        self._status: Status | None = None
        self._reason = ""
        self._ending = asyncio.Event()
        self._note()

    async def run(self) -> None:
        """Send what comes, until it is ended or the receiver wants no more."""
        if self.off:
            await self.say("off", GONE_SAID)
            return
        await self.say("on", "")
        while not self._ending.is_set():
            for event in await self._next():
                if self._ending.is_set() or not await self._take(event):
                    break

    async def _take(self, event: Event | Missing) -> bool:
        """Send one, or pass it over; False if it is not done with, and the end has come."""
        outgoing: Outgoing | None = None
        if isinstance(event, Missing):
            outgoing, position = of_gap(event, self.entry), event.before.seq - 1
        else:
            position = event.seq
            if event.name != STATUS and self._patterns.match(event.name):
                outgoing = of_event(event, self.entry)
        if outgoing is not None and not await self._deliver(outgoing):
            return False
        self.follower.position = position
        # What was acknowledged is noted before the next is sent: so it is never sent again.
        if outgoing is not None or position - self._noted_at >= NOTED:
            self._note()
        return True

    async def end(self, task: "asyncio.Task[None]", seconds: float) -> None:
        """End between two events if that takes no longer than this, and note where it stands."""
        self._ending.set()
        self.follower.wake()
        if seconds:
            await asyncio.wait([task], timeout=seconds)
        task.cancel()
        await asyncio.wait([task])
        self._note()

    @property
    def problem(self) -> str | None:
        """What is wrong with it, if something is."""
        if self._status in ("failing", "off"):
            return f"The webhook {self.entry.name} is {self._status}: {self._reason}"
        return None

    async def say(self, status: Status, reason: str) -> None:
        """Publish how it is, if that is news."""
        self._reason = reason
        if status != self._status:
            self._status = status
            with contextlib.suppress(HubError):
                await self._tell(self.entry.name, {"name": self.entry.name, "status": status, "reason": reason})

    # ---- where it stands

    async def _next(self) -> Sequence[Event | Missing]:
        """What comes next; nothing if it ends meanwhile."""
        coming = asyncio.ensure_future(self.follower.next())
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait([coming, ending], return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else ()
        finally:
            coming.cancel()
            ending.cancel()

    def _note(self) -> None:
        self._noted_at = self.follower.position
        self._noted["cursor"] = str(self.follower.cursor)
        self._notes.save()

    # ---- one delivery

    async def _deliver(self, outgoing: Outgoing) -> bool:
        """Send until it is acknowledged. False if the end comes before that, or the receiver wants no more."""
        wait = self.entry.retry_first
        while True:
            outcome, reason, asked = await self._try(outgoing)
            self._on_delivery(outcome)
            if outcome == "ok":
                if self._status == "failing":
                    log.info("the webhook %s is received again", self.entry.name)
                await self.say("on", "")
                return True
            if outcome == "gone":
                await self._switch_off()
                return False
            if self._status != "failing":
                log.warning(
                    "the webhook %s fails: %s; it is tried again, and loses nothing that is kept",
                    self.entry.name,
                    reason.rstrip("."),
                )
            await self.say("failing", reason)
            if await self._ends_within(wait if asked is None else _as_asked(asked, self.entry.retry_first)):
                return False
            wait = min(2 * wait, LONGEST_WAIT)

    async def _try(self, outgoing: Outgoing) -> tuple[Delivery, str, float | None]:
        """Send once: what came of it, why, and how many seconds the receiver wants to be left alone."""
        words = headers(outgoing, self.entry.secret, int(time.time()))
        try:
            async with asyncio.timeout(self.entry.timeout):
                reply = await self._post(self.entry.url, outgoing.body, words, self.entry.timeout)
        except TimeoutError:
            return "failed", f"No answer within {self.entry.timeout:g} s.", None
        except Unreached as error:
            return "failed", f"{str(error)[:200]}.", None
        if 200 <= reply.status < 300:
            return "ok", "", None
        if reply.status == GONE:
            return "gone", GONE_SAID, None
        return "failed", f"The receiver answered {reply.status}.", retry_after(reply, time.time())

    async def _switch_off(self) -> None:
        log.warning(
            "the webhook %s is switched off: the receiver answered 410, it wants no more; "
            "change its entry in hub.toml to switch it on again",
            self.entry.name,
        )
        self.off, self._noted["off"] = True, self.entry.digest
        self._ending.set()
        self._note()
        await self.say("off", GONE_SAID)

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
        return self._ending.is_set()


def _as_asked(seconds: float, least: float) -> float:
    """How long a receiver is left alone that has asked for it. Stops one that asks for no time at all from being tried
    as fast as it can refuse."""
    return max(seconds, least)


GONE_SAID = "The receiver answered 410: it wants no more. A changed entry in hub.toml switches it on again."
