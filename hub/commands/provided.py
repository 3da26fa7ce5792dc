"""A command that a client serves, and that client: what it is asked, and what it answers."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import CODES, CommandError, HubError
from ..redaction import redact_text
from ..wire.argschema import ArgSchema
from ..wire.messages import Answer, command_frame, failure
from ..wire.strictjson import dumpb
from ..wire.validation import misfit
from .call import Call, Command
from .clients import Client
from .runner import LIGHT

HEAVY = 500  # steps of a check, a few ms, from which on the next one waits for its turn
MAX_SENTENCE = 1000  # characters of a provider's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(Command):
    """A command that a client serves, `provider`, and the JSON Schema that it gave for the args."""

    provider: str
    given: ArgSchema | None = None

    def describe(self) -> dict[str, Any]:
        """As `hub:commands` shows it."""
        # Not super(): a dataclass with slots is another class than the one that the compiler has seen.
        args = {"args": self.given.given} if self.given else {}
        return {**Command.describe(self), **args, "provider": self.provider}

    def is_heavy(self, weight: int) -> bool:
        """What a schema asks for may be much, and many may call at once."""
        return self.given is not None and (weight > LIGHT or self.given.steps > HEAVY)

    def check(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The args as they are. Raises HubError `invalid_args` with field paths."""
        if self.given and (problems := self.given.problems(args)):
            raise misfit("invalid_args", f"The args of {self.name} do not fit", problems)
        return dict(args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided(Served):
    """One that a client of this very hub serves."""

    client: Client


class Asked:
    """A call that a provider has been asked to do, or is going to be as soon as it reads; `id` is of the frame."""

    __slots__ = ("answer", "call", "id")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.id: str | None = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class Provider:
    """What one client provides, and what it is asked.

    The ids of its frames are counted, so that an answer which comes too late is told from one that nobody has asked
    for without anything being kept.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.commands: dict[str, Provided] = {}
        self.asked: dict[Call, Asked] = {}  # and not answered yet
        self.held = self._sent = 0
        self.gone = False
        self._waiting: dict[str, Asked] = {}  # by the id of the frame
        self._only: Asked | None = None  # sent since nothing waited, if it alone can be answered
        self._in_doubt = False  # whether one can be due to something that is over
        self._telling: set[asyncio.Task[None]] = set()

    def ask(self, asked: Asked, command: str, args: bytes) -> None:
        """Send it on."""
        self._only = None if self._waiting or self._in_doubt else asked
        asked.id = self.tell(command, args)
        self._waiting[asked.id] = asked

    def tell(self, command: str, args: bytes) -> str:
        """Send it a frame; never waits. Return its id."""
        assert self.client.send is not None
        self._sent += 1
        id = f"call-{self._sent}"
        self.client.send(command_frame(id, command, args))
        return id

    def refuse(self, lost: list[str]) -> None:
        """Tell it, unasked, that these are another client's by now; never waits."""
        assert self.client.send is not None
        sentence = f"{', '.join(lost)}: provided by a client of another hub by now; provide it again when it is free."
        self.client.send(failure(None, HubError("already_provided", sentence, {"commands": lost})))

    def forget(self, asked: Asked) -> None:
        """Nobody waits for the answer any more: if it has none yet, it hears of that."""
        if asked.id in self._waiting:
            del self._waiting[asked.id]
            self._in_doubt, self._only = True, None  # it may still answer that, and what it is told now
            if not self.gone:
                self.tell("hub:cancel", dumpb({"id": asked.id}))

    def answered(self, answer: Answer) -> bool:
        """Take an answer; return whether a frame with its id was ever sent. One that comes too late is passed over. One
        without an id is that of the only call that any can be due to: else whoever called would wait in vain, and
        where there is doubt it would end another's call."""
        if answer.id is not None:
            return self._answered(answer, answer.id)
        only = self._only
        return only is not None and only.id in self._waiting and self._answered(answer, only.id)

    def _answered(self, answer: Answer, id: str) -> bool:
        if answer.type == "progress" and (asked := self._waiting.get(id)) is not None:
            self._pass_on(asked, answer.payload)
            return True
        if (asked := self._waiting.pop(id, None)) is not None:
            if not asked.answer.done():  # it was cancelled, in this very pass of the loop
                asked.answer.set_result(answer)
            return True
        number = id.removeprefix("call-")
        return number.isdecimal() and len(number) < 20 and f"call-{int(number)}" == id and self.sent(int(number))

    def _pass_on(self, asked: Asked, data: Any) -> None:
        """In a task that has begun before anything else that this provider says is heard."""
        task = asyncio.get_running_loop().create_task(_told(asked.call, data))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def sent(self, number: int) -> bool:
        return 1 <= number <= self._sent


async def _told(call: Call, data: Any) -> None:
    with suppress(HubError):  # what cannot be told is no reason that the call fails
        await call.progress(data)


def result_of(name: str, answer: Answer) -> Any:
    """What it has answered. Whatever it refuses with is `command_failed`: the other codes are the hub's own word."""
    if answer.problem:
        raise CommandError(f"The provider of {name} has answered with a frame that does not fit: {answer.problem}")
    if answer.type == "response":
        return answer.payload
    said: Mapping[str, Any] = answer.payload if isinstance(answer.payload, dict) else {}
    sentence, code, details = said.get("error"), said.get("code"), said.get("details")
    if code != "command_failed" or not isinstance(sentence, str) or not sentence.strip():
        named = f" ({code})" if isinstance(code, str) and code in CODES else ""
        raise CommandError(f"The provider of {name} has failed{named}.")
    sentence = redact_text(" ".join(sentence.split()))  # before it is cut: half a secret is not known for one
    if len(sentence) > MAX_SENTENCE:
        sentence = f"{sentence[:MAX_SENTENCE]}…"
    raise CommandError(sentence, details if isinstance(details, dict) else None)
