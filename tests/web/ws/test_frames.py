"""WebSocket frames, byte by byte: bytes in, messages out."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.ws import frames
from hub.web.ws.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frames,
    Violation,
    close_frame,
    closing,
    control,
    unmask,
)

MASK = b"\x01\x80\xff\x00"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes | None = MASK, bits: int = 0) -> bytes:
    """A client's frame, built the slow and plain way."""
    size = len(payload)
    masked = 0x80 if mask is not None else 0
    head = bytes([(0x80 if final else 0) | bits | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def read(data: bytes, *, most: int = 65536, step: int = 0) -> list[tuple[int, str | bytes]]:
    """Everything but pieces of a message, from bytes that come `step` at a time (0: all at once)."""
    return list(messages(Frames(most), data, step or len(data) or 1))


def messages(stream: Frames, data: bytes, step: int) -> Iterator[tuple[int, str | bytes]]:
    for at in range(0, len(data), step):
        stream.feed(data[at : at + step])
        while (message := stream.next()) is not None:
            if message[0] != CONTINUATION:
                yield message


@given(st.lists(st.text(max_size=200), max_size=5), st.integers(1, 50), st.binary(min_size=4, max_size=4))
def test_messages_come_out_whole_however_the_bytes_come_in(texts: list[str], step: int, mask: bytes) -> None:
    data = b"".join(frame(TEXT, text.encode(), mask=mask) for text in texts)
    assert read(data, step=step) == [(TEXT, text) for text in texts]


@given(st.text(max_size=60), st.lists(st.integers(0, 200), max_size=6), st.booleans(), st.integers(1, 40))
def test_fragments_are_put_together_around_control_frames(text: str, cuts: list[int], pings: bool, step: int) -> None:
    body = text.encode()
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)] or [b""]
    data = b""
    for i, piece in enumerate(pieces):
        data += frame(TEXT if i == 0 else CONTINUATION, piece, final=i == len(pieces) - 1)
        if pings and i < len(pieces) - 1:
            data += frame(PING, b"still there?")
    found = read(data, step=step)
    assert [message for message in found if message[0] == TEXT] == [(TEXT, text)]
    assert len(found) == 1 + (len(pieces) - 1 if pings else 0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_every_length(size: int) -> None:
    assert read(frame(TEXT, b"x" * size), step=1000) == [(TEXT, "x" * size)]


VIOLATIONS = {
    "reserved bit": (frame(TEXT, b"x", bits=0x40), 1002),
    "unknown opcode": (frame(0x3, b"x"), 1002),
    "unknown control": (frame(0xB), 1002),
    "not masked": (frame(TEXT, b"x", mask=None), 1002),
    "long control": (frame(PING, b"x" * 126), 1002),
    "control in pieces": (frame(PING, b"x", final=False), 1002),
    "binary": (frame(BINARY, b"x"), 1003),
    "nothing to continue": (frame(CONTINUATION, b"x"), 1002),
    "a text inside a text": (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    "bad UTF-8": (frame(TEXT, b"\xff"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "half a character": (frame(TEXT, "ä".encode()[:1]), 1007),
    "bad UTF-8 in pieces": (frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"\xff", final=False), 1007),
    "too long": (frame(TEXT, b"x" * 65537), 1009),
    "too long in pieces": (frame(TEXT, b"x" * 65000, final=False) + frame(CONTINUATION, b"x" * 537), 1009),
    "only announced": (bytes([0x81, 0xFF]) + (2**40).to_bytes(8, "big"), 1009),
    "nothing for ever": (frame(TEXT, final=False) + frame(CONTINUATION, final=False) * 2000, 1008),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
@pytest.mark.parametrize("step", [0, 1, 7])
def test_what_a_client_may_not_send(data: bytes, code: int, step: int) -> None:
    with pytest.raises(Violation) as found:
        read(data, step=step)
    assert found.value.code == code


def test_a_frame_that_is_too_long_is_refused_before_it_comes() -> None:
    stream = Frames(1000)
    stream.feed(frame(TEXT, b"x" * 1001)[:8])
    with pytest.raises(Violation):
        stream.next()


def test_memory_is_given_back() -> None:
    stream = Frames(65536)
    for _ in range(100):
        stream.feed(frame(TEXT, b"x" * 60000)[:50000])
        assert stream.next() is None
        stream.feed(frame(TEXT, b"x" * 60000)[50000:])
        assert stream.next() == (TEXT, "x" * 60000)
        assert stream.next() is None
        assert stream.waiting == 0


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_message_or_a_violation(data: bytes) -> None:
    found: list[tuple[int, str | bytes]] = []
    with contextlib.suppress(Violation):
        found = read(data)
    assert all(opcode in frames.OPCODES for opcode, _ in found)


def test_without_the_size_check_memory_would_follow_the_client() -> None:
    stream = Frames(10**13)
    stream.feed(VIOLATIONS["only announced"][0] + b"x" * 100_000)
    assert stream.next() is None
    assert stream.waiting > 100_000


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=100))
def test_unmasking(mask: bytes, data: bytes) -> None:
    plain = unmask(mask, data)
    assert plain == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert unmask(mask, plain) == data


class TestClosing:
    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
    def test_codes_that_may_come(self, code: int) -> None:
        assert closing(code.to_bytes(2, "big") + b"bye") == code

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65535])
    def test_codes_that_may_not(self, code: int) -> None:
        with pytest.raises(Violation) as found:
            closing(code.to_bytes(2, "big"))
        assert found.value.code == 1002

    def test_the_rest(self) -> None:
        assert closing(b"") is None
        with pytest.raises(Violation):
            closing(b"\x03")
        with pytest.raises(Violation) as found:
            closing(b"\x03\xe8\xff")
        assert found.value.code == 1007

    def test_a_reason_is_cut_between_characters(self) -> None:
        whole = close_frame(1001, "ä" * 100)
        assert len(whole) <= 127
        assert whole[0] == 0x80 | CLOSE
        assert whole[4:].decode() == "ä" * 61
        assert control(PONG, b"x") == b"\x8a\x01x"
        assert {TEXT, PING} <= frames.OPCODES
