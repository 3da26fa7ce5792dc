"""What a run of the tests says about itself: counted once, however many processes ran them, and no skip unseen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TESTS = """
import os, time
import pytest

@pytest.mark.parametrize("text", ["x" * 150 + str(time.time_ns()), "short"])
def test_passes(text):
    assert "HUB_RATE" not in os.environ

def test_fails():
    assert False

def test_skips():
    pytest.skip("no such tool")
"""


def counted(folder: Path, *flags: str, **environ: str) -> tuple[str, str]:
    """What a run with that folder's tests has written for `.ci/run`, and printed."""
    results = folder / "results"
    results.unlink(missing_ok=True)
    for name in ("conftest.py", "uncounted.txt"):
        (folder / name).write_bytes((Path(__file__).parent / name).read_bytes())
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(TESTS)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "HUB_NO_SKIP")}
    environ = {**clean, "HUB_RATE": "1", "HUB_RESULTS": str(results), "HUB_RESULTS_NAME": "this", **environ}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *flags, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=folder)
    return results.read_text(), done.stdout


@pytest.mark.parametrize("flag", ["-n2", "-n0"])
def test_each_test_is_counted_once(tmp_path: Path, flag: str) -> None:
    text, stdout = counted(tmp_path, flag)
    assert text.splitlines() == ["this 2 1 1", "not tested: this: test_it.py::test_skips: no such tool"]
    assert "not tested here" in stdout


@pytest.mark.parametrize(("flag", "name"), [("-n2", "CI"), ("-n0", "HUB_NO_SKIP")])
def test_a_skip_is_a_failure_where_none_may_be(tmp_path: Path, flag: str, name: str) -> None:
    text, stdout = counted(tmp_path, flag, **{name: "1"})
    assert text.splitlines() == ["this 2 2 0"]
    assert "nothing may be skipped here: no such tool" in stdout


def test_data_is_no_name_of_a_test(tmp_path: Path) -> None:
    """Its name would differ from process to process, and none of them could say which tests the others have run."""
    _, stdout = counted(tmp_path, "-v", "-n0")
    assert sorted(set(re.findall(r"test_passes\[.*?\]", stdout))) == ["test_passes[short]", "test_passes[text]"]
