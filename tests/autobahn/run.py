"""Run the Autobahn suite against the hub's own WebSocket, and compare its report with the deviations that we know.

`python tests/autobahn/run.py [WSTEST]`. The suite (PyPI `autobahntestsuite`) runs under Python 2.7 only: found through
HUB_PYTHON27, PATH or pyenv. Exit status 0: only known deviations; 1: others. Without a Python
2.7 it says so; that is 77 where nothing may be skipped (CI, HUB_NO_SKIP), else 0.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOOD = ("OK", "INFORMATIONAL")
NO_PYTHON = 77
# The case and what the suite may say of it. Binary frames are refused with 1003: the contract is JSON text.
KNOWN = {
    "1.2.*": ("FAILED",),
    "9.2.*": ("FAILED",),
    "9.4.*": ("FAILED",),
    "9.6.*": ("FAILED",),
    "9.8.*": ("FAILED",),
    "6.4.3": ("NON-STRICT",),  # bad UTF-8 is refused when its frame is whole
    "6.4.4": ("NON-STRICT",),
}
NOT_RUN = ["12.*", "13.*"]  # compression, which the hub does not offer


def deviations(report: dict[str, dict[str, Any]]) -> list[str]:
    """What is in the report of one agent and is neither good nor known, one line each."""
    found = []
    for case, result in sorted(report.items()):
        allowed = {known for pattern, verdicts in KNOWN.items() if fnmatch(case, pattern) for known in verdicts}
        for what in ("behavior", "behaviorClose"):
            if result[what] not in GOOD and result[what] not in allowed:
                found.append(f"{case}: {what} is {result[what]}")
    return found


def python27() -> str | None:
    """A Python 2.7, if there is one: HUB_PYTHON27, then PATH, then pyenv's."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"))
    for found in (os.environ.get("HUB_PYTHON27"), *map(str, pyenv), shutil.which("python2.7")):
        if found and subprocess.run([found, "-c", "import ssl"], capture_output=True, check=False).returncode == 0:
            return found
    return None


def make_wstest(python: str, folder: Path) -> Path:
    """A virtualenv with the suite in it, made once; returns its program."""
    wstest = folder / "bin" / "wstest"
    if not wstest.exists():
        subprocess.run([sys.executable, "-m", "virtualenv", "--python", python, str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "autobahntestsuite"], check=True)
    return wstest


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """The server under test; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(HERE / "echo.py"), str(port)])
    try:
        while process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
        else:
            raise SystemExit("autobahn: the server under test did not start")
        yield port
    finally:
        process.terminate()
        process.wait()


def run(wstest: Path, folder: Path, port: int) -> dict[str, dict[str, Any]]:
    """The suite's report about the server on that port."""
    spec = {
        "outdir": str(folder / "report"),
        "servers": [{"agent": "hub", "url": f"ws://127.0.0.1:{port}/ws"}],
        "cases": ["*"],
        "exclude-cases": NOT_RUN,
        "exclude-agent-cases": {},
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    subprocess.run([str(wstest), "-m", "fuzzingclient", "-s", str(path)], cwd=folder, check=True)
    report: dict[str, dict[str, dict[str, Any]]] = json.loads((folder / "report" / "index.json").read_text())
    (result,) = report.values()  # one agent
    return result


def main(wstest: Path | None, environment: Path) -> int:
    """Run it all and print what deviates."""
    python = None if wstest else python27()
    if wstest is None:
        if python is None:
            print("not tested: autobahn: there is no Python 2.7 here (HUB_PYTHON27 may name one)")
            return NO_PYTHON
        wstest = make_wstest(python, environment)
    with tempfile.TemporaryDirectory() as folder, echo() as port:
        report = run(wstest, Path(folder), port)
    found = deviations(report)
    for line in found:
        print(line)
    known = sum(result["behavior"] not in GOOD for result in report.values()) - len({x.split(":")[0] for x in found})
    print(f"autobahn: {len(report)} cases, {known} known deviations, {len(found)} others")
    return 1 if found or not report else 0


if __name__ == "__main__":
    given = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
    strict = os.environ.get("CI") or os.environ.get("HUB_NO_SKIP")
    status = main(given, Path(os.environ.get("TOX_ENV_DIR", tempfile.gettempdir())) / "py27")
    raise SystemExit(0 if status == NO_PYTHON and not strict else status)
