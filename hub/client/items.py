"""What arrives on a client's stream: events and gaps, each with its type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """Something that happened, at `timestamp` (RFC 3339, UTC). `cursor`: position, `envelope`: the frame."""

    name: str
    data: Any
    id: str
    timestamp: str
    cursor: str
    envelope: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that this client will not get: those strictly between `after` and `before`.

    `count` is how many those are, matching or not (None: not known); `reason` is slow, expired or epoch.
    """

    after: str | None
    before: str
    count: int | None
    reason: str
    envelope: Mapping[str, Any] = field(repr=False, compare=False)


Arrival = tuple[str, Received | Gap | None]  # the position that the stream has reached, and what to hand over


def arrival(frame: Any) -> Arrival | None:
    """What one frame of the stream means; None for one that is neither an event nor says a position."""
    if frame["type"] == "response":  # to the question where it is
        return frame["payload"]["cursor"], None
    if frame["type"] != "event":
        return None
    name, data = frame["payload"]["event"], frame["payload"]["data"]
    if name == "hub:mark":
        return data["cursor"], None
    if name == "hub:gap":
        gap = Gap(data["after"], data["before"], data["count"], data["reason"], frame)
        return just_before(gap.before), gap
    event = Received(name, data, frame["id"], frame["timestamp"], frame["cursor"], frame)
    return event.cursor, event


def just_before(cursor: str) -> str:
    """Return the position whose next event is `cursor`: resuming at a gap's `before` itself would skip that one."""
    epoch, _, seq = cursor.rpartition(":")
    return f"{epoch}:{int(seq) - 1}"
