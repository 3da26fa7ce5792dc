"""Stdin, stdout and stderr as they were handed over: closed, full, read by nobody, in any encoding."""

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import TextIO

JSON_ESCAPES = "hub.json"  # the name of a way to write what an encoding does not have
_closed = set[int]()  # those of the three descriptors that were handed over closed


def prepare() -> None:
    """Make the three streams safe to use. Call it before anything is opened."""
    fill()
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_encoding(stream.encoding), errors=JSON_ESCAPES)


def fill() -> None:
    """Have the descriptors 0, 1 and 2 lead nowhere where they are closed.

    Stops what is opened next from getting such a number: a socket that is descriptor 2 is sent all that is meant for
    stderr, and event loops end the process.
    """
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest number that is free: this one
            _closed.add(descriptor)


def has_terminal() -> bool:
    """Return whether this process has a terminal that can be closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def was_closed(stream: TextIO) -> bool:
    """Whether a stream was handed over closed, so that what is written to it leads nowhere."""
    return stream.fileno() in _closed


def _encoding(named: str) -> str:
    """UTF-8, else ASCII: that is in every other encoding, and JSON in it is JSON for everybody."""
    return "utf-8" if codecs.lookup(named).name == "utf-8" else "ascii"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    import json  # here, as what else few commands need

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(JSON_ESCAPES, _escaped)


def say(line: str) -> None:
    """Print a line; if that cannot be done, stderr says so, and what was done stays done."""
    try:
        print(line)
    except OSError as error:
        give_up(error)


def mention(line: str) -> None:
    """Print a line at once, or pass it over where nobody reads: this neither waits nor fails."""
    with contextlib.suppress(OSError):
        if _takes_more(sys.stdout):
            print(line, flush=True)
    let_go(sys.stdout)


def _takes_more(stream: TextIO) -> bool:
    import select

    try:
        return bool(select.select([], [stream], [], 0)[1])
    except OSError:  # no file of the system's: nothing to wait for
        return True


def complain(line: str) -> None:
    """Print a line on stderr, if there is one."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def finish() -> None:
    """Hand over what is left in the buffers, before Python does it and calls a failure exit status 120."""
    try:
        sys.stdout.flush()
    except OSError as error:
        give_up(error)
    let_go(sys.stderr)


def give_up(error: OSError) -> bool:
    """Have stdout lead nowhere from now on; whether stderr has been told why. Who has read enough needs no telling."""
    _lead_nowhere(sys.stdout)
    if error.errno == errno.EPIPE:
        return False
    complain(f"hub: The output could not be written ({error.strerror}).")
    return True


def let_go(stream: TextIO) -> None:
    """Have what is left in the buffer of a stream go nowhere if it cannot be written."""
    try:
        stream.flush()
    except OSError:
        _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
