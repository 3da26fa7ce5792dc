"""What forms have brought, kept for a while, so that the page that a browser is sent on to can show it.

A form is answered with a redirect: so a page that is loaded again runs nothing again, and nobody who goes back is asked
whether to send it once more.
"""

import asyncio
import json
import time
from collections import Counter, OrderedDict
from typing import Generic, NamedTuple, TypeVar

from ...wire.ids import new_id
from ...wire.vocabulary import Trust

KEPT_SECONDS = 600.0
KEPT = 64  # the oldest goes first
LARGEST = 64 * 1024  # bytes of one answer that are kept, and shown

T = TypeVar("T")


class Result(NamedTuple):
    """An answer as it is shown. `size` is its bytes as they came; of more than LARGEST only the beginning is shown.
    `remark` is a sentence for people beside it."""

    text: str
    size: int
    remark: str = ""

    @property
    def is_whole(self) -> bool:
        return self.size <= LARGEST


class Caller(NamedTuple):
    """Who has called: the account or address, what it may do, and in token mode the browser's session, if any."""

    account: str
    trust: Trust
    session: bytes | None


class _Place(NamedTuple, Generic[T]):
    until: float
    caller: Caller
    command: str
    value: T
    size: int


class Kept(Generic[T]):
    """The newest of one kind, by an id that nobody can guess; each for whoever has called, and for one command. Each
    goes after KEPT_SECONDS, and where there are more than KEPT, or of more than `room` characters, the oldest of who
    has most of that: stops a reader's loop of forms from pushing out what an operator is about to confirm, and one
    browser's from pushing out what was typed in another."""

    def __init__(self, room: int) -> None:
        self._room, self._size = room, 0
        self._kept: OrderedDict[str, _Place[T]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, caller: Caller, command: str, value: T, size: int) -> str:
        """Keep it, of so many characters; return its id."""
        id = new_id()
        self._kept[id] = _Place(time.monotonic() + KEPT_SECONDS, caller, command, value, size)
        self._size += size
        while len(self._kept) > KEPT or self._size > self._room:
            self._let_go(self._oldest_of_most(by_size=self._size > self._room))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._sweep)
        return id

    def get(self, id: str, caller: Caller, command: str) -> T | None:
        """What is kept; None if there is nothing, any more or for this caller."""
        place = self._kept.get(id)
        if place is None or time.monotonic() > place.until or place.command != command:
            return None
        return place.value if _is_for(place.caller, caller) else None

    def _oldest_of_most(self, *, by_size: bool) -> str:
        """Of the account that has most, and there of the session: there can be any number of sessions."""
        accounts, callers = Counter[tuple[str, Trust]](), Counter[Caller]()
        for place in self._kept.values():
            accounts[place.caller[:2]] += (weight := place.size if by_size else 1)
            callers[place.caller] += weight
        ((most, _),) = accounts.most_common(1)
        caller = max((caller for caller in callers if caller[:2] == most), key=callers.__getitem__)
        return next(id for id, place in self._kept.items() if place.caller == caller)

    def _let_go(self, id: str) -> None:
        self._size -= self._kept.pop(id).size

    def _sweep(self) -> None:
        """Let go of what is too old: what was typed is in nobody's memory for longer, also when no more comes."""
        self._timer, now = None, time.monotonic()
        while self._kept and (first := next(iter(self._kept.items())))[1].until <= now:
            self._let_go(first[0])
        if self._kept:
            self._timer = asyncio.get_running_loop().call_later(first[1].until - now, self._sweep)


class Results(Kept[Result]):
    """The newest answers of commands."""

    def __init__(self) -> None:
        super().__init__(KEPT * 2 * LARGEST)

    def keep(self, caller: Caller, command: str, answer: bytes, remark: str = "") -> str:
        """Keep an answer; return its id."""
        result = _shown(answer)._replace(remark=remark)
        return self.put(caller, command, result, len(result.text))


def _is_for(whose: Caller, caller: Caller) -> bool:
    """Stops whoever has only the address from reading what another account, session or trust has typed, or was
    answered."""
    return whose == caller


def _shown(answer: bytes) -> Result:
    if len(answer) > LARGEST:
        return Result(answer[:LARGEST].decode(errors="ignore"), len(answer))
    return Result(json.dumps(json.loads(answer), indent=2, ensure_ascii=False), len(answer))
