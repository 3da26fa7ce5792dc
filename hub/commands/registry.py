"""The registry of commands, and what happens to every call: checked, recorded, run within its time, recorded.

A call is over when its end is recorded, not before: once its beginning may be on disk, its end follows, whoever is
cancelled, and whatever else ends meanwhile.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, get_args

from aiosignal import Signal
from marshmallow import Schema, fields

from ..errors import Code, HubError, Outcome
from ..redaction import redact_each, redact_text
from ..spelling import nearest
from ..stream.brokers.answers import MemoryAnswers
from ..stream.passes import LARGE, Passes
from ..wire.names import MAX_NAME, is_name
from ..wire.quick import quick
from ..wire.validation import bounded
from ..wire.vocabulary import Effect, Turns
from .call import Call, Command, Handler, check_trust
from .clients import Client
from .confirmation import GOOD_SECONDS, Confirmations, digest, required
from .idempotency import Answer, Idempotency, Turn
from .runner import Runner, internal, is_asked_to_end

if TYPE_CHECKING:
    from ..audit.log import AuditLog
    from ..stream.brokers import peers
    from ..stream.brokers.broker import Answers

EFFECTS = get_args(Effect)
RESERVED = ("hub:", "audit:")

Args = Mapping[str, fields.Field[Any]] | type[Schema] | None


def as_schema(args: Args) -> type[Schema] | None:
    """The args of a command as a schema's class."""
    return Schema.from_dict(dict(args)) if isinstance(args, Mapping) else args


