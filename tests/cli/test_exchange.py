"""HTTP as the command line speaks it: what it sends, and every way in which an answer can come or fail to."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from io import BufferedReader

import pytest

from hub.cli import exchange
from hub.cli.exchange import Broken, Exchange

CHUNKED = b"2\r\n{}\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Takes connections one after the other, and answers each request with the next of its answers; an empty one
    closes the connection."""

    def __init__(self, listener: socket.socket, answers: list[bytes]) -> None:
        self.listener, self.answers = listener, answers
        self.requests: list[bytes] = []
        self.connections = 0

    def serve(self) -> None:
        while self.answers:
            sock, _ = self.listener.accept()
            self.connections += 1
            with sock, sock.makefile("rb") as reader, contextlib.suppress(OSError):
                while self.answers and (request := self._request(reader)):
                    self.requests.append(request)
                    answer = self.answers.pop(0)
                    sock.sendall(answer)
                    if not answer.startswith(b"HTTP/1.1 ") or b"\r\n\r\n" not in answer or b"ength:" not in answer:
                        break

    @staticmethod
    def _request(reader: BufferedReader) -> bytes:
        head = b""
        while (line := reader.readline()) not in (b"\r\n", b""):
            head += line
        size = head.partition(b"Content-Length: ")[2].partition(b"\r")[0]
        return head + reader.read(int(size or b"0"))


@contextlib.contextmanager
def asking(*answers: bytes) -> Iterator[tuple[Exchange, Server]]:
    """A connection to a server that gives these answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener, list(answers))
        thread = threading.Thread(target=server.serve)
        thread.start()
        client = Exchange("127.0.0.1", listener.getsockname()[1])
        try:
            yield client, server
        finally:
            client.close()
            server.answers.clear()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask(client: Exchange, body: bytes | None = None) -> tuple[int, bytes]:
    if client.sock is None:
        client.connect(5.0).settimeout(5.0)
    return client.ask("POST", "/a", body, {"X-One": "1"})


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (OK + b"Content-Length: 2\r\n\r\n{}", (200, b"{}")),
        (OK + b"content-length:2\r\n\r\n{}", (200, b"{}")),
        (OK + b"Content-Length: 0\r\n\r\n", (200, b"")),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED, (200, b"{}0123456789")),
        (OK + b"\r\nto the end", (200, b"to the end")),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 1\r\n\r\nx", (404, b"x")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", (200, b"x")),
        (b"HTTP/1.1 503\r\nContent-Length: 1\r\n\r\nx", (503, b"x")),
    ],
)
def test_an_answer_comes_in_any_way(answer: bytes, found: tuple[int, bytes]) -> None:
    with asking(answer) as (client, server):
        assert ask(client, b"body") == found
    host = f"Host: 127.0.0.1:{client._port}".encode()
    head = b"POST /a HTTP/1.1\r\n" + host + b"\r\nX-One: 1\r\nContent-Length: 4\r\n"
    assert server.requests == [head + b"body"]


def test_a_connection_is_kept_unless_one_side_says_otherwise() -> None:
    kept, last = OK + b"Content-Length: 1\r\n\r\n1", OK + b"Connection: close\r\nContent-Length: 1\r\n\r\n2"
    with asking(kept, kept, last, kept) as (client, server):
        assert [ask(client) for _ in range(4)] == [(200, b"1"), (200, b"1"), (200, b"2"), (200, b"1")]
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        OK,
        OK + b"Content-Length: 5\r\n\r\n{}",
        OK + b"Content-Length: -1\r\n\r\n{}",
        OK + b"Content-Length: \r\n\r\n{}",
        OK + b"Content-Length: 99999999999999\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{",
        OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n{",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n99999999999\r\n{}",
        OK + b"x" * (exchange.LONGEST_LINE + 1),
        OK + b"x: y\r\n" * (exchange.MOST_LINES + 1),
    ],
)
def test_what_is_no_whole_answer_is_broken_and_closed(answer: bytes) -> None:
    with asking(answer) as (client, _):
        with pytest.raises((Broken, ConnectionError)):
            ask(client)
        assert client.sock is None


def test_who_refuses_a_large_body_unread_is_heard() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 1\r\n\r\nx")
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        client = Exchange("127.0.0.1", listener.getsockname()[1])
        assert ask(client, b"x" * 8_000_000) == (413, b"x")
        client.close()
        thread.join()


@pytest.mark.parametrize(
    ("host", "port", "named"),
    [
        ("hub.example", None, "hub.example"),
        ("hub.example", 80, "hub.example"),
        ("::1", 3141, "[::1]:3141"),
        ("bücher.example", 1, "xn--bcher-kva.example:1"),
    ],
)
def test_the_host_is_named_as_http_wants_it(host: str, port: int | None, named: str) -> None:
    assert Exchange(host, port)._named() == named
