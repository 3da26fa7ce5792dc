"""How a command is ended before its time: by Ctrl-C, or by who sends SIGTERM.

Both end a command at once, as they end any other program, except where it has something to do in order: what takes
them says so, for as long as that is so. The first signal is heard then, whatever it falls into. One in the same moment
is the same wish: `timeout` signals the program and then its group, which is twice. A later one is from who does not
want to wait: it ends the process.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

TAKEN = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 0.5  # seconds in which several signals are one wish


class Interrupted(KeyboardInterrupt):
    """Raised where a command is asked to end. `status`: the exit status that says so."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Wish:
    """That of who ends this: `by` is the signal that said it, None until then."""

    def __init__(self, then: Callable[[int], object]) -> None:
        """`then(signal)` is called once, between any two steps of the main thread: it may take no lock."""
        self.by: int | None = None
        self.then = then
        self._when = 0.0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Hear one, as `signal.signal` calls this."""
        if self.by is None:
            self.by, self._when = number, time.monotonic()
            self.then(number)
        elif time.monotonic() > self._when + TOGETHER:
            os._exit(128 + number)


@contextmanager
def taken(wish: Wish) -> Iterator[None]:
    """Have the wish said to this one. Once said it stays so: what comes behind it is not said to anybody else. Raises
    ValueError in another thread than the main one, whose the signals are."""
    before = {number: signal.signal(number, wish.on_signal) for number in TAKEN}
    try:
        yield
    finally:
        if wish.by is None:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_heard() -> bool:
    """Whether a signal was taken by a command that ends in order."""
    wish = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return isinstance(wish, Wish) and wish.by is not None


def interruptible() -> AbstractContextManager[None]:
    """Meanwhile the first signal raises Interrupted. Import before what brings C code along: of what is raised within
    its import, some does not come back alive (orjson 3.13)."""
    return taken(Wish(_interrupt))


def _interrupt(number: int) -> None:
    raise Interrupted(number)
