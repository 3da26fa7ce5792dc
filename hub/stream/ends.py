"""How programs ended that no hub was there to be told: read where `hub run` has left it, and published once."""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..leftovers import left
from .tasks import EVENT, end_of

if TYPE_CHECKING:
    from .bus import EventBus
    from .state import State

log = logging.getLogger("hub")

OURS = "run:"  # how the ids of such tasks begin


class Ends:
    """What has been left in a state directory."""

    def __init__(self, bus: "EventBus", state: "State", directory: Path) -> None:
        self._bus, self._state, self._directory = bus, state, directory

    async def take(self) -> None:
        """Publish it, in order, each by its id, so once, also if this hub is killed in between. Raises HubError if it
        cannot be kept just now: then it stays where it is."""
        for path, record in left(self._directory):
            if not _is_end(record):
                log.warning("%s does not tell how a program has ended, or is too old; it is removed", path)
            elif self._is_later(record["data"]):
                log.warning("%s tells of a run before the one that is known; it is not published", path)
            else:
                await self._publish(path, record)
            with contextlib.suppress(OSError):  # another worker has taken it, or the disk says no: its id is known
                path.unlink()

    async def _publish(self, path: Path, record: dict[str, Any]) -> None:
        try:
            await self._bus.publish([{"event": EVENT, "id": record["id"], "data": record["data"]}])
        except HubError as error:
            if error.retryable:
                raise
            log.warning("what %s tells is refused: %s; it is removed", path, error)

    def _is_later(self, data: dict[str, Any]) -> bool:
        """Whether the task has begun anew since: what is over must not hide what runs."""
        known = self._state.get(EVENT, data["id"])
        began, begun = known and known.data.get("started_at"), data.get("started_at")
        return isinstance(began, str) and isinstance(begun, str) and began > begun


def _is_end(record: Any) -> bool:
    """Stops a file from telling anything else than the end of a program."""
    if not isinstance(record, dict) or record.get("event") != EVENT or not isinstance(record.get("id"), str):
        return False
    data = record.get("data")
    return isinstance(data, dict) and str(data.get("id")).startswith(OURS) and end_of(data) is not None
