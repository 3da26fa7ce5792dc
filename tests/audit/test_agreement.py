"""A start looks quickly and `verify` closely: of whatever a hub can leave behind, both must say the same."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logs import command

from hub.audit import files
from hub.audit import verify as verifier
from hub.audit.files import closed_segments
from hub.audit.rotation import Limits
from hub.audit.verdict import INTACT, TORN, Verdict
from hub.audit.verify import verify
from hub.audit.writer import LogFile

LIMITS = Limits(file_bytes=600, file_seconds=0, keep_files=2)
STEPS = ("start", "nothing", "one", "four", "rotate", "torn", "no head", "bad head", "crash")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0)


class Killed(BaseException):
    pass


class Life:
    """A directory, and the log that writes to it now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = LogFile(directory, LIMITS)

    def begin(self) -> None:
        self.log.close()
        self.log = LogFile(self.directory, LIMITS)
        self.log.append([])

    def take(self, step: str) -> None:
        getattr(self, step.replace(" ", "_"))()

    start = begin

    def nothing(self) -> None:
        self.log.append([])

    def one(self) -> None:
        self.log.append([command()])

    def four(self) -> None:
        for number in range(4):
            self.log.append([command(number)])

    def rotate(self) -> None:
        """The file is full, and the next append has nothing but its own records to write."""
        self.log.limits = LIMITS._replace(file_bytes=1)
        self.log.append([])
        self.log.limits = LIMITS

    def torn(self) -> None:
        self.log.close()
        with (self.directory / "audit.jsonl").open("ab") as file:
            file.write(b'{"action":"x')
        self.begin()

    def no_head(self) -> None:
        self.log.close()
        (self.directory / "audit.head").unlink(missing_ok=True)
        self.begin()

    def bad_head(self) -> None:
        self.log.close()
        (self.directory / "audit.head").write_bytes(b"junk")
        self.log = LogFile(self.directory, LIMITS._replace(file_bytes=1))  # what it has to tell begins a file
        self.log.append([])

    def crash(self) -> None:
        """Killed as soon as the new file is there."""
        real = os.rename

        def killed(*args: Any) -> None:
            real(*args)
            raise Killed

        os.rename = killed  # type: ignore[assignment]
        try:
            self.rotate()
        except Killed:
            pass
        finally:
            os.rename = real
        self.begin()


def verdicts(steps: list[str]) -> list[tuple[Verdict, Verdict]]:
    found = []
    with TemporaryDirectory() as folder:
        life = Life(Path(folder))
        life.begin()
        for step in steps:
            life.take(step)
            found.append((verify(life.directory, quick=True), verify(life.directory)))
        life.log.close()
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=12))
@example(["torn", "four", "four", "four"])
@example(["one", "no head", "rotate", "rotate", "one"])
@example(["one", "bad head", "one", "start", "four"])
def test_a_start_and_verify_agree(steps: list[str]) -> None:
    for quick, close in verdicts(steps):
        assert quick.status == close.status in (INTACT, TORN), (quick, close)


def _as_once(reading: Any, real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda file, line, first: real(reading, file, line, first)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_file_with_nothing_but_the_logs_own_records_is_whole(
    weakened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    for step in ("one", "torn", "rotate", "no head", "rotate", "one"):
        life.take(step)
    life.log.close()
    if weakened:  # the end must always be newer than what was read of the beginning
        real = verifier._Reading._skim_beginning
        monkeypatch.setattr(verifier._Reading, "_skim_beginning", lambda self, file: (real(self, file)[0], -1))
    assert len(closed_segments(tmp_path)) >= 2
    assert verify(tmp_path).status == INTACT
    assert (verify(tmp_path, quick=True).status == INTACT) is not weakened
