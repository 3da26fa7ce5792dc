"""What `hub forward` does: a client of this hub's stream that publishes it to another one, behind a cursor."""

import argparse
import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from ..client.client import POSITION, HubClient
from ..client.connections import Backoff
from ..client.discovery import NoHub, Refusal, answer, verifying
from ..client.items import Gap, Received
from ..client.sockets import UNREACHABLE, Connector, no_hub
from ..errors import HubError, UsageError
from ..stdio import complain
from ..stream.pidfile import WHAT
from ..wire.names import is_made_up
from .beginnings import START, begin, beginning, in_words
from .following import Items
from .http import address, named_address, token_in, token_of
from .places import Place
from .terminal import printable

HOW = "name the file of it with --to-token-file, or put it into HUB_FORWARD_TOKEN"
AHEAD, BATCH_BYTES = 100, 512 * 1024  # events that are read before they are published; bytes of one request, about
ANSWER_TIMEOUT = 20.0  # seconds until a publish is tried again
LOOK = 1.0  # seconds between two looks whether it is still a demo that runs here
IDLE = 5.0  # seconds between two looks how far the stream has come without an event to forward
OWN = "hub:"  # what the hub says of itself, and nobody else may publish


class MadeUp(Exception):
    """Only a demo runs here: nothing of it is forwarded."""


async def forward(args: argparse.Namespace, place: Place) -> None:
    """Forward as the flags say, until it is cancelled. Raises HubError, NoHub, UsageError."""
    logging.basicConfig(format="hub: %(message)s")
    where = {"state_dir": args.state_dir, "token": token_of(args), "ca": args.ca}
    another = partial(HubClient, named_address(args), **where)
    await _is_made_up(another)  # where no hub is here, that alone is told
    async with _there(args) as there:
        await there.check()
        while True:
            try:
                await _forward(args, place, there, another)
            except MadeUp:
                if beginning(args) is None:  # from now on, that is: not from when the other hub is noticed
                    args = argparse.Namespace(**{**vars(args), "since": datetime.now(UTC)})
                await _until_back(args, another)


async def _forward(args: argparse.Namespace, place: Place, there: "There", another: partial[HubClient]) -> None:
    """The same. Raises MadeUp, also if it becomes one."""
    kept = place.read()
    if await _is_made_up(another):
        raise MadeUp
    after = kept or (args.after if args.after != START else None)
    async with another(topics=args.patterns or ("*",), after=after) as hub:
        if hub.cursor and await there.epoch() == hub.cursor.partition(":")[0]:
            raise UsageError(f"{args.to} has the same stream as {address(args)}: there is nothing to forward.")
        what = " ".join(args.patterns) or "every event"
        since = f"behind {kept}, where it was" if kept else in_words(args, hub.cursor)
        complain(printable(f"hub: Forwarding {what} from {address(args)} to {args.to}, {since}. Ctrl-C ends."))
        items = hub if kept else await begin(args, hub, lambda cursor: another(after=cursor))
        await Forwarding(hub, there, place).run(items)


async def _is_made_up(another: partial[HubClient]) -> bool:
    async with another() as hub:
        return is_made_up(hub.cursor)


async def _until_back(args: argparse.Namespace, another: partial[HubClient]) -> None:
    """Say so, and wait until a hub is there that is no demo."""
    at = printable(f"at {url}" if (url := named_address(args)) else "here")
    complain(f"hub: Only a demo runs {at}: nothing of it is forwarded, and the hub that was there is waited for.")
    is_demo = True
    while is_demo:
        await asyncio.sleep(LOOK)
        try:
            is_demo = await _is_made_up(another)
        except NoHub:
            pass
        except HubError as error:
            if not error.retryable:
                raise


