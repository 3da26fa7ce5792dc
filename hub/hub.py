"""Hub: the parts, put together. What an application embeds."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from aiosignal import Signal

from . import signals
from .audit.log import AuditLog
from .audit.rotation import Limits
from .background import Background
from .commands import builtin
from .commands.asked import Asked, Person, account
from .commands.call import Handler
from .commands.clients import Clients
from .commands.elsewhere import Across
from .commands.providers import Providers
from .commands.questions import Questions
from .commands.registry import RESERVED, Args, Registry
from .commands.supervised import GRACE, Work, contained
from .config import Config
from .configfile.reading import read as read_file
from .configfile.shapes import ConfigFile
from .errors import HubError, UsageError
from .life import Life
from .metrics import Metrics
from .outward.outward import Outward
from .private import Locked, Unsafe, cannot_take
from .stream.broadcaster import Broadcaster
from .stream.brokers.broker import Lost
from .stream.brokers.schemes import make_broker
from .stream.bus import EventBus, Published, record
from .stream.ends import Ends
from .stream.eventtypes import EventTypes, Key
from .stream.listeners import Listener
from .stream.liveness import Liveness
from .stream.recent import Recent
from .stream.state import State
from .stream.window import Window
from .wire.names import EVERYTHING, Cursor, Patterns
from .wire.strictjson import plain
from .wire.vocabulary import Answered, Effect

if TYPE_CHECKING:
    from marshmallow import Schema, fields

log = logging.getLogger("hub")

try:
    VERSION = metadata.version("aiohttp-hub")
except metadata.PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0+unknown"

ON_START = 30.0  # seconds that a listener of it may take
ON_STOP = 2.0  # seconds that the application gets for it
LISTENERS = 1.0  # seconds that they get at the end for what they were handed
READ_BYTES = 1024 * 1024  # of kept events, at once
ACKNOWLEDGED = 2.0  # seconds that a webhook on its way gets at the end
TICK = 0.5  # seconds between two looks at how late the loop is


class Hub:
    """One hub. `Hub(port=0, state_dir=…)` takes any setting of `Config`; nothing runs before `start`.

    Commands, event types, listeners and panels are registered before it starts; two hubs in one process share
    nothing. `on_start` and `on_stop` are the application's.
    """

    def __init__(self, config: Config | None = None, **settings: Any) -> None:
        self.config = self._given = config = config or Config(**settings)
        self.version = VERSION
        self.types = EventTypes()
        self.broker = make_broker(config)
        self.window = Window(config.window_events, config.window_bytes)
        self.bus = EventBus(self.broker, self.types)
        self.broadcaster = Broadcaster(self.window, self.broker)
        self.state = State(config.state_items, config.state_bytes)
        self.recent = Recent()
        self.liveness = Liveness(self.bus, self.state, config.state_dir)
        self.ends = Ends(self.bus, self.state, config.common_dir, config.ends)
        self.audit = AuditLog(config.state_dir, limits=_audit_limits(config))
        peers = self.broker.peers
        turns, judge = (peers.turns, peers.judge) if peers is not None else (None, None)
        self.commands = Registry(self.audit, config.call_timeout, self.broker.answers, turns, self.bus.heavy)
        self.metrics = Metrics(VERSION, events=self.types, commands=self.commands)
        self.clients = Clients()
        self.providers = Providers(self.commands, self.clients, self.audit, config.max_calls)
        self.across = Across(peers, self.commands, self.providers)
        self.questions = Questions(self.bus, self.audit, self.state, self.broker.answers, judge)
        self.outward = Outward(config, self.broadcaster, self.state, self.bus)
        self.panels: list[Any] = []
        self.github_secret: bytes | None = None  # that what comes to /hooks/github must be signed with
        self.on_moved: list[Callable[[], None]] = []  # behind each batch of events, in place
        self.on_start: Signal[Hub] = Signal(self)
        self.on_stop: Signal[Hub] = Signal(self)
        self._life = Life()
        self._background = Background(lambda: self.metrics.failed("background"))
        self._started = 0.0
        self._said = False  # that it has started, in the audit log
        builtin.register(self.commands)
        signals.connect(
            bus=self.bus,
            state=self.state,
            recent=self.recent,
            liveness=self.liveness,
            ends=self.ends,
            broadcaster=self.broadcaster,
            commands=self.commands,
            clients=self.clients,
            providers=self.providers,
            questions=self.questions,
            across=self.across,
            audit=self.audit,
            outward=self.outward,
            metrics=self.metrics,
            life=self._life,
            moved=self.on_moved,
        )

    # ---- what an application adds

    def command(self, name: str, args: Args = None, *, effect: Effect = "write") -> Callable[[Handler], Handler]:
        """Register the decorated `async def f(call)` as a command; its docstring is its description.

        `args` maps names to marshmallow fields (or is a Schema); without it any args pass. `effect` is `read`,
        `write` or `dangerous`. Raises ValueError for a name that is bad, taken, or in the domains hub: and audit:.
        """
        if name.startswith(RESERVED):
            raise ValueError(f"{name!r}: commands in the domains hub: and audit: are the hub's own.")

        def register(handler: Handler) -> Handler:
            self.commands.add(name, handler, args, effect=effect)
            return handler

        return register

    def event_type(
        self, name: str, schema: "type[Schema] | Mapping[str, fields.Field[Any]] | None" = None, key: Key | None = None
    ) -> None:
        """Make the hub check the data of these events; with `key` (a field's name) their last values are kept."""
        self.types.add(name, schema, key)

    def on(self, pattern: str) -> Callable[[Listener], Listener]:
        """Call the decorated `f(event)`, plain or async, for every event that matches, in order."""

        def register(listener: Listener) -> Listener:
            self.bus.on(pattern, listener)
            return listener

        return register

    def spawn(self, background: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `await background()` for as long as the hub runs. One that ends itself with an error is heard of."""
        self._background.add(background)

    def load(self, name: str) -> None:
        """Import a module, or the entry point of that name in the group hub.plugins, and call its `setup(hub)`.

        Raises UsageError if there is none.
        """
        if not name or name.startswith("."):
            raise UsageError(f"Cannot load {name!r}: this is no name of a module.")
        try:
            found = metadata.entry_points(group="hub.plugins", name=name)
            module = next(iter(found)).load() if found else import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(f"Cannot load {name}: {error}.") from None
        setup = module if found else getattr(module, "setup", None)
        if not callable(setup):
            raise UsageError(f"Cannot load {name}: it has no setup(hub).")
        setup(self)

    # ---- publishing and reading

    async def publish(self, event: str, data: Any, *, id: str | None = None, ttl: float | None = None) -> Published:
        """Publish one event. Returns when it is kept and on its way. Raises HubError as `EventBus.publish` does.

        Gives way to everybody else once, so that code which publishes in a loop starves nobody.
        """
        published = await self.accept([record(event, data, id, ttl)], os.geteuid())
        await asyncio.sleep(0)
        return published

    async def accept(
        self, records: Sequence[Mapping[str, Any]], uid: int | None, *, many: bool = False, machine: str = ""
    ) -> Published:
        """Publish what came from elsewhere, as `EventBus.publish`. `uid`: whose it is, if the kernel has said so: then
        the processes are believed that this account's own name. `machine`: where they are, as its publisher says."""
        claims = self.liveness.claims(records, machine) if uid == os.geteuid() else None
        if not claims:
            return await self.bus.publish(records, many=many)
        with self.liveness.vouching(claims):
            return await self.bus.publish(records, many=many)

    async def ask(
        self,
        question: str,
        options: Sequence[str],
        *,
        default: str | None = None,
        timeout: float = 600.0,  # noqa: ASYNC109 - of the question, for whoever is asked
        details: Any = None,
        key: str | None = None,
    ) -> Answered:
        """Ask a person, and return the answer: one of the options, or the default when `timeout` seconds are over.

        With the same `key` it is the same question again, across a restart, too; without one it is withdrawn when this
        is cancelled. Raises HubError as `Questions.ask` does: `timeout` when nobody has answered and there is no
        default.
        """
        asked = Asked(question, list(options), default, timeout, plain(details), None, key)
        return Answered(**await self.questions.ask(asked, Person(account(os.geteuid())), lambda: key is None))

    @property
    def cursor(self) -> Cursor:
        """The newest position of the stream."""
        return self.broadcaster.cursor

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def snapshot(self, patterns: Patterns = EVERYTHING) -> dict[str, Any]:
        """`{cursor, items}`: last values and the cursor at which they are true, in one step; never waits."""
        return {"cursor": str(self.cursor), "items": self.state.snapshot(patterns)}

    def retention(self) -> dict[str, Any]:
        """What is kept of the stream and of the last values, and how much may be."""
        broker = self.broker
        return {
            "events": broker.head - broker.tail + 1,
            "bytes": broker.bytes,
            "oldest": str(Cursor(broker.epoch, broker.tail)),
            "max_events": broker.limits.events,
            "max_bytes": broker.limits.bytes,
            "max_seconds": broker.limits.seconds,
            "state_items": len(self.state),
            "state_bytes": self.state.bytes,
            "max_state_items": self.config.state_items,
            "max_state_bytes": self.config.state_bytes,
        }

    def problems(self) -> dict[str, str]:
        """What is wrong with the hub, by part: why it is not ready, and who cannot be told of anything."""
        return {**self.obstacles(), **self.outward.problems()}

    def obstacles(self) -> dict[str, str]:
        """Why the hub is not ready, by part; empty when it is."""
        found = {}
        if self.commands.stopping or not self._life.running:
            found["hub"] = "The hub is not running."
        if self._background.is_broken:
            found["hub"] = "A part of the hub has ended; its log says why."
        if self.broker.problem:
            found["broker"] = self.broker.problem
        if not self.audit.available:
            found["audit"] = self.audit.reason or "The audit log cannot be written."
        elif not self.audit.valid:
            found["audit"] = self.audit.reason or "The chain of the audit log is broken."
        return found

    # ---- life

    async def start(self) -> None:
        """Take the state directory, start the parts; once. What fails is raised, and undoes all that was done.

        Raises UsageError if another hub has the directory (Occupied), if it is not safe, or not possible, to write
        there, if a listener of `on_start` does not come back, and for a hub that has been started before. A disk that
        is full is no reason: `problems` says so until it is not.
        """
        await self._life.begin(self._start)

    async def reload(self) -> ConfigFile:
        """Read hub.toml again, do as it says from here on, and return it. Raises BadFile: then all stays as it was."""
        file = await asyncio.to_thread(read_file, self.config)
        self.github_secret = file.github_secret
        self._limit(file)
        if self.config.tells:
            await self.outward.apply(file)
        return file

    def _limit(self, file: ConfigFile) -> None:
        """Take the limits of the file in the place of the settings: those can be another one while the hub runs."""
        self.config = self._given.changed(**file.limits)

    async def stop(self) -> None:
        """Let running calls finish, hand on what was accepted, end the background work, close the audit log.

        Whatever goes wrong in one of the steps, the others are taken. Harmless a second time, and without a start.
        """
        await self._life.end()

    async def _start(self) -> None:
        """Each step notes how it is undone; a stop undoes them from the last to the first."""
        life, self._started = self._life, time.monotonic()
        file = read_file(self.config)
        await life.take("the audit log", self._take_directory(), self._close_audit)
        life.at_end("the record of running calls", self.commands.settle)
        life.at_end("listeners of events", lambda: self.bus.listeners.drain(LISTENERS))
        await life.take("the store of events", self._open_broker(), self._close_broker)
        life.at_end("background work", self._background.end)
        self.liveness.start()
        life.at_end("the processes of agents", self._end_liveness)
        self._background.start((self.state.run(), self._tick(), self.liveness.run(), self.audit.watch()))
        self._background.run(self.recent.go_on(self.broker, self.window.tail))
        with suppress(HubError):
            await self.audit.record("hub.started", None, "SYSTEM", self._beginning())
            self._said = True
        life.at_end("listeners of on_stop", self._tell_of_stop)
        life.at_end("the way to other hubs", self.across.stop)
        life.at_end("running calls", lambda: self.commands.stop(self.config.stop_timeout))
        await self.across.start(self)
        await self.questions.restore()
        life.at_end("open questions", lambda: self.questions.settling.stop(GRACE))
        self.github_secret = file.github_secret or self.github_secret
        self._limit(file)
        life.at_end("what is told to others", lambda: self.outward.stop(ACKNOWLEDGED))
        if self.config.tells:
            await self.outward.start(file)
        await self._tell_of_start()

    async def _take_directory(self) -> None:
        try:
            await self.audit.start()
        except (Locked, Unsafe, OSError) as error:
            raise cannot_take(self.config.state_dir, error) from None

    async def _close_audit(self) -> None:
        self.audit.sum_up()
        if self._said:
            self.audit.note("hub.stopped", None, "SYSTEM", self._words())
        await self.audit.stop()

    async def _open_broker(self) -> None:
        """Go on where the last run ended: the newest events into the window, the last values into the state."""
        broker, window = self.broker, self.window
        try:
            await broker.open(self.bus.pump)
            window.start_at(max(broker.tail - 1, broker.head - self.config.window_events))
            while page := await broker.read(window.head, 1000, READ_BYTES):
                if page[0].seq != window.head + 1:  # trimmed meanwhile
                    window.start_at(page[0].seq - 1)
                window.extend(page)
            self.recent.begin(window, broker.tail)
            self.broadcaster.start_at(broker.head)
            self.state.restore(await broker.last_values(), broker.head)
            self.bus.position = broker.head
            broker.begin(self._lose)
        except BaseException as error:
            await broker.close()
            if isinstance(error, HubError):
                raise UsageError(str(error)) from None
            raise

    def _lose(self, lost: Lost) -> None:
        """Go on behind what is left of a stream of which events are gone: everybody who may have seen them, or has
        still to get them, is told. Never waits."""
        self.state.restore(lost.values, self.broker.head)
        self.questions.go_on()
        self.bus.move(self.broker.head)
        self.broadcaster.lose(lost.epoch, lost.kept)
        self.outward.wake()
        for listener in self.on_moved:
            listener()

    async def _end_liveness(self) -> None:
        self.liveness.stop()

    async def _close_broker(self) -> None:
        await self.broker.close()
        self.broadcaster.flush()

    def end(self) -> None:
        """Close the audit log without the event loop, from any thread, because the process ends now."""
        self.audit.end("hub.stopped", self._words(forced=True))

    def _beginning(self) -> dict[str, Any]:
        named = {"hub_id": self.config.hub_id} if self.config.hub_id else {}
        return self._words(**named, epoch=self.broker.epoch)

    def _words(self, **more: Any) -> dict[str, Any]:
        """What the hub says of itself in its records."""
        return {"version": self.version, **more}

    # ---- the application's part of it

    async def _tell_of_start(self) -> None:
        self.on_start.freeze()
        self.on_stop.freeze()
        for listener in self.on_start:
            work = Work("a listener of on_start", ON_START, listener, self)
            try:
                await work.run()
            except asyncio.CancelledError:
                if work.ended == "timeout":
                    raise UsageError(f"A listener of on_start took longer than {ON_START:g} s.") from None
                raise

    async def _tell_of_stop(self) -> None:
        """Tell all listeners, one after the other: also when the first take all the time."""
        ends = time.monotonic() + ON_STOP
        for listener in self.on_stop:
            left = max(ends - time.monotonic(), GRACE)
            if not await contained("a listener of on_stop", left, listener, self):
                self.metrics.failed("on_stop")

    async def _tick(self) -> None:
        """Look how late the loop is; once a heartbeat tell narrowed clients where they are."""
        marked = time.monotonic()
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.metrics.loop_lag(max(0.0, time.monotonic() - due))
            if time.monotonic() - marked >= self.config.heartbeat:
                marked = time.monotonic()
                self.broadcaster.mark()


def _audit_limits(config: Config) -> Limits:
    return Limits(
        config.audit_file_bytes,
        config.audit_file_seconds,
        config.audit_keep_files,
        config.audit_keep_bytes,
        config.audit_keep_seconds,
    )
