"""Leases: each ends once, in order, and what was renewed or dropped costs nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.stream import leases as module
from hub.stream.leases import SPARE, Leases

STEPS = st.one_of(
    st.tuples(st.just("begin"), st.integers(1, 5), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.integers(1, 5), st.just(0)),
    st.tuples(st.just("due"), st.integers(1, 3), st.integers(0, 9)),
)


@given(st.lists(STEPS, max_size=60))
def test_they_end_as_a_plain_table_says(steps: list[tuple[str, int, int]]) -> None:
    leases, model = Leases[int](), dict[int, int]()
    for what, number, at in steps:
        if what == "begin":
            model[number] = at
            assert leases.begin(number, at, number) == (at == min(model.values()))
        elif what == "drop":
            model.pop(number, None)
            leases.drop(number)
        else:
            ended = sorted((end, n) for n, end in model.items() if end <= at)[:number]
            assert leases.due(at, number) == [n for _, n in ended]
            for _, n in ended:
                del model[n]
        assert len(leases) == len(model)
        assert leases.next() == min(model.values(), default=None)


def most_of(renewals: int) -> int:
    """The most entries that there are while a lease is renewed so often beside one that ends first."""
    leases, most = Leases[int](), 0
    leases.begin(0, 1.0, 0)
    for number in range(1, renewals):
        leases.drop(number - 1 or renewals)
        leases.begin(number, 1e6 + number, number)
        most = max(most, len(leases._ends))
    assert len(leases) == 2
    return most


def test_renewals_leave_nothing_behind() -> None:
    assert most_of(30_000) <= 2 * 2 + SPARE


def test_weakened_they_would_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", 10**9)
    assert most_of(30_000) == 30_000
