"""HTTP/1.1 as far as a request to a hub needs it (RFC 9112): one after the other over a connection that is kept.

The standard library's client brings TLS and a parser of mails along, and takes longer to import than all else that a
`hub publish` does.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

LONGEST_LINE, MOST_LINES = 64 * 1024, 256  # bytes of a line of an answer's head, and how many there may be
LARGEST = 256 * 1024 * 1024  # bytes of an answer: no hub sends as many
DEFAULT_PORTS = {False: 80, True: 443}


class Broken(OSError):
    """What comes is not HTTP, or ends before the answer does."""


class Exchange:
    """A connection to `host`, opened by `connect`; with a context for TLS over TLS."""

    def __init__(self, host: str, port: int | None, tls: "ssl.SSLContext | None" = None) -> None:
        self._host, self._tls = host, tls
        # ASCII as it is: for a text Python imports all that is known of other names.
        self._name: Any = host.encode("ascii") if host.isascii() else host
        self._port = port or DEFAULT_PORTS[tls is not None]
        self._reader: BufferedReader | None = None
        self.sock: socket.socket | None = None

    def connect(self, timeout: float) -> socket.socket:
        """Open the connection. Raises OSError, and UnicodeError for a name that no host can have."""
        self.sock = socket.create_connection((self._name, self._port), timeout)
        with self._closed_unless_done():
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._host)
            self._reader = self.sock.makefile("rb")
        return self.sock

    def close(self) -> None:
        """Let the connection go; nothing happens if there is none."""
        if self._reader is not None:
            self._reader.close()
        if self.sock is not None:
            self.sock.close()
        self.sock = self._reader = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        still: Callable[[], None] | None = None,
    ) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises OSError; the connection is closed then.

        `still` is called whenever the timeout of the socket has gone by before an answer begins: if it returns, the
        answer is waited for once more.
        """
        assert self.sock is not None
        length = {} if method == "GET" else {"Content-Length": str(len(body or b""))}
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._named()}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **length}.items()]
        with self._closed_unless_done():
            with contextlib.suppress(ConnectionError):  # who refuses a large body may say so, and not read it
                self.sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
            if still is not None:
                self._await(still)
            return self._answer()

    def _await(self, still: Callable[[], None]) -> None:
        """Wait until something comes, or the end."""
        while True:
            assert self.sock is not None
            assert self._reader is not None
            try:
                self._reader.peek(1)
            except TimeoutError:
                still()
                self._reader.close()  # one that has timed out reads no more
                self._reader = self.sock.makefile("rb")
            else:
                return

    def _named(self) -> str:
        host = self._host if self._host.isascii() else self._host.encode("idna").decode()
        bare = f"[{host}]" if ":" in host else host
        return bare if self._port == DEFAULT_PORTS[self._tls is not None] else f"{bare}:{self._port}"

    @contextlib.contextmanager
    def _closed_unless_done(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    # ---- the answer

    def _answer(self) -> tuple[int, bytes]:
        status, is_last, headers = self._head()
        while 100 <= status < 200:  # no answer yet
            status, is_last, headers = self._head()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif (length := headers.get("content-length")) is not None:
            body = self._read(_number(length, 10))
        else:
            body, is_last = self._read(None), True
        if is_last or headers.get("connection", "").lower() == "close":
            self.close()
        return status, body

    def _head(self) -> tuple[int, bool, dict[str, str]]:
        """The status, whether the connection ends behind this answer, and the fields."""
        version, _, rest = self._line().partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise Broken("what answers does not speak HTTP")
        headers: dict[str, str] = {}
        for _ in range(MOST_LINES):
            if not (line := self._line()):
                return int(rest[:3]), version == "HTTP/1.0", headers
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        raise Broken("its head does not end")

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := _number(self._line().partition(";")[0].strip(), 16):
            body += self._read(size)
            self._line()
            if len(body) > LARGEST:
                raise Broken("it does not end")
        while self._line():
            pass
        return bytes(body)

    def _line(self) -> str:
        assert self._reader is not None
        line = self._reader.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise Broken("it was closed" if len(line) < LONGEST_LINE else "a line of it does not end")
        return line.rstrip(b"\r\n").decode("latin-1")

    def _read(self, size: int | None) -> bytes:
        assert self._reader is not None
        if size is not None and size > LARGEST:
            raise Broken("it does not end")
        body = self._reader.read(LARGEST if size is None else size)
        if size is not None and len(body) < size:
            raise Broken("it was closed")
        return body


def _number(text: str, base: int) -> int:
    try:
        if text.isalnum():
            return int(text, base)
    except ValueError:
        pass
    raise Broken("its length is no number")
