"""The workers of one port, as the process sees them that has started them: it starts again what ends, and stops all.

It runs no thread and no event loop, so it can fork at any time.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from ..config import Config
from ..errors import HubError, UsageError
from ..processes import ended_in_words
from ..stdio import has_terminal, mention
from .access import login
from .access.credentials import Tokens
from .access.guard import common_tickets, mode
from .sdnotify import Systemd
from .seats import READY, REFUSED, Seat
from .serverfile import RETRY, ServerFile
from .snapshots import Snapshots

log = logging.getLogger("hub")

PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds until a worker is started again, the more often it has ended
STEADY = 60.0  # seconds after which a worker that ends counts as one that ends for the first time
LAST = 6.0  # seconds that a stop takes at most, beyond those that running calls get
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

Serve = Callable[[Config, Seat], int]


@dataclass(eq=False, slots=True)
class _Worker:
    """One place, and the process that has it just now."""

    number: int
    asked: socket.socket
    pid: int = 0
    told: int = -1  # read from, until it has said how its start has ended
    ready: bool = False
    began: float = 0.0
    ends: int = 0  # how often it has ended, one time soon after the other
    due: float = 0.0  # when it is started again


class Crew:
    """The workers of one port."""

    def __init__(self, config: Config, port: int, url: str, serve: Serve) -> None:
        self._config, self._port, self._url, self._serve = config, port, url, serve
        self._workers = [_Worker(number, _asked()) for number in range(1, config.workers + 1)]
        self._snapshots = Snapshots(config.workers)
        self._systemd = Systemd()
        self._alive, self._held = os.pipe()  # a worker reads the end of the one when nobody has the other any more
        self._heard: list[int] = []
        self._stopping = 0.0  # when what is left is killed
        self._started = False
        self._file, self._written = ServerFile(config.state_dir, url), False
        self._due = 0.0  # when it is tried next to write that

    def run(self) -> int:
        """Run them to their end. Raises UsageError if one of them cannot start at first."""
        with self._hearing() as woken:
            try:
                while not (self._stopping and not any(worker.pid for worker in self._workers)):
                    self._write_due()
                    self._start_due()
                    self._wait(woken)
                    self._hear()
                    self._reap()
            except BaseException:
                self._end_all(signal.SIGKILL)
                for worker in self._workers:
                    if worker.pid:
                        os.waitpid(worker.pid, 0)
                raise
            finally:
                self._file.withdraw()
        return 0

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[int]:
        """Note signals, and wake up at each."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            os.close(woken)
            os.close(wake)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._heard.append(number)

    def _wait(self, woken: int) -> None:
        """Return when a signal has come, a worker has told something, or something is due."""
        dues = [worker.due for worker in self._workers if not worker.pid and not self._stopping]
        dues += [self._stopping] * (self._stopping > 0) + [self._due] * (not self._written)
        ends = min(dues, default=None)
        told = {worker.told: worker for worker in self._workers if worker.told >= 0}
        wait = None if ends is None else max(0.0, ends - time.monotonic())
        readable, _, _ = select.select([woken, *told], [], [], wait)
        for descriptor in readable:
            data = os.read(descriptor, 8192)
            if descriptor in told:
                self._hear_of(told[descriptor], data)

    def _hear(self) -> None:
        heard, self._heard = self._heard, []
        for number in heard:
            if number == signal.SIGHUP and not has_terminal():
                self._systemd.reloading()
                self._end_all(signal.SIGHUP)
                self._systemd.ready()  # each worker says in the log what it has read
            elif number != signal.SIGCHLD:
                self._stop(number)
        if self._stopping and time.monotonic() >= self._stopping:
            self._end_all(signal.SIGKILL)

    def _stop(self, number: int) -> None:
        """Stop all of them; at a second signal at once."""
        if self._stopping and number != signal.SIGHUP:
            self._end_all(signal.SIGKILL)
            os._exit(128 + number)
        if not self._stopping:
            self._systemd.stopping()
            self._stopping = time.monotonic() + self._config.stop_timeout + LAST
            self._end_all(signal.SIGTERM)

    def _end_all(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    # ---- one worker

    def _start_due(self) -> None:
        for worker in self._workers:
            if not worker.pid and not self._stopping and time.monotonic() >= worker.due:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        worker.told, told = os.pipe()
        worker.began, worker.ready = time.monotonic(), False
        others = {other.number: other.asked.getsockname() for other in self._workers if other is not worker}
        seat = Seat(worker.number, self._port, worker.asked, others, self._snapshots, self._alive, told)
        self._snapshots.begin(worker.number)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        worker.pid = os.fork()
        if not worker.pid:
            self._become(seat)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(told)

    def _become(self, seat: Seat) -> None:
        """Be a worker, in the process that was just made for it; never returns. It has a process group of its own: what
        a terminal sends goes to the parent, which passes it on."""
        status = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(self._held)
            status = self._serve(self._config, seat)
        except UsageError as error:
            seat.tell(REFUSED, str(error))
            status = 2
        except BaseException:
            log.exception("worker %d failed, which is a bug of the hub; it is started again", seat.number)
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(status)

    def _hear_of(self, worker: _Worker, data: bytes) -> None:
        os.close(worker.told)
        worker.told = -1
        if data == READY:
            worker.ready = True
            if not self._started and all(each.ready for each in self._workers):
                self._announce()
        elif data and not self._started:
            raise UsageError(_sentence(data))
        elif data:
            log.error("worker %d cannot start: %s; it is tried again", worker.number, _sentence(data))

    def _reap(self) -> None:
        """Take the ends of workers; those that nobody has asked for are begun again, later and later."""
        for worker in self._workers:
            pid, status = os.waitpid(worker.pid, os.WNOHANG) if worker.pid else (0, 0)
            if pid:
                worker.pid = 0
                self._snapshots.end(worker.number)
                if worker.told >= 0:
                    self._hear_of(worker, os.read(worker.told, 8192))
                if not self._stopping:
                    self._lament(worker, os.waitstatus_to_exitcode(status))

    def _lament(self, worker: _Worker, status: int) -> None:
        """Say how it has ended. Who is killed has no last lines."""
        how, was_killed = ended_in_words(status) or "exit status 0", status < 0
        if not self._started:
            self._stopping = time.monotonic()
            why = "." if was_killed else "; the log says why."
            raise UsageError(f"Worker {worker.number} has ended before it listened, with {how}{why}")
        worker.ends = 1 if time.monotonic() - worker.began > STEADY else worker.ends + 1
        pause = PAUSES[min(worker.ends, len(PAUSES)) - 1]
        worker.due = time.monotonic() + pause
        again = f"it is started again in {pause:g} s"
        if was_killed:
            log.error("worker %d was ended by %s; %s", worker.number, how, again)
        else:
            log.error("worker %d has ended with %s; %s; its last lines say why", worker.number, how, again)

    # ---- where they are found

    def _write_due(self) -> None:
        """Say where they are, before anybody is let in: who comes back reads there whether they get the token. Raises
        UsageError."""
        if not self._written and time.monotonic() >= self._due:
            self._written, self._due = self._file.write(), time.monotonic() + RETRY

    def _announce(self) -> None:
        self._started = True
        mention(f"hub is listening on {self._url}")
        self._invite()
        self._systemd.ready()

    def _invite(self) -> None:
        if mode(self._config) == "token":
            tokens = Tokens(self._config.state_dir, common_tickets(self._config))
            try:
                login.invite(tokens, self._url)
            except HubError as error:
                log.error("there is no link to the page: %s; hub token --link makes one", error)


def _sentence(told: bytes) -> str:
    """What a worker has told behind REFUSED; one that is long was cut, perhaps in the middle of a character."""
    return told.removeprefix(REFUSED).decode("utf-8", "replace")


def _asked() -> socket.socket:
    """Where a worker is asked for what it has counted: an address that the system has chosen, which no file stands for
    and which stays the same when the worker is another process."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.bind("")
    sock.listen(16)
    return sock
