"""What `several.py` complains of."""

import json
import random
from typing import Any

import pytest
from several import Client, Complaint, Found

pytestmark = pytest.mark.once


def client(*, narrow: bool = False) -> Client:
    found = Client(Found(), [], random.Random(1), narrow=narrow)
    found.cursor, found.start, found.seq = "aaaaaaaa:4", 4, 4
    return found


def event(seq: int, id: str = "x", name: str = "a:x", epoch: str = "aaaaaaaa") -> bytes:
    head = f'{{"type":"event","id":"{id}","timestamp":"2026-12-01T00:00:00.000Z","cursor":"{epoch}:{seq}",'
    return f'{head}"payload":{{"event":"{name}","data":1}}}}'.encode()


def test_everything_in_order_is_no_complaint() -> None:
    wide, narrow = client(), client(narrow=True)
    for seq, epoch in ((5, "aaaaaaaa"), (6, "bbbbbbbb"), (7, "bbbbbbbb")):
        wide._take(event(seq, f"{seq}", "b:x" if seq == 6 else "a:x", epoch))
    narrow.found.wide = wide.found.wide
    narrow._take(event(5))
    narrow._take(event(7))
    for each in (wide, narrow):
        each.judge(7)
    assert wide.cursor == "bbbbbbbb:7"


@pytest.mark.parametrize(
    "frames", [[event(6)], [event(5), event(5)], [event(5), event(4)]], ids=["hole", "twice", "back"]
)
def test_a_hole_and_what_comes_twice(frames: list[bytes]) -> None:
    found = client()
    for frame in frames[:-1]:
        found._take(frame)
    with pytest.raises(Complaint, match="came behind"):
        found._take(frames[-1])


def test_a_gap() -> None:
    gap: Any = {"type": "event", "payload": {"event": "hub:gap", "data": {}}}
    with pytest.raises(Complaint, match="hub:gap"):
        client()._take(json.dumps(gap).encode())


def test_another_event_than_everybody_else_has() -> None:
    one, two = client(), client()
    two.found = one.found
    one._take(event(5, "x"))
    with pytest.raises(Complaint, match="5 is"):
        two._take(event(5, "y"))


@pytest.mark.parametrize("narrow", [False, True])
def test_what_never_came(narrow: bool) -> None:
    found = client(narrow=narrow)
    found._take(event(5))
    with pytest.raises(Complaint, match=r"missed 1 of 2: \[6\]"):
        found.judge(6)
