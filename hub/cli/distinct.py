"""Names that no two programs have at once: who has one keeps it until it ends, however it ends."""

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from itertools import count

MOST = 1000  # programs of one name at once that are told apart


@contextlib.contextmanager
def distinct(where: str, name: str) -> Iterator[str]:
    """The name, or the first of `name-2`, `name-3`, … that no other program of this account has here; `where` is whom
    it is told to.

    The kernel keeps the names, as addresses in no file system, so that a kill leaves none behind. Without such
    addresses, or with too many taken, it is the name itself.
    """
    with contextlib.ExitStack() as stack:
        for number in count(1):
            chosen = name if number == 1 else f"{name}-{number}"
            place = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                place.bind(_address(where, chosen))
            except OSError as error:
                place.close()
                if error.errno == errno.EADDRINUSE and number < MOST:
                    continue
                chosen = name
            break
        yield chosen


def _address(where: str, name: str) -> bytes:
    told = f"{os.getuid()}\0{where}\0{name}".encode("utf-8", "surrogateescape")
    return b"\0hub-run-" + hashlib.sha256(told).hexdigest()[:32].encode()
