"""An open question, as a hub has it: who has asked, who waits for its end, and whose turn it is to end it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from ..errors import HubError
from ..wire.validation import misfit
from .clients import Client

EVENT = "hub:question"


def _future() -> "asyncio.Future[dict[str, Any]]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Question:
    """An open one. `over` is set by its end, for everybody who waits for it."""

    record: dict[str, Any]
    askers: set[Client] = field(default_factory=set)  # with whose connections it ends: with the last of them
    over: "asyncio.Future[dict[str, Any]]" = field(default_factory=_future)
    publishing: bool = False  # this hub is about to publish its end
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one end at a time: the first that is recorded wins
    timer: asyncio.TimerHandle | None = None
    recorded: dict[str, Any] | None = None  # how it has ended by the newest record; perhaps that is not kept yet
    _since: float | None = None  # on the monotonic clock: when it could not be ended for the first time

    @property
    def id(self) -> str:
        found: str = self.record["id"]
        return found

    @property
    def name(self) -> tuple[str, str]:
        """What tells it from another one with the same key: its id, and when it was asked."""
        return self.record["id"], self.record["asked_at"]

    def is_overdue(self, seconds: float) -> bool:
        """Whether it could not be ended for so long. To be asked each time that it could not."""
        now = time.monotonic()
        self._since = self._since if self._since is not None else now
        return now - self._since >= seconds

    def fail(self, error: BaseException) -> None:
        """Tell who waits; often nobody does, and that is no bug."""
        if not self.over.done():
            self.over.set_exception(error)
            self.over.exception()

    def go_on(self, error: BaseException) -> None:
        """Tell who waits; it is open as before."""
        self.fail(error)
        self.over = _future()


def another() -> HubError:
    """Make the refusal of a question with the key of another one."""
    problem = {"idempotency_key": ["Another question was asked with this key."]}
    return misfit("invalid_args", "This is another question", problem)