class Registry:
    """The commands of one hub, by name.

    `on_call(name, outcome, seconds)` is sent once for every call that was admitted, by the hub where it was called;
    `on_refused(name, code)` is called for every one that was not, `on_stopping()` when no more are taken: what runs
    only because it waits should end.
    """

    def __init__(
        self,
        audit: "AuditLog",
        limit: float,
        answers: "Answers | None" = None,
        of_hubs: "peers.Turns | None" = None,
        heavy: Passes | None = None,
    ) -> None:
        self.audit = audit
        self._runner = Runner(audit, limit)
        self._heavy = heavy or Passes()  # whose turn it is with what is LARGE
        self._repeats = Idempotency(answers or MemoryAnswers(), self._heavy.apart, of_hubs)
        self.on_call: Signal[str, Outcome, float] = Signal(self)
        self.on_refused: Callable[[str, Code], None] = lambda name, code: None
        self.on_stopping: Callable[[], None] = lambda: None
        self.stopping = False
        self._unsettled: set[Call] = set()  # admitted, and their end is not recorded
        self._changed = asyncio.Event()  # there are fewer of them
        self._confirmations = Confirmations()
        self.peers: peers.Peers | None = None  # the other hubs of the stream, where there can be any
        self._commands: dict[str, Command] = {}
        self.provided: dict[str, Command] = {}  # by clients; the hub's own of that name comes first

    def add(
        self,
        name: str,
        handler: Handler,
        args: Args = None,
        *,
        effect: Effect = "write",
        audited: bool = True,
        turns: Turns = "none",
        repeats: bool = True,
        limit: float | None = None,
        largest: int | None = None,
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
        cls = as_schema(args)
        schema = bounded(cls()) if cls else None
        fits = quick(schema) if schema and not audited else None
        summary = (inspect.getdoc(handler) or "").partition("\n\n")[0].replace("\n", " ")
        self._commands[name] = Command(
            name, handler, schema, effect, summary, audited, turns, limit, fits, repeats, largest
        )

    @property
    def running(self) -> Collection[Call]:
        """The calls whose handlers run, and those for whose end a stop waits."""
        return self._runner.calls

    def _has(self, name: str) -> bool:
        return name in self._commands or name in self.provided

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def find(self, name: str) -> Command:
        """The command of this name. Raises HubError `unknown_command`, with the one that was probably meant."""
        command = self._commands.get(name) or self.provided.get(name)
        if command is None:
            raise self._unknown(name)
        return command

    # ---- a call

    async def call(self, call: Call, name: str, args: Mapping[str, Any]) -> bytes:
        """Run a command to its end and return its result as JSON.

        Raises HubError with the code that the client sees; nothing else but the caller's own cancellation. A call is
        recorded before it runs and answered only when its end is recorded, too.
        """
        if self.peers is not None and not self._has(name) and not self.stopping:
            await self._look(call, name, self.peers)
        if (provided := self.provided.get(name)) is not None and provided.is_heavy(call.weight):
            await self._runner.slow.turn()
        elif call.weight > LARGE:
            await self._heavy.turn(begun=True)  # to read it has taken a while already
        command = self._admit(call, name, args)
        try:
            if not _is_repeatable(call, command):  # else what has run already needs no confirmation
                if call.idempotency_key is not None and not command.repeats:
                    await self._key_step(call, command, self._repeats.claim, call, command.name)
                await self._confirmed(call, command, args)
                return await self._through(call, command, args)
            return await self._once(call, command, args)
        finally:
            if call._size:
                call.client.load.take(call._size)  # whoever called has it in this step

    async def _once(self, call: Call, command: Command, args: Mapping[str, Any]) -> bytes:
        """Run a call that has an idempotency key; or answer it as it was answered, if it has been run before."""
        begun = time.monotonic()
        found: Turn | Answer = await self._key_step(call, command, self._repeats.enter, call, command.name, args)
        if not isinstance(found, Turn):
            return await self._answer_again(call, command, found, time.monotonic() - begun)
        try:
            if command.handler is _nobody:
                self.refuse(call.client, call.id, command.name, "unknown_command")
                raise self._unknown(command.name)
            await self._confirmed(call, command, args)
            call._turn = found
            return await self._through(call, command, args)
        finally:
            found.leave()

    async def _key_step(self, call: Call, command: Command, step: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Look at what is known of its key, for as long as a handler may take. Nothing has run where this raises."""
        try:
            return await self._runner.wait(call, command, step, *args)
        except HubError as error:
            self.refuse(call.client, call.id, command.name, error.code)
            raise

    async def _answer_again(self, call: Call, command: Command, answer: Answer, seconds: float) -> bytes:
        """A repeated call has run nothing; that it was answered is noted, and counted."""
        outcome: Outcome = answer.code if isinstance(answer, HubError) else "ok"
        details = {"id": redact_text(call.id), "command": command.name, "outcome": outcome}
        self.audit.note("command.repeated", call.client.actor(), call.trust, details, key="command.repeated")
        await self.on_call.send(command.name, outcome, seconds)
        if isinstance(answer, HubError):
            raise answer
        return answer

    async def _through(self, call: Call, command: Command, args: Mapping[str, Any]) -> bytes:
        """From its beginning on record to its end."""
        call.command = command
        begun = time.monotonic()
        outcome: Outcome = "internal"
        self._unsettled.add(call)
        call._open = True
        try:
            await self._begin(call, command, args)
            turn = call._turn
            result = await (self._runner.run(call, command) if turn is None else self._keep(call, command, turn))
            outcome = "ok"
            return result
        except HubError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            raise internal(f"the call of {command.name}") from None
        finally:
            call._open = False
            await self._finish(call, command, outcome, time.monotonic() - begun)

    async def _look(self, call: Call, name: str, others: "peers.Peers") -> None:
        """Hear whether another hub has it by now. Stops a name that is provided from being called unknown, for good as
        programs take it, because this hub has not heard of it yet, or hears nothing just now."""
        try:
            await others.look()
        except HubError as error:
            self.refuse(call.client, call.id, name, error.code)
            raise

    def refuse(self, client: Client, id: str | None, name: str, code: Code) -> None:
        """Count a call that did not run, and note it in the audit log; many of them are summed up there."""
        self.on_refused(name, code)
        details = {"id": id and redact_text(id), "command": redact_text(name), "outcome": code}
        self.audit.note("command.refused", client.actor(), client.trust, details, key="command.refused")

    def _admit(self, call: Call, name: str, args: Mapping[str, Any]) -> Command:
        try:
            if self.stopping:
                raise HubError("shutting_down", "The hub is stopping; call again when it is back.", retry_after=1)
            command = self._commands.get(name) or self.provided.get(name) or self._absent(call, name)
            check_trust(call.trust, command.effect, name)
            command.measure(args, call.weight)
            call.args = command.check(args)
        except HubError as error:
            self.refuse(call.client, call.id, name, error.code)
            raise
        return command

    def _absent(self, call: Call, name: str) -> Command:
        """A command that nobody has now. Who comes with a key may have called it while it was provided, and is told
        what is known of that, provider or not. Raises HubError `unknown_command` for everybody else."""
        if call.idempotency_key is None or call.trust != "OPERATOR":
            raise self._unknown(name)
        return Command(name, _nobody, None, "write", "")

    def _unknown(self, name: str) -> HubError:
        """The refusal for a name that nobody has, with the one that was probably meant: found in bounded work, as names
        come from outside."""
        near = nearest(name[: MAX_NAME + 1], chain(self._commands, self.provided))
        lists = f"did you mean {near}? hub:commands lists them all." if near else "hub:commands lists them."
        return HubError("unknown_command", f"There is no command {redact_text(name)}; {lists}")

    async def _confirmed(self, call: Call, command: Command, args: Mapping[str, Any]) -> None:
        """Where there are other hubs, a value that one has handed out is good on all of them, and once on all of
        them."""
        if self.peers is None:
            self._confirm(call, command, args)
        elif command.effect == "dangerous" and not call._admitted:
            try:
                what = digest(call.client.account, command.name, args)
                fresh = await self.peers.confirm(what, call.confirm or "", GOOD_SECONDS)
                if fresh is not None:
                    raise required(command.name, fresh)
            except HubError as error:
                self.refuse(call.client, call.id, command.name, error.code)
                raise

    def _confirm(self, call: Call, command: Command, args: Mapping[str, Any]) -> None:
        if command.effect != "dangerous" or call._admitted:
            return
        try:
            what = digest(call.client.account, command.name, args)
            self._confirmations.check(command.name, what, call.confirm)
        except HubError as error:
            self.refuse(call.client, call.id, command.name, error.code)
            raise

    async def _begin(self, call: Call, command: Command, args: Mapping[str, Any]) -> None:
        """Record the call before it runs. Without an audit log only reads go on, and are counted."""
        if not (command.audited or call.audited):
            return
        (cleaned,), _ = await redact_each([args], self._heavy.apart)
        details = {
            "id": redact_text(call.id),
            "command": command.name,
            "args": self.audit.reduced(cleaned, call.weight),
        }
        call._on_record = True  # if this is cancelled, nobody knows whether it is
        try:
            await self.audit.record("command.called", call.client.actor(), call.trust, details)
        except HubError:
            call._on_record = False
            if command.effect != "read":
                raise
            self.audit.unrecorded += 1

    async def _finish(self, call: Call, command: Command, outcome: Outcome, seconds: float) -> None:
        """Record what came of the call, count it, let go of it: once for every call, and nowhere else."""
        try:
            if call._on_record:
                await self._record_end(call, command, outcome, seconds)
        except HubError as error:
            if command.effect != "read":
                outcome = error.code
                raise
            self.audit.unrecorded += 1
        finally:
            call.outcome = outcome
            self._unsettled.discard(call)
            self._changed.set()
            if not call._admitted:  # else it is counted where it was called
                await self.on_call.send(command.name, outcome, seconds)

    async def _record_end(self, call: Call, command: Command, outcome: Outcome, seconds: float) -> None:
        """A caller that was cancelled waits for no disk, and needs no answer: the record is on its way, behind that of
        the beginning, and the log is not closed before it is written."""
        details = {
            "id": redact_text(call.id),
            "command": command.name,
            "outcome": outcome,
            "ms": round(seconds * 1000, 3),
        }
        record = "command.finished", call.client.actor(), call.trust, details
        if outcome == "cancelled" and is_asked_to_end():
            self.audit.note(*record)
        else:
            await self.audit.record(*record)

    async def _keep(self, call: Call, command: Command, turn: Turn) -> bytes:
        """As `_run`; what it is answered is kept before anybody hears of it, and a stop waits for that."""
        answer: Answer
        try:
            answer = await self._runner.run(call, command)
        except HubError as error:
            answer = turn.told(error)
        with self._runner.holding(call):
            await turn.end(answer)
        if isinstance(answer, HubError):
            raise answer
        return answer

    def admitted(self) -> Iterator[Call]:
        """The calls whose handlers are not done, those included whose beginning is being recorded."""
        return (call for call in self._unsettled if call._open)

    async def stop(self, seconds: float) -> None:
        """Take no more calls; let those that run finish for so many seconds, then end them. No handler runs behind
        this, but for those that were given up."""
        self.stopping = True
        self.on_stopping()
        await self._runner.stop(seconds)

    async def settle(self) -> None:
        """Return when the end of every call is recorded: the audit log may be closed."""
        while self._unsettled:
            self._changed.clear()
            await self._changed.wait()


async def _nobody(call: Call) -> None:
    """Serves what nobody has: it is never run."""


def _is_repeatable(call: Call, command: Command) -> bool:
    """Whether it must run once only, however often it is sent. Reads just run."""
    return call.idempotency_key is not None and command.effect != "read" and command.repeats
