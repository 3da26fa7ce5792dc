"""What the system says of a process: who has started it, since when it runs, whose it is."""

import contextlib
import os
import shlex
import sys
import time
from typing import NamedTuple

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "ash", "busybox", "csh", "tcsh"})
# What only starts another program, and ends with it: to take one for the agent would be to see the agent end.
STARTERS = frozenset(
    {"env", "timeout", "nice", "nohup", "setsid", "stdbuf", "ionice", "chrt", "xargs", "sudo", "uv", "uvx"}
)
# To whom the system gives those whose parent has ended: none of them is an agent.
REAPERS = frozenset({"init", "systemd", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan", "runit"})
MODULE = ["-P", "-m", "hub"]  # behind Python where there is no program; not what lies in the folder of whoever runs it
MOST = 64  # ancestors that are looked at
BOOT = "/proc/sys/kernel/random/boot_id"
NEWEST, LARGEST = "/proc/loadavg", "/proc/sys/kernel/pid_max"  # the number that was given out last, as last word
NEW, RESERVED = 256, 300  # numbers that are new, and those to which the system does not come back
FIRST_NAMESPACE = 0xEFFFFFFC  # of process numbers, as an inode (PROC_PID_INIT_INO of the kernel's <linux/proc_ns.h>)


class Process(NamedTuple):
    """A process. `started` is in ticks since the system's start: with its number it is that one and no later one."""

    pid: int
    name: str
    state: str
    parent: int
    started: int

    @property
    def has_ended(self) -> bool:
        """Whether it only waits to be asked how it has ended."""
        return self.state in "ZX"


def process(pid: int) -> Process | None:
    """The process of this number; None if there is none, or the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, rest = file.read(4096).rpartition(b")")
        words = rest.split()
        name = head.partition(b"(")[2].decode("utf-8", "replace")
        return Process(pid, name, words[0].decode("ascii"), int(words[1]), int(words[19]))
    return None


def owner(pid: int) -> int | None:
    """Whose it is: the effective user; None if it has gone."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:
        return int(file.read(4096).partition(b"\nUid:")[2].split()[1])
    return None


def program() -> int | None:
    """The nearest process above this one that is no shell or the like: whoever has had it started, also if that has
    ended since. None if that cannot be told."""
    pid = os.getppid()
    for _ in range(MOST):
        found = process(pid)
        if found is None or pid <= 1 or found.name in REAPERS:
            return _ended_leader()
        if not (SHELLS | STARTERS) & {found.name.lstrip("-"), _file_of(pid)}:
            return pid
        pid = found.parent
    return None


def _ended_leader() -> int | None:
    """Whoever began this group of processes, if it has ended: an agent that was killed while its hook began."""
    leader = os.getpgrp()
    found = process(leader)
    return leader if found is None or found.has_ended else None


def namespace(pid: int | str = "self") -> int:
    """The namespace of the numbers that a process sees, as an inode; 0 if the system does not say."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    return 0


def boot() -> str:
    """Which start of the system this is; empty if it does not say."""
    with contextlib.suppress(OSError, UnicodeDecodeError), open(BOOT, encoding="ascii") as file:
        return file.read().strip()
    return ""


def machine() -> str:
    """Where processes have the numbers that they have here: this start of the system, and this namespace. Empty if the
    system does not say."""
    start, numbers = boot(), namespace()
    return f"{start}/{numbers}" if start and numbers else ""


def is_new(pid: int) -> bool:
    """Whether this number is among those that the system has given out last: whose process has just ended had one."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(NEWEST, "rb") as newest, open(LARGEST, "rb") as largest:
            last, most = int(newest.read(4096).split()[-1]), int(largest.read(4096))
        return pid < most and (last - pid) % (most - RESERVED) < NEW
    return False


def sees_all() -> bool:
    """Whether every process of this machine has a number here: in a container one outside of it has none, and runs."""
    return namespace() == FIRST_NAMESPACE


def may_run(other: int) -> bool:
    """Whether processes of another namespace may run: those outside of all containers, and those of a container in
    which somebody is seen from here. Who was in one that has ended has ended with it."""
    return other == FIRST_NAMESPACE or any(
        namespace(int(name)) == other for name in os.listdir("/proc") if name.isdecimal()
    )


def inner_numbers() -> frozenset[int]:
    """The numbers by which processes in containers know themselves, as far as they are seen from here."""
    found = set[int]()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/status", "rb") as file:
                numbers = file.read(4096).partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
                found.update(map(int, numbers[1:]))
    return frozenset(found)


def _file_of(pid: int) -> str:
    """The name of the file that it runs: of a script the shell's, where the process has the name of the script."""
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    return ""


def age() -> float:
    """Seconds since this process was started, also those before Python ran; 0.0 if the system does not say."""
    found = process(os.getpid())
    if found is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - found.started / os.sysconf("SC_CLK_TCK"))


def ended_in_words(status: int) -> str | None:
    """How a program has failed, None if it has not."""
    if status >= 0:
        return f"exit status {status}" if status else None
    import signal  # here: `hub publish` has no time for it

    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"
    return f"signal {-status} ({name})"


def own_command() -> list[str]:
    """The words that run this hub, from any folder."""
    from shutil import which  # here: `hub publish` has no time for it

    beside = os.path.join(os.path.dirname(sys.executable), "hub")
    for found in (sys.argv[0], beside, which("hub") or ""):
        if os.path.basename(found) == "hub" and os.path.isfile(found) and os.access(found, os.X_OK):
            return [os.path.abspath(found)]
    return [sys.executable, *MODULE]


def typed_command() -> str:
    """The same as a person types it: `hub`, where a shell would find just this one by its name."""
    from shutil import which

    words, found = own_command(), which("hub")
    return "hub" if found and os.path.abspath(found) == words[0] else shlex.join(words)
