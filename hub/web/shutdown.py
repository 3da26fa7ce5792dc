"""The end of the hub's own process: asked for by one signal, at once at the second, certain after some seconds.

Only `python -m hub` may use this. A hub that is mounted in an application leaves the process alone.
"""

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from ..stdio import has_terminal

UNWIND = 1.0  # seconds for what is left when the hub has stopped: tasks and threads that nobody waits for


class Ending:
    """Takes SIGTERM and SIGINT. `asked` is set at the first; `seconds` later the process ends, whatever hangs.

    SIGHUP is the end of the terminal that the hub was started in, and asks as well, however often it comes. Without a
    terminal, or started to outlive it, it calls `reload`, in the event loop.

    Code that blocks the event loop is not in the way: a thread watches. It calls `close` before it ends the process
    with status 0. A signal's handler runs between any two steps of the main thread, and may take no lock: it writes to
    a pipe.
    """

    def __init__(self, seconds: float, close: Callable[[], None], reload: Callable[[], None]) -> None:
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._seconds, self._close, self._signals, self._reload = seconds, close, 0, reload
        self._heard, self._tell = os.pipe()
        threading.Thread(target=self._watch, name="hub-ending", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # it was started to outlive its terminal (nohup)
        signal.signal(signal.SIGHUP, self._on_hangup if has_terminal() and not outlives else self._on_reload)

    def done(self) -> None:
        """The hub has stopped; what is still there has UNWIND seconds."""
        os.write(self._tell, b"d")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)
        os.write(self._tell, b"s")
        self._loop.call_soon_threadsafe(self.asked.set)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        """The shell says it, and the system: that is no second signal."""
        if not self._signals:
            self._on_signal(number, frame)

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        if not self._signals:
            self._loop.call_soon_threadsafe(self._reload)

    def _watch(self) -> None:
        os.read(self._heard, 1)
        done, _, _ = select.select([self._heard], [], [], self._seconds)
        if done:
            time.sleep(UNWIND)
        else:
            self._close()
        os._exit(0)
