"""Stdin, stdout and stderr closed, full, read by nobody, in another encoding: what was done is done, and said once."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from running import environment, run_hub, send_signal, until
from shells import MAIN, by_shell, silent

from hub import stdio

CLOSED = ("<&-", ">&-", "2>&-")
COMBINATIONS = [" ".join(closed) for n in range(4) for closed in itertools.combinations(CLOSED, n)]
FULL = ["1>/dev/full", "1>/dev/full 2>&-", "1>/dev/full <&-"]
NOT_PREPARED = "from hub import stdio;stdio.prepare=lambda: None;"
NO_UVLOOP = "import sys;sys.modules['uvloop']=None;"
# Each of many command lines in a child of its own, so that the imports are made once, with the streams as they are.
IMPORTED = """
import gc, importlib, json, os, pkgutil, sys
from hub import cli, client
from hub.cli.main import main

for package in (cli, client):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name != "hub.client.tools":  # brings an SDK along, for `hub mcp` alone
            importlib.import_module(module.name)
gc.freeze()
"""
# What one prints is in files, except for a stream that is closed or full; nothing else is opened before. It ends as
# `hub.cli.main.script` does, without taking apart all that was imported.
EACH = """
import fcntl
from hub import stdio

def into_file(descriptor, path):
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") == "/dev/full":
            return
    except OSError:
        return
    low = os.open(path, os.O_CREAT | os.O_WRONLY)
    high = fcntl.fcntl(low, fcntl.F_DUPFD, 10)
    os.close(low)
    os.dup2(high, descriptor)
    os.close(high)

for number, words in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        into_file(1, f"{number}.out")
        into_file(2, f"{number}.err")
        status = main(words)
        stdio.finish()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(f"{number}.status", "w") as file:
        print(status, file=file)
"""


def ran(cwd: Path, redirected: str, *words: str, before: str = "") -> tuple[int, str, str]:
    """The exit status of a command line, and what came on stdout and stderr."""
    command = by_shell(redirected, before + MAIN, *words)
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


# ---- what clients do


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The state directory of a running hub that has a token."""
    folder = tmp_path_factory.mktemp("hub")
    command = [sys.executable, "-m", "hub", "--port", "0", "--auth", "token", "--state-dir", str(folder / "state")]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield str(folder / "state")
        process.terminate()


def commands(state: str, nobody: int, silent: int) -> dict[Sequence[str], int]:
    """Every command of a client, done, refused, cut off and without a hub; with the exit status that it has to have."""
    here, there = ("--state-dir", state), ("--url", f"http://127.0.0.1:{nobody}")
    mute = ("--url", f"http://127.0.0.1:{silent}")
    return {
        ("publish", "a:b", "2", *here): 0,
        ("publish", "oneword", *here): 1,
        ("publish", "a:b", "{", *here): 2,
        ("publish", "a:b", *there): 3,
        ("publish", "a:b", "1", *mute): 3,
        ("call", "hub:ping", *here): 0,
        ("call", "no:such", *here): 1,
        ("call", "hub:ping", *there): 3,
        ("call", "hub:ping", *mute): 3,
        ("tail", "--after", "nonsense", *here): 1,
        ("tail", *there): 3,
        ("tail", *mute): 3,
        ("audit", "tail", *here): 0,
        ("audit", "tail", *there): 3,
        ("status", *here): 0,
        ("status", *there): 3,
        ("status", *mute): 3,
        ("audit", "verify", *here): 0,
        ("token", *here): 0,
        ("token", "--link", *here): 0,
        ("token", "--link", *there): 3,
        ("--help",): 0,
        ("--version",): 0,
        ("nonsense",): 2,
    }


@pytest.mark.parametrize("redirected", [*COMBINATIONS, *FULL])
def test_closed_and_full_streams_change_nothing_of_what_is_done(redirected: str, state: str, tmp_path: Path) -> None:
    with socket.socket() as bound, silent() as port:
        bound.bind(("127.0.0.1", 0))
        wanted = commands(state, bound.getsockname()[1], port)
        subprocess.run(
            by_shell(redirected, IMPORTED + EACH, json.dumps(list(wanted))), cwd=tmp_path, env=environment(), check=True
        )
    for number, (words, status) in enumerate(wanted.items()):
        where = f"{' '.join(words)} {redirected}"
        said, out, err = (printed(tmp_path / f"{number}.{name}") for name in ("status", "out", "err"))
        assert int(said) == status, f"{where}: {err}"
        assert bool(out) is (status == 0 and ">&-" not in redirected.split() and "full" not in redirected), where
        is_told = status > 0 or "full" in redirected
        assert err.count("\n") == (is_told and "2>&-" not in redirected), f"{where}: {err}"
        assert not is_told or err == "" or err.startswith("hub: "), where
    assert ran(tmp_path, redirected, "status", "--state-dir", state)[0] == 0, "with the end of an interpreter"