class There:
    """The other hub, which may be away for days."""

    def __init__(self, url: str, session: aiohttp.ClientSession, way_in: Mapping[str, Any]) -> None:
        self._url, self._session, self._way_in = url, session, way_in
        self._away = False

    async def check(self) -> None:
        """Say if it is away: of one that is, nothing is known yet. Raises HubError if it does not let this client
        publish."""
        try:
            info = await self._ask("/api/commands/hub:info", b"{}", "application/json")
        except NoHub as error:
            self._say(error)
            return
        except HubError as error:
            if not error.retryable:
                raise
            self._say(error)
            return
        if isinstance(info, Mapping) and info.get("trust") == "OBSERVER":
            raise HubError("forbidden", f"The token for {self._url} only reads; it takes one that may publish: {HOW}.")

    async def publish(self, events: Sequence[Received]) -> None:
        """Return when it has them all, but for those of which it has said that it takes none such, each told.

        Tried again until there is an answer: every event has its id, and a hub keeps an id once. Raises HubError for a
        hub that does not let this client publish, or that takes nothing of what is asked.
        """
        backoff = Backoff()
        while events:
            try:
                await self._post(events)
            except HubError as error:
                events, wait = self._without(events, error), error.retry_after or 0.0
                if error.retryable:
                    await self._wait(error, max(wait, backoff.next()))
            except NoHub as error:
                await self._wait(error, backoff.next())
            else:
                break
        if self._away:
            self._away = False
            complain(printable(f"hub: {self._url} takes events again."))

    async def epoch(self) -> str | None:
        """Of its stream; None while it is away."""
        with suppress(TimeoutError, *UNREACHABLE):
            async with (
                asyncio.timeout(ANSWER_TIMEOUT),
                self._session.get(f"{self._url}/readyz", allow_redirects=False, **self._way_in) as said,
            ):
                return said.headers.get(POSITION, "").partition(":")[0]
        return None

    async def _post(self, events: Sequence[Received]) -> None:
        said = await self._ask("/api/events", "\n".join(map(_line, events)).encode(), "application/x-ndjson")
        if isinstance(said, Mapping) and is_made_up(said.get("cursor")):  # which has them now, but does not keep them
            raise NoHub(f"Only a demo runs at {self._url}.")

    async def _ask(self, path: str, body: bytes, kind: str) -> Any:
        """Its answer. Raises NoHub; Refusal in its own words, but about its token, of which those name the flags for
        the hub here."""
        way_in = {**self._way_in, "headers": {**self._way_in["headers"], "Content-Type": kind}}
        try:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT),
                self._session.post(f"{self._url}{path}", data=body, allow_redirects=False, **way_in) as said,
            ):
                status, text = said.status, await said.read()
        except UNREACHABLE as error:
            raise no_hub(self._url, error) from None
        try:
            return answer(self._url, status, text)
        except Refusal as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
        does = "does not take this token (any more)" if "Authorization" in way_in["headers"] else "wants its token"
        raise HubError("forbidden", f"{self._url} {does}: {HOW}.")

    def _without(self, events: Sequence[Received], error: HubError) -> Sequence[Received]:
        """What is left of them when those that do not fit are told. Raises the error if it is about something else."""
        if error.retryable:
            return events
        misfits = {int(key): why for key, why in (error.details or {}).items() if key.isdecimal()}
        if not misfits and len(events) == 1 and error.code in ("invalid_message", "too_large"):
            misfits = {0: error.details or error.message}
        if not misfits:
            raise error
        for number, why in misfits.items():
            event = events[number]
            complain(printable(f"hub: {event.name} {event.id} is not forwarded: {json.dumps(why)}"))
        return [event for number, event in enumerate(events) if number not in misfits]

    async def _wait(self, error: Exception, seconds: float) -> None:
        self._say(error)
        await asyncio.sleep(seconds)

    def _say(self, error: Exception) -> None:
        """That it is away, and what of it; once, until it is back."""
        if not self._away:
            self._away = True
            complain(printable(f"hub: {error} What happens here is forwarded when it takes events."))


class Forwarding:
    """One forward, and how far it has come: up to the place that is kept the other hub has everything."""

    def __init__(self, hub: HubClient, there: There, place: Place) -> None:
        self._hub, self._there, self._place = hub, there, place
        self._read = asyncio.Queue[Received | Gap](AHEAD)
        self._idle = True

    async def run(self, items: Items) -> None:
        """Forward until cancelled. Raises HubError, MadeUp."""
        self._keep(self._hub.cursor)
        ended: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._take(items), self._hand_on(), self._move_on()):
                    group.create_task(work)
        except* (HubError, MadeUp) as errors:
            ended = errors.exceptions[0]
        finally:
            if self._idle and self._read.empty():
                await self._hub.settle()
                self._keep(self._hub.cursor, durable=True)
        if ended is not None:
            raise ended from None

    async def _take(self, items: Items) -> None:
        async for item in items:
            if is_made_up(self._hub.cursor):
                raise MadeUp
            await self._read.put(item)

    async def _hand_on(self) -> None:
        while True:
            self._idle = True
            item = await self._read.get()
            self._idle = False
            taken, size = [item], _size(item)
            while size < BATCH_BYTES and not self._read.empty():
                taken.append(self._read.get_nowait())
                size += _size(taken[-1])
            for gap in (item for item in taken if isinstance(item, Gap)):
                many = "Some events" if gap.count is None else f"{gap.count} events"
                complain(printable(f"hub: {many} behind {gap.after} are no longer kept here, and not forwarded."))
            events = [item for item in taken if isinstance(item, Received)]
            await self._there.publish([event for event in events if not event.name.startswith(OWN)])
            if events:
                self._keep(events[-1].cursor)

    async def _move_on(self) -> None:
        """Where nothing matches, or all is forwarded, the place must not grow older than what is kept."""
        while True:
            await asyncio.sleep(IDLE)
            if self._idle and self._read.empty():
                self._keep(self._hub.cursor)

    def _keep(self, cursor: str | None, *, durable: bool = False) -> None:
        if cursor is not None and not is_made_up(cursor):
            self._place.keep(cursor, durable=durable)


def _size(item: Received | Gap) -> int:
    return len(_line(item)) if isinstance(item, Received) else 0


def _line(event: Received) -> str:
    """The event as it is published there. Its process is none of that machine's: the hub there would take another one
    for it, or none for its end."""
    data = event.data
    if event.name in WHAT and isinstance(data, Mapping) and "pid" in data:
        data = {name: value for name, value in data.items() if name != "pid"}
    return json.dumps({"event": event.name, "id": event.id, "data": data}, ensure_ascii=False, separators=(",", ":"))


@asynccontextmanager
async def _there(args: argparse.Namespace) -> AsyncIterator[There]:
    """The hub of `--to`. It gets no token but its own: HUB_TOKEN is that of the hub here."""
    token = token_in(args.to_token_file) or os.environ.get("HUB_FORWARD_TOKEN")
    way_in: dict[str, Any] = {"headers": {"Authorization": f"Bearer {token}"} if token else {}}
    if args.to.startswith("https:"):
        way_in["ssl"] = verifying(args.to_ca)
    async with aiohttp.ClientSession(connector=Connector()) as session:
        yield There(args.to, session, way_in)
