"""The command line in this process, and a hub in one of its own that it finds."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@contextlib.contextmanager
def as_stdin(data: bytes) -> Iterator[None]:
    """Descriptor 0 is a file that gives `data` and then ends; without any it leads nowhere."""
    kept = os.dup(0)
    file = os.memfd_create("stdin") if data else os.open(os.devnull, os.O_RDONLY)
    if data:
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    line: str
    state: Path

    @property
    def url(self) -> str:
        return self.line.split()[-1]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()


@contextlib.contextmanager
def started(state: Path, *words: str) -> Iterator[Running]:
    """A hub that listens; it is stopped if the test has not done so."""
    command = [sys.executable, "-m", "hub", "--state-dir", str(state), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Running(process, process.stdout.readline(), state)
        finally:
            process.terminate()


def cursor(run: Run) -> str:
    """Where the hub is now."""
    return str(json.loads(run("call", "hub:info").out)["cursor"])


@contextlib.contextmanager
def tailing(*words: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-W", "error", "-m", "hub", "tail", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
