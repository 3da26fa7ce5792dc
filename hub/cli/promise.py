"""What the hub promises of its events, tried with a few of them: in order, each once, and again from any position."""

import argparse
import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp

from ..client.client import HubClient
from ..client.discovery import NoHub, credentials, verifying
from ..client.items import Received, arrival
from ..client.sockets import UNREACHABLE, Connector
from ..errors import HubError
from ..wire.ids import new_id
from . import coroutines
from .checks import Finding
from .http import address, named_address, token_of

EVENT = "doctor:check"
COUNT, PLACE = 5, 2  # events, and behind which of them a second client comes
SKEW = 5.0  # seconds that two clocks may differ
PATIENCE = 10.0  # seconds for each step


class Broken(Exception):
    """A promise does not hold; the sentence says which."""


def tried(args: argparse.Namespace) -> Iterator[Finding]:
    """Publish a few events, and follow them in every way."""
    try:
        with _silence():
            apart = coroutines.run(lambda _: _try(args))
    except HubError as error:
        if error.code == "forbidden":
            yield Finding("events", "Not tried: this token only reads.")
            return
        yield Finding("events", "", str(error))
    except TimeoutError:
        yield Finding("events", "", f"What was published did not come within {PATIENCE:g} s, or was not taken.")
    except (Broken, NoHub, *UNREACHABLE) as error:
        yield Finding("events", "", str(error))
    else:
        yield Finding("events", "Published, they come in order, each once, and again from a position; by SSE, too.")
        late = f"The hub's clock and this one differ by {apart:.0f} s; --since and leases go by the hub's."
        yield Finding("clock", "The hub's clock and this one agree.", late if apart > SKEW else None)


@contextmanager
def _silence() -> Iterator[None]:
    """Log nothing: of what goes wrong, the finding says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


async def _try(args: argparse.Namespace) -> float:
    """Return how many seconds the hub's clock and this one differ. Raises Broken, HubError, NoHub, TimeoutError."""
    where: dict[str, Any] = {"state_dir": args.state_dir, "token": token_of(args), "ca": args.ca, "patience": PATIENCE}
    run, ids = new_id(), [new_id() for _ in range(COUNT)]
    async with HubClient(named_address(args), topics=[EVENT], **where) as hub:
        before = hub.cursor
        cursors = [await _in_time(hub.publish(EVENT, {"run": run, "n": n}, id=id)) for n, id in enumerate(ids)]
        again = await _in_time(hub.publish(EVENT, {"run": run, "n": PLACE}, id=ids[PLACE]))
        if again["cursor"] != cursors[PLACE]["cursor"]:
            raise Broken("An event that was published twice with one id got two positions.")
        events = await _take(hub, run, COUNT)
        _compare(events, ids, "a WebSocket")
        apart = abs((datetime.now(UTC) - datetime.fromisoformat(events[-1].timestamp)).total_seconds())
    async with HubClient(named_address(args), topics=[EVENT], after=cursors[PLACE]["cursor"], **where) as second:
        _compare(await _take(second, run, COUNT - PLACE - 1), ids[PLACE + 1 :], "a WebSocket that comes back")
    _compare(await _in_time(_by_sse(args, before or "", run)), ids, "Server-Sent Events")
    return apart


async def _in_time(work: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await work


async def _take(hub: HubClient, run: str, count: int) -> list[Received]:
    """The next events of this run; somebody else's may be between them."""
    found: list[Received] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            item = await anext(hub)
            if not isinstance(item, Received):
                raise Broken("A gap was announced among events that were just published.")
            if _is_of(run, item.data):
                found.append(item)
    return found


def _is_of(run: str, data: Any) -> bool:
    return isinstance(data, dict) and data.get("run") == run


async def _by_sse(args: argparse.Namespace, before: str, run: str) -> list[Received]:
    url = address(args)
    way_in: dict[str, Any] = {"headers": credentials(url, args.state_dir, token_of(args))}
    if url.startswith("https:"):
        way_in["ssl"] = verifying(args.ca)
    found: list[Received] = []
    async with (
        aiohttp.ClientSession(connector=Connector()) as session,
        session.get(f"{url}/events", params={"topics": EVENT, "after": before}, **way_in) as response,
    ):
        async for line in response.content:
            item = _received(line) if line.startswith(b"data:") else None
            if item and _is_of(run, item.data):
                found.append(item)
            if len(found) == COUNT:
                break
    return found


def _received(line: bytes) -> Received | None:
    arrived = arrival(json.loads(line[5:]))
    return arrived[1] if arrived and isinstance(arrived[1], Received) else None


def _compare(found: list[Received], ids: list[str], by: str) -> None:
    if [event.id for event in found] != ids:
        raise Broken(f"By {by}, events came in another order, or another number of times, than they were published.")
