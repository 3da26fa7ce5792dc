"""How questions have ended: as the audit log of this hub has it, and as it is kept for who asks the same again."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from ..errors import HubError
from ..wire.strictjson import dumpb
from ..wire.vocabulary import Settled
from .asked import NOBODY, seconds
from .confirmation import digest
from .question import EVENT

if TYPE_CHECKING:
    from ..audit.log import AuditLog
    from ..stream.brokers.broker import Answers
    from ..stream.state import State

LOOKED_THROUGH = 10_000  # records of the audit log at a start: an end that is not kept is among the newest
MOST = 2000  # ends that are remembered
REPEATED = 3600.0  # seconds behind its end for which a question is known by its key
SETTLED: Mapping[str, Settled] = {f"question.{how}": how for how in get_args(Settled)}  # by the action on record

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
Name = tuple[str, str]  # of a question: its id, and when it was asked


class Ending(NamedTuple):
    """How a question has ended."""

    how: Settled
    answer: str | None
    by: str | None

    @classmethod
    def of(cls, end: Mapping[str, Any]) -> "Ending":
        return cls(end["status"], end["answer"], end["by"])

    def over(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The question, ended like this."""
        return {**record, "status": self.how, "answer": self.answer, "by": self.by}


class Endings:
    """Which ends are on record here, whichever hub has taken them."""

    def __init__(self, audit: "AuditLog") -> None:
        self._audit = audit
        self._recorded: dict[Name, asyncio.Task[None] | None] = {}  # None: for long

    def note(self, name: Name, task: "asyncio.Task[None] | None" = None) -> None:
        """It is on record, or on its way there."""
        self._recorded[name] = task
        if len(self._recorded) > MOST:
            del self._recorded[next(iter(self._recorded))]

    async def on_record(self, end: Mapping[str, Any], spawn: Spawn) -> None:
        """Return when it is on record here. Raises HubError `audit_unavailable`."""
        name = end["id"], end["asked_at"]
        if name not in self._recorded:
            details = self._audit.reduced({"id": end["id"], "answer": end["answer"], "by": end["by"]})
            work = self._audit.record(f"question.{end['status']}", NOBODY.actor, NOBODY.trust, details)
            self.note(name, spawn(work))
        if (task := self._recorded[name]) is not None:
            try:
                await asyncio.shield(task)
            except HubError:
                self._recorded.pop(name, None)
                raise

    async def newest(self) -> dict[str, Ending]:
        """How each question has ended, by its id and the newest records of an audit log that is intact."""
        found = dict[str, Ending]()
        with contextlib.suppress(OSError):
            for record in await self._audit.tail(LOOKED_THROUGH) if self._audit.valid else ():
                action, details = record["action"], record["details"]
                if action == "question.asked":  # with its key once more, behind an end
                    found.pop(details.get("id"), None)
                elif (how := SETTLED.get(action)) and "answer" in details:
                    found[details["id"]] = Ending(how, details["answer"], details["by"])
        return found


class Repeats:
    """The questions that are over, by their ids, for who asks one of them again: for REPEATED, as the answers of calls
    are kept. Their last values may go sooner."""

    def __init__(self, state: "State", answers: "Answers") -> None:
        self._state, self._answers = state, answers

    async def keep(self, end: Mapping[str, Any]) -> None:
        """Keep how one has ended; not that it was taken back: it may be asked again."""
        if end["status"] != "withdrawn":
            place = digest("question", end["id"])
            with contextlib.suppress(HubError):  # its last value says the same, for a while
                await self._answers.remember(place, place, dumpb(end))

    async def find(self, id: str) -> dict[str, Any] | None:
        """Return one that has no last value any more, as it has ended. Raises HubError `broker_unavailable`."""
        place = digest("question", id)
        if self._state.get(EVENT, id) is not None or await self._answers.recall(place) is None:
            return None
        end = await self._answers.told(place)
        return None if end is None else json.loads(end)

    def of(self, id: str, found: dict[str, Any] | None) -> dict[str, Any] | None:
        """Return how one has ended, by its last value, else as `find` has found it. Never waits."""
        if event := self._state.get(EVENT, id):
            found = event.data if time.time() - seconds(event.timestamp) <= REPEATED else None
        return found if found is not None and found["status"] != "withdrawn" else None
