"""What a person has seen: a mark on one last value, as it was then. A newer value of that key is unseen again.

An event whose type has no keys, as a threat, is marked by its number, which stands in for the key.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ..wire.validation import misfit

if TYPE_CHECKING:
    from ..stream.bus import EventBus
    from ..stream.events import Event
    from ..stream.state import State

EVENT = "hub:seen"
MAX_KEY = 16_384  # characters of a key: it stands three times in the mark, as `hub:state` shows it
NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
LITTLE = 1024  # bytes: only what it is called is wanted

Read = Callable[[int, int, int], Awaitable[Sequence["Event"]]]


async def mark(bus: "EventBus", state: "State", read: Read, event: str, key: str, by: str) -> None:
    """Note that `by` has seen this last value as it is now: the last value of hub:seen, with both as its key.

    `read(after, limit, bytes)` gives kept events. What is seen already is not noted again. Raises HubError
    `invalid_args` if there is no such last value, `broker_unavailable` if the mark cannot be kept.
    """
    value, known = state.get(event, key), state.get(EVENT, _key(event, key))
    seq = value.seq if value is not None else await _numbered(bus, read, event, key)
    if seq is None:
        problem = f"There is no last value of {event} with this key; hub:state lists them."
        raise misfit("invalid_args", "Nothing is marked", {"key": [problem]})
    if known is None or known.data["seq"] != seq:
        await bus.keep(EVENT, _key(event, key), {"event": event, "key": key, "seq": seq, "by": by})


async def _numbered(bus: "EventBus", read: Read, event: str, key: str) -> int | None:
    """The number of an event without a key, if there is one with this name. One that is no longer kept can be marked,
    too: it may still stand on somebody's page."""
    if not NUMBER.fullmatch(key) or bus.types.has_keys(event) or (seq := int(key)) > bus.position:
        return None
    if seq < bus.broker.tail:
        return seq
    found = await read(seq - 1, 1, LITTLE)
    return seq if found and (found[0].seq, found[0].name, found[0].key) == (seq, event, None) else None


def is_seen(state: "State", event: str, key: str) -> bool:
    """Whether a person has seen this last value as it is now. Two look-ups, however many there are."""
    value, mark = state.get(event, key), state.get(EVENT, _key(event, key))
    return value is not None and mark is not None and _is_of(mark, value)


def _is_of(mark: "Event", value: "Event") -> bool:
    """Stops a failure that nobody has looked at from hiding behind the mark on an earlier one."""
    found: bool = mark.data["seq"] == value.seq
    return found


def _key(event: str, key: str) -> str:
    """One text for both: there is no space in a name."""
    return f"{event} {key}"
