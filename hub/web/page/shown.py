"""What is drawn once for all viewers: each panel again when something of its own has happened, and somebody looks.

A page is a few of these drawings put together. However many look, and however much happens, drawing takes a twentieth
of the loop at most.
"""

import asyncio
import itertools
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from ...wire.names import Cursor, Patterns
from ..viewers import Viewer, Viewers
from . import drawing
from .board import Board
from .panel import Asked, Context, Panel
from .slices import Slices

if TYPE_CHECKING:
    from ...hub import Hub

log = logging.getLogger(__name__)

VARIANTS = 32  # that are kept: panels, times what links ask of them
ROWS = 2000  # drawn rows that are kept
LEAST = 0.1  # seconds between two rounds of drawing
REST = 20  # times as long as a round took it is not drawn again
EVERY = 5.0  # seconds after which a panel without topics is drawn again
TICK = 1.0  # seconds between two looks at what is drawn by the clock
PATIENCE = 0.05  # seconds that the others wait for a panel that has to be prepared

Look = tuple[Panel, Asked]


class Variant:
    """One drawing of a panel. `version` changes with `html`; `seq` is the position at which it is true."""

    __slots__ = ("asked", "at", "ends", "html", "known", "minute", "panel", "preparing", "seq", "version")

    def __init__(self, panel: Panel, asked: Asked) -> None:
        self.panel, self.asked = panel, asked
        self.html = Markup("")
        self.version = ""
        self.seq, self.at, self.minute = -1, 0.0, 0
        self.ends = math.inf  # when something of it is over by its deadline, in seconds since 1970
        self.known = 0  # the position at which it began to be prepared
        self.preparing: asyncio.Task[Context | None] | None = None

    @property
    def every(self) -> float:
        """Seconds after which it is drawn again whatever happens."""
        return EVERY if self.panel.clocked or not self.panel.topics else float("inf")


