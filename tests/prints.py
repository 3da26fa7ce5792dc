"""What `hub print` prints, for tests that have the real programs read it."""

import os
import shutil
import subprocess
import sys

import pytest
from running import environment


def printed(*words: str) -> str:
    """What `hub print …` writes to stdout, asserting that it writes nothing to stderr."""
    command = [sys.executable, "-P", "-m", "hub", "print", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert done.stderr == ""
    return done.stdout


def program(name: str, package: str) -> str:
    """Where this program is; without it the test is skipped."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: the package {package})")
    return found
