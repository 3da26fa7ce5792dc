"""What can go wrong, with the stable code that a client sees.

Every refusal in the hub is a HubError. It knows its code, whether trying again can help, and the HTTP status that
says the same; `CODES` is the one table of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

MOST_NAMED, LONGEST = 10, 1000  # problems in a sentence, and characters of them, about

Code = Literal[
    "invalid_json",
    "invalid_message",
    "unexpected_type",
    "duplicate_id",
    "unknown_command",
    "invalid_args",
    "confirmation_required",
    "reserved_event",
    "too_large",
    "rate_limited",
    "busy",
    "forbidden",
    "timeout",
    "cancelled",
    "command_failed",
    "provider_gone",
    "already_provided",
    "unknown_cursor",
    "audit_unavailable",
    "broker_unavailable",
    "shutting_down",
    "internal",
]
Outcome = Literal["ok"] | Code  # of a call


class Meaning(NamedTuple):
    """What a code says over HTTP, and whether trying again can help."""

    status: int
    retryable: bool = False


CODES: Mapping[Code, Meaning] = {
    "invalid_json": Meaning(400),
    "invalid_message": Meaning(422),
    "unexpected_type": Meaning(422),
    "duplicate_id": Meaning(409),
    "unknown_command": Meaning(404),
    "invalid_args": Meaning(422),
    "confirmation_required": Meaning(428),
    "reserved_event": Meaning(422),
    "too_large": Meaning(413),
    "rate_limited": Meaning(429, retryable=True),
    "busy": Meaning(429, retryable=True),
    "forbidden": Meaning(403),
    "timeout": Meaning(504, retryable=True),
    "cancelled": Meaning(409),
    "command_failed": Meaning(500),
    "provider_gone": Meaning(503, retryable=True),
    "already_provided": Meaning(409),
    "unknown_cursor": Meaning(400),
    "audit_unavailable": Meaning(503, retryable=True),
    "broker_unavailable": Meaning(503, retryable=True),
    "shutting_down": Meaning(503, retryable=True),
    "internal": Meaning(500),
}

# What application code may raise, where it is called in the middle of the hub's own. SystemExit and KeyboardInterrupt
# out of a task would take the event loop along; a CancelledError that nobody has asked for is of something else that
# the code has waited for; a GeneratorExit, unless `is_closing`, of a generator that it has closed.
ANYTHING = BaseException


def is_closing(error: BaseException, task: "asyncio.Task[Any] | None") -> bool:
    """Whether this is no error, but Python that clears away a coroutine of `task`, which nobody runs any more: it must
    not be held up."""
    if not isinstance(error, GeneratorExit):
        return False
    import asyncio  # here: `hub publish` has no time for it

    try:
        return asyncio.current_task() is not task
    except RuntimeError:  # no event loop runs at all
        return True


def let_go(error: BaseException | None) -> None:
    """Let go of what an error holds that has been answered. Through its traceback it knows what was in hand wherever it
    came by, megabytes maybe, and where it knows itself by that, all of it stays until the garbage collector looks:
    thousands of requests later."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def install(extra: str) -> str:
    """What to type for an extra that is not there."""
    return f"pip install '.[{extra}]' in the folder of hub, the checkout"


def in_words(details: Any) -> str:
    """What the details of an error say of each field, as one sentence: of many problems the first ones, and how many
    there are besides. Fields with the same problem stand together. Empty if nothing is said."""
    said, size, more = dict[str, list[str]](), 0, 0
    for number, (path, text) in enumerate(_problems(details)):
        if number < MOST_NAMED and size < LONGEST:
            said.setdefault(text.removesuffix("."), []).append(path)
            size += len(path) + len(text)
        else:
            more += 1
    parts = [f"{', '.join(filter(None, paths))}: {text}".removeprefix(": ") for text, paths in said.items()]
    if more:
        parts.append(f"and {more} more")
    sentence = "; ".join(parts)
    return sentence if sentence[-1:] in ("", "?", "!", "…") else f"{sentence}."


def _problems(details: Any, path: str = "") -> "Iterator[tuple[str, str]]":
    """The problems in them, as marshmallow nests them: the path of each field, and what is wrong."""
    if isinstance(details, Mapping):
        for key, inner in details.items():
            yield from _problems(inner, path if key == "_schema" else f"{path}.{key}".lstrip("."))
    else:
        for text in details if isinstance(details, list) else [details] if details else []:
            yield path, str(text)


class HubError(Exception):
    """A refusal with a code of `CODES` and one sentence for a person.

    `details` maps field paths to what is wrong with each; `retry_after` is in seconds; `status` overrides the HTTP
    status of the code.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.retry_after = retry_after
        self.status = status or CODES[code].status

    @property
    def retryable(self) -> bool:
        """Whether the same again can succeed later: not where nobody knows what has become of it (`details.unknown`),
        for then the hub does not run it again."""
        return CODES[self.code].retryable and (self.details or {}).get("unknown") is not True

    def payload(self) -> dict[str, Any]:
        """The error object: `{error, code, retryable}`, with `details` and `retry_after` where they apply."""
        payload: dict[str, Any] = {"error": self.message, "code": self.code, "retryable": self.retryable}
        if self.details is not None:
            payload["details"] = self.details
        if self.retry_after is not None:
            payload["retry_after"] = self.retry_after
        return payload


class CommandError(HubError):
    """A command's handler refuses: `command_failed`, with the handler's own sentence."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__("command_failed", message, details)


class UsageError(Exception):
    """The hub cannot start as it was asked to; the sentence says what to change. Exit status 2."""


class Occupied(UsageError):
    """Another hub has the state directory, or another program the port."""
