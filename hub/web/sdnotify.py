"""What the service manager is told (sd_notify): one datagram for each change, without a library.

It has named a socket in NOTIFY_SOCKET: a path, or with @ in front a name in the abstract namespace.
"""

import logging
import os
import socket
import time

log = logging.getLogger("hub")


class Systemd:
    """Tells systemd that the hub is ready, reads its settings again, and stops; nobody, where nobody has asked."""

    def __init__(self) -> None:
        """Take the variable, so that no program that the hub starts speaks in its name."""
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        """It listens, or has read its settings again."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its settings again; `ready` follows. The time is what tells this word from one of before."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It takes nothing more."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        """Never waits: a manager that does not read must not hold up the hub."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode(), address)
        except (OSError, ValueError) as error:
            word = text.partition("\n")[0]
            log.warning(
                "the service manager cannot be told %s and may end the hub as one that never came up: %s; "
                "look at NOTIFY_SOCKET, or start it with Type=exec",
                word,
                error,
            )
