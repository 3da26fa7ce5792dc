"""How a command is ended before its time: by Ctrl-C, or by who sends SIGTERM.

The first signal ends it in order, whatever it falls into. One in the same moment is the same wish: `timeout` signals
the program and then its group, which is twice. A later one is from who does not want to wait: it ends the process.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

TOGETHER = 0.5  # seconds in which several signals are one wish


class Wish:
    """That of who ends this: `by` is the signal that said it, None until then."""

    def __init__(self, then: Callable[[], object]) -> None:
        """`then` is called once, between any two steps of the main thread: it may take no lock."""
        self.by: int | None = None
        self.then = then
        self._when = 0.0

    def take(self, *numbers: int) -> None:
        """From now on these signals say it."""
        for number in numbers:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.by is None:
            self.by, self._when = number, time.monotonic()
            self.then()
        elif time.monotonic() > self._when + TOGETHER:
            os._exit(128 + number)


def take() -> None:
    """The first Ctrl-C is a KeyboardInterrupt from now on, and no other is, unless this process was started to ignore
    it."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        Wish(_interrupt).take(signal.SIGINT)


def give_back() -> None:
    """Ctrl-C ends this process at once from now on, as it ends any other: there is nothing to be done in order."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def done(status: int) -> None:
    """There is nothing left to interrupt: Ctrl-C ends this process with the status that it has."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(status))


def _interrupt() -> None:
    raise KeyboardInterrupt
