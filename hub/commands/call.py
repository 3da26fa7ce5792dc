"""A command, and a call: one request for it, as its handler gets it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError

from ..errors import Code, HubError, Outcome
from ..redaction import redact
from ..wire.framing import notice
from ..wire.jsonschema import json_schema
from ..wire.strictjson import LARGEST_EVENT, dumpb, plain
from ..wire.validation import invalid, load
from ..wire.vocabulary import Effect, Trust, Turns
from .clients import Client
from .supervised import Work

if TYPE_CHECKING:
    from ..hub import Hub
    from .idempotency import Turn

Handler = Callable[["Call"], Awaitable[Any]]


@dataclass(eq=False, slots=True)
class Call:
    """One request for a command, as its handler gets it. `weight` is the bytes of what came, `command` what it has been
    admitted to. `confirm` and `idempotency_key` came beside the args, if they did. `audited`: it is put on record also
    where those of its command are not."""

    hub: "Hub"
    client: Client
    id: str
    weight: int = 0
    confirm: str | None = None
    idempotency_key: str | None = None
    audited: bool = False
    args: dict[str, Any] = field(default_factory=dict)
    command: "Command | None" = None
    task: asyncio.Task[None] | None = None  # that runs and answers it, where a session does
    outcome: Outcome | None = None  # when its end is recorded
    _work: Work | None = None  # while the handler runs, and only then
    _ended: Code | None = None  # what has asked it to end before its handler ran
    _turn: "Turn | None" = None  # at its idempotency key
    _admitted: bool = False  # by another hub, where it was confirmed if it had to be
    _open: bool = False  # admitted, and its handler is not done
    _size: int = 0  # of the result, while its end is being recorded
    _on_record: bool = False  # its beginning may be in the audit log

    @property
    def trust(self) -> Trust:
        """What whoever calls may do."""
        return self.client.trust

    @property
    def ended(self) -> Code | None:
        """What has asked it to end, if anything has."""
        return self._work.ended if self._work is not None else self._ended

    async def progress(self, data: Any) -> None:
        """Tell the caller, and nobody else, how far this call is: an event `hub:progress`, which has no cursor.

        Its data are `{"call": id, …}` with the members of `data`, or with `data` itself under that name if it is no
        mapping; secrets are taken out. Nothing is sent when the call is over or its client has gone, nor over HTTP; and
        none waits for a client that does not read: what it has no room for is dropped. Raises HubError
        `invalid_message` for what is no JSON, `too_large` for what no frame can hold.
        """
        send = self.client.send
        if send is None or not self._runs() or not self.client.has_room():
            return
        text, load = _progress(self.id, data), self.client.load
        load.add(len(text))
        try:
            send(text)
            await asyncio.sleep(0)  # it is written in this pass of the loop, and weighs until then
        finally:
            load.take(len(text))

    def _runs(self) -> bool:
        """Whether its handler runs, and nothing has ended it."""
        return self._work is not None and self._work.ended is None

    def weigh(self, size: int) -> None:
        """There is an answer of so many bytes; it weighs until whoever called has it."""
        self._size = size
        self.client.load.add(size)

    def cancel(self, code: Code = "cancelled") -> bool:
        """End the call with this code unless its handler is done, or was ended before. Return whether that is so."""
        if self._work is not None:
            return self._work.end(code)
        if not self._open or self._ended is not None:
            return False
        self._ended = code
        return True


@dataclass(frozen=True, slots=True)
class Command:
    """A registered command. `audited` is False only for `hub:publish`: there the kept event is the record. `repeats` is
    False for a command that knows by itself what it means to be called again with the same idempotency key.

    `turns`: calls of what looks at much run one after the other for each `client`, or for all of the `hub`, too.
    """

    name: str
    handler: Handler
    schema: Schema | None
    effect: Effect
    summary: str
    audited: bool = True
    turns: Turns = "none"
    limit: float | None = None  # seconds that a call may take, if other than what holds for all
    fits: Callable[[Any], bool] | None = None  # args that need no loading: nothing in them is converted
    repeats: bool = True
    largest: int | None = None  # bytes that its args can have as JSON

    def describe(self) -> dict[str, Any]:
        """As `hub:commands` shows it."""
        args = json_schema(self.schema)
        return {"name": self.name, "summary": self.summary, "args": args, "effect": self.effect, "provider": None}

    def is_heavy(self, weight: int) -> bool:
        """Whether others must have a turn between two checks of args that came in so many bytes."""
        return False

    def measure(self, args: Mapping[str, Any], weight: int) -> None:
        """Stops work on what is too large for it in any case; it came in so many bytes. Raises HubError `too_large`."""
        if self.largest is not None and weight > self.largest and len(dumpb(args)) > self.largest:
            raise HubError("too_large", f"The args of {self.name} can have {self.largest} bytes at most.")

    def check(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The args as the handler gets them. Raises HubError `invalid_args` with field paths."""
        if self.schema is None or (self.fits and self.fits(args)):
            return dict(args)
        try:
            loaded: dict[str, Any] = load(self.schema, args)
            return loaded
        except ValidationError as error:
            raise invalid("invalid_args", f"The args of {self.name} do not fit", error) from None


def _progress(id: str, data: Any) -> bytes:
    """The JSON of a `hub:progress`. Raises HubError."""
    cleaned = redact(plain(data))[0]
    members = cleaned if isinstance(cleaned, dict) else {"data": cleaned}
    text = notice("hub:progress", {"call": id} | members | {"call": id})
    if len(text) > LARGEST_EVENT:
        raise HubError("too_large", f"The progress has {len(text)} bytes; {LARGEST_EVENT} can be sent.", status=500)
    return text


def check_trust(trust: Trust, effect: Effect, what: str) -> None:
    """Who was let in to look on gets nothing done, whatever it calls. Raises HubError `forbidden`."""
    if effect != "read" and trust != "OPERATOR":
        raise HubError("forbidden", f"You may only read here; {what} needs the hub's own token.")
