"""One HTTP connection to the hub, without aiohttp: `publish` from a shell starts in a third of the time."""

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import socket
from typing import Any, Self, cast
from urllib.parse import urlsplit

from ..client.discovery import Disconnected, NoHub, answer, verifying
from ..client.ownership import check_server

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0  # seconds


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
        """`headers` go with every request; `ca` is a file of certificates to trust in place of the system's."""
        parts = urlsplit(url)
        self._http: HTTPConnection
        if parts.scheme == "https":
            context = verifying(ca)
            self._http = HTTPSConnection(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT, context=context)
        else:
            self._http = HTTPConnection(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT)
        self._headers = dict(headers or {})
        self._url, self._prefix, self._answer_timeout = url, parts.path, answer_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """The hub's answer. Raises Refusal, NoHub, or Disconnected if it broke off."""
        self._connect()
        try:
            self._http.request(
                method, self._prefix + path, body, {"Content-Type": kind} | self._headers if body else self._headers
            )
            response = self._http.getresponse()
            text = response.read()
        except (OSError, HTTPException) as error:
            self._http.close()
            raise Disconnected(f"The connection to the hub at {self._url} broke ({_why(error)}).") from None
        return answer(self._url, response.status, text)

    def _connect(self) -> None:
        if self._http.sock is None:
            try:
                self._http.connect()
                sock = cast(socket, self._http.sock)
                if not isinstance(self._http, HTTPSConnection):
                    check_server(sock.getpeername(), sock.getsockname(), sock)
            except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
                self._http.close()
                raise NoHub(f"No hub answers at {self._url} ({_why(error)}).") from None
            sock.settimeout(self._answer_timeout)


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
