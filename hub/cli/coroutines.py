"""A command that is a coroutine, from its beginning to its end in order."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .interrupts import Interrupted, Wish, taken

T = TypeVar("T")


def run(main: Callable[[Wish], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine as `asyncio.run`; SIGINT and SIGTERM cancel it, once, so that it can end in order.

    It is made with the wish that may end it. Raises Interrupted if it was cancelled so. Signals are the main thread's:
    in another one nothing is taken.
    """
    wish = Wish(_noted)
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(main(wish))
    with taken(wish):
        try:
            return asyncio.run(_cancelled(wish, main))
        except asyncio.CancelledError:
            if wish.by is None:
                raise
            raise Interrupted(wish.by) from None


async def _cancelled(wish: Wish, main: Callable[[Wish], Coroutine[Any, Any, T]]) -> T:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    wish.then = lambda number: loop.call_soon_threadsafe(task.cancel)
    try:
        with _woken(loop):
            if wish.by is not None:  # meanwhile
                raise asyncio.CancelledError
            return await main(wish)
    finally:
        wish.then = _noted


@contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have a signal wake the loop, which may be about to wait: its handler runs only when that has come back."""
    heard, told = socket.socketpair()
    with heard, told:
        heard.setblocking(False)
        told.setblocking(False)
        loop.add_reader(heard, heard.recv, 4096)
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(heard)


def _noted(number: int) -> None:
    """There is nothing to cancel yet, or any more."""
