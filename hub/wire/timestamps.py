"""Times as they stand on the wire: RFC 3339."""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

MAX_TTL = 365 * 86_400  # seconds
LONGEST = 40  # characters of a time that is looked at

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def now() -> str:
    """The time in RFC 3339, UTC, milliseconds, `Z`."""
    return stamp(time.time())


def stamp(at: float) -> str:
    """These seconds since 1970 as `now` gives them; later ones sort behind earlier ones as texts, too."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)  # many events and answers share a second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def is_time(text: str) -> bool:
    """Whether this is a time as RFC 3339 has it: with an offset."""
    try:
        if _TIMESTAMP.fullmatch(text):
            datetime.fromisoformat(text.upper().replace(":60", ":59"))  # a leap second is a time, too
            return True
    except ValueError:
        pass
    return False


def unix_time(value: object) -> float | None:
    """A time in seconds since 1970, leniently read, in whichever way ISO 8601 writes it; None for what is none, or has
    no offset: times in events are anybody's texts."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return None
    try:
        then = datetime.fromisoformat(value)
        return then.timestamp() if then.tzinfo else None
    except (ValueError, OverflowError):
        return None
