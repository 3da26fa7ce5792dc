"""Repeating: a call that writes and comes with an idempotency key is run once, however often it is sent.

Of each such call there is a row in the store, by the account and the key of whoever called: before its handler runs,
that it is about to; and then what it was answered. So there are three things that a repeat can find. Nothing: it runs.
An answer: it gets that. Or only that the call has begun, and nobody runs it any more: the hub died, or the call was
cancelled or took too long. Then nobody knows how much of it was done, and the repeat is told so.

Where there are other hubs one of all has the turn at a key; the others wait until it has left it.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import Code, CommandError, HubError
from ..redaction import Apart, redact_each
from ..wire.strictjson import dumpb
from .call import Call
from .confirmation import digest

if TYPE_CHECKING:
    from ..stream.brokers.broker import Answers, Past
    from ..stream.brokers.peers import Turns

# What a call ends with of which nobody knows how far it came; and what one that has done nothing yet. No answer that
# says that sending it again can help is kept.
UNKNOWN: frozenset[Code] = frozenset(
    {"timeout", "cancelled", "shutting_down", "provider_gone", "broker_unavailable", "audit_unavailable"}
)
UNDONE: frozenset[Code] = frozenset({"busy", "rate_limited"})
MAX_UNBEGUN = 1000  # that are remembered
PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds between two looks whether another hub has left its turn, longer and longer

Answer = bytes | HubError  # a result as JSON, or a refusal
RESULT, REFUSAL = b"=", b"!"  # what an answer in the store begins with


class Turn:
    """One call at its key: whoever comes with the same waits until it is `over`. `begun`: its handler may have run."""

    __slots__ = ("_calls", "_over", "_place", "_what", "begun")

    def __init__(self, calls: "Idempotency", place: bytes, what: bytes) -> None:
        self._calls, self._place, self._what = calls, place, what
        self._over = asyncio.Event()
        self.begun = False

    async def begin(self) -> None:
        """Keep that the handler is about to run. Raises HubError `broker_unavailable`: then it must not."""
        self._calls.unbegun(self._place)
        await self._calls.turns.begin(self._place, self._what)
        self._calls.begun(self._place)
        self.begun = True

    def told(self, error: HubError) -> HubError:
        """The same refusal, as whoever called hears it: where nobody knows how far it came, the same call will not run
        again, so it does not say that this can help."""
        if self.begun and error.code in UNKNOWN:
            error.details, error.retry_after = {"unknown": True}, None
        return error

    async def end(self, answer: Answer) -> None:
        """Keep what it is answered; but not how it ended for whoever called alone: a repeat was not cancelled, nor is
        it overdue. If the store is away, that stays unknown to whoever repeats it."""
        if not self.begun or (isinstance(answer, HubError) and answer.code in UNKNOWN - {"provider_gone"}):
            return
        if isinstance(answer, HubError) and answer.code in UNDONE:
            self._calls.unbegun(self._place)
            return
        try:
            await self._calls.answers.remember(self._place, self._what, await self._calls.packed(answer))
        except HubError:
            return  # the store itself says why, in the log

    def leave(self) -> None:
        """It is over: whoever has waited may look what is known of it."""
        self._calls.left(self._place)
        self._over.set()

    async def wait(self, what: bytes) -> None:
        """Return when it is over. Raises HubError `invalid_args` if it is another call."""
        _check_same(what, self._what)
        await self._over.wait()


class _Alone:
    """The turns of a hub that shares its stream with no other."""

    def __init__(self, calls: "Idempotency") -> None:
        self._calls = calls

    async def take(self, place: bytes, what: bytes, unbegun: bool) -> None:
        """It is this hub's."""

    async def begin(self, place: bytes, what: bytes) -> None:
        await self._calls.answers.remember(place, what, None)

    def leave(self, place: bytes, unbegun: bool) -> None:
        """Nobody else waits for it."""


