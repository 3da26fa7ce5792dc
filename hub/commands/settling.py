"""How an open question ends: once; on record before it is kept, and kept before anybody hears of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..wire.vocabulary import Settled
from .asked import NOBODY, Person, seconds
from .endings import Ending, Endings, Repeats
from .question import EVENT, Question
from .verdicts import Alone, Common, Verdict

if TYPE_CHECKING:
    from ..audit.log import AuditLog
    from ..stream.bus import EventBus

log = logging.getLogger("hub")

MOST = 2000  # ends that are remembered
RETRY = 1.0  # seconds until an end that could not be recorded is tried again
PATIENCE = 30.0  # seconds for which who waits for the end waits for audit log and store, too


class Settling:
    """Ends questions, in turns: each end is recorded in the audit log, then published, and only then told to whoever
    waits; one that cannot be recorded or kept has not happened.

    Nobody who is cancelled takes back what is on its way: each step runs in a task of the hub's own (`spawn`).
    `closed(question)` is called in place for each that is over.
    """

    def __init__(
        self,
        bus: "EventBus",
        audit: "AuditLog",
        verdicts: Alone | Common,
        repeats: Repeats,
        closed: Callable[[Question], None],
    ) -> None:
        self.on_settled: Callable[[Settled], None] = lambda how: None
        self.endings = Endings(audit)
        self.ends: dict[tuple[str, str], Ending] = {}  # of questions that are over
        self.stopping = False
        self._bus, self._audit, self._verdicts, self._repeats, self._closed = bus, audit, verdicts, repeats, closed
        self._tasks: set[asyncio.Task[Any]] = set()

    async def settle(
        self,
        question: Question,
        how: Settled,
        by: Person,
        answer: str | None = None,
        name: str | None = None,
        as_: str | None = None,
    ) -> bool | None:
        """End a question; return whether this is its end, None if it has none because others wait for it elsewhere."""
        async with question.turn:
            if question.over.done() or question.timer is None:
                return False
            mine = Ending(how, answer, name).over(question.record)
            end, _, awaited = await self._judged(question, as_ or how, mine)
            if end is None:
                return None if awaited else False
            if end != mine:
                by = NOBODY
            try:
                await self._record_end(question, end, by)
            except HubError:
                if end is mine:
                    await self._verdicts.unsettle(question.record)
                raise
            await self._publish_end(question, end)
        return end is mine

    async def _record_end(self, question: Question, end: dict[str, Any], by: Person) -> None:
        """Put an end on record; one that nobody has answered, and that only could not be kept before, once."""
        if end["status"] == "answered" or question.recorded != end:
            details = {"answer": end["answer"], "by": end["by"]}
            await self.record(f"question.{end['status']}", question, by, details)
            question.recorded = end

    async def _judged(self, question: Question, how: str, end: dict[str, Any]) -> Verdict:
        """Whether this is its end. Where it has none yet, it is looked after again, in time."""
        found = await self._verdicts.settle(question.record, how, end)
        if found.awaited:
            self.await_deadline(question)
        elif found.end is None:
            self.later(found.wait, question, "timed_out", NOBODY)
        return found

    async def _publish_end(self, question: Question, end: dict[str, Any]) -> None:
        """Keep an end that is on record, and tell it to who waits. In the question's turn."""
        question.publishing = True
        try:
            await self.keep_value(end, "ended")
        finally:
            question.publishing = False
        self.endings.note(question.name)
        self.close(question, end)
        self.on_settled(end["status"])
        await self._verdicts.over(question.record)
        await self._repeats.keep(end)

    def close(self, question: Question, end: dict[str, Any]) -> None:
        """Let it be over like this, for all who wait here."""
        self._closed(question)
        if question.timer is not None:
            question.timer.cancel()
        self.ends[question.name] = Ending.of(end)
        if len(self.ends) > MOST:
            del self.ends[next(iter(self.ends))]
        question.record = end
        if not question.over.done():  # else the hub stops, and who waits has heard that
            question.over.set_result(end)

    async def keep_value(self, record: dict[str, Any], what: str) -> None:
        """Publish how it stands. `what` has been done to it, once of all hubs."""
        await self._bus.keep(EVENT, record["id"], record, *self._verdicts.once(what, record))

    def await_deadline(self, question: Question) -> None:
        """See to its deadline."""
        left = seconds(question.record["deadline"]) - time.time()
        self.later(max(left, 0.0), question, "timed_out", NOBODY)

    def later(self, seconds: float, question: Question, how: Settled, by: Person, as_: str | None = None) -> None:
        """End it then, if nothing has ended it before."""
        if question.timer is not None:
            question.timer.cancel()
        end = lambda: None if self.stopping else self.spawn(self.end(question, how, by, as_))  # noqa: E731
        question.timer = asyncio.get_running_loop().call_later(seconds, end)

    async def end(self, question: Question, how: Settled, by: Person, as_: str | None = None) -> bool | None:
        """End one without an answer of anybody's; return whether this is its end. Without audit log or store that
        cannot be said yet: it is tried again, and who waits for the end hears what is on record then, or, where that
        takes too long, why it is not. Raises HubError then."""
        answer = question.record["default"] if how == "timed_out" else None
        try:
            return await self.settle(question, how, by, answer, as_=as_)
        except HubError as error:
            if question.is_overdue(PATIENCE):
                question.go_on(error)
            self.later(RETRY, question, how, by, as_)
            raise

    async def record(self, action: str, question: Question, by: Person, more: Mapping[str, Any]) -> None:
        details = self._audit.reduced({"id": question.record["id"], **more})
        await self._audit.record(action, by.actor, by.trust, details)

    async def complete(self, question: Question, ending: Ending) -> None:
        """Keep an end that was recorded before this start; nobody has a turn before it is kept."""
        end = ending.over(question.record)
        async with question.turn:
            while not self.stopping:
                try:
                    found = (await self._judged(question, "record", end)).end
                    if found is not None and not question.over.done():
                        await self._publish_end(question, found)
                except HubError:
                    await asyncio.sleep(RETRY)
                else:
                    break

    # ---- what is on its way

    async def stop(self, seconds: float) -> None:
        """Let what is on its way be recorded; it gets so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def spawn(self, step: "Coroutine[Any, Any, Any]") -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, HubError):
            log.error(
                "a question could not be led on, which is a bug of the hub: %r; a restart takes it up again",
                error,
                exc_info=error,
            )
