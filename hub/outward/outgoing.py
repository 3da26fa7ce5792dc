"""One HTTP request outward, as far as the hub makes any. Who makes it is whoever has an HTTP client."""

from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

LONGEST_ASKED = 86400.0  # seconds that a receiver can ask for with Retry-After


class Reply(NamedTuple):
    """What came back: the status, and what its header Retry-After says."""

    status: int
    retry_after: str | None = None


class Unreached(Exception):
    """Nobody has answered; the sentence says why."""


# `await post(url, body, headers, seconds)`. It follows no redirect, and raises Unreached.
Post = Callable[[str, bytes, Mapping[str, str], float], Awaitable[Reply]]


async def nowhere(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    """Stand in for a client until there is one: a hub without `create_app` has none."""
    raise Unreached("this hub has no HTTP client; it gets one from create_app")


def retry_after(reply: Reply, now: float) -> float | None:
    """How many seconds the header Retry-After asks for (RFC 9110, 10.2.3: seconds, or a date); None if it does not."""
    text = (reply.retry_after or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_ASKED)
