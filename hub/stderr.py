"""The log on stderr: text for people, or one JSON object a line. Nothing in it can forge a line or drive a terminal."""

import json
import logging
import sys
import time

from .config import Config
from .redaction import redact_text
from .wire.messages import now


def set_up_logging(config: Config) -> None:
    """Take over the root logger, as a program does; a hub mounted in an application leaves that to the application."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines() if config.log_format == "json" else TextLines())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


class TextLines(logging.Formatter):
    """A record begins with its time at the left edge; all that belongs to it, a traceback, is indented. So nothing that
    an exception says can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname} {redact_text(record.getMessage())}"
        trace = redact_text(self.formatException(record.exc_info)).split("\n") if record.exc_info else []
        return "\n".join([escaped(head), *(f"  {escaped(line)}" for line in trace)])


class JSONLines(logging.Formatter):
    """JSON escapes by itself."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"timestamp": now(), "level": record.levelname.lower(), "logger": record.name}
        line["message"] = redact_text(record.getMessage())
        if record.exc_info:
            line["exception"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(line)


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
