"""Where programs of this machine find the hub, from when on, and for how long."""

import asyncio
import errno
import json
import resource
import shutil
from pathlib import Path

import pytest
from running import hub_process, run_hub, until

from hub.errors import UsageError
from hub.web import serverfile
from hub.web.serverfile import ServerFile


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("running.PATIENCE", 20.0)


async def test_a_directory_that_was_removed_belongs_to_the_next_hub(tmp_path: Path) -> None:
    """The first one takes nothing of the second's with it: neither how it is found, nor its log."""
    async with hub_process(tmp_path) as first:
        shutil.rmtree(first.state_dir)
        async with hub_process(tmp_path) as second:
            first.signal()
            assert await first.ended() == 0
            assert json.loads((second.state_dir / "server.json").read_text())["url"] == second.url
        assert (await run_hub(tmp_path, "audit", "verify", str(second.state_dir)))[0] == 0


KNOCKS = """
import json
import socket
from urllib.parse import urlsplit


def setup(hub):
    from hub.web import serverfile
    write = serverfile.write_whole

    def slowly(path, data):
        with socket.socket() as knocking:
            answer = knocking.connect_ex(("127.0.0.1", urlsplit(json.loads(data)["url"]).port))
        open("knocked", "w").write(str(answer))
        write(path, data)

    serverfile.write_whole = slowly
"""
LISTENS_BEFORE = """
def setup(hub):
    from hub.web import program
    url = program.address
    program.address = lambda config, sock: (sock.listen(5), url(config, sock))[1]
"""


@pytest.mark.parametrize("weakened", [False, True])
async def test_nobody_is_let_in_before_it_says_where_it_is(weakened: bool, tmp_path: Path) -> None:
    """Who came in between would read the `server.json` of the hub before, and send no token to this one."""
    (tmp_path / "knocks.py").write_text(KNOCKS)
    (tmp_path / "listens_before.py").write_text(LISTENS_BEFORE)
    more = ("--load", "listens_before") if weakened else ()
    async with hub_process(tmp_path, "--load", "knocks", *more):
        assert int((tmp_path / "knocked").read_text()) == (0 if weakened else errno.ECONNREFUSED)


FULL = """
def setup(hub):
    import resource
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
"""


async def test_a_full_disk_is_no_reason_not_to_listen(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FULL)
    (tmp_path / "state").mkdir(mode=0o700)
    found = tmp_path / "state" / "server.json"
    found.write_text('{"url": "http://127.0.0.1:1/"}')  # of a hub that was killed
    async with hub_process(tmp_path, "--ephemeral", "--load", "full") as hub:
        async with hub.http.get(f"{hub.url}readyz") as answer:
            assert answer.status == 503
            assert set((await answer.json())["reasons"]) == {"audit"}
        assert not found.exists()  # nobody is sent to the wrong place
        hard = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await until(found.exists, "that it can be found")
        assert json.loads(found.read_text())["url"] == hub.url
        await until(lambda: "can find this hub now" in hub.log)
        while True:
            async with hub.http.get(f"{hub.url}readyz") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.05)
    assert not found.exists()


def test_one_that_can_never_be_written_is_said_at_the_start_or_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = ServerFile(tmp_path, "http://127.0.0.1:1/")
    (tmp_path / "server.tmp").mkdir()
    with pytest.raises(UsageError, match="Programs could not find this hub: "):
        file.write()
    with monkeypatch.context() as full:
        full.setattr(serverfile, "write_whole", no_room)
        assert not file.write()
        assert not file.write()
    assert file.write()  # there is nothing to wait for
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "mend that and restart it" in caplog.text


def no_room(path: Path, data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
