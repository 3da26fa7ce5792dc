"""The registry of commands, and what happens to every call: checked, recorded, run within its time, recorded."""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiosignal import Signal
from marshmallow import Schema, ValidationError, fields

from ..errors import HubError
from ..redaction import redact, redact_text
from ..wire.jsonschema import json_schema
from ..wire.messages import invalid, quick
from ..wire.names import is_name, new_id
from ..wire.strictjson import dumpb, plain
from .clients import Client
from .supervised import Work

if TYPE_CHECKING:
    from ..audit.log import AuditLog
    from ..hub import Hub

log = logging.getLogger("hub")

EFFECTS = ("read", "write", "dangerous")
RESERVED = ("hub:", "audit:")

Handler = Callable[["Call"], Awaitable[Any]]
Args = Mapping[str, fields.Field[Any]] | type[Schema] | None


@dataclass(eq=False, slots=True)
class Call:
    """One request for a command, as its handler gets it."""

    hub: "Hub"
    client: Client
    id: str
    args: dict[str, Any] = field(default_factory=dict)
    _work: Work | None = None  # while the handler runs, and only then

    @property
    def trust(self) -> str:
        return self.client.trust

    async def progress(self, event: str, data: Any) -> None:
        """Tell everyone how far this call is: publish an event, usually `task:progress`."""
        await self.hub.publish(event, data)

    def cancel(self, code: str = "cancelled") -> bool:
        """End the call with this code unless its handler is done. Whether that is so."""
        return self._work is not None and self._work.end(code)


