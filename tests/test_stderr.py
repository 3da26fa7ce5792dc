"""The log on stderr: no text from outside forges a line, drives a terminal, or leaves a secret there."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st
from running import PATIENCE, environment, hub_process, send_signal
from values import HOSTILE

from hub import stderr
from hub.config import Config
from hub.stderr import JSONLines, TextLines, Unhurried

FORGED = "x\n2026-01-01 00:00:00,000 INFO all is well\nTraceback (most recent call last):\n2026 INFO again"
SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [ -~]*", re.ASCII)

EDGES = {
    "text": (TextLines, lambda line: bool(RECORD.fullmatch(line) or re.fullmatch(r"  [ -~]*", line, re.ASCII))),
    "json": (JSONLines, lambda line: set(json.loads(line)) >= {"timestamp", "level", "logger", "message"}),
}


def logged(formatter: logging.Formatter, message: str, error: Exception | None = None) -> str:
    """What stands on stderr behind one call of the log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("hub")
    logger.addHandler(handler)
    logger.error("a listener of %s failed", message, exc_info=error)
    return stream.getvalue()


def raised(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


@pytest.mark.parametrize("kind", EDGES)
@given(st.text() | st.sampled_from([FORGED, HOSTILE]), st.text() | st.sampled_from([FORGED, HOSTILE]))
def test_one_call_is_one_record(kind: str, message: str, text: str) -> None:
    formatter, is_line = EDGES[kind]
    for error in (None, raised(text)):
        first, *more = logged(formatter(), message, error).removesuffix("\n").split("\n")
        assert all(map(is_line, [first, *more]))
        assert [line for line in more if kind == "json" or RECORD.fullmatch(line)] == []


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("error", [None, raised(FORGED + HOSTILE)], ids=["message", "exception"])
def test_a_forged_line_is_none(weakened: bool, error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(stderr, "escaped", lambda text: text)
    text = logged(TextLines(), "x" if error else FORGED + HOSTILE, error)
    assert ("\x1b" in text) is weakened
    # Of an exception the indentation alone keeps the lines apart; that holds in the weakened build, too.
    forged = [line for line in text.split("\n")[1:] if RECORD.fullmatch(line)]
    assert bool(forged) is (weakened and error is None)


@pytest.mark.parametrize("kind", EDGES)
def test_a_sentence_that_is_quoted_has_no_full_stop_in_the_middle(kind: str) -> None:
    assert "The disk is full; it is tried" in logged(EDGES[kind][0](), "The disk is full.; it is tried again.")


def test_each_line_of_a_worker_names_it() -> None:
    assert " ERROR worker 3: a listener of x failed\n" in logged(TextLines(3), "x")
    assert json.loads(logged(JSONLines(3), "x"))["worker"] == 3
    assert "worker" not in logged(TextLines(), "x") + logged(JSONLines(), "x")


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("formatter", [TextLines, JSONLines])
def test_a_secret_is_not_logged(
    formatter: Callable[[], logging.Formatter], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(stderr, "redact_text", lambda text: text)
    text = logged(formatter(), SECRET) + logged(formatter(), "x", raised(f"cannot log in with {SECRET}"))
    assert text.count(SECRET) == 2 * weakened


WEAK = "import hub.stderr; hub.stderr.escaped = lambda text: text; from fails import setup"
FAILS = """
def setup(hub):
    @hub.command("test:fail")
    async def fail(call):
        raise ValueError(call.args["text"])
"""


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("kind", EDGES)
async def test_what_a_client_sends_cannot_forge_the_log_of_a_hub(tmp_path: Path, kind: str, weakened: bool) -> None:
    """Through a handler that puts it into an exception, which the hub logs."""
    (tmp_path / "fails.py").write_text(FAILS)
    (tmp_path / "weak.py").write_text(WEAK)
    async with hub_process(tmp_path, "--load", "weak" if weakened else "fails", "--log-format", kind) as hub:
        body = {"text": FORGED + HOSTILE}
        async with hub.http.post(f"{hub.url}api/commands/test:fail", json=body) as answer:
            assert answer.status == 500
    is_line: Callable[[str], Any] = EDGES[kind][1]
    lines = hub.log.removesuffix("\n").split("\n")
    assert "all is well" in hub.log
    assert all(map(is_line, lines)) is not (weakened and kind == "text")


def test_the_level_is_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    root, level = logging.getLogger(), logging.getLogger().level
    before = list(root.handlers)
    try:
        stderr.set_up_logging(Config(log_level="warning", log_format="json"))
        root.info("not this")
        root.warning("this")
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(capsys.readouterr().err)["message"] == "this"


# ---- who should read it, and does not


LOUD = """
import logging, sys
def setup(hub):
    @hub.command("test:say", effect="read")
    async def say(call):
        for number in range(3000):
            logging.getLogger("x").error("line %d %s", number, "x" * 200)
            print("warned", file=sys.stderr, flush=True)
"""
WAITING = "import hub.stderr, sys, loud; hub.stderr.Unhurried.write = lambda self, text: sys.__stderr__.write(text)"


@pytest.mark.parametrize("weakened", [False, True])
async def test_a_pipe_that_nobody_reads_keeps_the_hub_from_nothing(tmp_path: Path, weakened: bool) -> None:
    """It answers, it says that it has dropped lines, and it stops when it is told to."""
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "waiting.py").write_text(f"{WAITING}\nfrom loud import setup")
    command = ["-m", "hub", "--port", "0", "--state-dir", str(tmp_path / "state")]
    command += ["--load", "waiting" if weakened else "loud"]
    unread, stderr = os.pipe()
    hub = await asyncio.create_subprocess_exec(
        *(sys.executable, *command), cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=stderr
    )
    assert hub.stdout
    url = (await hub.stdout.readline()).decode().split()[-1]
    try:
        async with ClientSession() as http:
            asking = asyncio.create_task(ask(http, url))
            if weakened:
                assert not (await asyncio.wait({asking}, timeout=1.0))[0]
                os.set_blocking(unread, False)
                asyncio.get_running_loop().add_reader(unread, os.read, unread, 65536)
                await asyncio.wait_for(asking, PATIENCE)
                return
            assert await asyncio.wait_for(asking, PATIENCE) > 0
        send_signal(hub, signal.SIGTERM)
        assert await asyncio.wait_for(hub.wait(), PATIENCE) == 0
    finally:
        send_signal(hub, signal.SIGKILL)
        await hub.communicate()
        asyncio.get_running_loop().remove_reader(unread)
        os.close(unread)
        os.close(stderr)


async def ask(http: ClientSession, url: str) -> float:
    """Have the hub write more than anybody holds; how much of it was dropped."""
    async with http.post(f"{url}api/commands/test:say", json={}) as answer:
        assert answer.status == 200
    async with http.get(f"{url}metrics") as answer:
        return float(re.search(r"^hub_log_dropped_total (\S+)", await answer.text(), re.M)[1])  # type: ignore[index]


@contextlib.contextmanager
def outlet(descriptor: int, most: int = 100) -> Iterator[Unhurried]:
    """One that is gone at the end, its thread and its descriptor too."""
    before = threading.enumerate()
    with open(descriptor, "w", encoding="ascii", errors="backslashreplace", closefd=False) as given:
        stream = Unhurried(given, most)
        (thread,) = set(threading.enumerate()) - set(before)
        yield stream
        stream.end()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(stream._descriptor)


def test_what_is_written_is_written_in_order() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with outlet(write, 10**6) as stream:
        assert (stream.fileno(), stream.isatty(), stream.writable()) == (write, False, True)
        stream.write("")
        for number in range(20_000):
            stream.write(f"{number} é\n")
        with open(read, encoding="ascii", closefd=False) as reader:
            assert [reader.readline() for _ in range(20_000)] == [f"{number} \\xe9\n" for number in range(20_000)]
        stream.drain(PATIENCE)
        assert stream.dropped == 0
    os.close(read)
    os.close(write)


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    return read, write


def test_what_has_no_room_is_dropped_and_counted() -> None:
    read, write = full_pipe()
    with outlet(write) as stream:
        for _ in range(25):
            stream.write("0123456789")
        stream.drain(0.0)
        assert stream.dropped == 15
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), read)  # nobody can read it any more
        stream.drain(PATIENCE)
        assert stream.dropped == 25
    os.close(read)
    os.close(write)