def printed(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_weakened_the_sentence_would_be_in_the_output(tmp_path: Path) -> None:
    """`X=$(hub publish … 2>&-)`: Python takes a stderr that is not there for stdout."""
    assert "not JSON" in ran(tmp_path, "2>&-", "publish", "a:b", "{", before=NOT_PREPARED)[1]


def test_a_full_stderr_says_nothing_and_breaks_nothing(state: str, tmp_path: Path) -> None:
    assert ran(tmp_path, "2>/dev/full", "publish", "oneword", "--state-dir", state) == (1, "", "")
    assert ran(tmp_path, "1>/dev/full 2>&1", "publish", "a:b", "1", "--state-dir", state) == (0, "", "")


def test_a_tail_ends_when_it_cannot_write(state: str, tmp_path: Path) -> None:
    """Writing is all that it does, so it says 1."""
    status, out, err = ran(tmp_path, ">/dev/full", "tail", "--after", "nobody:1", "--state-dir", state)
    assert (status, out, err) == (1, "", "hub: The output could not be written (No space left on device).\n")


def test_an_odd_stdin_is_one_sentence(state: str, tmp_path: Path) -> None:
    words = ("publish", "a:b", "-", "--state-dir", state)
    assert ran(tmp_path, "<&-", *words) == (2, "", "hub: There is nothing on stdin to publish.\n")
    assert ran(tmp_path, "0>odd", *words) == (2, "", "hub: Stdin cannot be read (Bad file descriptor).\n")


# ---- a hub


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("running.PATIENCE", 55.0)


# Two hubs in children of its own, one of them without uvloop.
HUBS = """
from hub.web import program

children = {}
for number, folder in enumerate(sys.argv[1:]):
    if not (child := os.fork()):
        if number:
            sys.modules["uvloop"] = None
        sys.exit(main(["serve", "--port", "0", "--state-dir", folder]))
    children[child] = number
for _ in list(children):
    child, status = os.wait()
    if os.waitstatus_to_exitcode(status):
        os._exit(2 + children[child])
"""


@pytest.mark.usefixtures("_patience")
@pytest.mark.parametrize("closed", COMBINATIONS)
async def test_a_hub_with_closed_streams_runs_and_ends_as_any(closed: str, tmp_path: Path) -> None:
    folders = [tmp_path / "with", tmp_path / "without"]
    command, pipe = by_shell(closed, IMPORTED + HUBS, *map(str, folders)), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        for folder in folders:
            await until((folder / "server.json").exists, "that it listens")
            pid = json.loads((folder / "server.json").read_text())["pid"]
            for descriptor, name in enumerate(CLOSED):
                leads = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                assert leads == os.devnull if name in closed.split() else not leads.startswith("socket:")
            os.kill(pid, signal.SIGTERM)
        out, err = await process.communicate()
        assert (process.returncode, b"Traceback" in err) == (0, False)
        assert out.count(b"hub is listening") == (0 if ">&-" in closed.split() else 2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.parametrize("before", ["", NO_UVLOOP], ids=["", "without uvloop"])
async def test_weakened_a_hub_would_open_something_as_stdin_or_die_of_it(before: str, tmp_path: Path) -> None:
    words = ("serve", "--port", "0", "--state-dir", str(tmp_path / "state"))
    command = by_shell("<&-", NOT_PREPARED + before + MAIN, *words)
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE, env=environment())

    def is_taken() -> bool:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{process.pid}/fd/0").startswith(("anon_inode:", "socket:", "pipe:"))
        return False

    try:
        await until(lambda: process.returncode is not None or is_taken(), "that it goes wrong")
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()


async def test_a_hub_does_not_wait_for_a_stdout_that_nobody_reads(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    words = ("-m", "hub", "--port", "0", "--state-dir", str(tmp_path / "state"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=tmp_path, env=environment(), stdout=writer
    )
    try:
        await until((tmp_path / "state" / "server.json").exists, "that it listens")
        assert (await run_hub(tmp_path, "call", "hub:ping", "--state-dir", str(tmp_path / "state")))[0] == 0
        send_signal(process, signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()
        os.close(reader)
        os.close(writer)


# ---- encodings and words


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8", "utf-8-sig", "utf-16", "koi8-r"])
def test_json_is_json_in_every_encoding(
    encoding: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'é € 😀 \x9f \u2028 "'
    assert ran(tmp_path, "", "publish", "a:text", json.dumps(text), "--id", "text", "--state-dir", state)[0] == 0
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    words = ("tail", "a:text", "--after", "nobody:1", "--count", "1", "--json", "--state-dir", state)
    done = subprocess.run(by_shell("", MAIN, *words), cwd=tmp_path, env=environment(), capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [line["payload"]["data"] for line in lines if "cursor" in line] == [text]


def test_what_has_no_place_in_an_encoding_is_escaped_as_json_does() -> None:
    assert "aé€😀".encode("ascii", stdio.JSON_ESCAPES) == b"a\\u00e9\\u20ac\\ud83d\\ude00"
    assert "\ud800".encode("utf-8", stdio.JSON_ESCAPES) == b"\\ud800"


async def test_words_that_are_no_utf8_are_usage(tmp_path: Path) -> None:
    for words in (["publish", "a:\udcff"], ["call", "a:b", "x=\udcff"], ["\udcff"], ["--state-dir", "\udcff"]):
        status, out, err = await run_hub(tmp_path, *words)
        assert (status, out) == (2, "")
        assert err == f"hub: Word {len(words) + (words[0][0] == '-')} of the command line is not UTF-8.\n"
