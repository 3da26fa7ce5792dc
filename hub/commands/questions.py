"""Questions to people: last values that everybody sees, one answer wins, and it is on record before it is given out."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..wire.strictjson import dumpb
from ..wire.validation import misfit
from .asked import NOBODY, WITH_ITS_ASKER, Asked, Person, is_same, outcome, record_of, twin
from .call import Call
from .clients import Client
from .endings import Repeats
from .question import EVENT, Question, another
from .settling import RETRY, Settling
from .verdicts import verdicts

if TYPE_CHECKING:
    from ..audit.log import AuditLog
    from ..stream.brokers.broker import Answers
    from ..stream.brokers.peers import Judge
    from ..stream.bus import EventBus
    from ..stream.events import Event
    from ..stream.state import State

log = logging.getLogger("hub")

LONGEST = 604_800.0  # seconds that a question may wait
MOST = 1000  # questions open at once
LARGEST = 64 * 1024  # bytes of one, as it is published: lists of them are read on a page
REACH = 2.0  # seconds that a hub gets to read of a question that is answered on it


class Questions:
    """The open questions of a hub.

    A question is the last value of the event hub:question, by its id: state and stream show it to everybody, and it
    outlives its asker and a restart. It ends once: answered, timed out, withdrawn. Each end is recorded in the audit
    log, then published, and only then told to whoever waits; one that cannot be recorded or kept has not happened.
    Nobody who is cancelled takes back what is on its way: each step runs in a task of the hub's own.

    With a `judge` they are the open questions of all hubs of the stream: each can be answered, and asked again, on any
    of them, and each hub sees to the deadlines of all. The judge says whose end is the end; what another hub has ended
    is put on record here, too, before it is told here.
    """

    def __init__(
        self, bus: "EventBus", audit: "AuditLog", state: "State", answers: "Answers", judge: "Judge | None" = None
    ) -> None:
        self._state, self._verdicts, self._repeats = state, verdicts(judge), Repeats(state, answers)
        self.settling = Settling(bus, audit, self._verdicts, self._repeats, self._close)
        self._links: frozenset[str] = frozenset()  # of the other hubs
        self._open: dict[str, Question] = {}
        self._awaited: dict[object, Question] = {}  # by the call that waits for its end

    def __len__(self) -> int:
        return len(self._open)

    def records(self) -> Iterable[dict[str, Any]]:
        """The open questions as hub:question shows them, the oldest first."""
        return [question.record for question in self._open.values() if question.timer]

    # ---- asking

    async def ask(
        self, asked: Asked, by: Person, is_withdrawn: Callable[[], bool] = lambda: False, call: Call | None = None
    ) -> dict[str, Any]:
        """Ask, and wait for the end: `{question, answer, by, timed_out}`. `call`: that asks, to be found by `withdraw`.

        Raises HubError `invalid_args` for what cannot be asked, `timeout` when nobody has answered and there is no
        default, `cancelled` when the question was withdrawn, `busy` when MOST are open; `audit_unavailable` or
        `broker_unavailable` when it cannot be recorded or kept. Whoever is cancelled here waits no longer; the question
        is withdrawn with that only if `is_withdrawn` says so, and nobody else waits for it.
        """
        over = await self._over(record_of(asked, by)["id"]) if asked.key else None
        question, waiter = self._find(asked, by, over), call or object()
        self._awaited[waiter] = question
        self._verdicts.awaits(question.id)
        try:
            end = await asyncio.shield(question.over)
        except asyncio.CancelledError:
            if is_withdrawn() and not self._is_awaited(question, besides=waiter):
                self.settling.spawn(self.settling.end(question, "withdrawn", by))
            raise
        finally:
            del self._awaited[waiter]
            self._left(question)
        if self._verdicts.shared:
            await self.settling.endings.on_record(end, self.settling.spawn)
        return outcome(end)

    async def _over(self, id: str) -> dict[str, Any] | None:
        """See `Repeats.find`. Raises HubError `invalid_args` where the key is of one that was asked otherwise."""
        if self._repeats.of(other := twin(id), await self._repeats.find(other)) is not None:
            raise another()
        return await self._repeats.find(id)

    def _left(self, question: Question) -> None:
        """Somebody here does not wait any more: tell other hubs if that was the last one."""
        if self._verdicts.shared and not self._is_awaited(question):
            self._verdicts.leaves(question.id)

    def _is_awaited(self, question: Question, besides: object = None) -> bool:
        """Whether somebody else waits for its end who is there to hear it."""
        others = (waiter for waiter, known in self._awaited.items() if known is question and waiter is not besides)
        return any(not isinstance(waiter, Call) or not waiter.client.gone for waiter in others)

    def _find(self, asked: Asked, by: Person, over: dict[str, Any] | None) -> Question:
        """The question: opened now, or the one that has been asked with this key before. Never waits, so that two who
        ask at once get the same."""
        if self.settling.stopping:
            raise HubError("shutting_down", "The hub is stopping; ask again when it is back.", retry_after=1)
        if asked.asker is not None and asked.asker.gone:
            raise HubError("cancelled", "Who asked has gone.")
        record = record_of(asked, by)
        known = self._open.get(record["id"])
        if known is None and asked.key and (end := self._repeats.of(record["id"], over)):
            known = Question(end)
            known.over.set_result(end)
        if known is not None or (asked.key and twin(record["id"]) in self._open):
            if known is None or not is_same(known.record, record):
                raise another()
            if asked.asker is not None:  # it may have come back: the end of the connection before means little then
                known.askers.add(asked.asker)
                if self._verdicts.shared:
                    self.settling.spawn(self._own(known))
            return known
        if len(self._open) >= MOST:
            raise HubError("busy", f"{MOST} questions are open; wait for one to end.", retry_after=1)
        if len(dumpb(record)) > LARGEST:
            raise HubError("too_large", f"A question can have {LARGEST} bytes, with its options and details.")
        self._open[record["id"]] = question = Question(record, {asked.asker} if asked.asker else set())
        self.settling.spawn(self._begin(question, by))
        return question

    async def _own(self, question: Question) -> None:
        """Have the question end with a connection to this hub, and with this hub. Return what is asked."""
        last, record = self._state.get(EVENT, question.id), question.record
        over = last.data["asked_at"] if last is not None and last.data["status"] != "open" else ""
        found = await self._verdicts.ask(record, over)
        if not is_same(found, record):
            raise another()
        question.record = found

    async def _begin(self, question: Question, by: Person) -> None:
        async with question.turn:
            try:
                await self._own(question)
                await self.settling.record("question.asked", question, by, {"question": question.record["question"]})
            except BaseException as error:
                del self._open[question.record["id"]]
                question.fail(error)
                raise
            try:
                await self.settling.keep_value(question.record, "asked")
            except HubError as error:  # it may have been kept all the same
                question.go_on(error)
                self.settling.later(RETRY, question, "withdrawn", by)
            else:
                self.settling.await_deadline(question)

    # ---- ending

    async def answer(self, id: str, answer: str, by: Person) -> bool:
        """Answer a question; return whether this is the answer: not for one that is over, or that nobody has asked.

        Raises HubError `invalid_args` for what is none of the options, `audit_unavailable` or `broker_unavailable` when
        it cannot be recorded or kept: the question is open then as before.
        """
        question = self._open.get(id) or await self._reached(id)
        if question is None:
            return False
        if answer not in question.record["options"]:
            options = ", ".join(map(repr, question.record["options"]))
            raise misfit("invalid_args", "This is no answer", {"answer": [f"Must be one of: {options}."]})
        settled = self.settling.settle(question, "answered", by, answer, by.name)
        return bool(await asyncio.shield(self.settling.spawn(settled)))

    async def withdraw(self, call: Call, by: Person) -> bool | None:
        """Take back the question for whose end this call waits; return whether that is its end, and not an answer that
        was on its way: the call is answered with what is on record. None if it waits for none; where there are other
        hubs, also if it is not the last that waits, here or there.

        Raises HubError where that cannot be recorded or kept: it is tried again, as long as nothing else ends it.
        """
        question = self._awaited.get(call)
        if question is None or (self._verdicts.shared and self._is_awaited(question, besides=call)):
            return None
        return await asyncio.shield(self.settling.spawn(self.settling.end(question, "withdrawn", by)))

    def withdraw_of(self, asker: Client) -> None:
        """Withdraw what ends with this asker's connection, unless somebody else has asked the same: it has ended."""
        for call in asker.calls.values():
            if question := self._awaited.get(call):
                self._left(question)
        for question in [question for question in self._open.values() if asker in question.askers]:
            question.askers.discard(asker)
            if not question.askers:
                self.settling.spawn(self.settling.end(question, "withdrawn", NOBODY, as_="orphan"))

    def _close(self, question: Question) -> None:
        if self._open.get(question.id) is question:
            del self._open[question.id]

    # ---- other hubs

    def apply(self, batch: "Sequence[Event]") -> None:
        """Follow what other hubs ask and end. Never waits."""
        for event in batch if self._verdicts.shared else ():
            if event.name == EVENT:
                self._follow(event.data)

    def _follow(self, record: dict[str, Any]) -> None:
        question = self._open.get(record["id"])
        if record["status"] == "open":
            if question is None and not self.settling.stopping:
                self._open[record["id"]] = question = Question(record)
                self.settling.await_deadline(question)
        elif question is not None and question.name[1] == record["asked_at"] and not question.publishing:
            self.settling.spawn(self._heard(question, record))

    async def _heard(self, question: Question, end: dict[str, Any]) -> None:
        async with question.turn:
            self.settling.close(question, end)

    async def _reached(self, id: str) -> Question | None:
        """A question that is asked, and that this hub has not read yet: whoever answers it has been faster."""
        if not await self._verdicts.is_asked(id):
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REACH):
                while id not in self._open:
                    await asyncio.sleep(0.01)
        return self._open.get(id)

    def alive(self, links: frozenset[str]) -> None:
        """Withdraw what ended with a hub that is not there any more, and with it the connection of who asks."""
        if self._links - links:
            for id, question in self._open.items():
                if id.startswith(WITH_ITS_ASKER) and not question.askers:
                    self.settling.spawn(self.settling.end(question, "withdrawn", NOBODY, as_="orphan"))
        self._links = links

    # ---- what is kept of it

    def keep(self, event: "Event") -> None:
        """Publish a question again that newer last values push out while it is open. Not if questions alone would fill
        them: then it would go on for ever."""
        count = len(self._open)
        if event.name != EVENT or self.settling.stopping or not self._state.holds(count, LARGEST * count):
            return
        question = self._open.get(event.data["id"])
        if question is not None and question.timer is not None:
            self.settling.spawn(self._keep(question, event.seq))

    async def _keep(self, question: Question, seq: int) -> None:
        async with question.turn:
            if not question.over.done():
                await self.settling.keep_value(question.record, f"kept-{seq}")

    # ---- start and stop

    async def restore(self) -> None:
        """Go on with what was open when the hub stopped or died: the deadlines have counted on. What ended with its
        asker's connection is withdrawn: no connection outlives the hub. And an end that was on record when the hub was
        killed, and not kept yet, is the end: nobody else can win any more."""
        for event in self._state.of(EVENT):
            if (record := event.data)["status"] == "open" and record["id"] not in self._open:
                self._open[record["id"]] = Question(record)
        ends = await self.settling.endings.newest() if self._open else {}
        for id, question in self._open.items():
            if end := ends.get(id):
                self.settling.spawn(self.settling.complete(question, end))
            elif id.startswith(WITH_ITS_ASKER) and not question.askers:
                self.settling.later(0.0, question, "withdrawn", NOBODY, "orphan")
            else:
                self.settling.await_deadline(question)

    def go_on(self) -> None:
        """Go on where the stream has lost its newest events: a question that is open again in it ends as it has ended,
        where this hub knows how. Never waits."""
        for event in self._state.of(EVENT):
            if (record := event.data)["status"] == "open" and record["id"] not in self._open:
                self._open[record["id"]] = question = Question(record)
                if end := self.settling.ends.get(question.name):
                    self.settling.spawn(self.settling.complete(question, end))
                else:
                    self.settling.await_deadline(question)

    def release(self) -> None:
        """Ask nothing more, and keep nobody waiting, because the hub stops. Open questions stay."""
        self.settling.stopping = True
        for question in self._open.values():
            if question.timer is not None:
                question.timer.cancel()
            bound = question.record["id"].startswith(WITH_ITS_ASKER)
            fate = ", and takes the question back" if bound else "; the question stays open"
            question.fail(HubError("shutting_down", f"The hub is stopping{fate}.", retry_after=1))