def test_one_that_is_held_up_writes_nothing_elsewhere_when_its_number_is_given_away() -> None:
    read, write = full_pipe()
    other, end = os.pipe()
    with outlet(write) as stream:
        stream.write("held up")
        stream.write("and this waits")
        os.dup2(end, write)  # what a close, and an open of somebody else, leave
        stream.end()
        os.close(read)
    assert stream.dropped == 2
    os.set_blocking(other, False)
    with pytest.raises(BlockingIOError):
        os.read(other, 100)
    for descriptor in (write, other, end):
        os.close(descriptor)


def test_a_full_disk_is_no_failure() -> None:
    with open("/dev/full", "w") as full, outlet(full.fileno()) as stream:
        stream.write("x")
        stream.drain(PATIENCE)
        assert stream.dropped == 1


def test_the_last_words_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(write, "w") as end:
        monkeypatch.setattr(sys, "stderr", end)
        with stderr.unhurried():
            print("last words", file=sys.stderr, flush=True)
            assert stderr.dropped() == 0
            kept = sys.stderr
        assert sys.stderr is end
        assert os.read(read, 100) == b"last words\n"
        kept.write("a logger may still have it, and its descriptor may be somebody else's")
        assert isinstance(kept, Unhurried)
        assert kept.dropped == 1
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            os.read(read, 100)
        assert stderr.dropped() == 0
    os.close(read)
