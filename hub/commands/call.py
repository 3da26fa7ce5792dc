"""A command, and a call: one request for it, as its handler gets it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError

from ..errors import Code, HubError
from ..wire.jsonschema import json_schema
from ..wire.validation import invalid, load
from ..wire.vocabulary import Effect, Trust, Turns
from .clients import Client
from .supervised import Work

if TYPE_CHECKING:
    from ..hub import Hub

Handler = Callable[["Call"], Awaitable[Any]]


@dataclass(eq=False, slots=True)
class Call:
    """One request for a command, as its handler gets it. `weight` is the bytes of what came, `command` what it has been
    admitted to. `confirm` and `idempotency_key` came beside the args, if they did."""

    hub: "Hub"
    client: Client
    id: str
    weight: int = 0
    confirm: str | None = None
    idempotency_key: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    command: "Command | None" = None
    _work: Work | None = None  # while the handler runs, and only then
    _ended: Code | None = None  # what has asked it to end before its handler ran
    _open: bool = False  # admitted, and its handler is not done
    _size: int = 0  # of the result, while its end is being recorded
    _on_record: bool = False  # its beginning may be in the audit log

    @property
    def trust(self) -> Trust:
        return self.client.trust

    async def progress(self, event: str, data: Any) -> None:
        """Tell everyone how far this call is: publish an event, usually `task:progress`."""
        await self.hub.publish(event, data)

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
    """A registered command. `audited` is False only for `hub:publish`: there the kept event is the record.

    `turns`: calls of what looks at much run one after the other for each `client`, or for all of the `hub`, too.
    """

    name: str
    handler: Handler
    schema: Schema | None
    effect: Effect
    summary: str
    audited: bool = True
    turns: Turns = "none"
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
            loaded: dict[str, Any] = load(self.schema, args)
            return loaded
        except ValidationError as error:
            raise invalid("invalid_args", f"The args of {self.name} do not fit", error) from None


def check_trust(trust: Trust, effect: Effect, what: str) -> None:
    """Who was let in to look on gets nothing done, whatever it calls. Raises HubError `forbidden`."""
    if effect != "read" and trust != "OPERATOR":
        raise HubError("forbidden", f"You may only read here; {what} needs the hub's own token.")
