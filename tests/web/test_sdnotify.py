"""What a service manager is told over a real socket: ready, reloading, stopping."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import PATIENCE, hub_process, run_hub, until

from hub.web.sdnotify import Systemd

pytestmark = pytest.mark.once


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end."""
    path = str(tmp_path / "notify") if request.param == "path" else f"@hub-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path if path[0] == "/" else "\0" + path[1:])
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


@pytest.mark.parametrize("manager", ["abstract"], indirect=True)
async def test_a_hub_says_when_it_is_ready_reloads_and_stops(manager: socket.socket, tmp_path: Path) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    async with hub_process(tmp_path) as hub:
        assert manager.recv(4096) == b"READY=1"
        async with hub.http.get(f"{hub.url}readyz") as answer:  # and it is
            assert answer.status == 200
        hub.signal(signal.SIGHUP)
        word, at = manager.recv(4096).decode().split("\n")
        assert word == "RELOADING=1"
        assert before < int(at.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.recv(4096) == b"READY=1"
        (hub.state_dir / "hub.toml").write_text("x = 1")  # it goes on as it was, so it is ready all the same
        hub.signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\n")
        assert manager.recv(4096) == b"READY=1"
        await until(lambda: "all stays as it was" in hub.log)
        hub.signal(signal.SIGTERM)
        assert manager.recv(4096) == b"STOPPING=1"
        assert await hub.ended() == 0


async def test_a_hub_that_cannot_start_is_never_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub.toml").write_text("x = 1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert (await run_hub(tmp_path, "--port", "0", "--state-dir", str(tmp_path)))[0] == 2
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_it_is_told_in_one_datagram(manager: socket.socket) -> None:
    systemd = Systemd()
    systemd.ready()
    systemd.stopping()
    assert [manager.recv(4096), manager.recv(4096)] == [b"READY=1", b"STOPPING=1"]


def test_nobody_asked_and_nobody_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Systemd().ready()
    assert not caplog.records


def test_what_the_hub_starts_cannot_speak_in_its_name(manager: socket.socket) -> None:
    Systemd()
    assert "NOTIFY_SOCKET" not in os.environ


@pytest.mark.parametrize("address", ["/no/such/socket", "@no-such-socket", "/" + "x" * 200, "\0", "relative"])
def test_a_manager_that_is_not_there_is_one_line(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "environ", {"NOTIFY_SOCKET": address})
    Systemd().ready()
    (record,) = caplog.records
    assert record.getMessage().startswith("the service manager cannot be told READY=1")


def test_a_manager_that_does_not_read_holds_up_nobody(manager: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd()
    while not caplog.records:  # until its queue is full
        systemd.ready()
    assert "temporarily unavailable" in caplog.records[0].getMessage()
