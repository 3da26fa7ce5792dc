"""The judgement of `autobahn/run.py` over a report: what is known passes, anything else is named."""

from typing import Any

import pytest
from autobahn import run


def report(**cases: tuple[str, str]) -> dict[str, dict[str, Any]]:
    return {
        case.strip("_").replace("_", "."): {"behavior": behavior, "behaviorClose": close}
        for case, (behavior, close) in cases.items()
    }


@pytest.mark.parametrize(
    ("cases", "found"),
    [
        ({"_1_1_1": ("OK", "OK"), "_7_1_6": ("INFORMATIONAL", "INFORMATIONAL")}, []),
        ({"_1_2_1": ("FAILED", "OK"), "_9_6_4": ("FAILED", "OK"), "_6_4_3": ("NON-STRICT", "OK")}, []),
        ({"_6_4_3": ("FAILED", "OK")}, ["6.4.3: behavior is FAILED"]),
        ({"_1_1_2": ("FAILED", "OK")}, ["1.1.2: behavior is FAILED"]),
        ({"_2_1": ("OK", "UNCLEAN")}, ["2.1: behaviorClose is UNCLEAN"]),
    ],
)
def test_a_deviation_that_is_not_known_is_named(cases: dict[str, tuple[str, str]], found: list[str]) -> None:
    assert run.deviations(report(**cases)) == found


def test_without_a_python_27_it_says_so_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr(run, "python27", lambda: None)
    assert run.main(None, tmp_path) == run.NO_PYTHON
    assert "not tested: autobahn" in capsys.readouterr().out
