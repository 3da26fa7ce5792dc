"""The hub as a program: the browser that it opens, the terminal that it was started in."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

import pytest
from logs import everything
from running import environment, hub_process, run_hub, send_signal, until

from hub.web import program

# A browser that comes back when its window is closed. It says which process it is, and what it was given.
BROWSER = """#!/bin/sh
echo "$$ $1" > "$0.opened"
exec sleep 600 < /dev/null > /dev/null 2>&1
"""
OPENS_IN_THE_LOOP = """
def setup(hub):
    import webbrowser
    from hub.web import program
    program._open_browser = webbrowser.open
"""
IN_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started with
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)  # the first that the leader of a session opens is its terminal
for stream in range(3):
    os.dup2(terminal, stream)
os.execv(sys.executable, [sys.executable, "-m", "hub", *sys.argv[2:]])
"""
OUTLIVES = """
import pathlib, signal

def setup(hub):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    known = hub.reload

    async def reload():
        pathlib.Path("read").touch()
        return await known()

    hub.reload = reload
"""
A_SECOND_SIGNAL_IT_IS = """
def setup(hub):
    from hub.web.shutdown import Ending
    Ending._on_hangup = lambda self, number, frame: Ending._on_signal(self, number, frame)
"""
WAITS = """
import asyncio

def setup(hub):
    async def slowly(hub):
        open("stopping", "w").close()
        await asyncio.sleep(0.3)

    hub.on_stop.append(slowly)
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("running.PATIENCE", 20.0)
    for name, text in {
        "opens_in_the_loop": OPENS_IN_THE_LOOP,
        "a_second_signal_it_is": A_SECOND_SIGNAL_IT_IS,
        "outlives": OUTLIVES,
        "waits": WAITS,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)


# ---- --open


@pytest.fixture
async def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """What BROWSER names; its window is closed at the end."""
    program, said = tmp_path / "browser", tmp_path / "browser.opened"
    program.write_text(BROWSER)
    program.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    yield said
    for process in opened(said)[:1]:
        os.kill(int(process), signal.SIGKILL)


def opened(browser: Path) -> list[str]:
    """Its process, and the address that it was given."""
    return browser.read_text().split() if browser.exists() else []


def is_open(browser: Path) -> bool:
    return Path(f"/proc/{opened(browser)[0]}").exists()


async def test_a_browser_that_lives_as_long_as_its_window_holds_up_nothing(tmp_path: Path, browser: Path) -> None:
    async with hub_process(tmp_path, "--open") as hub:
        await until(lambda: opened(browser), "that the browser is opened")
        async with hub.http.get(f"{hub.url}healthz") as answer:
            assert answer.status == 200
        assert opened(browser)[1] == hub.url
        hub.signal()
        assert await hub.ended() == 0
        assert is_open(browser)  # it was not waited for
    assert everything(hub.state_dir)[-1]["action"] == "hub.stopped"
    assert "forced" not in everything(hub.state_dir)[-1]["details"]


async def test_weakened_opened_in_the_loop_nobody_is_answered(tmp_path: Path, browser: Path) -> None:
    status = -signal.SIGKILL
    async with hub_process(tmp_path, "--open", "--load", "opens_in_the_loop", status=status) as hub:
        await until(lambda: opened(browser), "that the browser is opened")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0), hub.http.get(f"{hub.url}healthz"):
                pass
        assert is_open(browser)
        hub.signal(signal.SIGKILL)


async def test_a_browser_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", str(tmp_path / "no-such-browser"))
    async with hub_process(tmp_path, "--open") as hub, hub.http.get(f"{hub.url}healthz") as answer:
        assert answer.status == 200
    assert "Traceback" not in hub.log


# ---- SIGHUP


@asynccontextmanager
async def in_a_terminal(tmp_path: Path, *flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, FileIO]]:
    """A hub that listens, and the other end of its terminal."""
    opened, slave = pty.openpty()
    master = FileIO(opened)
    words = (os.ttyname(slave), "--port", "0", "--state-dir", str(tmp_path / "state"), *flags)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IN_A_TERMINAL, *words, cwd=tmp_path, env=environment()
    )
    try:
        said = b""
        while b"listening" not in said:
            said += await asyncio.to_thread(master.read, 1024) or b""
        os.close(slave)
        yield process, master
    finally:
        master.close()
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def test_a_terminal_that_is_closed_is_a_clean_stop(tmp_path: Path) -> None:
    async with in_a_terminal(tmp_path) as (process, terminal):
        terminal.close()
        assert await process.wait() == 0
    assert everything(tmp_path / "state")[-1]["action"] == "hub.stopped"
    assert not (tmp_path / "state" / "server.json").exists()
    assert (await run_hub(tmp_path, "audit", "verify", str(tmp_path / "state")))[0] == 0


@pytest.mark.parametrize("weakened", [False, True])
async def test_that_it_is_closed_may_be_said_twice(weakened: bool, tmp_path: Path) -> None:
    more = ("--load", "a_second_signal_it_is") if weakened else ()
    async with in_a_terminal(tmp_path, "--load", "waits", *more) as (process, _):
        send_signal(process, signal.SIGHUP)
        await until((tmp_path / "stopping").exists, "that it stops")
        send_signal(process, signal.SIGHUP)
        assert await process.wait() == (128 + signal.SIGHUP if weakened else 0)
    assert (everything(tmp_path / "state")[-1]["action"] == "hub.stopped") is not weakened


async def test_under_nohup_a_hangup_reads_again_and_ends_nothing(tmp_path: Path) -> None:
    async with in_a_terminal(tmp_path, "--load", "outlives") as (process, _):
        send_signal(process, signal.SIGHUP)
        await until(lambda: (tmp_path / "read").exists())
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == 0


@asynccontextmanager
async def lives(tmp_path: Path, *start: str, stdout: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A hub that was started like this; it answers behind what is done to it, and ends as it should."""
    words = ("--port", "0", "--state-dir", str(tmp_path / "state"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *start, *words, cwd=tmp_path, env=environment(), stdout=stdout
    )
    try:
        await until((tmp_path / "state" / "server.json").exists, "that it listens")
        yield process
        status, out, _ = await run_hub(tmp_path, "call", "hub:ping", "--state-dir", str(tmp_path / "state"))
        assert (status, json.loads(out)["pong"]) == (0, True)
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def test_without_a_terminal_a_hangup_means_nothing(tmp_path: Path) -> None:
    start = (
        f"import os, sys; os.setsid(); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'hub', *sys.argv[1:]])"
    )
    async with lives(tmp_path, "-c", start, stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout
        await process.stdout.readline()
        send_signal(process, signal.SIGHUP)


async def test_a_stdout_that_nobody_reads_is_no_reason_to_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with lives(tmp_path, "-m", "hub", stdout=writer):
        os.close(writer)


SWITCHES = """
import pathlib, sys

def setup(hub):
    pathlib.Path("switches").write_text(str(sys.getswitchinterval()))
"""


async def test_a_thread_that_works_gives_way_soon(tmp_path: Path) -> None:
    """As the program; an application that a hub is mounted in has an interval of its own."""
    (tmp_path / "switches.py").write_text(SWITCHES)
    async with hub_process(tmp_path, "--load", "switches"):
        assert float((tmp_path / "switches").read_text()) == pytest.approx(program.SWITCH_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(0.005), "and nothing has changed here"
