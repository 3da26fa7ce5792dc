"""Programs on a terminal: a pseudo-terminal of their own, as a person would have them."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from running import PATIENCE, environment, send_signal

CTRL_C = b"\x03"
VARIABLES = {"TERM": "xterm", "NO_COLOR": "1"}


class OnTerminal:
    """A running program, and what it has written to its terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process, self._master, self._seen = process, master, b""
        self._ended = asyncio.Event()
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def text(self) -> str:
        """Everything up to now; the terminal's own line ends are taken back."""
        return self._seen.decode().replace("\r\n", "\n")

    async def shows(self, part: str) -> str:
        """Everything up to now, once this is in it."""
        async with asyncio.timeout(PATIENCE):
            while part not in self.text:
                assert not self._ended.is_set(), self.text
                self._more.clear()
                await self._more.wait()
        return self.text

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    async def ended(self) -> tuple[int, str]:
        """Its exit status, and all that it has written."""
        async with asyncio.timeout(PATIENCE):
            status = await self.process.wait()
            await self._ended.wait()
        return status, self.text

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(OSError):  # EIO: nobody has it open any more
            data = os.read(self._master, 65536)
        self._seen += data
        self._more.set()
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
            self._ended.set()


@contextlib.asynccontextmanager
async def on_terminal(cwd: Path, *words: str, variables: Mapping[str, str] = VARIABLES) -> AsyncIterator[OnTerminal]:
    """`python -m hub …` with stdin, stdout and stderr on a terminal, which is its controlling one."""
    master, slave = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", *words),
        cwd=cwd,
        env={**environment(), **variables},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    running = OnTerminal(process, master)
    try:
        yield running
    finally:
        send_signal(process, signal.SIGKILL)
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
