"""Times on the wire."""

import re

import pytest

from hub.wire.timestamps import is_time, now, unix_time


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


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01 01:00:10.5+01:00", 10.5),
        ("19700101T000010Z", 10.0),
        ("1970-01-01T00:00:10", None),  # of which place?
        ("1970-01-01T00:00:10" + "." + "0" * 20 + "Z", None),
        ("0001-01-01T00:00:00+14:00", -62135647200.0),
        ("soon", None),
        ("", None),
        (10, None),
        (None, None),
    ],
)
def test_a_time_is_read_in_whichever_way_it_is_written(value: object, seconds: float | None) -> None:
    assert unix_time(value) == seconds
