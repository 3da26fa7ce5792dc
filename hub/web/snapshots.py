"""What each worker of a port has counted, as it said last: in memory that all of them share. So it can be read of one
that stands still and of one that has ended, and a counter that somebody has seen never falls.
"""

import json
import mmap
import os
import struct
import zlib
from itertools import count

from .sums import Family

HEAD = struct.Struct("<QII")  # number of the write, length and checksum of what follows
TRIES = 100  # of a read that the writer is faster than


class Snapshot:
    """What one worker has said last. One process writes it, any may read it.

    There are two halves, and each write goes over the older one. So whoever reads finds all of the newest or all of the
    one before: also in the middle of a write, and behind a writer that was killed there.
    """

    def __init__(self) -> None:
        self._halves = [os.memfd_create(f"hub-snapshot-{half}") for half in range(2)]

    def write(self, said: bytes) -> None:
        """Put this in the place of what was there. Raises OSError if there is no memory: then that stays."""
        numbers = [_read(half)[0] for half in self._halves]
        place = numbers.index(min(numbers))
        data = HEAD.pack(max(numbers) + 1, len(said), zlib.crc32(said)) + said
        done = 0
        while done < len(data):
            done += os.pwrite(self._halves[place], data[done:], done)

    def read(self) -> bytes:
        """What was written last; nothing if nothing was, or only the beginning of the first."""
        for _ in range(TRIES):
            number, said = max(map(_read, self._halves))
            if number or not all(os.fstat(half).st_size for half in self._halves):
                return said
        raise OSError("what another worker has counted cannot be read")

    def close(self) -> None:
        for half in self._halves:
            os.close(half)


def _read(half: int) -> tuple[int, bytes]:
    """The number of this half and what it holds; 0 if it holds nothing whole."""
    data = os.pread(half, os.fstat(half).st_size, 0)
    if len(data) < HEAD.size:
        return 0, b""
    number, length, checksum = HEAD.unpack_from(data)
    said = data[HEAD.size : HEAD.size + length]
    return (number, said) if zlib.crc32(said) == checksum else (0, b"")


class Snapshots:
    """Those of all workers of a port, by their number from 1 on; and which of them run. A worker that is started again
    is another one in the same place: each process of it has a number of its own, its life."""

    def __init__(self, workers: int) -> None:
        self._each = [Snapshot() for _ in range(workers)]
        self._lives = memoryview(mmap.mmap(-1, mmap.PAGESIZE * (1 + 4 * workers // mmap.PAGESIZE))).cast("I")
        self._count = count(1)

    def begin(self, worker: int) -> None:
        """It is another process from now on."""
        self._lives[worker - 1] = next(self._count)

    def end(self, worker: int) -> None:
        """It has ended."""
        self._lives[worker - 1] = 0

    def life(self, worker: int) -> int:
        """The number of its process, 0 if it has none."""
        return self._lives[worker - 1]

    def write(self, worker: int, families: list[Family]) -> None:
        """Keep what it has counted: this life, and those before. Raises OSError."""
        self._each[worker - 1].write(json.dumps([self.life(worker), families]).encode())

    def read(self, worker: int) -> tuple[int, list[Family]]:
        """In which life it has said what. Raises OSError."""
        life, families = json.loads(self._each[worker - 1].read() or b"[0, []]")
        return life, families

    def close(self) -> None:
        for each in self._each:
            each.close()
