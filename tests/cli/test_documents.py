"""What stands on stdin of `hub publish`: one JSON text, or one a line, in batches for a request each."""

from collections.abc import Callable
from typing import Any

import pytest

from hub.cli import documents as documents_
from hub.cli.documents import _state, documents
from hub.errors import HubError, UsageError
from hub.wire.strictjson import LARGEST


def read(*chunks: bytes) -> Callable[[int], bytes]:
    """A stream that gives one chunk after the other, as a pipe does."""
    waiting = iter(chunks)
    return lambda size: next(waiting, b"")


def never(why: str) -> None:
    """Where no line is wrong."""
    raise AssertionError(why)


@pytest.mark.parametrize(
    ("chunks", "batches"),
    [
        ([], []),
        ([b"\n \n"], []),
        ([b"1"], [[(1, "1")]]),
        ([b"1\n2\n", b"3\n"], [[(1, "1"), (2, "2")], [(3, "3")]]),  # sent as they come
        ([b'{"a"', b':1}\n"', b'x"\r\n'], [[(1, '{"a":1}')], [(2, '"x"\r')]]),
        ([b"\n1\n\n2"], [[(2, "1")], [(4, "2")]]),
        ([b'{\n"a":\n', b"1\n}\n"], [[(1, '{\n"a":\n1\n}\n')]]),  # one JSON over all lines
        ([b"[\n]"], [[(1, "[\n]")]]),
    ],
)
def test_stdin_is_one_json_or_one_a_line(chunks: list[bytes], batches: list[Any]) -> None:
    assert list(documents(read(*chunks), never)) == batches


def test_with_an_id_stdin_is_one_json() -> None:
    assert list(documents(read(b"1\n"), never, whole=True)) == [[(1, "1\n")]]
    with pytest.raises(UsageError, match="on stdin"):
        list(documents(read(b"1\n2\n"), never, whole=True))


@pytest.mark.parametrize(
    "bad", [b"nope", b'{"a":1,"a":2}', b"NaN", b"\xff", b'"\\ud800"', b"1 2", b"{", b'{"n": 1, "te', b"tru"]
)
def test_a_bad_line_is_told_and_left_out(bad: bytes) -> None:
    told: list[str] = []
    batches = documents(read(b"1\n2\n" + bad + b"\n3\n", bad), told.append)
    assert list(batches) == [[(1, "1"), (2, "2"), (4, "3")]]
    assert [text.rpartition(" in ")[2] for text in told] == ["line 3.", "line 5."]


@pytest.mark.parametrize("torn", [b'{"n": 1, "te', b"tru", b"nope"])
def test_so_is_a_bad_first_line(torn: bytes) -> None:
    told: list[str] = []
    assert list(documents(read(torn + b"\n2\n"), told.append)) == [[(2, "2")]]
    assert [text.rpartition(" in ")[2] for text in told] == ["line 1."]


def test_a_batch_fits_into_one_request() -> None:
    short = [len(batch) for batch in documents(read(b"1\n" * 2500), never)]
    assert short == [1000, 1000, 500]
    long = [len(batch) for batch in documents(read(b'"%b"\n' % (b"x" * 300_000) * 3), never)]
    assert long == [1, 1, 1]


# ---- what would take for ever


def counting(*chunks: bytes) -> tuple[Callable[[int], bytes], list[int]]:
    """A stream, and the sizes of what was read of it."""
    taken: list[int] = []
    waiting = iter(chunks)

    def read(size: int) -> bytes:
        chunk = next(waiting, b"")
        taken.append(len(chunk))
        return chunk

    return read, taken


@pytest.mark.parametrize("torn", [b'{"n": 1,\n', b'{"n":\n', b"[\n", b'[{"n": 1}\n', b'{"n": {\n'])
def test_a_torn_first_line_does_not_swallow_the_stream(torn: bytes) -> None:
    read, taken = counting(torn, *[b'{"n": 2}\n'] * 100)
    with pytest.raises(UsageError, match=r"line \d"):
        list(documents(read, never))
    assert len(taken) < 20


