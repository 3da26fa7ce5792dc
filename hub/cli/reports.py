"""What a hub is told of a task while it runs: beside it, as often as is good, and never waited for by it."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..client.discovery import Disconnected
from ..errors import HubError
from ..wire.ids import new_id
from .http import Connection, Silent, on_this_machine

PAUSE = 0.25  # seconds between two reports at least
RETRY = 1.0  # seconds until a hub that was not reached is tried again
AT_THE_END, IN_VAIN = 2.0, 0.3  # seconds that the last report may take; of a hub that has not answered before
EVENT = "task:progress"


class Reports:
    """The reports of one task, from a thread of its own. What goes wrong with the hub does not concern it; `missed`:
    why the hub has not taken the newest one, if that is so; `was_told`: whether it has taken one, or may have;
    `is_known`: whether the hub that was told first has answered the last one; `is_left`: whether that is left for the
    next hub."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        task: dict[str, Any],
        ttl: float | None,
        message: Callable[[], str | None],
        leave: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        """`leave(event)` leaves the last report for a hub that comes later, and says whether it is there."""
        self._connect, self._task, self._ttl, self._message = connect, task, ttl, message
        self._leave, self.is_left = leave, False
        self._news, self._over = threading.Event(), threading.Event()
        self._ends = 0.0  # on the monotonic clock: when nobody waits for the last report any more
        self.was_told = self._is_away = self.is_known = False
        self._epochs: list[str] = []  # of the hub that has taken the first report, and of that of the newest
        self.missed: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """The task runs."""
        self._task |= {"status": "running", "started_at": _now()}
        self._began = time.monotonic()
        self._thread.start()

    def look(self) -> None:
        """There may be another message."""
        self._news.set()

    def end(self, error: str | None, message: str | None = None, *, is_interrupted: bool = False) -> None:
        """The task is over, with this error if it has failed; what its own person has ended has not. Returns when the
        hub knows, or when it takes too long: then it is left for the next one."""
        now = time.monotonic()
        last = {**self._task, "ended_at": _now(), "duration_ms": round((now - self._began) * 1000)}
        last.pop("pid", None)
        if is_interrupted:
            last["status"], message = "cancelled", "interrupted"
        else:
            last |= {"status": "failed", "error": error} if error else {"status": "succeeded"}
        if message := message or self._message():
            last["message"] = message
        patience = IN_VAIN if self._is_away and not self.was_told else AT_THE_END
        self._last, self._ends = {"event": EVENT, "id": new_id(), "data": last}, now + patience
        self._over.set()
        self._news.set()
        try:
            self._thread.join(patience)
        finally:  # also of whoever does not want to wait
            if not self.is_known and self._leave is not None:
                self.is_left = self._leave(self._last)

    def _run(self) -> None:
        said: dict[str, Any] | None = None
        while not self._over.is_set():
            self._news.clear()
            message = self._message()
            task = self._task | ({"message": message} if message else {})
            if task != said or self._ttl:
                event = {"event": EVENT, "id": new_id(), "data": task} | ({"ttl": self._ttl} if self._ttl else {})
                said = task if self._tell(event) else None
            self._over.wait(PAUSE if said else RETRY)
            if said:
                self._news.wait(self._ttl and self._ttl / 3)
        while not (known := self._tell(self._last)) and self.was_told and time.monotonic() < self._ends:
            time.sleep(PAUSE)
        self.is_known = known and _is_one(self._epochs)

    def _tell(self, event: dict[str, Any]) -> bool:
        """Publish; whether the hub has taken it. A repeat with the same id is kept once."""
        try:
            with self._connect() as hub:  # one each time: a hub closes what is idle, and may come back elsewhere
                said = hub.ask("POST", "/api/events", json.dumps(event).encode(), headers=on_this_machine())
        except Silent as error:
            self.missed = error.message  # as if it was not there
        except Disconnected as error:
            self.was_told, self.missed = True, error.message  # or it may be: it was there
        except HubError as error:
            self.missed = error.message
            if not error.retryable:
                return True
        except Exception as error:  # whatever it is: it must not show in the program's output
            self.missed = str(error)
        else:
            self.was_told, self.missed = True, None
            self._epochs[1:] = [str(said.get("cursor") if isinstance(said, dict) else "").partition(":")[0]]
            return True
        self._is_away = True
        return False


def _is_one(epochs: list[str]) -> bool:
    """Whether the hub that was told last is the first one: another may have come to its address."""
    return len(set(epochs)) < 2


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
