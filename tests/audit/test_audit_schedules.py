"""Random schedules, some seconds of them; and the weakened logs that they find. By hand: `audit_schedules.py`."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_schedules import Found, many

from hub import private
from hub.audit import commits
from hub.audit import verify as verifier
from hub.audit.records import Entry
from hub.audit.writer import LogFile

pytestmark = pytest.mark.once

SECONDS = 15.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "RETRY", 0.01)


async def test_nothing_is_wrong_in_random_lives() -> None:
    found = Found()
    await many(iter(range(1, 10**6)), time.monotonic() + SECONDS, found)
    assert found.wrong == []
    assert found.counts["rounds"] > 0


def without_taking_back(patch: pytest.MonkeyPatch) -> None:
    real = LogFile._take_back

    def leave(file: LogFile) -> None:
        file._left_over = False
        real(file)

    patch.setattr(LogFile, "_take_back", leave)


def without_a_lock(patch: pytest.MonkeyPatch) -> None:
    real = LogFile.__init__

    def init(file: LogFile, *args: Any, **more: Any) -> None:
        real(file, *args, **more)
        file._names = contextlib.nullcontext()  # type: ignore[assignment]

    patch.setattr(LogFile, "__init__", init)


def without_looking_where_the_file_is(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LogFile, "_must_be_in_place", lambda file: None)


def without_waiting_for_the_disk(patch: pytest.MonkeyPatch) -> None:
    def commit(file: LogFile, entries: Sequence[Entry]) -> None:
        with contextlib.suppress(OSError):
            real(file, entries)

    real = LogFile._commit
    patch.setattr(LogFile, "_commit", commit)


def with_a_quick_look_that_always_expects_more(patch: pytest.MonkeyPatch) -> None:
    real = verifier._Reading._skim_beginning

    def skim(reading: Any, file: Any) -> Any:
        first, told = real(reading, file)
        return first, -1 if told else 0

    patch.setattr(verifier._Reading, "_skim_beginning", skim)


def with_each_file_removed_for_itself(patch: pytest.MonkeyPatch) -> None:
    def remove(file: LogFile, paths: Sequence[Path]) -> None:
        for path in paths:
            with contextlib.suppress(Exception):
                path.unlink()

    patch.setattr(LogFile, "_remove", remove)


def with_descriptors_kept(patch: pytest.MonkeyPatch) -> None:
    real = private._make_private

    def make_private(descriptor: int, path: Path) -> None:
        try:
            real(descriptor, path)
        except Exception:
            os.dup(descriptor)
            raise

    patch.setattr(private, "_make_private", make_private)


@pytest.mark.parametrize(
    ("weaken", "kind"),
    [
        (without_taking_back, 3),
        (without_a_lock, 1),
        (without_looking_where_the_file_is, 0),
        (without_waiting_for_the_disk, 0),
        (with_a_quick_look_that_always_expects_more, 0),
        (with_each_file_removed_for_itself, 2),
        (with_descriptors_kept, 2),
    ],
)
async def test_a_weakened_log_is_found_out(
    weaken: Callable[[pytest.MonkeyPatch], None], kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among lives of that kind (a seed's rest by four), which only shortens the search."""
    weaken(monkeypatch)
    found = Found()
    await many(iter(range(kind, 10**6, 4)), time.monotonic() + 50, found)
    assert found.wrong
