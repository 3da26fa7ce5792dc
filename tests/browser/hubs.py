"""Hubs for the page to look at: a real process, one inside the test, and a wire between page and hub to be cut."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import aiohttp_jinja2
from aiohttp import web
from aiohttp.typedefs import Middleware
from forks import PIPE, Forked, fork
from jinja2 import BaseLoader, ChoiceLoader, DictLoader
from running import environment

from hub import Hub, create_app

START = 20.0  # seconds


class HubProcess:
    """`python -m hub` on a port of its own choice, then always on the same one."""

    def __init__(self, state_dir: Path, *flags: str) -> None:
        self._state_dir, self._flags = state_dir, flags
        self._process: Forked | None = None
        self.port = 0
        self.url = ""

    async def start(self) -> None:
        where = ("--port", str(self.port), "--state-dir", str(self._state_dir))
        log = await asyncio.to_thread((self._state_dir.parent / "hub.log").open, "ab")
        with log:
            self._process = await fork(*where, *self._flags, env=environment(), stdout=PIPE, stderr=log.fileno())
        assert self._process.stdout
        async with asyncio.timeout(START):
            line = (await self._process.stdout.readline()).decode()
        assert "http" in line, f"the hub said {line!r} and not where it listens"
        self.url = line.split()[-1]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    async def stop(self) -> int:
        """End it; returns its exit status."""
        assert self._process
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        process, self._process = self._process, None
        try:
            async with asyncio.timeout(START):
                return await process.wait()
        except TimeoutError:
            process.kill()
            raise

    async def forget(self) -> None:
        """Wait for the end of one that was sent a signal."""
        assert self._process
        async with asyncio.timeout(START):
            await self._process.wait()
        self._process = None

    def signal(self, signum: int) -> None:
        assert self._process
        self._process.send_signal(signum)

    @property
    def running(self) -> bool:
        return self._process is not None

    async def publish(self, event: str, data: Any, **more: Any) -> None:
        await publish(self.url, [{"event": event, "data": data, **more}])


StartHub = Callable[..., Awaitable[HubProcess]]


async def publish(url: str, events: Sequence[dict[str, Any]]) -> None:
    """POST events, at most a thousand at once."""
    async with aiohttp.ClientSession() as http, http.post(url + "api/events", json=events) as response:
        assert response.status == 200, await response.text()


@asynccontextmanager
async def hub_inside(
    hub: Hub,
    prefix: str = "",
    templates: Mapping[str, str] | None = None,
    prepare: Callable[[web.Request, web.StreamResponse], Awaitable[None]] | None = None,
    middleware: Middleware | None = None,
) -> AsyncIterator[str]:
    """Run a hub in this process, below `prefix` if one is given (`some/where/`); gives the page's URL.

    `templates` are an application's own, by name; `prepare` is called before each response leaves; the `middleware`
    stands behind those of the hub.
    """
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    app = create_app(hub)
    if templates:
        loader = aiohttp_jinja2.get_env(app).loader
        assert isinstance(loader, ChoiceLoader)
        cast(list[BaseLoader], loader.loaders).insert(0, DictLoader(templates))
    if middleware:
        app.middlewares.append(middleware)
    if prepare:
        app.on_response_prepare.append(prepare)
    if prefix:
        whole = web.Application()
        whole.add_subapp(f"/{prefix}", app)
        app = whole
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield f"http://127.0.0.1:{port}/{prefix}"
    finally:
        await runner.cleanup()


class Wire:
    """A TCP forwarder in front of a hub. `cut` ends what goes through it and lets nothing new in until `mend`; while it
    is frozen it takes everything and hands nothing on."""

    def __init__(self) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self.target = 0
        self._open = True
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._pairs: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, sock=self._sock)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # nobody is there at the moment
            writer.transport.abort()
            return
        pair = {writer, to_writer}
        self._pairs |= pair
        await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))
        self._pairs -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._thawed.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        self._open = False
        for writer in self._pairs:
            writer.transport.abort()

    def mend(self) -> None:
        self._open = True

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        self.thaw()
        self.cut()
        await self._server.wait_closed()
