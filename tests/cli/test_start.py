"""What agents and scripts start again and again: what it does not import, and that it loses nothing where it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

HEAVY = """aiohttp marshmallow prometheus_client jinja2 jsonschema orjson asyncio http.client email ssl inspect shutil
    difflib secrets random uuid dataclasses logging pathlib threading weakref ipaddress urllib.parse encodings.idna"""
# The interpreter and pytest's subprocesses bring their own (.pth files, a sitecustomize): those are not ours.
PROGRAM = """
import sys
own = set(sys.modules)
from hub.cli.main import main
status = main(sys.argv[1:])
print(status, *set(sys.modules) - own)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of a running hub."""
    folder = tmp_path_factory.mktemp("hub")
    command = [sys.executable, "-m", "hub", "--state-dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "http" in process.stdout.readline()
        yield folder
        process.terminate()


@pytest.mark.parametrize(
    "command", [["publish", "a:b"], ["publish", "a:b", "n:=1", "x=y"], ["hook", "claude-code", '{"session_id": "s"}']]
)
def test_what_runs_often_does_not_wait_for_what_it_does_not_need(state: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        env={**os.environ, "HUB_STATE_DIR": str(state)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    status, *modules = done.stdout.splitlines()[-1].split()
    assert (status, done.stderr) == ("0", "")
    assert {"hub.cli.exchange", "socket"} <= set(modules)  # it has asked
    assert not set(HEAVY.split()) & set(modules)


# What others want done at the end of this process, in a program that has imported the hub.
OTHERS = """
import atexit, sys, threading
from hub.cli import main
{weakened}
def late():
    threading.main_thread().join()
    print("the thread was waited for")
if {thread}:
    threading.Thread(target=late).start()
atexit.register(print, "called at the end")
sys.argv[1:] = ["publish", "--help"]
main.script()
"""
LOST = {
    "main.stdio.finish = lambda: None": "usage: hub publish",
    "main.atexit._run_exitfuncs = lambda: None": "called at the end",
    "main._has_threads = lambda: False": "the thread was waited for",
}


def ended(*, thread: bool, weakened: str = "") -> str:
    """What such a process has printed into a pipe."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    program = OTHERS.format(thread=thread, weakened=weakened)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ
    ).stdout


def test_nothing_is_lost_where_the_process_ends() -> None:
    of_a_thread = "the thread was waited for"
    assert [text for text in LOST.values() if text not in ended(thread=True)] == []
    assert [text for text in LOST.values() if text not in ended(thread=False)] == [of_a_thread]


@pytest.mark.parametrize("weakened", LOST)
def test_weakened_something_would_be_lost(weakened: str) -> None:
    lost = LOST[weakened]
    assert lost not in ended(thread=lost.startswith("the thread"), weakened=weakened)
