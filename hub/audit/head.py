"""audit.head of a running hub: the newest durable record, so that a cut tail shows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..private import open_private, write_whole
from .chain import Link
from .files import exists, is_at


class Head:
    """audit.head: the newest durable record, written behind each commit.

    It is overwritten in place and not synced, so that a commit costs one fdatasync and no more. It is always the same
    128 bytes, which a disk writes whole. It is written behind the records that it names: after a power cut it may be
    older than the log, never newer, and recovery takes the log's word for the records behind it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def open(self, link: Link) -> None:
        """Be ready to write; a head that is not there is made. Raises OSError, or Unsafe for a planted file."""
        self.close()
        if not exists(self._path):
            write_whole(self._path, self._text(link))
        self._file = open_private(self._path, os.O_WRONLY)

    def write(self, link: Link) -> None:
        """Name that record. If it cannot be written, the record is durable all the same: never raises."""
        with contextlib.suppress(Exception):
            if self._file is None or not is_at(self._file, self._path):  # moved away
                self.open(link)
            assert self._file is not None
            os.pwrite(self._file, self._text(link), 0)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._file = self._file, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _text(self, link: Link) -> bytes:
        return f'{{"hash":"{link.hash}","seq":{link.seq}}}'.ljust(127).encode() + b"\n"