def test_weakened_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    read, taken = counting(b'{"n": 1,\n', *[b'{"n": 2}\n'] * 100)
    state = documents_._state
    monkeypatch.setattr(documents_, "_state", lambda text: state(text).replace("wrong", "unfinished"))
    with pytest.raises(UsageError):
        list(documents(read, never))
    assert len(taken) == 102


def test_one_json_over_many_lines_is_looked_at_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    state = documents_._state

    def looked(text: bytes) -> str:
        looks.append(len(text))
        return state(text)

    monkeypatch.setattr(documents_, "_state", looked)
    text = b"[\n" + b"1,\n" * 100_000 + b"1]"
    chunks = [text[start : start + 65536] for start in range(0, len(text), 65536)]
    assert [number for [(number, _)] in documents(counting(*chunks)[0], never)] == [1]
    assert sum(looks) < 3 * len(text)


LONG = [b"x" * 65536] * 1000


def test_one_json_that_is_too_long_is_refused_as_soon_as_it_is() -> None:
    for first, whole in ((b"{\n", False), (b"{", True), (b"\n1\n", True)):
        read, taken = counting(first, *LONG)
        with pytest.raises(HubError, match=r"^What is on stdin has more than 1048576 bytes") as refused:
            list(documents(read, never, whole))
        assert refused.value.code == "too_large"
        assert sum(taken) < LARGEST + 2 * 65536


def test_a_line_that_is_too_long_is_told_as_soon_as_it_is_and_left_out() -> None:
    """Whatever follows a program for days loses one line, not all behind it."""
    told: list[str] = []
    read, taken = counting(b'1\n"', *LONG[:20], b'"\n2\n', b"3\n")
    batches = documents(read, told.append)
    assert next(batches) == [(1, "1")]
    assert next(batches) == [(3, "2")]
    assert told == ["Line 2 has more than 1048576 bytes; no event can have as many."]
    assert list(batches) == [[(4, "3")]]

    read, taken = counting(b'1\n"', *LONG)
    with pytest.raises(ToldError):  # at once, not when the line has ended
        list(documents(read, the_end_of_it))
    assert sum(taken) < LARGEST + 2 * 65536


class ToldError(Exception):
    """A line is wrong."""


def the_end_of_it(why: str) -> None:
    raise ToldError(why)


@pytest.mark.parametrize(("size", "good"), [(LARGEST, True), (LARGEST + 1, False)])
@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("chunk", [1000, LARGEST * 2])
def test_a_line_is_too_long_from_one_byte_on(size: int, good: bool, end: bytes, chunk: int) -> None:
    told: list[str] = []
    text = b'"' + b"x" * (size - 2) + b'"' + end
    read = counting(*[text[start : start + chunk] for start in range(0, len(text), chunk)])[0]
    assert [number for batch in documents(read, told.append) for number, _ in batch] == [1] * good
    assert len(told) == (not good)


@pytest.mark.parametrize("weakened", [False, True])
def test_a_line_without_end_is_given_up(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(documents_, "MOST_PASSED", 2**40)
    told: list[str] = []
    read, taken = counting(b"1\n", *LONG, *LONG, b"\n2\n")
    batches = documents(read, told.append)
    assert next(batches) == [(1, "1")]
    if weakened:
        assert list(batches) == [[(3, "2")]]
        return
    with pytest.raises(HubError, match="what stands behind it is not read"):
        list(batches)
    assert len(taken) < 1100


def test_weakened_all_of_it_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_, "_held", lambda line: line)
    told: list[str] = []
    assert list(documents(counting(b'"', *LONG[:100])[0], told.append)) == []
    assert len(told) == 1
    assert "1048576" not in told[0]


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (b"1", "whole"),
        (b"[1", "unfinished"),
        (b"1 2", "wrong"),
        (b'"\xff"', "wrong"),
        (b"[" * 100_000, "wrong"),
        (b"", "unfinished"),
    ],
)
def test_what_a_text_is(text: bytes, state: str) -> None:
    assert _state(text) == state