class Shown:
    """The drawings of one hub's page.

    Nobody who comes gets a drawing that was begun before he asked, unless nothing of that panel has happened since. A
    viewer, who is told of news, gets what is drawn already: what is newer he is told of next.
    """

    def __init__(self, hub: "Hub", env: Environment, board: Board, viewers: Viewers) -> None:
        self.hub, self.env, self.board, self.viewers = hub, env, board, viewers
        self._variants: OrderedDict[tuple[str, Asked], Variant] = OrderedDict()
        self._changed: dict[str, int] = {}  # by panel: the newest event of its own
        self._patterns: dict[tuple[str, ...], Patterns] = {}
        self._position, self._epoch = 0, ""
        self._problems: dict[str, str] = {}  # of the hub, as they are drawn
        self._lookers = 0  # likewise
        self._boot = os.urandom(3).hex()  # a version of another run is no version of this one
        self._numbers = itertools.count(1)
        self._rows: dict[Hashable, Markup] = {}
        self._one = asyncio.Lock()
        self._next = 0.0
        self._wake = asyncio.Event()
        self._is_watched = False
        env.globals["row"] = self.row
        viewers.on_free = self._wake.set

    # ---- who asks

    async def get(self, looks: Sequence[Look], *, live: bool = False) -> list[Variant]:
        """Return these drawings as they are now; for a viewer (`live`) as they are, if they are drawn at all."""
        variants = [self._variant(look) for look in looks]
        self._look()
        if not live or any(variant.seq < 0 for variant in variants):
            await self._draw_stale(variants, live=live, patience=None)
        return variants

    def _variant(self, look: Look) -> Variant:
        key = look[0].name, look[1]
        variant = self._variants.get(key)
        if variant is None or variant.panel is not look[0]:
            variant = self._variants[key] = Variant(*look)
            while len(self._variants) > VARIANTS:
                self._variants.popitem(last=False)
        self._variants.move_to_end(key)
        return variant

    def moved(self) -> None:
        """There are new events. Called behind each batch of them."""
        if self._is_watched:
            self._wake.set()

    def again(self) -> None:
        """Draw all of it again: something is known that was no news."""
        for variant in self._variants.values():
            variant.seq = -1
        self._wake.set()

    async def run(self, everything: Callable[[], Sequence[Look]]) -> None:
        """Tell viewers of news, for ever; `everything` is what a viewer looks at who has not fetched anything yet."""
        while True:
            self._is_watched = any(True for _ in self.viewers.free())
            try:
                async with asyncio.timeout(TICK if self._is_watched else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._tell(everything())
            except Exception:
                log.exception("the page could not be kept fresh, which is a bug of the hub; it is tried again")
                await asyncio.sleep(TICK)

    async def _tell(self, everything: Sequence[Look]) -> None:
        free = list(self.viewers.free())
        if not free:
            return
        self._look()
        looks = {viewer: [self._variant(look) for look in _looks(viewer) or everything] for viewer in free}
        shown = {id(variant): variant for variants in looks.values() for variant in variants}
        await self._draw_stale(list(shown.values()), live=True, patience=PATIENCE)
        for viewer, variants in looks.items():
            versions = {variant.panel.name: variant.version for variant in variants if variant.version}
            self.viewers.tell(viewer, versions, self.cursor)

    @property
    def cursor(self) -> str:
        """The position at which all that is drawn is true, or newer."""
        return str(Cursor(self.hub.broker.epoch, self.board.position))

    # ---- what is to be drawn

    def _look(self) -> None:
        """Find out which panels have news. Why the hub is not ready is told at once, too: it makes no event."""
        if self._problems != (problems := self.hub.problems()):
            self._problems = problems
            for variant in self._variants.values():
                if variant.every < float("inf"):
                    variant.seq = -1
        if self._lookers != (lookers := len(self.viewers)):  # whoever has come sees that he is there
            self._lookers = lookers
            for variant in self._variants.values():
                if not variant.panel.title:  # what stands in the head
                    variant.seq = -1
        window, epoch = self.hub.window, self.hub.broker.epoch
        if window.head == self._position and epoch == self._epoch:
            return
        if epoch != self._epoch:
            for variant in self._variants.values():
                variant.seq = -1
        covered = epoch == self._epoch and window.covers(self._position) and self._position <= window.head
        events = window.between(self._position, window.head) if covered else ()
        names = {event.name for event in events}
        panels = {key[0]: variant.panel for key, variant in self._variants.items()}
        for name, panel in panels.items():
            patterns = self._patterns.setdefault(panel.topics, Patterns((*panel.topics, "hub:stale")))
            if not covered or any(map(patterns.match, names)):
                self._changed[name] = window.head
        self._position, self._epoch = window.head, epoch

    def _is_stale(self, variant: Variant, live: bool) -> bool:
        if variant.seq < self._changed.get(variant.panel.name, 0) or variant.seq < 0:
            return True
        if time.monotonic() - variant.at >= variant.every or time.time() >= variant.ends:
            return True
        return not live and variant.minute != minute()  # its ages are those of another minute

    async def _draw_stale(self, variants: Sequence[Variant], *, live: bool, patience: float | None) -> None:
        """Draw those that have to be; of those that must be prepared the ones that are so in time."""
        stale = [variant for variant in variants if self._is_stale(variant, live)]
        preparing = [self._prepared(variant) for variant in stale if variant.panel.prepare]
        if preparing:
            await asyncio.wait(preparing, timeout=patience)
        if any(map(_is_ready, stale)):
            await self._round(variants, live)

    def _prepared(self, variant: Variant) -> "asyncio.Task[Context | None]":
        if variant.preparing is None:
            variant.known = self.hub.window.head
            variant.preparing = asyncio.create_task(drawing.prepared(variant.panel, self.hub, variant.asked))
            variant.preparing.add_done_callback(lambda task: self._wake.set())
        return variant.preparing

    async def _round(self, variants: Sequence[Variant], live: bool) -> None:
        async with self._one:
            rest = self._next - time.monotonic()
            await asyncio.sleep(rest if live else min(rest, LEAST))  # whoever has clicked does not wait for the budget
            self._look()  # what has happened meanwhile is drawn with it, in all of them
            stale = [variant for variant in variants if _is_ready(variant) and self._is_stale(variant, live)]
            if not stale:
                return
            slices = Slices()
            await self.board.catch_up(slices)
            position = self.board.position
            for variant in stale:
                await self._draw(variant, position, slices)
                await slices.turn()
            self._next = time.monotonic() + max(LEAST, REST * slices.took)

    async def _draw(self, variant: Variant, seq: int, slices: Slices) -> None:
        preparing, variant.preparing = variant.preparing, None
        context: Context | None = {}
        if preparing is not None:
            context = None if preparing.cancelled() else preparing.result()
            seq = min(seq, variant.known)  # what has happened since is not in it
        this, began = minute(), time.time()
        is_over, variant.ends = began >= variant.ends, math.inf
        given = drawing.given_to(variant.panel, self.hub, variant.asked, context)
        await slices.turn()
        for template, row in (given or {}).get("rows", ()) if variant.panel.in_rows else ():
            self.row(template, row)
            await slices.turn()
        html = drawing.draw(self.env, variant.panel, given)
        ends = (given or {}).get("ends")  # an application's may mean something else by it
        variant.ends = ends if isinstance(ends, int | float) and ends > began else math.inf
        only_older = variant.seq >= self._changed.get(variant.panel.name, 0) and variant.minute != this and not is_over
        if html != variant.html or not variant.version:
            if not (only_older and variant.every == float("inf") and variant.version):
                variant.version = f"{self._boot}-{next(self._numbers)}"
            variant.html = html
        variant.seq, variant.at, variant.minute = seq, time.monotonic(), this

    def row(self, template: str, row: Any) -> Markup:
        """Draw one row by `rows/<template>.html`, or take what was drawn of it as it still is (`row.mark`)."""
        key = template, row.key, row.mark, minute()
        drawn = self._rows.get(key)
        if drawn is None:
            if len(self._rows) >= ROWS:
                self._rows.clear()
            drawn = self._rows[key] = Markup(self.env.get_template(f"rows/{template}.html").render(row=row))
        return drawn


def _looks(viewer: Viewer) -> Sequence[Look]:
    return [*(viewer.looks_at or {}).values()]


def _is_ready(variant: Variant) -> bool:
    return not variant.panel.prepare or (variant.preparing is not None and variant.preparing.done())


def minute() -> int:
    """The minute of the clock: ages that are written by the server change with it."""
    return int(time.time() // 60)