class Idempotency:
    """Which calls with a key run, and what is known of those that did."""

    def __init__(self, answers: "Answers", apart: Apart, turns: "Turns | None" = None) -> None:
        """`apart`: where an answer is cleaned that is large."""
        self.answers, self._apart = answers, apart
        self.turns: Turns | _Alone = turns or _Alone(self)
        self._running: dict[bytes, Turn] = {}
        self._unbegun: dict[bytes, None] = {}  # may be in the store as about to run, and have not run

    async def enter(self, call: Call, name: str, args: Mapping[str, Any]) -> "Turn | Answer":
        """Wait while the same call runs. Return its answer; or a turn, which must `leave`, if nobody has run it yet.
        Raises HubError `invalid_args` if the key is another call's, and what the store refuses with."""
        place = _place(call)
        found = await self._look(place, digest(name, args))
        return found if isinstance(found, Turn) else await self._answer(call, place, found)

    async def claim(self, call: Call, name: str) -> None:
        """Keep that the key is of this command, which knows by itself what it means to be called again with it: so it
        is of no other one. Raises HubError as `enter`."""
        found = await self._look(_place(call), digest(name))
        if isinstance(found, Turn):
            try:
                await found.begin()
            finally:
                found.leave()

    async def packed(self, answer: Answer) -> bytes:
        """An answer as it is kept: without what the hub writes down nowhere."""
        if isinstance(answer, HubError):
            words = {"code": answer.code, "message": answer.message, "details": answer.details, "status": answer.status}
            return REFUSAL + dumpb(words)  # it has been cleaned
        (cleaned,), found = await redact_each([json.loads(answer)], self._apart)
        return RESULT + (dumpb(cleaned) if found else answer)

    async def _look(self, place: bytes, what: bytes) -> "Turn | Past":
        """What is known of the call there, when none runs; or the turn, if nothing is."""
        while (running := self._running.get(place)) is not None:
            await running.wait(what)
        turn = self._running[place] = Turn(self, place, what)
        try:
            await self._take(place, what)
            past = await self.answers.recall(place)
        except BaseException:
            turn.leave()
            raise
        if past is None or (place in self._unbegun and not past.answered):
            return turn
        turn.leave()
        _check_same(what, past.what)
        return past

    async def _take(self, place: bytes, what: bytes) -> None:
        """Return when no other hub runs it."""
        pause = PAUSE
        while (other := await self.turns.take(place, what, place in self._unbegun)) is not None:
            self.begun(place)  # or may have, by now
            _check_same(what, other)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if not isinstance(self.turns, _Alone):
            self.begun(place)  # what is kept is right by now, whoever has had the turn meanwhile

    async def _answer(self, call: Call, place: bytes, past: "Past") -> Answer:
        """What it was answered, when the client has room for it: it weighs from then on."""
        if not past.answered:
            return _unknown("Whether this call has run is not known: it was begun, and nobody has seen its end.")
        async with call.client.load.reading:
            await call.client.room()
            answer = await self.answers.told(place)
            if answer is None:
                return _unknown("This call has run, and its answer is not kept any more.")
            call.weigh(len(answer))
            await asyncio.sleep(0)  # else many would be told in one step, before the first of them is written
            return _unpack(answer)

    # ---- a turn's word

    def unbegun(self, place: bytes) -> None:
        """From here on its row may be in the store, while its handler has not run. It is forgotten if there are too
        many of them: then a repeat is told that it may have."""
        self._unbegun[place] = None
        if len(self._unbegun) > MAX_UNBEGUN:
            del self._unbegun[next(iter(self._unbegun))]

    def begun(self, place: bytes) -> None:
        self._unbegun.pop(place, None)

    def left(self, place: bytes) -> None:
        del self._running[place]
        self.turns.leave(place, place in self._unbegun)


def _place(call: Call) -> bytes:
    assert call.idempotency_key is not None
    return digest(call.client.account, call.idempotency_key)


def _check_same(what: bytes, other: bytes) -> None:
    if what != other:
        sentence = "This idempotency key was used for another call: choose a new one for each command and its args."
        raise HubError("invalid_args", sentence, {"idempotency_key": ["Used for another call."]})


def _unknown(sentence: str) -> HubError:
    return CommandError(sentence, {"unknown": True})


def _unpack(answer: bytes) -> Answer:
    if answer.startswith(RESULT):
        return answer[1:]
    words = json.loads(answer[1:])
    return HubError(words["code"], words["message"], words["details"], status=words["status"])
