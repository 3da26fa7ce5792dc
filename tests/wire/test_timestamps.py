"""Times on the wire."""

import re

import pytest

from hub.wire.timestamps import is_time, now


def test_now_is_rfc_3339_with_milliseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now())


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("2026-01-01T12:00:00Z", True),
        ("2026-01-01t12:00:00.123456z", True),
        ("2026-01-01T12:00:00+02:00", True),
        ("2016-12-31T23:59:60Z", True),  # a leap second
        ("2026-01-01T12:00:00", False),
        ("2026-02-30T12:00:00Z", False),
        ("2026-01-01 12:00:00Z", False),
    ],
)
def test_a_time_has_an_offset(text: str, is_one: bool) -> None:
    assert is_time(text) is is_one
