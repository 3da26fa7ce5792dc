"""The log on stderr: text for people, or one JSON object a line. Nothing in it can forge a line or drive a terminal;
and if nobody reads it, nobody waits.
"""

import contextlib
import io
import json
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from .config import Config
from .redaction import redact_text
from .wire.timestamps import now

MOST_HELD = 256 * 1024  # bytes of the log that wait for whoever reads it
LAST_WORDS = 0.5  # seconds that a process waits at its end for what it has written


def set_up_logging(config: Config, worker: int | None = None) -> None:
    """Take over the root logger, as a program does; a hub mounted in an application leaves that to the application.
    Each line of one of several workers names it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(worker) if config.log_format == "json" else TextLines(worker))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


class Unhurried(io.TextIOBase):
    """A stream that never waits for its reader: a thread writes to it, and what has no room any more is dropped, and
    counted. Put in the place of `sys.stderr` it takes all that Python writes there, not only the log.

    Without it a pipe that nobody reads would stop the hub at the line that fills it, also its stop.
    """

    def __init__(self, stream: TextIO, most: int = MOST_HELD) -> None:
        self.dropped = 0
        self._stream, self._most = stream, most
        self._descriptor = os.dup(stream.fileno())  # the thread's own, so never anybody else's under the same number
        self._ended = False
        self._encoding, self._errors = stream.encoding, stream.errors or "backslashreplace"
        self._waiting: deque[bytes] = deque()
        self._held = 0  # bytes, of what waits and of what is being written
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, name="hub-stderr", daemon=True).start()

    def write(self, text: str) -> int:
        data = text.encode(self._encoding, self._errors)
        with self._changed:
            if self._ended or self._held + len(data) > self._most:
                self.dropped += 1
            else:
                self._held += len(data)
                self._waiting.append(data)
                self._changed.notify_all()
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def drain(self, seconds: float = LAST_WORDS) -> None:
        """Wait until all is written, but no longer than that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, seconds)

    def end(self) -> None:
        """Take nothing more; what waits is dropped, and the thread ends as soon as its reader lets it."""
        with self._changed:
            self._ended = True
            self.dropped += len(self._waiting)
            self._held -= sum(map(len, self._waiting))
            self._waiting.clear()
            self._changed.notify_all()

    def _write_all(self) -> None:
        while (data := self._next()) is not None:
            done = _written(self._descriptor, data)
            with self._changed:
                self.dropped += not done
                self._held -= len(data)
                self._changed.notify_all()
        os.close(self._descriptor)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            return self._waiting.popleft() if self._waiting else None


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Have nothing that is written to stderr keep this process waiting; at the end LAST_WORDS, no longer."""
    before, sys.stderr = sys.stderr, Unhurried(sys.stderr)
    ours = sys.stderr
    try:
        yield
    finally:
        ours.drain()
        ours.end()
        sys.stderr = before


def _written(descriptor: int, data: bytes) -> bool:
    """Whether it could be written: the disk may be full, or the terminal closed."""
    try:
        while data:
            select.select([], [descriptor], [])  # who shares it may have made it one that does not block
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(descriptor, data) :]
    except OSError:
        return False
    return True


def dropped() -> int:
    """How much of what was written to stderr was dropped, in a process that has an Unhurried one."""
    return getattr(sys.stderr, "dropped", 0)


class TextLines(logging.Formatter):
    """A record begins with its time at the left edge; all that belongs to it, a traceback, is indented. So nothing that
    an exception says can pass for a record."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._who = "" if worker is None else f"worker {worker}: "

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname} {self._who}{_said(record)}"
        trace = redact_text(self.formatException(record.exc_info)).split("\n") if record.exc_info else []
        return "\n".join([escaped(head), *(f"  {escaped(line)}" for line in trace)])


class JSONLines(logging.Formatter):
    """JSON escapes by itself."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._who = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"timestamp": now(), "level": record.levelname.lower(), "logger": record.name}
        line |= self._who
        line["message"] = _said(record)
        if record.exc_info:
            line["exception"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(line)


def _said(record: logging.LogRecord) -> str:
    """The line, without secrets. A sentence that it quotes in its middle has no full stop there."""
    return redact_text(record.getMessage()).replace(".; ", "; ")


class Seldom:
    """Logs one line a second at most; how many were left out in between, the next one says. For what others can cause
    as often as they like."""

    def __init__(self, log: logging.Logger, seconds: float = 1.0) -> None:
        self._log, self._seconds = log, seconds
        self._next, self._left_out = 0.0, 0

    def info(self, text: str) -> None:
        """Log the text, or count it."""
        if (now := time.monotonic()) < self._next:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._next, self._left_out = now + self._seconds, 0
        self._log.info("%s%s", text, more)


def escaped(text: str) -> str:
    """Stops line breaks and controls: printable ASCII stays, all else is written as in a Python string."""
    return text.encode("unicode_escape").decode("ascii")


escaped("")  # loads the codec now: without descriptors, when the log matters most, it cannot be
