"""What can be too large for one answer, a page at a time. Putting one together keeps nobody else waiting."""

import asyncio
from collections.abc import Iterable, Sequence
from heapq import merge
from typing import TYPE_CHECKING, Any

from ..redaction import redact_text
from ..stream.events import Event
from ..wire.names import Cursor, Patterns
from ..wire.strictjson import LARGEST_EVENT, Json, dumpb
from .clients import Client, Page

if TYPE_CHECKING:
    from ..hub import Hub

SCAN = 200  # events that are looked at in one go, or rows
NAMES = 1000  # of events that are looked at in one go
SCAN_BYTES = 256 * 1024  # of these events


async def listed(rows: Iterable[Any]) -> Json:
    """As many of the rows as one answer holds, as JSON."""
    found, size = list[bytes](), 0
    for count, row in enumerate(rows, 1):
        text = dumpb(row)
        size += 1 + len(text)
        if size > LARGEST_EVENT:
            break
        found.append(text)
        if count % SCAN == 0:
            await asyncio.sleep(0)
    return Json(b"[%b]" % b",".join(found))


async def connected(hub: "Hub", after: str) -> Page:
    """Who is connected to this hub, in the order of their ids, those behind `after`."""
    rows, size = list[tuple[str, str]](), 0
    behind = sorted((client for client in hub.clients if client.id > after), key=lambda client: client.id)
    for count, client in enumerate(behind, 1):
        text = dumpb(_described(hub, client)).decode()
        size += 1 + len(text.encode())
        if size > LARGEST_EVENT:
            return rows, True
        rows.append((client.id, text))
        if count % SCAN == 0:
            await asyncio.sleep(0)
    return rows, False


def _described(hub: "Hub", client: Client) -> dict[str, Any]:
    return {
        "client": client.id,
        "transport": client.transport,
        "peer": client.peer,
        "since": client.since,
        "topics": list(map(redact_text, client.subscriber.patterns.texts)) if client.subscriber else [],
        "lag": hub.broadcaster.lag(client.subscriber) if client.subscriber else 0,
        "provides": hub.providers.names(client),
    }


async def clients(hub: "Hub", after: str) -> Json:
    """Who is connected to this hub and to the other workers of its port: as many as one answer holds. Raises HubError
    `busy` if a worker does not answer."""
    pages = [await connected(hub, after), *await hub.clients.elsewhere(after)]
    last = min((rows[-1][0] for rows, more in pages if more), default=None)  # behind it nobody knows of all
    found, size = list[bytes](), 0
    for id, text in merge(*(rows for rows, _ in pages)):
        data = text.encode()
        size += 1 + len(data)
        if size > LARGEST_EVENT or (last is not None and id > last):
            break
        found.append(data)
    return Json(b"[%b]" % b",".join(found))


async def last_values(hub: "Hub", patterns: Patterns, after: Cursor | None) -> Json:
    """The last values that match and have changed behind `after`; an unknown epoch has seen none of them."""
    if after is not None:
        await hub.broker.reach(after)
    start, foreign = hub.broadcaster.start(after) if after else (0, None)
    page = await hub.state.page(patterns, 0 if foreign else start, LARGEST_EVENT)
    cursor = Cursor(hub.broker.epoch, page.position)
    return Json(b'{"cursor":"%b","items":%b,"more":%b}' % (str(cursor).encode(), page.items, dumpb(page.more)))


async def behind(hub: "Hub", after: Cursor, patterns: Patterns, limit: int) -> Json:
    """The oldest kept events behind `after` that match."""
    await hub.broker.reach(after)
    start, foreign = hub.broadcaster.start(after)
    return await _forwards(hub, start, patterns, limit, complete=not foreign)


async def newest(hub: "Hub", patterns: Patterns, limit: int) -> Json:
    """The newest kept events that match. If they are too many bytes, the oldest of them, and how to go on."""
    head = first = until = hub.cursor.seq
    found, count, size, step, whole = list[Event](), 0, 0, SCAN, True
    while count < limit:
        until, unbroken = await _last_match(hub, until, patterns)
        whole = whole and unbroken
        if until < hub.broker.tail:
            break
        start = max(until - step, 0)
        events = [event for event in await _read(hub, start, until - start) if event.seq <= until]
        if not events:  # somebody has deleted them
            until, whole, step = start, False, SCAN
            continue
        if events[-1].seq < until:  # they are large, or some are missing: fewer of them
            step //= 2
            continue
        for event in reversed(events):
            if patterns.match(event.name) and count < limit:
                first, count, size = event.seq, count + 1, size + 1 + event.size
                if size <= LARGEST_EVENT:
                    found.append(event)
        until = events[0].seq - 1
    complete = whole and (count == limit or hub.broker.tail == 1)
    if size > LARGEST_EVENT:
        return await _forwards(hub, first - 1, patterns, limit, complete=complete)
    return _page(hub, found[::-1], head, complete, more=False)


async def _forwards(hub: "Hub", start: int, patterns: Patterns, limit: int, *, complete: bool) -> Json:
    found, size, position, more = list[Event](), 0, start, False
    while not more and position < (head := hub.cursor.seq):
        position = await _before_match(hub, position, patterns)
        events = await _read(hub, position, SCAN)
        first = events[0].seq if events else head + 1
        if first > position + 1:  # what lies between has been trimmed, or somebody has deleted it
            if position > start:  # a page ends before a hole, and has none in it
                more = True
                break
            position, complete = first - 1, False
        for event in events:
            if patterns.match(event.name) and event.withheld:
                complete = False
            elif patterns.match(event.name):
                size += 1 + event.size
                more = len(found) == limit or (size > LARGEST_EVENT and bool(found))
                if more:
                    break
                found.append(event)
            position = event.seq
    return _page(hub, found, position, complete, more)


async def _read(hub: "Hub", after: int, limit: int) -> list[Event]:
    return await hub.broadcaster.pages.read(after, limit, SCAN_BYTES)


async def _before_match(hub: "Hub", position: int, patterns: Patterns) -> int:
    """Return the position before the next event that matches, or before the next hole: up to there nothing need be
    read but names."""
    while not patterns.everything and (rows := await hub.broadcaster.pages.names(position, NAMES)):
        for seq, name in rows:
            if seq != position + 1 or patterns.match(name):
                return position
            position = seq
    return position


async def _last_match(hub: "Hub", until: int, patterns: Patterns) -> tuple[int, bool]:
    """Return the number of the newest event up to `until` that matches, or one that is not kept; and whether nothing is
    missing between."""
    whole = True
    while not patterns.everything and until >= (tail := hub.broker.tail):
        start = max(until - NAMES, 0)
        rows = [row for row in await hub.broadcaster.pages.names(start, until - start) if row[0] <= until]
        for place, (seq, name) in enumerate(reversed(rows)):
            if patterns.match(name):
                return seq, whole and seq == until - place
        whole = whole and len(rows) >= until - max(start, tail - 1)
        until = start
    return until, whole


def _page(hub: "Hub", found: Sequence[Event], position: int, complete: bool, more: bool) -> Json:
    cursor, events = str(Cursor(hub.broker.epoch, position)).encode(), b",".join(event.json for event in found)
    return Json(
        b'{"events":[%b],"cursor":"%b","complete":%b,"more":%b}' % (events, cursor, dumpb(complete), dumpb(more))
    )
