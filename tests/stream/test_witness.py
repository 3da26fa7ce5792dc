"""What a hub remembers of the stream that it has seen."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import draft

from hub.stream.brokers.rarely import MOST, Rarely
from hub.stream.brokers.witness import FILE, SIZE, Witness
from hub.stream.events import Event
from hub.wire.names import Cursor
from hub.wire.timestamps import stamp


def event(seq: int, at: float = 1_700_000_000.25) -> Event:
    return Event(draft("x"), Cursor("aaaaaaaa", seq), stamp(at), 0.0)


def seen(directory: Path | None, *numbers: int) -> Witness:
    found = Witness(directory)
    found.begin("aaaaaaaa", 0, 0)
    for seq in numbers:
        found.see(event(seq))
        found.note()
    return found


def again(directory: Path) -> Witness:
    found = Witness(directory)
    found.load()
    return found


def test_it_says_what_it_has_seen_and_when() -> None:
    it = seen(None, 3)
    it.see(event(5, 1_700_000_000.999))
    assert it.words == ["aaaaaaaa", 5, "1700000000999", 3, "1700000000250"]
    assert it.newest == (3, "1700000000250")
    assert Witness(None).words == ["", 0, ""]
    assert Witness(None).newest == (0, "")


def test_the_next_start_knows_it(tmp_path: Path) -> None:
    it = seen(tmp_path, 3, 5)
    it.see(event(6))
    assert again(tmp_path).words[:2] == ["aaaaaaaa", 5]
    it.close()
    it.close()
    found = again(tmp_path)
    assert (
        found.words
        == ["aaaaaaaa", 6, "", 6, "1700000000250", 5, "1700000000250", 3, "1700000000250"][: len(found.words)]
    )
    assert (found.epoch, found.head) == ("aaaaaaaa", 6)
    assert oct((tmp_path / FILE).stat().st_mode)[-3:] == "600"
    assert (tmp_path / FILE).stat().st_size == SIZE


def test_another_epoch_has_what_is_the_same_of_the_one_before() -> None:
    it = seen(None, 1, 2, 3)
    it.begin("bbbbbbbb", 7, 2)
    assert (it.epoch, it.head) == ("bbbbbbbb", 7)
    assert it.words == ["bbbbbbbb", 7, "", 2, "1700000000250", *it.words[5:]]
    it.note()  # nothing was seen since
    assert it.newest[0] == 2


@given(st.integers(1, 3000))
def test_the_longer_ago_the_fewer(count: int) -> None:
    it = seen(None)
    for seq in range(1, count + 1):
        it.see(event(seq))
        it.note()
    back = [count - mark.seq for mark in it._marks]
    assert back[0] == 0
    assert len(back) <= 2 * count.bit_length() + 2
    for near, far in pairwise(back):
        assert far <= 4 * near + 4  # never a long way without one
    assert len(json.dumps(it._marks)) < SIZE // 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"epoch":"a"}',
        '{"epoch":"a","seq":1,"marks":[[1]]}',
        '{"epoch":"a 9","seq":1,"marks":[]}',
        '{"epoch":"a","seq":"x","marks":[]}',
    ],
)
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert again(tmp_path).words == ["", 0, ""]


def test_a_planted_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "other").write_text('{"epoch":"aaaaaaaa","seq":1,"marks":[]}')
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    assert again(tmp_path).epoch == ""
    seen(tmp_path, 1, 2, 3).close()
    assert (tmp_path / "other").read_text().startswith("{")
    assert caplog.text.count("could not be noted") == 1


def test_a_disk_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    it = seen(tmp_path, 1)

    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for seq in (2, 3):
            it.see(event(seq))
            it.note()
    assert caplog.text.count("No space left on device") == 1
    it.note()
    assert again(tmp_path).head == 3


def test_the_same_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("hub.stream.brokers.rarely.time.monotonic", lambda: now[0])
    it = Rarely()
    assert [it.may(words) for words in ("a", "b", "a")] == [True, True, False]
    now[0] += 60
    assert it.may("a")
    for number in range(2 * MOST):
        it.may(f"{number}")
    assert len(it._said) <= MOST
