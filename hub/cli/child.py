"""A program that runs in our place: it gets what we are sent, and what it ends with is what we end with."""

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Collection, Mapping, Sequence

# What is not handed on: what cannot be caught, stops a process with its whole group, is an error of our own, or is
# ignored by Python.
OURS = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS),
    *(signal.SIGPIPE, signal.SIGXFSZ),
}
IGNORED = [signal.SIGPIPE, signal.SIGXFSZ]  # by Python, which a program would inherit


class Child:
    """A program from its start to its end. Create it before any thread: from then on signals are for it."""

    def __init__(self, words: Sequence[str], descriptors: Mapping[int, int]) -> None:
        """Start it; `descriptors` are those of its own that lead elsewhere than ours. Raises OSError."""
        self._was_interrupted = False  # by the terminal
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._signals = signal.valid_signals() - OURS
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            self._pid = spawn(words, descriptors, self._mask)
        except BaseException:
            self.let_go()
            raise

    def wait(self) -> int:
        """Hand on signals until it ends; its exit status, -n if signal n has ended it.

        What the terminal sends goes to it by itself: only what a process has sent to us is handed on.
        """
        while True:
            info = signal.sigwaitinfo(self._signals)
            if info.si_signo == signal.SIGCHLD:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
            elif info.si_code > 0:
                self._was_interrupted |= info.si_signo == signal.SIGINT
            else:
                with contextlib.suppress(OSError):
                    os.kill(self._pid, info.si_signo)

    def is_interrupted(self, status: int) -> bool:
        """Whether it has ended so because the person at the terminal wanted that: by Ctrl-C, and of nothing else."""
        return self._was_interrupted and status in (-signal.SIGINT, 128 + signal.SIGINT)

    def let_go(self) -> None:
        """Signals are for us again."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def spawn(words: Sequence[str], descriptors: Mapping[int, int], mask: Collection[int]) -> int:
    """Start a program and return its process id; `mask`: the signals that it blocks. Raises OSError."""
    actions = [(os.POSIX_SPAWN_DUP2, ours, its) for its, ours in descriptors.items()]

    def start(*words: str) -> int:
        return os.posix_spawnp(words[0], words, os.environ, file_actions=actions, setsigmask=mask, setsigdef=IGNORED)

    try:
        return start(*words)
    except OSError as error:
        script = shutil.which(words[0])
        if error.errno != errno.ENOEXEC or script is None:
            raise
        return start("/bin/sh", script, *words[1:])  # it does not say of what: so a shell takes it for its own


def exit_status(status: int) -> int:
    """The exit status that a shell would show."""
    return 128 - status if status < 0 else status
