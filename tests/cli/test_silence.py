"""A hub that takes a call and is silent: one that lives is waited for, any other is given up in a sentence."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import BufferedReader

import pytest

import hub.cli.http
from hub.cli.http import Connection, Silent
from hub.cli.main import main

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_AFTER", "LOOK_AGAIN", "LOOK_TIMEOUT"):
        monkeypatch.setattr(hub.cli.http, name, 0.2)


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of what accepts, and says nothing for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Slow:
    """Answers a call when it has been looked at so many times, and looks only so often."""

    def __init__(self, server: socket.socket, looks: int, lives: int) -> None:
        self._server, self._looks, self._lives = server, looks, lives

    def serve(self) -> None:
        with ExitStack() as stack, suppress(OSError):
            waiting: list[socket.socket] = []
            while True:
                sock = stack.enter_context(self._server.accept()[0])
                if not self._is_look(stack.enter_context(sock.makefile("rb"))):
                    waiting.append(sock)
                    continue
                self._looks, self._lives = self._looks - 1, self._lives - 1
                if self._lives >= 0:
                    sock.sendall(OK)
                if self._looks == 0:
                    waiting[0].sendall(OK)

    @staticmethod
    def _is_look(reader: BufferedReader) -> bool:
        first = reader.readline()
        while reader.readline() not in (b"\r\n", b""):
            pass
        return first == b"GET /prefix/healthz HTTP/1.1\r\n"


def called(looks: int, lives: int) -> object:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=Slow(server, looks, lives).serve)
        thread.start()
        try:
            with Connection(f"http://127.0.0.1:{server.getsockname()[1]}/prefix", None) as connection:
                return connection.ask("POST", "/api/commands/a:b", b"{}")
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_one_that_lives_is_waited_for() -> None:
    assert called(looks=3, lives=3) == {}


def test_one_that_lives_no_more_is_not() -> None:
    with pytest.raises(Silent, match=r"^The hub at http://127\.0\.0\.1:\d+/prefix does not answer\.$"):
        called(looks=3, lives=1)


def test_weakened_it_would_be(monkeypatch: pytest.MonkeyPatch, mute: str) -> None:
    waits: list[None] = []

    def look(_: Connection) -> None:
        waits.append(None)
        if len(waits) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "_look", look)
    with pytest.raises(KeyboardInterrupt):
        Connection(mute, None).ask("POST", "/api/commands/a:b", b"{}")


@pytest.mark.parametrize("words", [["hub:ping", "{}"], ["hub:ping", "a=1"], []])
def test_a_call_says_so(words: list[str], mute: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", *words, "--url", mute]) == 3
    out, err = capsys.readouterr()
    unknown = "; whether hub:ping has run is not known" if "{}" in words else ""
    assert (out, err) == ("", f"hub: The hub at {mute} does not answer{unknown}.\n")


def test_a_call_with_a_key_says_who_knows(mute: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "hub:ping", "{}", "--key", "k", "--url", mute]) == 3
    said = "does not answer; whether hub:ping has run the same call with the same --key says."
    assert capsys.readouterr().err == f"hub: The hub at {mute} {said}\n"


def test_a_question_says_how_to_come_back(mute: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", "Go?", "--option", "yes", "--timeout", "600", "--key", "k"]
    assert main([*words, "--url", mute]) == 3
    back = f"Come back for its answer with hub ask 'Go?' --option yes --timeout 600 --key k --url {mute}"
    said = f"The hub at {mute} does not answer. It is not known whether the question is open. {back}"
    assert capsys.readouterr().err == f"hub: {said}\n"
