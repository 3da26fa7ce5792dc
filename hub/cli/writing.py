"""Stdout, say, for who has other things to do meanwhile: it is waited for, and a line is there whole or not at all."""

import asyncio
import contextlib
import os
import select
import stat
from collections.abc import Iterator
from typing import TextIO

PIECE = select.PIPE_BUF  # bytes that a pipe takes without waiting as soon as it takes any


class Unwritten(Exception):
    """The stream takes no more."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class Output:
    """Lines to a stream, each at once. To be used in an event loop, by one task."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._file = stream, stream.fileno()

    async def write(self, line: str) -> None:
        """Write a line whole. A reader who lets it wait holds up nobody else; who is cancelled meanwhile may have
        written a part of a line that is longer than PIECE. Raises Unwritten."""
        data = f"{line}\n".encode(self._stream.encoding, self._stream.errors or "strict")
        try:
            for start in range(0, len(data), PIECE):
                await self._write(data[start : start + PIECE])
        except OSError as error:
            raise Unwritten(error) from None

    async def _write(self, piece: bytes) -> None:
        while piece:
            if not select.select([], [self._file], [], 0)[1]:
                await self._has_room()
            with contextlib.suppress(BlockingIOError):
                piece = piece[os.write(self._file, piece) :]

    async def _has_room(self) -> None:
        loop, room = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._file, room.set)
        try:
            await room.wait()
        finally:
            loop.remove_writer(self._file)

    @contextlib.contextmanager
    def cancelled_when_unread(self, task: "asyncio.Task[None]") -> Iterator[None]:
        """Let `tail | head -1` end when the other side has gone, not only at the next event. Behind this nothing is
        cancelled any more: who has found it out by writing has other things to end."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(self._file)
            task.cancel()

        with contextlib.suppress(OSError):  # it cannot be watched
            if stat.S_ISFIFO(os.fstat(self._file).st_mode):
                loop.add_reader(self._file, stop)  # the end that is written to: readable means that it is broken
        try:
            yield
        finally:
            loop.remove_reader(self._file)
