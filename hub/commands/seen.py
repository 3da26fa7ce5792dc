"""What a person has seen: a mark on one last value, as it was then. A newer value of that key is unseen again."""

from typing import TYPE_CHECKING

from ..wire.validation import misfit

if TYPE_CHECKING:
    from ..stream.bus import EventBus
    from ..stream.events import Event
    from ..stream.state import State

EVENT = "hub:seen"
MAX_KEY = 16_384  # characters of a key: it stands three times in the mark, as `hub:state` shows it


async def mark(bus: "EventBus", state: "State", event: str, key: str, by: str) -> None:
    """Note that `by` has seen this last value as it is now: the last value of hub:seen, with both as its key.

    What is seen already is not noted again. Raises HubError `invalid_args` if there is no such last value,
    `broker_unavailable` if the mark cannot be kept.
    """
    value = state.get(event, key)
    if value is None:
        problem = f"There is no last value of {event} with this key; hub:state lists them."
        raise misfit("invalid_args", "Nothing is marked", {"key": [problem]})
    if not is_seen(state, event, key):
        await bus.keep(EVENT, _key(event, key), {"event": event, "key": key, "seq": value.seq, "by": by})


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
