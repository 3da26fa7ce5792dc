"""An account that has no home, and no entry among the accounts: what is named works, else it is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment
from strangers import needs_root

NOBODY = 4_000_000  # no account has this number
# What it may not read itself it has read before: the interpreter may be in a home that is closed to it.
MAIN = f"""
import contextlib, encodings.ascii, encodings.idna, importlib, os, pkgutil, sys
import hub.cli.main
for module in pkgutil.walk_packages(hub.__path__, "hub."):
    if module.name != "hub.__main__":
        importlib.import_module(module.name)
with contextlib.suppress(ImportError):
    import uvloop
sys.meta_path.clear()
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
del os.environ["HUB_STATE_DIR"]
for name in ("HOME", "XDG_STATE_HOME"):
    os.environ.pop(name, None)
sys.exit(hub.cli.main.main(sys.argv[1:]))
"""


ASKING = (["publish", "a:b", "1"], ["call", "hub:ping"], ["audit", "tail"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which that account has one of its own. It gets there as the current one: those above are closed."""
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", MAIN, *words]


@needs_root
@pytest.mark.parametrize("words", [["publish", "a:b", "1"], ["call", "hub:ping"], ["tail"], ["audit", "tail"]])
def test_without_a_home_nothing_can_be_found(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(command(*words), cwd="/", env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "hub: No hub can be found: This account has no home for the hub's files; name a folder with --state-dir.\n"
    )


@needs_root
@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["token"], ["token", "--new"], ["audit", "verify"]])
def test_without_a_home_a_folder_must_be_named(words: list[str]) -> None:
    done = subprocess.run(command(*words), cwd="/", env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hub: This account has no home for the hub's files; name a folder with --state-dir.\n"


@needs_root
def test_what_is_named_needs_no_home(folder: Path) -> None:
    serve = command("serve", "--port", "0", "--ephemeral", "--state-dir", "state")  # SQLite wants the whole path
    pipe, env = subprocess.PIPE, environment()
    with subprocess.Popen(serve, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True) as hub:
        try:
            assert hub.stdout
            url = hub.stdout.readline().split()[-1]
            told = [["--state-dir", "state"], ["--url", url]]
            commands = [[*words, *where] for where in told for words in ASKING]
            asked = [
                subprocess.run(command(*words), cwd=folder, env=env, capture_output=True, text=True, check=False)
                for words in commands
            ]
        finally:
            hub.terminate()
        assert (hub.wait(), "Traceback" in hub.communicate()[1]) == (0, False)
    assert [(done.returncode, done.stderr) for done in asked] == [(0, "")] * 6
    assert all(done.stdout for done in asked)
