"""The last line of what a program says, and how often it is told."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from hub.cli import relays
from hub.cli.http import Silent
from hub.cli.relays import KEPT, SHOWN, STDERR, STDOUT, Relays
from hub.cli.reports import AT_THE_END, IN_VAIN, PAUSE, Reports
from hub.client.discovery import Disconnected, NoHub, Refusal

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
PEM = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 4


def line_of(*chunks: str | bytes) -> str | None:
    found = Relays()
    found._look = lambda: None
    for chunk in chunks:
        found._take(STDOUT, chunk if isinstance(chunk, bytes) else chunk.encode())
    return found.last_line()


@pytest.mark.parametrize(
    ("chunks", "line"),
    [
        ([""], None),
        (["\n\n"], None),
        (["one\ntwo\n"], "two"),
        (["one\ntw", "o"], "two"),
        (["two\n\n  \n"], "two"),
        (["10 %\r50 %\r"], "50 %"),
        (["\x1b[1;32mok\x1b[0m\x1b]0;title\x07 \x07done\n"], "ok  done"),
        ([b"caf\xc3", b"\xa9 \xff"], "café \N{REPLACEMENT CHARACTER}"),
        (["x" * 2000], "x" * SHOWN),
        (["one\n", "x" * KEPT], "…"),
        (["x" * KEPT, "\ntwo"], "two"),
    ],
)
def test_the_last_line(chunks: list[str | bytes], line: str | None) -> None:
    assert line_of(*chunks) == line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ([(0, STDOUT, "compiling"), (0.001, STDERR, "make: *** Error 1")], "make: *** Error 1"),
        ([(0, STDERR, "make: *** Error 1"), (0.001, STDOUT, "compiling")], "make: *** Error 1"),
        ([(0, STDERR, "a warning"), (5, STDOUT, "1 failed")], "1 failed"),
        ([(0, STDOUT, "1 failed"), (5, STDERR, "a warning")], "a warning"),
        ([(0, STDOUT, "one"), (0, STDERR, "\n")], "one"),
        ([(0, STDERR, "two")], "two"),
        ([], None),
    ],
)
def test_of_two_streams_the_last_one_counts_and_of_two_at_once_stderr(
    said: list[tuple[float, int, str]], line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread of its own: what came together comes in any order."""
    found = Relays()
    found._look = lambda: None
    for at, descriptor, text in said:
        monkeypatch.setattr(time, "monotonic", lambda at=at: 1000.0 + at)
        found._take(descriptor, f"{text}\n".encode())
    assert found.last_line() == line


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        f"token {SECRET}\n",
        f"\x1b[1m{SECRET[:20]}\x1b[0m{SECRET[20:]}\n",
        "y" * (SHOWN - 20) + f" {SECRET}",
        PEM,
        f"Authorization: Bearer {SECRET}" + " x" * KEPT,
    ],
)
def test_no_secret_is_in_it(text: str, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(relays, "redact_text", lambda text: text)
    line = line_of(text) or ""
    assert any(part in line for part in (SECRET[:12], "MIIE")) is (weakened and line != "…")


class FakeHub:
    """Takes reports, or raises what it is told to."""

    def __init__(self, *raised: Exception) -> None:
        self.raised, self.asked, self.taken = list(raised), list[float](), list[Any]()

    def __enter__(self) -> "FakeHub":
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def ask(self, method: str, path: str, body: bytes, *, headers: Mapping[str, str]) -> None:
        self.asked.append(time.monotonic())
        if self.raised:
            raise self.raised.pop(0)
        self.taken.append(body)


def reports(hub: FakeHub, message: Any = lambda: None) -> Reports:
    return Reports(lambda: hub, {"id": "run:x"}, None, message)  # type: ignore[arg-type,return-value]


def test_it_is_told_four_times_a_second_at_most() -> None:
    hub, count = FakeHub(), iter(range(10**9))
    told = reports(hub, lambda: str(next(count)))
    told.start()
    while len(hub.asked) < 5:
        told.look()
    told.end(None)
    assert min(later - sooner for sooner, later in zip(hub.asked[:4], hub.asked[1:5], strict=True)) > PAUSE * 0.9


def test_what_has_not_changed_is_not_told_again() -> None:
    hub, looked = FakeHub(), threading.Semaphore(0)

    def message() -> str:
        looked.release()
        return "same"

    told = reports(hub, message)
    told.start()
    for _ in range(3):
        looked.acquire()
        told.look()
    told.end(None)
    assert len(hub.taken) == 2


RETRYABLE = Refusal({"code": "broker_unavailable", "error": "The disk is full.", "retryable": True}, 503)
FINAL = Refusal({"code": "forbidden", "error": "No.", "retryable": False}, 403)


@pytest.mark.parametrize("raised", [Disconnected("cut"), RETRYABLE, NoHub("gone"), RuntimeError("a bug")])
def test_the_end_is_told_again_to_a_hub_that_was_there(raised: Exception) -> None:
    hub = FakeHub()
    told = reports(hub)
    told.start()
    while not hub.taken:
        time.sleep(0.001)
    hub.raised = [raised, raised]
    told.end("exit status 1")
    assert (len(hub.asked), len(hub.taken)) == (4, 2)
    assert len({body.partition(b'"id": ')[2][:38] for body in hub.taken}) == 2


def test_no_hub_is_asked_once_at_the_end() -> None:
    hub = FakeHub(*[NoHub("none")] * 100)
    told = reports(hub)
    told.start()
    while not hub.asked:
        time.sleep(0.001)
    told.end(None)
    assert len(hub.asked) == 2


def test_a_hub_that_says_no_is_not_asked_again() -> None:
    hub = FakeHub(FINAL, FINAL)
    told = reports(hub)
    told.start()
    while not hub.asked:
        time.sleep(0.001)
    told.end(None)
    assert len(hub.asked) == 2


def test_one_that_is_silent_is_not_waited_for() -> None:
    stuck = threading.Event()

    class Silent(FakeHub):
        def ask(self, method: str, path: str, body: bytes, *, headers: Mapping[str, str]) -> None:
            stuck.wait()

    told = reports(Silent())
    told.start()
    told.end(None)  # comes back
    stuck.set()


def test_one_that_was_never_there_gets_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    for hub in (FakeHub(), FakeHub(NoHub("none")), FakeHub(Silent("nothing for 2 s"))):
        told = reports(hub)
        told.start()
        while not (told.was_told or told._is_away):
            time.sleep(0.001)
        monkeypatch.setattr(told._thread, "join", waited.append)
        told.end(None)
    assert waited == [AT_THE_END, IN_VAIN, IN_VAIN]
