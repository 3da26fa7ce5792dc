"""What commands have answered to forms, kept for a while, so that the page that a browser is sent on to can show it.

A form is answered with a redirect: so a page that is loaded again runs nothing again.
"""

import json
import time
from collections import OrderedDict
from typing import NamedTuple

from ...wire.ids import new_id
from ...wire.vocabulary import Trust

KEPT_SECONDS = 600.0
KEPT = 64  # the oldest goes first
LARGEST = 64 * 1024  # bytes of one that are kept, and shown


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


class Results:
    """The newest answers, by an id that nobody can guess; each for whoever has called, and for one command."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Caller, str, Result]] = OrderedDict()

    def keep(self, caller: Caller, command: str, answer: bytes, remark: str = "") -> str:
        """Keep an answer; return its id."""
        id = new_id()
        self._kept[id] = time.monotonic() + KEPT_SECONDS, caller, command, _shown(answer)._replace(remark=remark)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return id

    def get(self, id: str, caller: Caller, command: str) -> Result | None:
        """The answer; None if there is none, any more or for this caller."""
        until, whose, name, result = self._kept.get(id, (0.0, None, "", None))
        return result if time.monotonic() <= until and name == command and _is_for(whose, caller) else None


def _is_for(whose: Caller | None, caller: Caller) -> bool:
    """Stops whoever has only the address from reading what another account, session or trust was answered."""
    return whose == caller


def _shown(answer: bytes) -> Result:
    if len(answer) > LARGEST:
        return Result(answer[:LARGEST].decode(errors="ignore"), len(answer))
    return Result(json.dumps(json.loads(answer), indent=2, ensure_ascii=False), len(answer))
