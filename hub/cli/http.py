"""The way to the hub: how the command line names it, and one HTTP connection to it, without aiohttp.

`publish` from a shell starts in a third of the time.
"""

import argparse
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ..client.discovery import (
    Disconnected,
    NoHub,
    answer,
    credentials,
    named_hub,
    parts,
    running_hub,
    untrusted,
    verifying,
)
from ..client.ownership import check_server
from ..errors import UsageError
from ..processes import machine
from .exchange import Broken, Exchange
from .grammar import folder, url

if TYPE_CHECKING:
    from pathlib import Path

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0  # seconds
TLS_TIMEOUT = 1.0  # seconds in which a handshake is answered
LOOK_AFTER, LOOK_TIMEOUT, LOOK_AGAIN = 4.0, 5.0, 10.0  # seconds: whether a hub lives that lets a call wait
PLAIN = "/%:@!$&'()*+,;=~"  # what stands in a path as it is, beside letters and digits


def add_where(command: argparse.ArgumentParser) -> None:
    """Add the flags that name a hub, and what it takes to get in."""
    where = command.add_argument_group("which hub, and how to get in")
    where.add_argument("--url", type=url, metavar="URL", help="its address (HUB_URL; else the hub running here)")
    where.add_argument("--state-dir", type=folder, metavar="DIR", help="its state directory (HUB_STATE_DIR)")
    where.add_argument("--token-file", type=folder, metavar="FILE", help="the file of its token (HUB_TOKEN: the token)")
    where.add_argument("--ca", metavar="FILE", help="certificates to trust for https (HUB_CA)")


def pasted(args: argparse.Namespace, *words: str) -> str:
    """A command line of hub's to be pasted into a shell: it leads to the hub that these flags name, as they were typed.
    What the environment names, the shell still has."""
    named = {"--url": args.url, "--state-dir": args.state_dir, "--token-file": args.token_file, "--ca": args.ca}
    return _typed(words, named)


def start_of(args: argparse.Namespace) -> str:
    """The command line that starts a hub where these flags look for one."""
    return _typed((), {"--state-dir": args.state_dir})


def _typed(words: Iterable[str], flags: Mapping[str, object]) -> str:
    import shlex  # here: few say what to type

    where = (word for flag, value in flags.items() if value is not None for word in (flag, str(value)))
    return shlex.join(["hub", *words, *where])


def named_address(args: argparse.Namespace) -> str | None:
    """The address that the flags or HUB_URL name. Raises UsageError if that is none."""
    try:
        return named_hub(args.url, args.state_dir)
    except ValueError as error:
        raise UsageError(f"HUB_URL: {error}") from None


def address(args: argparse.Namespace) -> str:
    """Where the hub is: as named, else the one that runs here. Raises NoHub, and UsageError as `named_address`."""
    return named_address(args) or running_hub(args.state_dir)


def token_of(args: argparse.Namespace) -> str | None:
    """What is in `--token-file`."""
    return token_in(args.token_file)


def token_in(path: "Path | None") -> str | None:
    """The token in a file; itself it never stands on a command line, which everybody can read. Raises UsageError."""
    if path is None:
        return None
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read {path}: {error}.") from None
    if not text:
        raise UsageError(f"There is no token in {path}.")
    return text


def on_this_machine() -> Mapping[str, str]:
    """The header of a request that names a process: where it has this number. Else a hub behind a tunnel would take one
    of its own machine for it."""
    found = machine()
    return {"Hub-Machine": found} if found else {}


def connection(args: argparse.Namespace, **options: Any) -> "Connection":
    """A connection to the hub that the flags name, with what it takes to get in."""
    url = address(args)
    return Connection(url, **options, headers=credentials(url, args.state_dir, token_of(args)), ca=args.ca)


def quoted(text: str, *, safe: str = "") -> str:
    """A text as it stands in an address; what is `safe` stands there as it is."""
    if all(letter.isalnum() or letter in safe for letter in text) and text.isascii():
        return text
    from urllib.parse import quote  # here: few have any use for it

    return quote(text, safe=safe)


class Silent(Disconnected):
    """The hub was asked, and has not answered in time."""


class Connection:
    """One kept-alive connection to the hub at `url`; opened at its first use."""

    def __init__(
        self,
        url: str,
        answer_timeout: float | None = ANSWER_TIMEOUT,
        *,
        headers: Mapping[str, str] | None = None,
        ca: str | None = None,
    ) -> None:
        """`headers` go with every request; `ca` is a file of certificates to trust in place of the system's. Without
        `answer_timeout` it is waited for as long as the hub lives."""
        named = parts(url)
        assert named, "the address has been checked"
        self._tls = verifying(ca) if named.is_tls else None
        self._host, self._port = named.host, named.port
        self._http = Exchange(self._host, self._port, self._tls)
        self._headers = dict(headers or {})
        self._url, self._prefix, self._answer_timeout = url, quoted(named.path, safe=PLAIN), answer_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; what is asked next opens another. A hub closes one that has been idle for a while."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """The hub's answer. Raises Refusal, NoHub, or Disconnected if it broke off; Silent if it does not come."""
        all_headers = {**headers, **({"Content-Type": kind} if body else {})}
        status, text = self.exchange(method, path, body, all_headers)
        return answer(self._url, status, text)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        """Status and body of whatever answers there. Raises NoHub, Disconnected, Silent as `ask`."""
        self._connect()
        still = self._look if self._answer_timeout is None else None
        try:
            return self._http.ask(method, self._prefix + path, body, {**self._headers, **headers}, still)
        except TimeoutError:
            said = "does not answer" if still else f"has said nothing for {self._answer_timeout:g} s"
            raise Silent(f"The hub at {self._url} {said}.") from None
        except OSError as error:
            if self._tls is None and self._speaks_tls():
                raise NoHub(f"The hub at {self._url} speaks https: name it as https{self._url[4:]}.") from None
            raise Disconnected(f"The connection to the hub at {self._url} broke ({_why(error)}).") from None

    def _connect(self) -> None:
        if self._http.sock is not None:
            return
        try:
            sock = self._http.connect(CONNECT_TIMEOUT)
            if self._tls is None:
                check_server(sock.getpeername(), sock.getsockname(), sock)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
            self._http.close()
            if found := untrusted(self._url, error):
                raise found from None
            raise NoHub(f"No hub answers at {self._url} ({_why(error)}).") from None
        sock.settimeout(LOOK_AFTER if self._answer_timeout is None else self._answer_timeout)

    def _speaks_tls(self) -> bool:
        """Whether what has broken off takes no HTTP without TLS: then it has read nothing of what was sent."""
        import ssl  # here: it is found out where something has gone wrong

        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE  # nothing is sent to it
        other = Exchange(self._host, self._port, anyone)
        try:
            other.connect(TLS_TIMEOUT)
        except OSError:
            return False
        finally:
            other.close()
        return True

    def _look(self) -> None:
        """Raise OSError unless the hub answers somebody else, and shortly. One that refuses to, or breaks off, will
        break off here, too, if it ends."""
        other = Exchange(self._host, self._port, self._tls)
        try:
            other.connect(LOOK_TIMEOUT)
            other.ask("GET", f"{self._prefix}/healthz", None, {})
        except (ConnectionError, Broken):
            pass
        finally:
            other.close()
        if self._http.sock is not None:
            self._http.sock.settimeout(LOOK_AGAIN)


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
