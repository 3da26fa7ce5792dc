"""Processes that run a command line of the hub, forked from one interpreter that has imported everything.

Starting an interpreter and importing the hub takes the larger part of a second, hundreds of times in a suite. What a
test says of the start itself (closed streams, variables that Python reads, who may read the files) it says of a process
of its own; all else is the same here: a process with its own pid, folder, variables, streams, session and end.
"""

import asyncio
import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ITSELF, SDK = "hub.__main__", "hub.client.tools"  # the program; and what brings an SDK along, for `hub mcp` alone
LARGEST = 1 << 20  # bytes of a request
SOON = 20  # passes of the loop
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


# ---- the test's side


class Forked:
    """One of them, as far as an `asyncio.subprocess.Process` is used here."""

    def __init__(self, pid: int, status: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = asyncio.ensure_future(self._end(status))

    async def _end(self, status: asyncio.StreamReader) -> int:
        said = await status.read()
        self.returncode = int(said) if said else -signal.SIGKILL  # with the interpreter that would have said it
        return self.returncode

    async def wait(self) -> int:
        """Its exit status, once it has ended and what it has said is here, as far as that is read."""
        status = await asyncio.shield(self._ended)
        for _ in range(SOON):
            if all(stream is None or stream.at_eof() for stream in (self.stdout, self.stderr)):
                break
            await asyncio.sleep(0)
        return status

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """All that it says, once it has ended."""
        out, err, _ = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr), self._feed(input))
        await self.wait()
        return out, err

    async def _feed(self, input: bytes | None) -> None:
        if self.stdin is not None:
            with suppress(ConnectionError):
                self.stdin.write(input or b"")
                await self.stdin.drain()
            self.stdin.close()

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError for one that has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


async def fork(
    *words: str,
    env: Mapping[str, str],
    cwd: str | Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    start_new_session: bool = False,
    before: str = "",
    sdk: bool = False,
) -> Forked:
    """Start `hub WORDS…`; `before` is Python that runs first, and `sdk` is for `hub mcp`. Raises AssertionError for
    variables that only an interpreter of its own reads."""
    new = {name: value for name, value in env.items() if name.startswith(("PYTHON", "LC_", "LANG"))}
    old = {name: value for name, value in os.environ.items() if name.startswith(("PYTHON", "LC_", "LANG"))}
    assert new | {"PYTHONPATH": ""} == old | {"PYTHONPATH": ""}, "these variables are read when an interpreter starts"
    given, own = zip(*(_stream(number, asked) for number, asked in enumerate((stdin, stdout, stderr))), strict=True)
    read, write = os.pipe()
    request = {
        "words": words,
        "cwd": os.getcwd() if cwd is None else str(cwd),
        "env": dict(env),
        "session": start_new_session,
        "before": before,
    }
    try:
        pid = _server(sdk).start(request, [*given, write])
    finally:
        for fd in {*given, write} - {0, 1, 2, stdin, stdout, stderr}:
            os.close(fd)
    process = Forked(pid, await _reader(read))
    if own[0] is not None:
        process.stdin = await _writer(own[0])
    process.stdout, process.stderr = [None if fd is None else await _reader(fd) for fd in own[1:]]
    return process


def _stream(number: int, asked: int | None) -> tuple[int, int | None]:
    """The descriptor that the process gets, and the other end of its pipe."""
    if asked is None:
        return number, None
    if asked == DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if asked != PIPE:
        return asked, None
    read, write = os.pipe()
    return (read, write) if number == 0 else (write, read)


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0))
    return reader


async def _writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(fd, "wb", buffering=0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


class _Server:
    """The interpreter, and the way to it."""

    def __init__(self, sdk: bool) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
        hub = importlib.import_module("hub")
        assert hub.__file__
        environ = {**os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[1])}
        command = [sys.executable, __file__, str(theirs.fileno()), *["sdk"] * sdk]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd="/", env=environ)
        theirs.close()
        self._socket = ours
        atexit.register(self.close)

    def start(self, request: Mapping[str, Any], fds: Sequence[int]) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
        return int(self._socket.recv(64))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _server(sdk: bool) -> _Server:
    return _Server(sdk)


# ---- the interpreter's


def serve(control: socket.socket, sdk: bool) -> None:
    """Fork for each request, and say how each has ended, until the other side is gone."""
    import hub

    for module in pkgutil.walk_packages(hub.__path__, "hub."):
        if module.name != ITSELF and (sdk or module.name != SDK):
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
    with suppress(ImportError):
        importlib.import_module("uvloop")
    compile_templates()
    gc.collect()
    gc.freeze()  # else the first look for garbage of each process copies all of this
    waker, wakened = socket.socketpair()
    for end in (waker, wakened):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}  # where it is said how a process has ended
    while True:
        ready, _, _ = select.select([control, wakened], [], [])
        if wakened in ready:
            with suppress(BlockingIOError):
                wakened.recv(4096)
            _reap(running)
        if control in ready:
            data, fds, _, _ = socket.recv_fds(control, LARGEST, 4)
            if not data:
                return
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (control, waker, wakened):
                    end.close()
                for fd in running.values():
                    os.close(fd)
                _become(json.loads(data), fds)
            for fd in fds[:3]:
                os.close(fd)
            running[pid] = fds[3]
            control.send(str(pid).encode())


def compile_templates() -> None:
    """As each hub does behind its start: a quarter of a second, and what is kept is the same for all."""
    import aiohttp_jinja2
    from aiohttp import web

    from hub.web.page import frame

    app = web.Application()
    frame.setup(app)
    asyncio.run(frame.compile_all(aiohttp_jinja2.get_env(app)))


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        fd = running.pop(pid)
        with suppress(BrokenPipeError):
            os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(fd)


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Be as an interpreter that has just been started for this."""
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    sys.argv = ["hub", *request["words"]]
    sys.stdin = os.fdopen(0, encoding=sys.stdin.encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `hub.__main__.start` does
    exec(request["before"], {})
    from hub import stdio
    from hub.cli.main import main

    status = main(request["words"])
    # As an interpreter ends, but for taking apart all that was imported: that takes longer than most of what is run.
    # What nobody has any more says what it has to say: a task that was forgotten, say.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    stdio.finish()
    os._exit(status)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # what a test imports by its bare name is none of the hub's
    serve(socket.socket(fileno=int(sys.argv[1])), sdk=len(sys.argv) > 2)
