"""A systemd that has started a machine of its own, for tests of a service: a container over a copy of this system."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prints import program

PATIENCE = 150.0  # seconds until the container must have ended
TARGET = """
[Unit]
Description=what is tested
Requires=basic.target hub.service probe.service
After=basic.target
AllowIsolate=yes
"""
PROBE = """
[Unit]
Description=what looks at it
After=hub.service
[Service]
Type=oneshot
ExecStart=/bin/bash /probe/probe
ExecStopPost=/bin/systemctl poweroff --force --no-block
TimeoutStartSec=120
"""


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """Lay a copy of this system over it: what is written there stays there, and goes with it."""
    layer, root = folder / "layer", folder / "root"
    layer.mkdir()
    root.mkdir()
    try:
        mount("-t", "tmpfs", "tmpfs", str(layer))
        (layer / "upper").mkdir()
        (layer / "work").mkdir()
        mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={layer}/upper,workdir={layer}/work", str(root))
        yield root
    finally:
        for path in (root, layer):
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def observed(folder: Path, files: Path, unit: str, account: str, state: str, probe: str) -> str:
    """What a shell script sees of a service of this unit, in a container that systemd starts and ends.

    Of `files` there stand /opt/hub and /usr/local, with the Python of it; the account has its state directory.
    """
    nspawn = program("systemd-nspawn", "systemd-container")
    if os.geteuid():
        pytest.skip("only root can start a container")
    out = folder / "out"
    out.mkdir()
    with copied(folder) as root:
        for part in ("opt/hub", "usr/local"):
            shutil.copytree(files / part, root / part, symlinks=True, dirs_exist_ok=True)
        for path in (Path(sys.base_prefix), *Path(sys.base_prefix).parents):  # the account may not read it here
            inside = root / path.relative_to("/")
            os.chmod(inside, inside.stat().st_mode | 0o055)
        where = root / state.lstrip("/")
        where.mkdir(mode=0o700, parents=True)
        shutil.chown(where, account)
        units = root / "etc/systemd/system"
        for name, text in (("hub.service", unit), ("probe.service", PROBE), ("tested.target", TARGET)):
            (units / name).write_text(text)
        (root / "probe").mkdir()
        (root / "probe/probe").write_text(f"exec > /out/seen 2>&1\n{probe}\n")
        (root / "out").mkdir(exist_ok=True)
        (root / "etc/machine-id").unlink(missing_ok=True)
        (root / "etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")
        words = ("--register=no", "--keep-unit", f"--directory={root}", f"--machine=hub-test-{os.getpid()}")
        command = [nspawn, *words, f"--bind={out}:/out", "--boot", "systemd.unit=tested.target"]
        with (folder / "console").open("wb") as console:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=PATIENCE, check=False
            )
    seen = out / "seen"
    assert seen.exists(), (folder / "console").read_text(errors="replace")
    return seen.read_text()
