"""Whose end of a question is the end: every one of a hub that is alone with its stream; else all hubs have a judge."""

import contextlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HubError
from ..wire.strictjson import dumpb
from .asked import seconds

if TYPE_CHECKING:
    from ..stream.brokers.peers import Judge

RETRY = 1.0  # seconds until a hub asks again that is not told when
SOONEST = 0.001  # seconds

Record = Mapping[str, Any]  # of a question, as hub:question shows it


class Verdict(NamedTuple):
    """The `end` that this hub is to record and publish: its own, or one that a hub which died has left behind. None: it
    has none, or another hub sees to it; ask again in `wait` seconds. Or it stays open: it is `awaited` on another hub.
    """

    end: dict[str, Any] | None
    wait: float = 0.0
    awaited: bool = False


class Alone:
    """What a hub says that shares its stream with no other."""

    shared = False

    async def ask(self, record: dict[str, Any], over: str) -> dict[str, Any]:
        return record

    async def is_asked(self, id: str) -> bool:
        return False

    async def settle(self, record: Record, how: str, end: dict[str, Any]) -> Verdict:
        return Verdict(end)

    async def unsettle(self, record: Record) -> None:
        """Nobody else has heard of the end."""

    async def over(self, record: Record) -> None:
        """Nor need hear of it."""

    def once(self, what: str, record: Record) -> tuple[str, ...]:
        return ()

    def awaits(self, id: str) -> None:
        """Nobody waits elsewhere."""

    def leaves(self, id: str) -> None:
        """And nobody there asks."""


class Common:
    """What the judge of all hubs of a stream says. `ask`, `is_asked`, `settle` and `unsettle` raise HubError
    `broker_unavailable` where it cannot be asked."""

    shared = True

    def __init__(self, judge: "Judge") -> None:
        self._judge = judge

    async def ask(self, record: Record, over: str) -> dict[str, Any]:
        """Ask on behalf of who is connected here, with whom it ends; return what is asked: this, or what is asked with
        its id already, but for what is known to be over and was asked at `over`."""
        left = max(seconds(record["deadline"]) - time.time(), 0.0)
        found: dict[str, Any] = json.loads(await self._judge.ask(*_name(record), left, dumpb(record), over))
        return found

    async def is_asked(self, id: str) -> bool:
        """Whether some hub has asked it, and it is not over."""
        return await self._judge.is_asked(id)

    async def settle(self, record: Record, how: str, end: dict[str, Any]) -> Verdict:
        """What becomes of it if it ends like this."""
        what, more = await self._judge.settle(*_name(record), how, seconds(record["deadline"]), dumpb(end))
        if what == "mine":
            return Verdict(end)
        if what == "take":
            assert isinstance(more, bytes)
            return Verdict(json.loads(more))
        return Verdict(None, max(more if isinstance(more, float) else RETRY, SOONEST), what == "awaited")

    async def unsettle(self, record: Record) -> None:
        """Take its end back: it cannot be recorded."""
        await self._judge.unsettle(*_name(record))

    async def over(self, record: Record) -> None:
        """Say that its end is published."""
        with contextlib.suppress(HubError):  # then the next that asks publishes it again, which nobody sees
            await self._judge.over(*_name(record))

    def once(self, what: str, record: Record) -> tuple[str, ...]:
        """The id of an event that any hub may publish about it, and of all only the first."""
        return (f"{what}-{record['id']}-{record['asked_at']}",)

    def awaits(self, id: str) -> None:
        """Somebody here waits for its end. Never waits."""
        self._judge.awaits(id)

    def leaves(self, id: str) -> None:
        """Nobody here does any more. Never waits."""
        self._judge.leaves(id)


def verdicts(judge: "Judge | None") -> Alone | Common:
    """Return what there is to ask, with this judge or without one."""
    return Alone() if judge is None else Common(judge)


def _name(record: Record) -> tuple[str, str]:
    return record["id"], record["asked_at"]
