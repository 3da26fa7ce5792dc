"""JSON texts on stdin, as they come: one a line, or one over all lines, in batches for a request each."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal

from ..errors import HubError, UsageError
from ..wire.strictjson import LARGEST, loads

CHUNK = 64 * 1024  # bytes read from stdin at once
MOST_PASSED = 64 * 1024 * 1024  # bytes of a line that no event can hold, until the stream is given up
BATCH_EVENTS, BATCH_BYTES = 1000, 512 * 1024  # of one request: what the hub takes, and half of it

Line = tuple[int, str]  # its number, and its JSON text


def documents(read: Callable[[int], bytes], wrong: Callable[[str], None], whole: bool = False) -> Iterator[list[Line]]:
    """The JSON texts of a stream, as they come, in batches for a request; of a line that is none `wrong` gets told.

    A line that no event can hold is one of those, told as soon as it is too long. Raises UsageError for what goes over
    all lines and is no JSON, and HubError `too_large` for that, and for a line that goes on and on; what stands before
    it has been handed out.
    """
    groups, number, begun = _lines(read), 0, False
    for group in groups:
        ready: list[Line] = []
        for index, line in enumerate(group):
            number += 1
            if line is None and not whole:
                begun = True
                wrong(str(_too_large(f"Line {number}")))
                continue
            if line is not None and not line.strip():
                continue
            if line is None or (not begun and (whole or _state(line) == "unfinished")):
                yield [(number, _over_lines(chain(group[index:], chain.from_iterable(groups))))]
                return
            begun = True
            try:
                ready.append((number, _strict(line, f"in line {number}")))
            except UsageError as error:
                wrong(str(error).replace(" at line 1, column", " at column"))
        yield from _batches(ready)


def _lines(read: Callable[[int], bytes]) -> Iterator[list[bytes | None]]:
    """The lines of a stream, grouped by when they arrived; None for one that no event can hold, as soon as it is too
    long, and what is left of it is passed over. Raises HubError for one that goes on and on."""
    rest: bytes | None = b""
    passed = 0
    while chunk := read(CHUNK):
        *ended, last = chunk.split(b"\n")
        group: list[bytes | None] = []
        for piece in ended:
            if rest is not None:
                group.append(_held(rest + piece))
            rest, passed = b"", 0
        if rest is None:
            passed += len(last)
        elif (rest := _held(rest + last)) is None:
            group.append(None)
        if passed > MOST_PASSED:
            raise HubError(
                "too_large", f"One line has more than {MOST_PASSED} bytes; what stands behind it is not read."
            )
        if group:
            yield group
    if rest is not None:
        yield [rest]


def _held(line: bytes) -> bytes | None:
    return line if len(line) <= LARGEST else None


def _over_lines(lines: Iterator[bytes | None]) -> str:
    """One JSON text that goes over all lines. Raises UsageError if it does not, and soon, not at the end: where its
    first line was torn, a stream without end may stand behind it."""
    text, looked_at = bytearray(), 0
    for line in lines:
        if line is None or len(text) + len(line) > LARGEST:
            raise _too_large("What is on stdin")
        text += (b"\n" if text else b"") + line
        if len(text) >= 2 * looked_at:
            looked_at = len(text)
            if _state(text) == "wrong":
                break
    return _strict(bytes(text), "on stdin")


def _too_large(what: str) -> HubError:
    return HubError("too_large", f"{what} has more than {LARGEST} bytes; no event can have as many.")


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == BATCH_EVENTS or size + len(line[1]) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line[1])
    if batch:
        yield batch


def _state(text: bytes | bytearray) -> Literal["whole", "unfinished", "wrong"]:
    """What this is: a JSON text, the beginning of one that may go on in the next line, or neither."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return "unfinished" if error.pos >= len(error.doc.rstrip()) else "wrong"
    except (ValueError, RecursionError):
        return "wrong"
    return "whole"


def _strict(text: bytes, where: str) -> str:
    """The text, if the hub's own reader takes it: so a line that it would refuse is told by its number."""
    try:
        loads(text)
    except HubError as error:
        raise UsageError(f"{error.message.rstrip('.')}, {where}.") from None
    return text.decode()
