"""Where a tail begins: now, a while ago, at the start, behind a cursor, with the newest events."""

import argparse
import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..client.items import Gap, Received, just_before
from ..wire.names import Patterns

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.client import HubClient

    Another = Callable[[str], HubClient]

START = "start"
MOST = 1000  # events that are looked for backwards
PIECE, GROWTH = 100, 8  # events that are looked through at first; how many times as many each time after
NEAR, SOON = 1000, 2.0  # events that are read rather than looked for; seconds in which one comes that is kept
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", re.ASCII)


def add_beginning(command: argparse.ArgumentParser) -> None:
    """Add the flags that say where to begin."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("-n", type=newest, metavar="N", dest="newest", help="begin with the newest N that match")
    where.add_argument(
        "--since", type=moment, metavar="TIME", help="begin so long ago, as 5m (s, m, h, d), or at a time"
    )
    where.add_argument("--after", metavar="CURSOR", help="begin behind this position; start: with all that is kept")


def newest(text: str) -> int:
    """A number of events."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST} (--after {START} gives all)")
    return int(text)


def moment(text: str) -> datetime:
    """A time: so long ago (`90s`, `5m`, `2h`, `1d`), or as RFC 3339 has it; without an offset it is the local one."""
    try:
        if ago := _AGO.fullmatch(text):
            found = datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: float(ago[1])})
        else:
            found = datetime.fromisoformat(text).astimezone(UTC)
        return found.replace(microsecond=found.microsecond // 1000 * 1000)  # as exact as the times of events are
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 5m, 2h or 2026-11-30T17:00:00Z") from None


def beginning(args: argparse.Namespace) -> str | None:
    """The flag that says where to begin, if one is there."""
    given = {"-n": args.newest, "--since": args.since, "--after": args.after}
    return next((flag for flag, value in given.items() if value is not None), None)


def in_words(args: argparse.Namespace, cursor: str | None) -> str:
    """Where a tail with these flags begins, for a person."""
    if args.newest is not None:
        return f"beginning with the newest {args.newest}" if args.newest else "from now on"
    if args.since is not None:
        return f"since {args.since.astimezone():%Y-%m-%d %H:%M:%S}"
    if args.after == START:
        return "beginning with all that is kept"
    return f"behind {cursor}" if args.after else "from now on"


async def begin(args: argparse.Namespace, hub: "HubClient", another: "Another") -> "AsyncIterator[Received | Gap]":
    """Return what the flags ask for, from the first one on and without an end; `hub.cursor` is the position of what was
    handed out last. `another` makes a client of every event behind a cursor. Raises HubError."""
    if args.newest:
        head, events = hub.cursor, await _newest(hub, args.newest, another)
        hub.cursor = just_before(events[0].cursor) if events else head
        return _from_newest(hub, events, head)
    if args.since is not None or args.after == START:
        hub.cursor = await _before(hub.cursor, args.since, another)
        return _from(hub, args.since)
    return hub


async def _before(cursor: str | None, since: datetime | None, another: "Another") -> str | None:
    """A position before the first event of all, or of those not older than `since` and not far from it: looked for in
    halves, so that of a long history not all is read. Nothing else than following is asked of the hub."""
    epoch, _, newest = (cursor or ":0").rpartition(":")
    low, high = 0, int(newest)
    while since is not None and high - low > NEAR:
        middle = (low + high) // 2
        found = await _behind(f"{epoch}:{middle}", another)
        if found is None or datetime.fromisoformat(found.timestamp) >= since:
            high = middle
        else:
            low = max(middle, min(int(found.cursor.rpartition(":")[2]), high))
    return cursor and f"{epoch}:{low}"


async def _behind(cursor: str, another: "Another") -> Received | None:
    """The next event that is kept; None if none comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON), another(cursor) as hub:
            async for item in hub:
                if isinstance(item, Received):
                    return item
    return None


async def _newest(hub: "HubClient", count: int, another: "Another") -> "list[Received]":
    """The newest events that match, in order, up to where the hub was. Looked for in the stream of every event, piece
    by piece from its end on, until there are enough or nothing older is kept: so nothing is asked of the hub but to be
    followed, and of that its audit log has nothing."""
    epoch, _, newest = (hub.cursor or ":0").rpartition(":")
    patterns, found = Patterns(hub.topics), list[Received]()
    high, size, is_all = int(newest), max(count, PIECE), False
    while high and len(found) < count and not is_all:
        low = max(high - size, 0)
        events, is_all = await _between(epoch, low, high, patterns, another)
        found = [*events, *found]
        high, size = low, size * GROWTH
    return found[-count:]


async def _between(
    epoch: str, low: int, high: int, patterns: Patterns, another: "Another"
) -> "tuple[list[Received], bool]":
    """Those of the events with the numbers above `low` up to `high` that are kept and match, and whether nothing older
    is kept."""
    events, is_all = list[Received](), False
    async with another(f"{epoch}:{low}") as hub:
        async for item in hub:
            if isinstance(item, Gap):
                events, is_all = [], True
            at, _, number = (item.before if isinstance(item, Gap) else item.cursor).rpartition(":")
            if isinstance(item, Received) and int(number) <= high and patterns.match(item.name):
                events.append(item)
            if int(number) >= high + isinstance(item, Gap) or at != epoch:
                break
    return events, is_all


async def _from_newest(hub: "HubClient", events: "list[Received]", head: str | None) -> "AsyncIterator[Received | Gap]":
    for event in events:
        hub.cursor = event.cursor
        yield event
    hub.cursor = head
    async for item in hub:
        yield item


async def _from(hub: "HubClient", since: datetime | None) -> "AsyncIterator[Received | Gap]":
    """Everything from the first event on that is not older than `since`. What is no longer kept was before that, unless
    the oldest one kept is as young."""
    trimmed: Gap | None = None
    async for item in hub:
        if isinstance(item, Gap):
            trimmed = item
            continue
        if since is None or datetime.fromisoformat(item.timestamp) >= since:
            if trimmed is not None and since is not None:
                yield trimmed
            yield item
            break
        trimmed = None
    async for item in hub:
        yield item
