"""What `hub tail` does: a client of the hub's stream that writes lines, and knows how far it has come."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial

from ..client import connections
from ..client.client import HubClient
from ..client.discovery import NoHub
from ..client.items import Gap, Received
from ..spelling import nearest
from ..stdio import complain
from ..wire.names import is_made_up
from ..wire.vocabulary import EVENTS
from .beginnings import START, begin, beginning, in_words
from .http import address, named_address, pasted, token_of
from .interrupts import Wish
from .places import Place
from .terminal import envelope, has_colour, is_for_people, is_terminal, printable, readable
from .writing import Output

DOMAINS = ("agent", "alert", "audit", "governance", "hub", "memory", "security", "task")
Items = AsyncIterator[Received | Gap]


async def follow(args: argparse.Namespace, place: Place | None, wish: Wish) -> None:
    """Follow as the flags say. Raises HubError, NoHub, UsageError, Unwritten."""
    logging.basicConfig(format="hub: %(message)s")
    connections.log.addFilter(_escaped)  # a hub's words stand in its warnings, and must not drive the terminal either
    kept = place.read() if place else None
    where = {"state_dir": args.state_dir, "token": token_of(args), "ca": args.ca}
    another = partial(HubClient, named_address(args), **where)
    after = kept or (args.after if args.after != START else None)
    async with another(topics=args.patterns or ("*",), after=after) as hub:
        if is_terminal(sys.stdout):
            _announce(args, hub, kept)
        for sentence in _hints(args, kept):
            complain(printable(f"hub: {sentence}"))
        items = hub if kept else await begin(args, hub, lambda cursor: another(after=cursor))
        await Following(args, hub, place, wish).run(items)


class Following:
    """One tail, and how far it has come: `cursor` is the position up to which everything that matches is written."""

    def __init__(self, args: argparse.Namespace, hub: HubClient, place: Place | None, wish: Wish) -> None:
        self._args, self._hub, self._place, self._wish = args, hub, place, wish
        self._left, self._line = args.count, _form(args)
        self._written, self._writing = hub.cursor, False
        self._output = Output(sys.stdout)

    @property
    def cursor(self) -> str | None:
        return self._written if self._writing else self._hub.cursor

    async def run(self, items: Items) -> None:
        """Write until there are enough, or until it is stopped: that is how a tail ends. Raises HubError, NoHub,
        Unwritten."""
        task = asyncio.current_task()
        assert task is not None
        self._check()
        self._keep()
        try:
            with suppress(asyncio.CancelledError), self._output.cancelled_when_unread(task):
                await self._write_all(items)
            if not self._writing and (self._place is not None or self._wish.by == signal.SIGINT):
                await self._hub.settle()
        finally:
            self._keep(durable=True)
        if self._wish.by == signal.SIGINT:
            echoed = "\n" * is_terminal(sys.stderr)  # the keys, in front of the sentence
            complain(f"{echoed}hub: {printable(self._way_back())}")

    async def _write_all(self, items: Items) -> None:
        async for item in items:
            self._check()
            self._writing = True
            await self._output.write(self._line(item))
            self._written, self._writing = self._hub.cursor, False
            self._keep()
            if self._left and isinstance(item, Received):
                self._left -= 1
                if not self._left:
                    return

    def _check(self) -> None:
        """Stops a demo from taking a place from the hub whose it is. Raises NoHub."""
        if self._place is not None and is_made_up(self._hub.cursor):
            raise NoHub(
                f"Only a demo runs there, and {self._place.name} keeps its place in the hub that was there; leave out "
                "--resume to see the demo."
            )

    def _keep(self, *, durable: bool = False) -> None:
        if self._place is not None and self.cursor is not None and not is_made_up(self.cursor):
            self._place.keep(self.cursor, durable=durable)

    def _way_back(self) -> str:
        behind = ("--resume", self._place.name) if self._place is not None else ("--after", str(self.cursor))
        return f"Go on from here with {pasted(self._args, 'tail', *self._args.patterns, *behind)}"


def _form(args: argparse.Namespace) -> Callable[[Received | Gap], str]:
    if not is_for_people(args):
        return envelope
    colour = has_colour(sys.stdout)
    return lambda item: readable(item, colour=colour)


def _announce(args: argparse.Namespace, hub: HubClient, kept: str | None) -> None:
    """Say what is followed and since when."""
    what = " ".join(args.patterns) or "every event"
    since = f"behind {kept}, where {args.resume} was" if kept else in_words(args, hub.cursor)
    complain(printable(f"hub: Following {what} at {address(args)}, {since}. Ctrl-C ends."))


def _hints(args: argparse.Namespace, kept: str | None) -> Iterator[str]:
    """What somebody may have meant otherwise, whoever reads the events: flags that no longer count, and words."""
    if kept and (flag := beginning(args)):
        yield f"{args.resume} goes on behind {kept}; {flag} is for its first time."
    for pattern in args.patterns:
        domain, _, rest = pattern.partition(":")
        if domain not in DOMAINS:
            if near := nearest(domain, DOMAINS):
                yield f"The hub's own events have no {domain}; did you mean {near}:{rest}?"
        elif pattern not in EVENTS and (near := nearest(pattern, EVENTS)):
            yield f"The hub's own events have no {pattern}; did you mean {near}?"


def _escaped(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True
