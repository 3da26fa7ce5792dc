"""Images and containers, by a real Podman with a store of its own, for what a Dockerfile says.

No registry of images is asked: the image that a Dockerfile begins with is made of this machine's Python and of the few
programs and libraries beside it that a small Debian has.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prints import program

PROGRAMS = ("sh", "cat", "env", "id", "install", "ln", "mkdir", "rm")
LIBRARIES = ("libgcc_s.so.1", "libstdc++.so.6")  # that a Debian always has, and wheels rely on
NEEDLESS = shutil.ignore_patterns("test", "idlelib", "config-*", "site-packages")
REACHED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")  # how pip comes to its packages
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP = """#!/bin/sh
exec /usr/local/bin/python3 "$(echo /usr/local/lib/python3*/ensurepip/_bundled/pip-*.whl)/pip" "$@"
"""
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # its own are more than even root may set here
ENVIRONMENT = {**os.environ, "DISABLE_HC_SYSTEMD": "true"}  # whoever wants to know the health asks; no timer does


def ran(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a program prints, asserting that it succeeds."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def linked(path: Path) -> set[Path]:
    """The shared libraries that this file is linked with."""
    out = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", out)}


def copied(path: Path, root: Path) -> None:
    """The file at the same place below this root."""
    where = root / path.relative_to("/")
    if not where.exists():
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, where)


def python_image(root: Path) -> None:
    """Lay out what `python:3.13-slim` is for a Dockerfile, made of this machine: Python in /usr/local, pip, a shell."""
    for name in ("bin", "usr/bin", "usr/local/bin", "etc", "root", "tmp", "var/tmp", "proc", "dev", "sys"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    home, library = root / "usr/local", Path(sysconfig.get_path("stdlib"))
    interpreter = Path(sys.executable).resolve()
    shutil.copy(interpreter, home / "bin/python3")
    (home / "bin/python").symlink_to("python3")
    shutil.copytree(library, home / "lib" / library.name, symlinks=True, ignore=NEEDLESS)
    (home / "bin/pip").write_text(PIP)
    (home / "bin/pip").chmod(0o755)
    programs = [Path(shutil.which(name) or name).resolve() for name in PROGRAMS]
    for name, path in zip(PROGRAMS, programs, strict=True):
        shutil.copy(path, root / "bin" / name)
    for path in (*programs, interpreter, *library.glob("lib-dynload/*.so")):
        for needed in linked(path):
            copied(needed, root)
    known = ran("/sbin/ldconfig", "-p")
    for name in LIBRARIES:
        copied(Path(re.findall(rf"{re.escape(name)} .*=> (/\S+)", known)[0]), root)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    copied(AUTHORITIES, root)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n{reached()}")


def reached() -> str:
    """How this machine's pip comes to its packages, as lines for another one's settings; folders are not there."""
    said = dict(re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", ran(sys.executable, "-m", "pip", "config", "list"), re.M))
    return "".join(f"{name} = {said[name]}\n" for name in REACHED if name in said and "file:" not in said[name])


class Podman:
    """Builds images and runs containers; what it keeps is below its folder, whose name is to be short."""

    def __init__(self, folder: Path) -> None:
        where = ("--root", f"{folder}/store", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
        # It has two programs that start a container; the one that it prefers cannot beside two kinds of control groups.
        runtime = ("--runtime", "runc") if Path("/sys/fs/cgroup/unified").exists() else ()
        self._command = (program("podman", "podman"), *where, *runtime, "--cgroup-manager", "cgroupfs")
        self._folder = folder
        if os.geteuid():
            pytest.skip("only root can start a container")

    def __call__(self, *words: str, cwd: Path | None = None) -> str:
        """What it prints of this, asserting that it succeeds."""
        return ran(*self._command, *words, cwd=cwd, env=ENVIRONMENT)

    def status(self, *words: str) -> int:
        """How it ends."""
        return subprocess.run([*self._command, *words], capture_output=True, check=False, env=ENVIRONMENT).returncode

    def build(self, context: Path, *, base: str, name: str) -> None:
        """What the Dockerfile there says, its image `base` being one of this machine's."""
        root = self._folder / "base"
        python_image(root)
        layer = self._folder / "base.tar"
        ran("tar", "-C", str(root), "-cf", str(layer), ".")
        self("import", "--quiet", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", str(layer), base)
        # A health check is no part of the other format. Nothing is run twice, so no layer is kept.
        words = ("--format", "docker", "--layers=false", "--isolation", "chroot", "--network", "host")
        self("build", *words, "--pull=never", "--tag", name, ".", cwd=context)

    def files(self, image: str) -> Path:
        """Where the files of an image are to be read."""
        return Path(self("image", "mount", image).strip())

    @contextmanager
    def container(self, image: str, *words: str) -> Iterator[str]:
        """One that runs, on this machine's network; its name."""
        name = f"hub-test-{os.getpid()}"
        try:
            self("run", "--detach", f"--name={name}", "--network=host", *LIMITS, *words, image)
            yield name
        finally:
            self.status("rm", "--force", "--time=0", "--volumes", name)
