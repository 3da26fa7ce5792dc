"""An account that has no home, and no entry among the accounts: what is named works, else it is one sentence."""

import asyncio
import os
from pathlib import Path

import pytest
from forks import PIPE, Forked, fork
from running import environment
from strangers import needs_root

NOBODY = 4_000_000  # no account has this number
# What it may not read itself it has read before: the interpreter may be in a home that is closed to it.
BEFORE = f"""
import os, sys
import encodings.ascii, encodings.idna
sys.meta_path.clear()
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
del os.environ["HUB_STATE_DIR"]
for name in ("HOME", "XDG_STATE_HOME"):
    os.environ.pop(name, None)
"""


async def started(*words: str, cwd: str | Path) -> Forked:
    return await fork(*words, cwd=cwd, env=environment(), stdout=PIPE, stderr=PIPE, before=BEFORE)


async def done(*words: str, cwd: str | Path = "/") -> tuple[int | None, str, str]:
    process = await started(*words, cwd=cwd)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which that account has one of its own. It gets there as the current one: those above are closed."""
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    return tmp_path


@needs_root
@pytest.mark.parametrize("words", [["publish", "a:b", "1"], ["call", "hub:ping"], ["tail"], ["audit", "tail"]])
async def test_without_a_home_nothing_can_be_found(words: list[str]) -> None:
    sentence = "This account has no home for the hub's files; name a folder with --state-dir."
    assert await done(*words) == (3, "", f"hub: No hub can be found: {sentence}\n")


@needs_root
@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["token"], ["token", "--new"], ["audit", "verify"]])
async def test_without_a_home_a_folder_must_be_named(words: list[str]) -> None:
    sentence = "This account has no home for the hub's files; name a folder with --state-dir."
    assert await done(*words) == (2, "", f"hub: {sentence}\n")


@needs_root
async def test_what_is_named_needs_no_home(folder: Path) -> None:
    serve = ("serve", "--port", "0", "--ephemeral", "--state-dir", "state")  # SQLite wants the whole path
    hub = await started(*serve, cwd=folder)
    try:
        assert hub.stdout
        url = (await hub.stdout.readline()).decode().split()[-1]
        wheres = [["--state-dir", "state"], ["--url", url]]
        asked = [
            await done(*words, *where, cwd=folder)
            for where in wheres
            for words in (["publish", "a:b", "1"], ["call", "hub:ping"], ["audit", "tail"])
        ]
        hub.terminate()
        _, said = await asyncio.wait_for(hub.communicate(), 30)
        assert (hub.returncode, b"Traceback" in said) == (0, False)
    finally:
        if hub.returncode is None:
            hub.kill()
    assert [(status, err) for status, _, err in asked] == [(0, "")] * 6
    assert all(out for _, out, _ in asked)
