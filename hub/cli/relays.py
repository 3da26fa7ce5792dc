"""The output of a program, passed on byte for byte and at once, and its last line on the way."""

import contextlib
import os
import re
import select
import stat
import threading
import time
from collections.abc import Callable
from functools import partial

from ..redaction import redact_text
from ..stdio import complain
from .child import spawn

STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 64 * 1024  # bytes, as many as a pipe holds
KEPT, SHOWN = 8 * 1024, 500  # bytes of the newest output that are looked at; characters of a line that are shown
TOGETHER = 0.1  # seconds within which nobody can say which of two streams was written to last
_DRIVES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])")  # ECMA-48


class Relays:
    """Stdout and stderr of a program. A terminal, or another device, is the program's own: it stays what it is."""

    def __init__(self) -> None:
        """Make the pipes: `descriptors` are their ends that the program writes to, by its own descriptors. Where both
        lead to the same place they share one: so their order stays."""
        self._relays: list[_Relay] = []
        self.descriptors: dict[int, int] = {}
        self._newest: dict[int, bytes] = {}  # by descriptor
        self._heard: dict[int, float] = {}
        for descriptor in (STDOUT, STDERR):
            if _is_device(descriptor):
                continue
            if self.descriptors and os.path.sameopenfile(STDOUT, STDERR):
                self.descriptors[STDERR] = self.descriptors[STDOUT]
            else:
                relay = _Relay(descriptor, partial(self._take, descriptor))
                self._relays.append(relay)
                self.descriptors[descriptor] = relay.writer

    def start(self, look: Callable[[], None]) -> None:
        """Pass on what comes; `look` is called when the last line may be another."""
        self._look = look
        for writer in set(self.descriptors.values()):
            os.close(writer)
        for relay in self._relays:
            relay.start()

    def finish(self) -> None:
        """The program has ended: return when all that it has written is passed on. What it has left behind in the
        background may go on writing, and is passed on by `cat`."""
        for relay in self._relays:
            relay.finish()

    def last_line(self) -> str | None:
        """Return the last line that is not empty, without secrets and what drives a terminal; None if there is none. Of
        two that came together that of stderr: there a program says why it ends."""
        at = self._heard.get
        is_older = at(STDERR, 0.0) < at(STDOUT, 0.0) - TOGETHER
        lines = (_last_line(self._newest.get(one, b"")) for one in ((STDOUT, STDERR) if is_older else (STDERR, STDOUT)))
        return next(filter(None, lines), None)

    def _take(self, descriptor: int, data: bytes) -> None:
        newest = data if len(data) >= KEPT else self._newest.get(descriptor, b"") + data
        self._newest[descriptor], self._heard[descriptor] = newest[-KEPT:], time.monotonic()
        self._look()


def _last_line(newest: bytes) -> str | None:
    text = redact_text(_DRIVES.sub("", newest.decode("utf-8", "replace")))
    *lines, last = re.split(r"[\r\n]+", text.rstrip()) or [""]
    if not lines and len(newest) == KEPT:
        return "…"  # longer than what is kept: it may begin within a secret
    shown = "".join(c if c.isprintable() else " " for c in last).strip()
    return shown[:SHOWN] or None


class _Relay:
    """One pipe from the program, and the descriptor that its bytes go to."""

    def __init__(self, to: int, take: Callable[[bytes], None]) -> None:
        self._to, self._take = to, take
        self._reader, self.writer = os.pipe()
        self._ended, self._end = os.pipe()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        os.close(self._end)
        self._thread.join()
        if not self._is_over:
            with contextlib.suppress(OSError):
                spawn(["cat"], {STDIN: self._reader, STDOUT: self._to}, mask=set())

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._reader not in ready:
                return  # the program has ended, and this is all
            if not (data := os.read(self._reader, CHUNK)) or not self._pass_on(data):
                self._is_over = True
                os.close(self._reader)  # the program hears of it, as it would without us
                return
            self._take(data)

    def _pass_on(self, data: bytes) -> bool:
        """Write; False if nobody reads it. A full disk takes what it can: that is no reason to end the program."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                select.select([], [self._to], [])
            except BrokenPipeError:
                return False
            except OSError as error:
                complain(f"hub: The output could not be written ({error.strerror}).")
                self._to = os.open(os.devnull, os.O_WRONLY)
        return True


def _is_device(descriptor: int) -> bool:
    """Whether it is a terminal or another device. What leads nowhere can be watched on its way there."""
    facts = os.fstat(descriptor)
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev != os.stat(os.devnull).st_rdev
