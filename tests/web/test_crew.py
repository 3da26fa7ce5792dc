"""The process that starts workers: what it says of where they are found."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment

CREW = """
import os, resource, signal, sys, time
from pathlib import Path

from hub.config import Config
from hub.errors import UsageError
from hub.web import crew, serverfile
from hub.web.crew import Crew

found = Path(sys.argv[1]) / "server.json"
crew.RETRY = 0.01

def serve(config, seat):
    {first}
    print(found.exists(), flush=True)
    seat.tell(b"+")
    {then}
    os.kill(os.getppid(), signal.SIGTERM)
    signal.pause()

{weakened}
workers = Crew(Config(state_dir=found.parent), 1, "http://127.0.0.1:1/", serve)
{before}
sys.exit(workers.run())
"""
BY_THEIR_START = """
write = Crew._write_due
Crew._write_due = lambda self: write(self) if self._started else None
"""
ANOTHERS = "found.write_text('another')"
REMOVES_ANOTHERS = "serverfile.ServerFile.withdraw = lambda self: found.unlink()"
NO_ROOM = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"
ROOM = """resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2)
    while not found.exists():
        time.sleep(0.005)
    print(found.read_text(), flush=True)"""


def run(
    folder: Path, *, first: str = "", then: str = "", weakened: str = "", before: str = "", err: str = ""
) -> list[str]:
    """What one worker has printed until it has its parent stop, first whether the file is there before it listens."""
    script = CREW.format(first=first, then=then, weakened=weakened, before=before)
    command = [sys.executable, "-W", "error", "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=30)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert err in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("weakened", [False, True])
def test_it_says_where_they_are_before_anybody_is_let_in(weakened: bool, tmp_path: Path) -> None:
    """Who came in between would read the `server.json` of the hub before, and send no token to them."""
    assert run(tmp_path, weakened=BY_THEIR_START if weakened else "")[0] == str(not weakened)
    assert not (tmp_path / "server.json").exists()


@pytest.mark.parametrize("weakened", [False, True])
def test_it_takes_back_its_own_word_only(weakened: bool, tmp_path: Path) -> None:
    run(tmp_path, then=ANOTHERS, weakened=REMOVES_ANOTHERS if weakened else "")
    assert (tmp_path / "server.json").exists() is not weakened


def test_a_full_disk_is_no_reason_not_to_start_workers(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:1/"}')  # of a hub that was killed
    lines = run(tmp_path, then=ROOM, before=NO_ROOM)
    assert lines[0] == "False"  # nobody is sent to the wrong place
    assert json.loads(next(line for line in lines if line.startswith("{")))["url"] == "http://127.0.0.1:1/"


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os.kill(os.getpid(), 9)", "ended before it listened, with signal 9 (SIGKILL).\n"),
        ("os._exit(3)", "ended before it listened, with exit status 3; the log says why.\n"),
        ("os._exit(0)", "ended before it listened, with exit status 0; the log says why.\n"),
    ],
)
def test_how_one_has_ended_is_told(does: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        run(tmp_path, first=does)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os.kill(os.getpid(), 9)", "worker 1 was ended by signal 9 (SIGKILL); it is started again in 0.1 s\n"),
        (
            "os._exit(3)",
            "worker 1 has ended with exit status 3; it is started again in 0.1 s; its last lines say why",
        ),
    ],
)
def test_how_one_that_listened_has_ended_is_told(does: str, said: str, tmp_path: Path) -> None:
    once = f"if not os.path.exists('once'):\n        open('once', 'w').close()\n        {does}"
    assert run(tmp_path, then=once, before="os.chdir(sys.argv[1])", err=said)


def test_why_one_cannot_start_is_told_however_long_it_is(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"UsageError: It cannot start: ä+\ufffd\n"):
        run(tmp_path, first="raise UsageError('It cannot start: ' + 'ä' * 5000)")