@dataclass(frozen=True, slots=True)
class Command:
    """A registered command. `audited` is False only for `hub:publish`: there the kept event is the record."""

    name: str
    handler: Handler
    schema: Schema | None
    effect: str
    summary: str
    audited: bool = True
    fits: Callable[[Any], bool] | None = None  # args that need no loading: nothing in them is converted

    def describe(self) -> dict[str, Any]:
        """As `hub:commands` shows it."""
        args = json_schema(self.schema)
        return {"name": self.name, "summary": self.summary, "args": args, "effect": self.effect, "provider": None}

    def check(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The args as the handler gets them. Raises HubError `invalid_args` with field paths."""
        if self.schema is None or (self.fits and self.fits(args)):
            return dict(args)
        try:
            loaded: dict[str, Any] = self.schema.load(args)
            return loaded
        except ValidationError as error:
            raise invalid("invalid_args", f"The args of {self.name} do not fit", error) from None


def check_trust(trust: str, effect: str, what: str) -> None:
    """Who was let in to look on gets nothing done, whatever it calls. Raises HubError `forbidden`."""
    if effect != "read" and trust != "OPERATOR":
        raise HubError("forbidden", f"You may only read here; {what} needs the hub's own token.")


class Commands:
    """The commands of one hub, by name. `on_call(name, outcome, seconds)` is sent after every call that ran;
    `on_refused(name, code)` is called for every one that did not."""

    def __init__(self, audit: "AuditLog", limit: float) -> None:
        self.audit, self._limit = audit, limit
        self.on_call: Signal[str, str, float] = Signal(self)
        self.on_refused: Callable[[str, str], None] = lambda name, code: None
        self.running: set[Call] = set()
        self.stopping = self._ended = False
        self._idle = asyncio.Event()
        self._commands: dict[str, Command] = {}

    def add(
        self, name: str, handler: Handler, args: Args = None, *, effect: str = "write", audited: bool = True
    ) -> None:
        """Register a command. Raises ValueError for a bad or taken name, TypeError for a handler that is not async."""
        if not is_name(name):
            raise ValueError(f"{name!r} cannot name a command: it must be domain:action.")
        if name in self._commands:
            raise ValueError(f"There is a command {name} already.")
        if effect not in EFFECTS:
            raise ValueError(f"The effect of {name} must be one of {', '.join(EFFECTS)}, not {effect!r}.")
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"The handler of {name} must be an async function.")
        cls = Schema.from_dict(dict(args)) if isinstance(args, Mapping) else args
        schema = cls() if cls else None
        fits = quick(schema) if schema and not audited else None
        summary = (inspect.getdoc(handler) or "").partition("\n\n")[0].replace("\n", " ")
        self._commands[name] = Command(name, handler, schema, effect, summary, audited, fits)

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    # ---- a call

    async def call(self, call: Call, name: str, args: Mapping[str, Any]) -> bytes:
        """Run a command to its end and return its result as JSON.

        Raises HubError with the code that the client sees; nothing else. A call is recorded before it runs and
        answered only when its end is recorded, too.
        """
        command = self._admit(call, name, args)
        started, outcome = time.monotonic(), "internal"
        try:
            result = await self._recorded(command, call, args)
            outcome = "ok"
            return result
        except HubError as error:
            outcome = error.code
            raise
        finally:
            await self.on_call.send(name, outcome, time.monotonic() - started)

    def refuse(self, client: Client, id: str | None, name: str, code: str) -> None:
        """Count a call that did not run, and note it in the audit log; many of them are summed up there."""
        self.on_refused(name, code)
        details = {"id": id, "command": name, "outcome": code}
        self.audit.note("command.refused", client.actor(), client.trust, details, key="command.refused")

    def _admit(self, call: Call, name: str, args: Mapping[str, Any]) -> Command:
        try:
            if self.stopping:
                raise HubError("shutting_down", "The hub is stopping; call again when it is back.", retry_after=1)
            command = self._commands.get(name)
            if command is None:
                raise HubError("unknown_command", f"There is no command {name}; hub:commands lists them.")
            check_trust(call.trust, command.effect, name)
            call.args = command.check(args)
            return command
        except HubError as error:
            self.refuse(call.client, call.id, name, error.code)
            raise

    async def _recorded(self, command: Command, call: Call, args: Mapping[str, Any]) -> bytes:
        if not command.audited:
            return await self._run(command, call)
        details = {"id": call.id, "command": command.name}
        await self._record("called", command, call, {**details, "args": self.audit.reduced(redact(args)[0])})
        started, outcome = time.monotonic(), "cancelled"
        try:
            result = await self._run(command, call)
            outcome = "ok"
            return result
        except HubError as error:
            outcome = error.code
            raise
        finally:
            ms = round((time.monotonic() - started) * 1000, 3)
            await self._record("finished", command, call, {**details, "outcome": outcome, "ms": ms})

    async def _record(self, what: str, command: Command, call: Call, details: Mapping[str, Any]) -> None:
        """Durable when it returns. Without an audit log only reads go on, and are counted."""
        try:
            await self.audit.record(f"command.{what}", call.client.actor(), call.trust, details)
        except HubError:
            if command.effect != "read":
                raise
            self.audit.unrecorded += 1

    async def _run(self, command: Command, call: Call) -> bytes:
        """The handler's result as JSON. A handler that does not let go when its time is over is given up."""
        if self._ended:  # while its beginning was recorded
            raise self._refusal(command, "shutting_down")
        call._work = work = Work(f"the command {command.name}", self._limit, command.handler, call)
        self.running.add(call)
        try:
            return dumpb(await (work.run() if command.audited else work.here()))
        except asyncio.CancelledError:
            raise self._cancelled(command, work) from None
        except HubError as error:
            raise self._presentable(error, command) from None
        except Exception:
            if work.ended == "timeout":
                raise self._refusal(command, work.ended) from None
            raise internal(f"the command {command.name}") from None
        finally:
            call._work = None
            self.running.discard(call)
            self._idle.set()
            if work.given_up:
                details = {"id": call.id, "command": command.name}
                self.audit.note("command.abandoned", call.client.actor(), call.trust, details, key="command.abandoned")

    @staticmethod
    def _presentable(error: HubError, command: Command) -> HubError:
        """A handler's refusal without secrets; one that cannot be written as JSON is a bug of the handler's."""
        try:
            error.message = redact_text(error.message)
            error.details = plain(redact(error.details)[0])
        except Exception:
            return internal(f"the refusal of {command.name}")
        return error

    def _cancelled(self, command: Command, work: Work) -> BaseException:
        """The refusal for a call that was ended. When whoever waits for it is cancelled, that goes on."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return asyncio.CancelledError()
        return self._refusal(command, work.ended) if work.ended else internal(f"the command {command.name}")

    def _refusal(self, command: Command, code: str) -> HubError:
        if code == "timeout":
            return HubError(code, f"{command.name} took longer than {self._limit:g} s.")
        if code == "shutting_down":
            return HubError(code, "The hub is stopping and ended this call.", retry_after=1)
        return HubError(code, "The call was cancelled.")

    async def stop(self, seconds: float) -> None:
        """Take no more calls; let those that run finish for so many seconds, then end them. None runs behind this."""
        self.stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_ended()
        self._ended = True
        for call in self.running:
            call.cancel("shutting_down")
        await self._all_ended()

    async def _all_ended(self) -> None:
        while self.running:
            self._idle.clear()
            await self._idle.wait()


def internal(where: str) -> HubError:
    """Log the exception in flight under a reference, and make the error that names nothing else."""
    reference = new_id()[:8]
    log.exception("%s failed [%s]", where, reference)
    return HubError("internal", f"The hub failed here; its log says why under the reference {reference}.")
