"""What can go wrong, with the stable code that a client sees.

Every refusal in the hub is a HubError. It knows its code, whether trying again can help, and the HTTP status that
says the same; `CODES` is the one table of them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    status: int
    retryable: bool = False


CODES: Mapping[str, Code] = {
    "invalid_json": Code(400),
    "invalid_message": Code(422),
    "unexpected_type": Code(422),
    "duplicate_id": Code(409),
    "unknown_command": Code(404),
    "invalid_args": Code(422),
    "reserved_event": Code(422),
    "too_large": Code(413),
    "rate_limited": Code(429, retryable=True),
    "busy": Code(429, retryable=True),
    "forbidden": Code(403),
    "timeout": Code(504, retryable=True),
    "cancelled": Code(409),
    "command_failed": Code(500),
    "provider_gone": Code(503, retryable=True),
    "already_provided": Code(409),
    "unknown_cursor": Code(400),
    "audit_unavailable": Code(503, retryable=True),
    "broker_unavailable": Code(503, retryable=True),
    "shutting_down": Code(503, retryable=True),
    "internal": Code(500),
}


class HubError(Exception):
    """A refusal with a code of `CODES` and one sentence for a person.

    `details` maps field paths to what is wrong with each; `retry_after` is in seconds; `status` overrides the HTTP
    status of the code.
    """

    def __init__(
        self,
        code: str,
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
        return CODES[self.code].retryable

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
