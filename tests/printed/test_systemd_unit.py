"""The units that `hub print` prints, before systemd's own judge. A systemd runs the machine's in test_release.py."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from prints import printed, program
from running import PATIENCE, environment

from hub.cli.main import main

pytestmark = pytest.mark.once

EXPOSED = 20  # of 100, in the words of `systemd-analyze security`; 20 and below is "OK"


@pytest.fixture(scope="module")
def unit() -> str:
    return printed("systemd-unit", "--user", "ada", "--state-dir", "/srv/ada/hub", "--port", "4000")


def analyze(folder: Path, unit: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says of this unit."""
    path = folder / "hub.service"
    path.write_text(unit)
    command = [program("systemd-analyze", "systemd"), *words, str(path)]
    own = {**os.environ, "LC_ALL": "C", "XDG_RUNTIME_DIR": str(folder)}  # as a session has one
    return subprocess.run(command, capture_output=True, text=True, check=False, env=own)


def test_systemd_has_nothing_to_say(unit: str, tmp_path: Path) -> None:
    done = analyze(tmp_path, unit, "verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("Type=notify", "Type=notfy"), ("ProtectClock=yes", "ProtectClok=yes"), ("/bin/kill", "/bin/no-such-program")],
)
def test_weakened_systemd_has_something_to_say(unit: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert right in unit
    assert analyze(tmp_path, unit.replace(right, wrong), "verify", "--man=no").stderr


def exposure(folder: Path, unit: str) -> float:
    done = analyze(folder, unit, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSED}")
    return float(done.stdout.rpartition("exposure level for hub.service: ")[2].split()[0])


@pytest.fixture(scope="module")
def own() -> str:
    return printed("user-unit", "--port", "4000", "--state-dir", "/home/ada/hub")


def test_systemd_has_nothing_to_say_of_ones_own(own: str, tmp_path: Path) -> None:
    done = analyze(tmp_path, own, "--user", "verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert analyze(tmp_path, own.replace("Type=notify", "Type=notfy"), "--user", "verify", "--man=no").stderr


def test_ones_own_needs_no_root_and_tells_when_it_is_ready(own: str, tmp_path: Path) -> None:
    """It names no account, takes the folder where the command line looks, and says READY to who has started it."""
    lines = own.splitlines()
    assert not [line for line in lines if line.startswith(("User=", "ReadWritePaths=", "Protect"))]
    assert "WantedBy=default.target" in lines
    (start,) = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    start = start.replace("--port 4000", "--port 0").replace("/home/ada/hub", str(tmp_path / "state"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        variables = {**environment(), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(start.split(), env=variables, stdout=subprocess.DEVNULL) as hub:
            assert manager.recv(100) == b"READY=1"
            assert (tmp_path / "state" / "server.json").exists()
            hub.terminate()
            assert manager.recv(100) == b"STOPPING=1"
        assert hub.returncode == 0


def test_ones_own_keeps_what_it_keeps_where_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HUB_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    for uid in (0, 1):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        assert main(["print", "user-unit"]) == 0
        assert " --state-dir /home/somebody/state/hub\n" in capsys.readouterr().out


def test_it_is_hardened(unit: str, tmp_path: Path) -> None:
    hardened = exposure(tmp_path, unit)
    assert hardened <= EXPOSED / 10
    plain = [line for line in unit.splitlines() if not line.startswith(("Protect", "Private", "Restrict", "System"))]
    assert exposure(tmp_path, "\n".join(plain)) > hardened


def test_what_it_starts_is_this_hub(unit: str) -> None:
    """Started as the unit says, but for where it listens and what it keeps."""
    (start,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = start.removeprefix("ExecStart=").split()
    assert words[words.index("--state-dir") + 1] == "/srv/ada/hub"
    assert words[words.index("--port") + 1] == "4000"
    assert "\nUser=ada\n" in unit
    assert "\nReadWritePaths=/srv/ada/hub\n" in unit
    command = [*words[: words.index("serve") + 1], "--help"]
    assert (
        "run the hub"
        in subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout.lower()
    )


def test_the_calls_that_it_needs_are_allowed() -> None:
    """Those that have no way around: the kernel's word on a connection, on a process, on the disk."""
    allowed, denied = members("@system-service"), members("@privileged")
    needed = {"socket", "sendto", "pidfd_open", "fdatasync", "flock", "prlimit64", "epoll_pwait", "accept4", "execve"}
    assert needed <= allowed - denied


def members(group: str) -> set[str]:
    command = [program("systemd-analyze", "systemd"), "syscall-filter", group]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.strip() for line in out.splitlines()[1:] if line.strip() and "#" not in line}
    return {name for name in names if name[0] != "@"}.union(*(members(name) for name in names if name[0] == "@"))
