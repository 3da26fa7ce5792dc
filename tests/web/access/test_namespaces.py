"""A hub in a user namespace, where the kernel shows many accounts under one number: none of them is the hub's own."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from doors import request
from running import environment, send_signal
from strangers import as_stranger, in_namespace, needs_namespaces

from hub import sockdiag

WEAKENED = "from hub import sockdiag;sockdiag._stands_for_many=lambda uid: False;"
HUB = "import sys;from hub.cli.main import main;sys.exit(main(sys.argv[1:]))"
ASKED = (
    "import socket;from hub import sockdiag;s=socket.create_server(('127.0.0.1',0));print(sockdiag.supported());"
    "c=socket.create_connection(s.getsockname());a,_=s.accept();print(sockdiag.uid_of(c.getsockname(),a.getsockname()))"
)


@asynccontextmanager
async def hub_in_namespace(tmp_path: Path, *flags: str, weakened: bool) -> AsyncIterator[tuple[str, int]]:
    """What the hub says when it listens, and its port."""
    where = ("--port", "0", "--state-dir", str(tmp_path / "state"), *flags)
    command = in_namespace(sys.executable, "-c", (WEAKENED if weakened else "") + HUB, "serve", *where)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout
        line = (await process.stdout.readline()).decode()
        yield line, int(line.rpartition(":")[2].rstrip("/\n") or 0)
    finally:
        send_signal(process, signal.SIGTERM)
        await process.communicate()


@needs_namespaces
@pytest.mark.parametrize("weakened", [False, True])
async def test_an_account_without_a_number_is_not_the_hubs_own(tmp_path: Path, weakened: bool) -> None:
    """Such a hub wants the token: its own number is no certain answer for itself either."""
    async with hub_in_namespace(tmp_path, weakened=weakened) as (_, port):
        answer = await as_stranger(port, request(port))
        assert answer.split()[1] == ("200" if weakened else "401")


@needs_namespaces
@pytest.mark.parametrize("weakened", [False, True])
async def test_local_mode_is_refused_to_a_hub_that_is_one_of_many(tmp_path: Path, weakened: bool) -> None:
    async with hub_in_namespace(tmp_path, "--auth", "local", weakened=weakened) as (line, _):
        assert line.startswith("hub is listening") is weakened


@needs_namespaces
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("weakened", [False, True])
def test_a_number_that_stands_for_many_is_no_certain_answer(mapped: bool, weakened: bool) -> None:
    command = in_namespace(sys.executable, "-c", (WEAKENED if weakened else "") + ASKED, mapped=mapped)
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.split()
    assert found == (["True", "65534"] if weakened else ["False", "None"])


MAPS = {
    "0 0 4294967295\n": None,
    "": 4711,
    "0 1000 1\n": 4711,
    "0 1000 1\n1 100000 65536\n": 4711,
    "0 0 1000\n1000 1000 4294966295\n": None,
    "nonsense": 65534,
}


@pytest.mark.parametrize(("users", "many"), MAPS.items())
def test_the_map_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str, many: int | None) -> None:
    (tmp_path / "uid_map").write_text(users)
    (tmp_path / "overflowuid").write_text("4711\n")
    monkeypatch.setattr(sockdiag, "_UID_MAP", tmp_path / "uid_map")
    monkeypatch.setattr(sockdiag, "_OVERFLOW_UID", tmp_path / "overflowuid")
    assert sockdiag._overflow.__wrapped__() == many
    (tmp_path / "uid_map").unlink()
    assert sockdiag._overflow.__wrapped__() == 65534
