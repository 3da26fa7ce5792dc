"""How long an attempt of a task took: one figure, by its publisher's times where it says them, else by its events."""

from typing import Any

import pytest

from hub.web.page.attempts import Attempt, follow


def at(seconds: float) -> str:
    return f"2026-12-01T10:{int(seconds) // 60:02}:{seconds % 60:06.3f}Z"


def attempts(*steps: tuple[float, dict[str, Any]], is_cut: bool = False) -> list[Attempt]:
    """What becomes of these events of a task: when each came, and what it says."""
    found: list[Attempt] = []
    for seq, (seconds, data) in enumerate(steps, 1):
        known = found[-1] if found else None
        attempt = follow(known, seq, at(seconds), data, is_cut=is_cut)
        assert follow(attempt, seq, at(seconds + 50), {"status": "failed"}, is_cut=is_cut) is attempt, "taken already"
        if attempt is not known:
            found.append(attempt)
    return found


FAILED = {"status": "failed"}


@pytest.mark.parametrize(
    ("steps", "took"),
    [
        ([(0, {}), (3, FAILED)], 3000),
        ([(0, {"status": "queued"}), (5, {}), (7, {"progress": 9}), (8, FAILED)], 3000),
        ([(0, {"started_at": at(0)}), (9, {**FAILED, "started_at": at(0), "ended_at": at(4)})], 4000),
        ([(0, {"started_at": at(0)}), (9, FAILED)], 9000),
        ([(9, {**FAILED, "started_at": at(1), "ended_at": at(4)})], 3000),
        ([(0, {}), (1, {**FAILED, "duration_ms": 362_000})], 362_000),
        ([(0, {}), (1, {**FAILED, "duration_ms": 28})], 28),
        ([(0, {}), (1, {**FAILED, "duration_ms": None})], 1000),
        ([(0, {"started_at": "soon"}), (1, {**FAILED, "ended_at": "later"})], 1000),
        ([(0, {}), (2, {"status": "waiting_approval"}), (30, FAILED)], 30_000),
        ([(0, FAILED)], None),
        ([(0, {"status": "queued"}), (5, {"status": "cancelled"})], None),
        ([(0, {"started_at": at(9)}), (5, FAILED)], None),
        ([(0, {})], None),
    ],
)
def test_it_took_from_its_beginning_to_its_end(steps: list[tuple[float, dict[str, Any]]], took: float | None) -> None:
    (attempt,) = attempts(*steps)
    assert attempt.took == took


def test_what_comes_behind_an_end_is_another_attempt() -> None:
    first, second, third = attempts(
        (0, {"progress": 10}),
        (5, {**FAILED, "error": "no space"}),
        (6, {"status": "failed", "error": "no space left"}),
        (10, {"status": "queued"}),
        (12, {"status": "running"}),
        (14, {"status": "succeeded", "progress": 100}),
        (20, {}),
    )
    assert (first.status, first.error, first.took, first.progress) == ("failed", "no space left", 6000, None)
    assert (second.status, second.took, second.progress) == ("succeeded", 2000, 100)
    assert (third.began, third.is_over, third.took) == (at(20), False, None)


def test_of_one_whose_beginning_may_be_missing_only_what_was_said_is_told() -> None:
    """Else a task that ran for hours is said to have taken the seconds for which it was watched."""
    steps = ((0.0, {"progress": 80}), (3.0, FAILED))
    assert attempts(*steps, is_cut=True)[0].took is None
    assert attempts(*steps)[0].took == 3000, "weakened"
    said = attempts((0, {"started_at": at(0)}), (3, FAILED), is_cut=True)
    assert said[0].took == 3000
    measured = attempts((0, {}), (3, {**FAILED, "duration_ms": 7}), is_cut=True)
    assert measured[0].took == 7
    _, again = attempts((0, FAILED), (1, {}), (2, FAILED), is_cut=True)
    assert again.took == 1000, "the next one is seen from its beginning"


def test_what_was_asked_is_over_with_the_waiting() -> None:
    waits = {"status": "waiting_approval", "message": "Bash: rm -rf build"}
    carried = {"message": "Bash: rm -rf build"}
    (waiting,) = attempts((0, {}), (1, waits))
    assert waiting.message == "Bash: rm -rf build"
    (goes_on,) = attempts((0, {}), (1, waits), (2, {"status": "running", **carried}))
    assert goes_on.message == "Bash: rm -rf build", "that is what it does"
    (over,) = attempts(
        (0, {}), (1, waits), (2, {"status": "running", **carried}), (3, {"status": "succeeded", **carried})
    )
    assert over.message == ""
    (said,) = attempts((0, {}), (1, waits), (3, {"status": "succeeded", "message": "all clean"}))
    assert said.message == "all clean"
