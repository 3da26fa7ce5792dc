"""Confirming: a value is good once, for a time, for exactly the call that it was handed out for."""

import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import strict_json

from hub.commands import confirmation
from hub.commands.clients import Client
from hub.commands.confirmation import GOOD_SECONDS, Confirmations, digest
from hub.errors import HubError

CALL, OTHER = digest("me", "a:b", {"x": 1}), digest("me", "a:b", {"x": 2})


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10**9
        monkeypatch.setattr(confirmation, "time", self)

    def monotonic_ns(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def asked(values: Confirmations, call: bytes = CALL, given: str | None = None) -> str | None:
    """The new value with which a call is refused; None if it may run."""
    try:
        values.check("a:b", call, given)
    except HubError as error:
        found = error
    else:
        return None
    assert (found.code, found.status, found.retryable) == ("confirmation_required", 428, False)
    assert found.details is not None
    (new,) = found.details.values()
    assert new != given
    return str(new)


def test_a_value_is_good_once() -> None:
    values = Confirmations()
    first = asked(values)
    assert first
    assert first.isprintable()
    assert len(first) <= 128
    assert asked(values, given=first) is None
    second = asked(values, given=first)
    assert second
    assert asked(values, given=second) is None


def test_each_of_several_is_good() -> None:
    values = Confirmations()
    several = [asked(values) for _ in range(3)]
    assert [asked(values, given=value) for value in reversed(several)] == [None] * 3


def test_a_value_is_good_for_a_time(clock: Clock) -> None:
    values = Confirmations()
    early, late = asked(values), asked(values)
    clock.now += GOOD_SECONDS * 10**9
    assert asked(values, given=early) is None
    clock.now += 1
    assert asked(values, given=late)


OTHERS = {
    "other args": OTHER,
    "another command": digest("me", "a:c", {"x": 1}),
    "another account": digest("you", "a:b", {"x": 1}),
    "another type": digest("me", "a:b", {"x": "1"}),
    "more args": digest("me", "a:b", {"x": 1, "y": None}),
}


@pytest.mark.parametrize("call", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("weakened", [False, True])
def test_a_value_is_for_this_call_alone(call: bytes, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        real = Confirmations._proof
        monkeypatch.setattr(Confirmations, "_proof", lambda self, serial, digest: real(self, serial, b""))
    values = Confirmations()
    value = asked(values)
    assert (asked(values, call, value) is None) is weakened


@pytest.mark.parametrize("given", ["", ".", "..", "x", "\ud800", "é" * 200, "0" * 49, ".".join(["f" * 16] * 3)])
def test_what_was_not_handed_out_is_nothing(given: str) -> None:
    values = Confirmations()
    value = asked(values, given=given)
    assert value
    serial, _, proof = value.rpartition(".")
    for near in (f"{serial}.{proof[:-1]}", f"{serial}.{proof}0", f"{serial}0.{proof}", proof, f"{serial}."):
        assert asked(values, given=near)
    assert asked(Confirmations(), given=value)  # another life of the hub


@pytest.mark.parametrize("weakened", [False, True])
def test_values_are_compared_to_the_end(monkeypatch: pytest.MonkeyPatch, weakened: bool) -> None:
    seen: list[tuple[type, type]] = []
    compare = hmac.compare_digest

    def watched(given: bytes, right: bytes) -> bool:
        seen.append((type(given), type(right)))
        return compare(given, right)

    monkeypatch.setattr("hub.commands.confirmation.hmac.compare_digest", watched)
    if weakened:
        plainly: Callable[[str, str], bool] = lambda given, right: given == right  # noqa: E731
        monkeypatch.setattr(confirmation, "is_equal", plainly)
    values = Confirmations()
    assert asked(values, given=asked(values)) is None
    assert seen == ([] if weakened else [(bytes, bytes)])


@pytest.mark.parametrize("weakened", [False, True])
def test_what_is_remembered_is_bounded_and_nothing_is_good_twice(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, weakened: bool
) -> None:
    monkeypatch.setattr(confirmation, "MAX_USED", 10)
    if weakened:
        monkeypatch.setattr(Confirmations, "_forget", lambda self, now: None)
    values = Confirmations()
    used, kept = list[str](), asked(values)
    for _ in range(50):
        clock.now += 1
        value = asked(values)
        assert value
        assert asked(values, given=value) is None
        used.append(value)
    assert all(asked(values, given=value) for value in used)
    assert len(values._used) == (50 if weakened else 10)
    assert (asked(values, given=kept) is None) is weakened  # it may have been used: nobody remembers
    if not weakened:
        clock.now += GOOD_SECONDS * 10**9 + 1
        assert asked(values, given=asked(values)) is None
        assert len(values._used) == 1  # the others are too old to be used again


@given(strict_json, strict_json)
def test_equal_json_has_one_digest_and_other_json_another(one: Any, two: Any) -> None:
    def canonical(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    assert (digest("me", "a:b", {"x": one}) == digest("me", "a:b", {"x": two})) is (canonical(one) == canonical(two))
    mixed = {"b": one, "a": two}
    assert digest("me", "a:b", mixed) == digest("me", "a:b", dict(sorted(mixed.items())))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 30)), max_size=60))
def test_in_any_order_no_value_is_good_twice_or_late(steps: list[tuple[int, int, int]]) -> None:
    """A model: what was handed out when, and for what. A value may be forgotten early, never be good too long."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        patch.setattr(confirmation, "MAX_USED", 3)
        values, handed = Confirmations(), list[tuple[str, int, int]]()
        good = set[str]()
        for pause, call, which in steps:
            clock.now += pause * 10**9
            value, at, of = handed[which] if which < len(handed) else ("none", 0, 0)
            new = asked(values, digest(str(call)), value)
            if new is None:
                assert value not in good
                assert of == call
                assert clock.now - at <= GOOD_SECONDS * 10**9
                good.add(value)
            else:
                handed.append((new, clock.now, call))
            assert len(values._used) <= 3


@pytest.mark.parametrize(
    ("peer", "uid", "account"),
    [
        ("127.0.0.1:4711", 1000, "uid 1000"),
        ("127.0.0.1:4711", 0, "uid 0"),
        ("192.0.2.7:4711", None, "192.0.2.7"),
        ("192.0.2.7", None, "192.0.2.7"),
        ("[2001:db8::7]:4711", None, "[2001:db8::7]"),
        ("[2001:db8::7]", None, "[2001:db8::7]"),
    ],
)
def test_whose_a_client_is(peer: str, uid: int | None, account: str) -> None:
    assert Client("http", peer, uid).account == account


def test_the_clock_is_one_that_nobody_sets() -> None:
    values = Confirmations()
    value = asked(values)
    assert value
    assert int(value.partition(".")[0], 16) <= time.monotonic_ns()
