"""Where a hub is, what it answers over HTTP, and what can go wrong on the way to it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import state_directory
from ..errors import HubError
from ..private import Unsafe
from ..tokens import read

if TYPE_CHECKING:
    import ssl


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
            payload.get("code", "internal"),
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


def credentials(url: str, state_dir: Path | None = None, token: str | None = None) -> dict[str, str]:
    """The headers that let this account into the hub at `url`: `token`, HUB_TOKEN, or the state directory's token.

    That is for the hub that runs there, not for another address, nor for whoever took the port of a hub that crashed;
    only a `state_dir` that was named together with another hub's address is taken at its word. Raises HubError if the
    token cannot be used.
    """
    token = token or os.environ.get("HUB_TOKEN", "")
    try:
        directory = state_dir or state_directory()
        if not token and _may_have(url, directory, named=state_dir is not None):
            token = read(directory) or ""
    except (OSError, Unsafe) as error:
        raise HubError("forbidden", f"The token cannot be read: {error}.") from None
    if not token:
        return {}
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("forbidden", "This is no token: it has other characters than visible ASCII.")
    return {"Authorization": f"Bearer {token}"}


def _may_have(url: str, directory: Path, *, named: bool) -> bool:
    """Whether the token of this state directory may be sent there."""
    try:
        server = json.loads((directory / "server.json").read_bytes())
        if checked_url(str(server["url"])) != checked_url(url):
            return named
        os.kill(int(server["pid"]), 0)  # raises if the hub is gone, or if another account has its number now
    except FileNotFoundError:
        return named
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return True


def verifying(ca: str | os.PathLike[str] | None = None) -> "ssl.SSLContext":
    """How the certificate of a hub is checked: against the file `ca` or HUB_CA, else the system's authorities. Raises
    HubError if the file holds no certificate."""
    import ssl

    file = ca or os.environ.get("HUB_CA") or None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise HubError("forbidden", f"No certificates can be read from {file}: {error.strerror or error}.") from None


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
