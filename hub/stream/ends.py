"""How programs ended that no hub was there to be told: read where `hub run` has left it, and published once."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HubError
from ..leftovers import FOLDER, leave, left, remove
from ..private import Unsafe
from ..wire.strictjson import loads
from .events import Event
from .tasks import EVENT, end_of

if TYPE_CHECKING:
    from .bus import EventBus
    from .state import State

log = logging.getLogger("hub")

OURS = "run:"  # how the ids of such tasks begin


class Ends:
    """What has been left in a state directory, or is to be left there."""

    def __init__(self, bus: "EventBus", state: "State", directory: Path, use: str) -> None:
        """`use`: as the setting `ends`."""
        self._bus, self._state, self._directory, self._use = bus, state, directory, use
        self._told = False  # that the folder cannot be used

    @property
    def hands_on(self) -> bool:
        """Whether this hub keeps nothing, and the next one is told instead."""
        return self._use == "leave"

    async def take(self) -> None:
        """Publish it, in order, each by its id, so once, also if this hub is killed in between. Raises HubError if it
        cannot be kept just now: then it stays where it is. Whatever else is wrong with a file ends nothing but it."""
        for name, data in self._left():
            path = self._directory / FOLDER / name
            try:
                await self._publish(path, data)
            except HubError as error:
                if error.retryable:
                    raise
                log.warning("what %s tells is refused: %s; it is removed", path, error)
            except Exception as error:
                log.error("what %s tells cannot be taken: %r; it is removed", path, error)
            remove(self._directory, name)

    def _left(self) -> Iterator[tuple[str, bytes | None]]:
        try:
            if self._use == "take":
                yield from left(self._directory)
        except Unsafe as error:
            if not self._told:
                log.warning(
                    "how programs ended while no hub answered is not read: %s; "
                    "move it away, or make it a folder of this account alone (chmod 700)",
                    error,
                )
            self._told = True

    def hand_on(self, batch: Sequence[Event]) -> None:
        """Leave how programs ended that have told this hub of it: they will not do so again. Looks at nothing else."""
        for event in batch:
            if event.name == EVENT and str(event.key).startswith(OURS) and end_of(data := event.data) is not None:
                leave(self._directory, {"event": EVENT, "id": event.id, "data": data})

    async def _publish(self, path: Path, data: bytes | None) -> None:
        record: Any = loads(data) if data is not None else None
        if not _is_end(record):
            log.warning("%s does not tell how a program has ended, or is too old; it is removed", path)
        elif self._is_later(record["data"]):
            log.warning("%s tells of a run before the one that is known; it is not published", path)
        else:
            await self._bus.publish([{"event": EVENT, "id": record["id"], "data": record["data"]}])

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
