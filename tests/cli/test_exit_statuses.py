"""The exit status says what was done, whatever becomes of the output: the rows of the third table in the README."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from running import environment
from shells import MAIN, by_shell, silent

TORN = "hub: The output could not be written (No space left on device).\n"


class Row(NamedTuple):
    """What was asked for: the words, stdin, the exit status, whether stdout has anything, and what stderr says, in how
    many sentences."""

    words: tuple[str, ...]
    stdin: bytes
    status: int
    prints: bool
    says: str
    sentences: int = 1


ROWS = {
    "call: done": Row(("call", "hub:ping"), b"", 0, True, ""),
    "call: refused": Row(("call", "hub:history", "limit=0"), b"", 1, False, "The args of hub:history do not fit"),
    "call: not known": Row(("call", "hub:ping", "{}"), b"", 3, False, "; whether hub:ping has run is not known."),
    "call: no hub": Row(("call", "hub:ping"), b"", 3, False, "No hub answers at "),
    "publish: done": Row(("publish", "a:b", "1"), b"", 0, True, ""),
    "publish: refused": Row(("publish", "hub:x", "1"), b"", 1, False, "hub:"),
    "publish: some lines refused": Row(
        ("publish", "task:progress", "-"), b'{"id":"a"}\n' * 1500 + b"5\n", 1, True, "Line 1501: ", 2
    ),
    "publish: some lines no JSON": Row(("publish", "a:b", "-"), b"1\nx\n2\n", 1, True, "in line 2.", 2),
    "publish: nothing": Row(("publish", "a:b"), b"", 2, False, "There is nothing on stdin to publish."),
    "publish: not known": Row(("publish", "a:b", "1"), b"", 3, False, "It may have published the event all the same."),
    "publish: no hub": Row(("publish", "a:b", "1"), b"", 3, False, "No hub answers at "),
}
STDOUTS = {"fine": "", "closed": ">&-", "full": ">/dev/full", "unread": ""}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running hub."""
    state = tmp_path_factory.mktemp("hub")
    command = [sys.executable, "-m", "hub", "--port", "0", "--state-dir", str(state)]
    with subprocess.Popen(command, cwd=state, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().split()[-1]
        process.terminate()


@pytest.fixture
def address(what: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the row finds its hub: one that runs, one that takes what it is asked and goes away, or none."""
    if what.endswith("not known"):
        with silent() as port:
            yield f"http://127.0.0.1:{port}"
    elif what.endswith("no hub"):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    else:
        yield request.getfixturevalue("running")


@pytest.mark.parametrize("stdout", STDOUTS)
@pytest.mark.parametrize("what", ROWS)
def test_the_exit_status_says_what_was_done(what: str, stdout: str, address: str, tmp_path: Path) -> None:
    row, pipe = ROWS[what], subprocess.PIPE
    reader, writer = os.pipe()
    if stdout == "unread":
        os.close(reader)
    command = by_shell(STDOUTS[stdout], MAIN, *row.words, "--url", address)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), input=row.stdin, stdout=writer, stderr=pipe, check=False
    )
    os.close(writer)
    assert done.returncode == row.status
    err = done.stderr.decode()
    is_torn = stdout == "full" and row.prints
    assert err.count("\n") == bool(row.says) * row.sentences + is_torn
    assert row.says in err
    assert (TORN in err) is is_torn
    if stdout != "unread":
        with open(reader, "rb") as file:
            out = file.read()
        assert out.count(b"\n") == (row.prints and stdout == "fine")
        assert (
            stdout != "fine" or not row.prints or json.loads(out if row.words[0] == "call" else b'"%b"' % out.strip())
        )
