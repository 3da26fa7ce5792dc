"""Where a hub is, what it answers over HTTP, and what can go wrong on the way to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import state_directory
from .errors import HubError


class NoHub(ConnectionError):
    """No hub answers; the sentence says where it was looked for."""


class Disconnected(HubError, ConnectionError):
    """The connection broke before the answer (code `shutting_down`). Whether the command ran is not known."""

    def __init__(self, message: str) -> None:
        super().__init__("shutting_down", message)


class Refusal(HubError):
    """The hub's own refusal, as it came over the wire: also its `code` and `retryable` are the hub's word."""

    def __init__(self, payload: Mapping[str, Any], status: int | None = None) -> None:
        super().__init__(
            str(payload.get("code", "internal")),
            str(payload.get("error", "The hub refused without a reason.")),
            payload.get("details"),
            retry_after=payload.get("retry_after"),
            status=status or 500,
        )
        self._retryable = bool(payload.get("retryable"))

    @property
    def retryable(self) -> bool:
        return self._retryable


def running_hub(state_dir: Path | None = None) -> str:
    """The address of the running hub, from its `server.json`. Raises NoHub."""
    path = (state_dir or state_directory()) / "server.json"
    try:
        return checked_url(str(json.loads(path.read_bytes())["url"]))
    except FileNotFoundError:
        raise NoHub(f"No hub is running here: there is no {path}.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise NoHub(f"No hub can be found: {path} is not readable.") from None


def checked_url(url: str) -> str:
    """`http://host:port/prefix` without the last slash. Raises ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"The address of a hub begins with http:// or https://, not so {url!r}.")
    return url.rstrip("/")


def answer(url: str, status: int, body: bytes) -> Any:
    """What the hub answered over HTTP. Raises Refusal in its own words, NoHub if this is no hub's answer."""
    try:
        value = json.loads(body)
    except ValueError:
        raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).") from None
    if status == 200:
        return value
    if isinstance(value, dict) and {"error", "code"} <= value.keys():
        raise Refusal(value, status)
    raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).")
