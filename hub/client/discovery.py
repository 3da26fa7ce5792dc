"""Where a hub is, what it answers over HTTP, and what can go wrong on the way to it."""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HubError, UsageError
from ..private import Unsafe, read_private
from ..processes import owner
from ..statedir import state_folder
from ..tokens import read

if TYPE_CHECKING:
    import ssl

Folder = str | os.PathLike[str]
LARGEST_FILE = 64 * 1024  # bytes of a server.json
LARGEST_PORT = 65535
SCHEMES = ("http", "https")
UNKNOWN_ISSUER = (18, 19, 20, 21)  # OpenSSL's codes (X509_V_ERR_…): self-signed, or by nobody whom this machine knows


class NoHub(ConnectionError):
    """No hub answers; the sentence says where it was looked for."""


class NotRunning(NoHub):
    """None runs where this account's own was looked for."""


class Disconnected(HubError, ConnectionError):
    """The connection broke before the answer (code `shutting_down`). Whether the command ran is not known."""

    def __init__(self, message: str) -> None:
        super().__init__("shutting_down", message)


class Barred(HubError):
    """The hub has closed the connection as not allowed (1008): for good, or because the token was replaced."""


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


def named_hub(url: str | None, state_dir: Folder | None) -> str | None:
    """The address that was named: `url`, else HUB_URL, for which a `state_dir` that was named counts more. Raises
    ValueError."""
    if url is None and state_dir is None:
        url = os.environ.get("HUB_URL") or None
    return None if url is None else checked_url(url)


def running_hub(state_dir: Folder | None = None) -> str:
    """The address of the running hub, from its `server.json`. Raises NoHub."""
    try:
        return announced(state_dir or state_folder())
    except UsageError as error:
        raise NoHub(f"No hub can be found: {error}") from None


def announced(directory: Folder) -> str:
    """The address in `server.json`, while the process that it names runs. Raises NoHub.

    Stops a file that another account has planted, in a folder of its own or a shared one, from naming its own server.
    """
    return running(directory)[0]


def running(directory: Folder) -> tuple[str, int]:
    """Its process, too. Raises NoHub."""
    url, pid = _told(directory)
    if not _is_own_process(pid):
        raise NotRunning(f"No hub is running here: process {pid} of {directory} has gone, or is another account's.")
    return url, pid


def is_announced(url: str, directory: Folder) -> bool:
    """Whether `server.json` in this directory names the very address, running or not; localhost is 127.0.0.1. That is
    no reason to send a token there: another server may have the name."""
    try:
        return _plain(_told(directory)[0]) == _plain(url)
    except (NoHub, OSError):
        return False


def _plain(url: str) -> "Parts | None":
    found = parts(url)
    return found._replace(host="127.0.0.1") if found and found.host == "localhost" else found


