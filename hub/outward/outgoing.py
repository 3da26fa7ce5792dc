"""One HTTP request outward, as far as the hub makes any. Who makes it is whoever has an HTTP client."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple


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
