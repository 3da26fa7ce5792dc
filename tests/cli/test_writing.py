"""Stdout that is waited for: nobody else waits, lines are whole, and what ends it is told."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from running import until

from hub.cli.writing import PIECE, Output, Unwritten


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.stream = open(self.writer, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        self.output = Output(self.stream)

    def read(self) -> bytes:
        found = b""
        try:
            while data := os.read(self.reader, 65536):
                found += data
        except BlockingIOError:
            pass
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    for end in (pipe.reader, pipe.writer):
        os.close(end)


async def fill(pipe: Pipe) -> int:
    """Write lines until nobody has room for another; how many bytes of them are there."""
    os.set_blocking(pipe.writer, False)
    count = 0
    try:
        while True:
            count += os.write(pipe.writer, b"x" * PIECE)
    except BlockingIOError:
        os.set_blocking(pipe.writer, True)
    return count


async def test_lines_are_written_at_once(pipe: Pipe) -> None:
    await pipe.output.write("é")
    assert pipe.read() == "é\n".encode()


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_reader_who_lets_it_wait_holds_up_nobody(blocking: bool, pipe: Pipe) -> None:
    filled, line = await fill(pipe), "y" * (3 * PIECE)
    os.set_blocking(pipe.writer, blocking)
    writing = asyncio.create_task(pipe.output.write(line))
    for _ in range(10):
        await asyncio.sleep(0)  # a write that waits would not come back
    assert not writing.done()
    found = b""

    def read() -> bool:
        nonlocal found
        found += pipe.read()
        return writing.done()

    await until(read)
    assert (found + pipe.read())[filled:] == f"{line}\n".encode()


async def test_who_is_cancelled_has_written_nothing_of_a_line(pipe: Pipe) -> None:
    filled = await fill(pipe)
    writing = asyncio.create_task(pipe.output.write("y" * 100))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    assert len(pipe.read()) == filled
    await pipe.output.write("z")
    assert pipe.read() == b"z\n"


async def test_a_reader_who_has_gone_is_told(pipe: Pipe) -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    with pipe.output.cancelled_when_unread(task):
        os.close(pipe.reader)
        await asyncio.wait([task])
    assert task.cancelled()
    with pytest.raises(Unwritten):
        await pipe.output.write("x")
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


async def test_who_has_found_out_by_writing_is_not_cancelled_any_more(pipe: Pipe) -> None:
    """The other side goes while this writes: what is awaited behind it goes to its end."""

    async def tail() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pipe.output.cancelled_when_unread(task):
            os.close(pipe.reader)
            with pytest.raises(Unwritten):
                await pipe.output.write("x")
        for _ in range(10):
            await asyncio.sleep(0)

    await asyncio.create_task(tail())
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


async def test_a_full_disk_is_told(pipe: Pipe) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, pipe.writer)
    os.close(full)
    with pytest.raises(Unwritten) as caught:
        await pipe.output.write("x")
    assert caught.value.error.strerror == "No space left on device"
