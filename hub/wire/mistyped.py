"""What looks mistyped in an event: it is published all the same, and asked about."""

from collections.abc import Iterable

from ..spelling import nearest
from .vocabulary import EVENTS


def mistyped(event: str, given: Iterable[str] = ()) -> str | None:
    """Return the question that a mistyped name raises, or one of the fields `given` of a known event: such a field is
    kept, and nobody looks at it. An own name is nobody's business."""
    if (known := EVENTS.get(event)) is None:
        near = nearest(event, EVENTS)
        return near and f"Nobody knows {event}; did you mean {near}?"
    fields = [*given]
    for field in fields:
        near = None if field in known else nearest(field, known)
        if near and near not in fields:
            return f"{event} has no field {field}; did you mean {near}?"
    return None