def _told(directory: Folder) -> tuple[str, int]:
    """The address and the process in `server.json`. Raises NoHub."""
    path = os.path.join(directory, "server.json")
    try:
        told = json.loads(_of_this_account(directory, path))
        return checked_url(str(told["url"])), int(told["pid"])
    except (FileNotFoundError, NotADirectoryError):
        if above := _of_all_workers(directory):
            raise NoHub(f"{directory} is the folder of one worker; the hub is found by --state-dir {above}.") from None
        raise NotRunning(f"No hub is running here: there is no {path}.") from None
    except Unsafe as error:
        raise NoHub(f"No hub can be found: {error}.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise NoHub(f"No hub can be found: {path} is not readable.") from None


def _of_all_workers(directory: Folder) -> str | None:
    """The folder of the hub, if this is that of one of its workers."""
    above, name = os.path.split(os.path.abspath(directory))
    is_one = name.startswith("worker-") and name.removeprefix("worker-").isdecimal()
    return above if is_one and os.path.lexists(os.path.join(above, "server.json")) else None


def _of_this_account(directory: Folder, path: str) -> bytes:
    if os.stat(directory).st_uid != os.geteuid():
        raise Unsafe(f"{directory} belongs to another account")
    return read_private(path, LARGEST_FILE)


def _is_own_process(pid: int) -> bool:
    """Whether this process runs and is this account's. Without /proc it is enough that it takes our signals."""
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    uid = owner(pid)
    return pid > 0 if uid is None else uid == os.geteuid()


def credentials(url: str, state_dir: Folder | None = None, token: str | None = None) -> dict[str, str]:
    """The headers that let this account into the hub at `url`: `token`, HUB_TOKEN, or the state directory's token.

    That is for the hub that runs there, not for another address, nor for whoever took the port of a hub that crashed;
    only a `state_dir` that was named together with another hub's address is taken at its word. Raises HubError if the
    token cannot be used.
    """
    token = token or os.environ.get("HUB_TOKEN", "")
    token = token or _token_of(url, state_dir)
    if not token:
        return {}
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("forbidden", "This is no token: it has other characters than visible ASCII.")
    return {"Authorization": f"Bearer {token}"}


def _token_of(url: str, state_dir: Folder | None) -> str:
    """The token of the state directory if it may be sent there, else an empty text."""
    try:
        directory = state_dir or state_folder()
        if _may_have(url, directory, named=state_dir is not None):
            return read(directory) or ""
    except UsageError:
        pass  # no home, no token
    except (OSError, Unsafe) as error:
        raise HubError("forbidden", f"The token cannot be read: {error}.") from None
    return ""


def _may_have(url: str, directory: Folder, *, named: bool) -> bool:
    """Whether the token of this state directory may be sent there."""
    if not os.path.lexists(os.path.join(directory, "server.json")):
        return named
    try:
        there, pid = _told(directory)
    except NoHub:
        return False
    return _is_own_process(pid) if there == checked_url(url) else named


def verifying(ca: str | os.PathLike[str] | None = None) -> "ssl.SSLContext":
    """How the certificate of a hub is checked: against the file `ca` or HUB_CA, else the system's authorities. Raises
    HubError if the file holds no certificate."""
    import ssl

    file = ca or os.environ.get("HUB_CA") or None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise HubError("forbidden", f"No certificates can be read from {file}: {error.strerror or error}.") from None


def untrusted(url: str, error: BaseException) -> NoHub | None:
    """What it means that the certificate of the hub at `url` was refused; None if `error` is something else."""
    why = getattr(error, "verify_message", None)
    if not why:
        return None
    hint = ": name the file of its certificate with --ca (in Python: ca), or HUB_CA"
    is_unknown = getattr(error, "verify_code", None) in UNKNOWN_ISSUER
    return NoHub(f"The certificate of the hub at {url} is not trusted ({why}){hint if is_unknown else ''}.")


def checked_url(url: str) -> str:
    """`http://host:port/prefix` without the last slash; that is also what `host:port` means. Raises ValueError."""
    whole = url if "://" in url else f"http://{url}"
    found = parts(whole)
    if found is None or (whole is not url and found.port is None):
        raise ValueError(f"The address of a hub is http://HOST:PORT or https://HOST:PORT, not {_shown(url)}.")
    return whole.rstrip("/")


class Parts(NamedTuple):
    """What an address says."""

    is_tls: bool
    host: str
    port: int | None
    path: str


def parts(url: str) -> Parts | None:
    """What `http://host:port/prefix` says, None if it is no such address. By hand: the standard library's way knows all
    addresses that there are, and takes as long to import as most of what a `hub publish` does."""
    scheme, _, rest = url.partition("://")
    where, slash, path = rest.partition("/")
    host, colon, port = where.rpartition(":") if where.rfind(":") > where.rfind("]") else (where, "", "")
    if (
        scheme.lower() not in SCHEMES
        or not _is_host(host)
        or any(mark in url for mark in "?#@ ")
        or not url.isprintable()
    ):
        return None
    if colon and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) <= LARGEST_PORT):
        return None
    return Parts(scheme.lower() == "https", host.strip("[]").lower(), int(port) if port else None, slash + path)


def _is_host(text: str) -> bool:
    """Whether it can be a name, or an address; one with colons stands in brackets (RFC 3986, section 3.2.2)."""
    is_bracketed = text[:1] == "[" and text[-1:] == "]" and ":" in text
    bare = text[1:-1] if is_bracketed else text
    return bool(bare) and not any(mark in bare for mark in "[]") and is_bracketed == (":" in bare)


def _shown(url: str) -> str:
    """An address for a sentence; what may hold a password is not repeated."""
    return "one with a user in it" if "@" in url else repr(url)


def answer(url: str, status: int, body: bytes) -> Any:
    """What the hub answered over HTTP. Raises Refusal in its own words, NoHub if this is no hub's answer."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).") from None
    if status == 200:
        return value
    if isinstance(value, dict) and {"error", "code"} <= value.keys():
        raise Refusal(value, status)
    raise NoHub(f"What answers at {url} does not answer as a hub (HTTP status {status}).")
