"""Waiting for the ends of processes that are not our children: the kernel says so, at no cost while they run."""

import asyncio
import contextlib
import errno
import os
import resource
from collections.abc import Callable

from ..processes import Process, process

SHARE = 4  # of the descriptors that this process may have, one in so many is for this
POLL_SECONDS = 0.5  # between two looks at those for whom there is no descriptor


class Pidfds:
    """The processes that are waited for. `ended(process)` is called once for each that has ended, by the event loop;
    also for one that had ended before."""

    def __init__(self, ended: Callable[[Process], None]) -> None:
        self._ended = ended
        self._descriptors: dict[Process, int] = {}
        self._polled: dict[Process, None] = {}  # without a descriptor, as they are all taken or the system has none
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._descriptors) + len(self._polled)

    def watch(self, known: Process) -> None:
        """Wait for its end. Watched already, it is no other."""
        if known in self._descriptors or known in self._polled:
            return
        try:
            descriptor = _opened(known) if len(self._descriptors) < _room() else None
        except ProcessLookupError:
            asyncio.get_running_loop().call_soon(self._ended, known)
            return
        if descriptor is None:
            self._polled[known] = None
            self._later()
        else:
            self._descriptors[known] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._readable, known)

    def forget(self, known: Process) -> None:
        """Wait no more. What is not waited for is no error."""
        self._polled.pop(known, None)
        descriptor = self._descriptors.pop(known, None)
        if descriptor is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Forget all."""
        for known in [*self._descriptors, *self._polled]:
            self.forget(known)
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self, known: Process) -> None:
        self.forget(known)
        self._ended(known)

    def _later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for known in [known for known in self._polled if not is_running(known)]:
            self._readable(known)
        if self._polled:
            self._later()


def is_running(known: Process) -> bool:
    """Whether this very process runs, and not another one that has got its number."""
    now = process(known.pid)
    return now is not None and now.started == known.started and not now.has_ended


def _room() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**20 if soft == resource.RLIM_INFINITY else soft // SHARE


def _opened(known: Process) -> int | None:
    """A descriptor of this process; None where there is none to be had. Raises ProcessLookupError if it has ended.

    Looked at again behind the opening: the number may have become another process's before.
    """
    try:
        descriptor = os.pidfd_open(known.pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            raise ProcessLookupError from None
        return None
    if not is_running(known):
        os.close(descriptor)
        raise ProcessLookupError
    return descriptor
