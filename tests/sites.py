"""What the tests of the guard share: a small application behind it, and requests as they are sent or made up."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from hub.config import Config
from hub.web.access import connections
from hub.web.access.guard import Guard, Refused
from hub.web.access.peer import Peer
from hub.web.keys import PEER


class Site:
    """A small application behind the guard, listening on a free port of this machine."""

    def __init__(self, **settings: Any) -> None:
        self.refused: list[tuple[str, str]] = []
        self.served: list[Peer] = []
        self.happened = asyncio.Event()
        self.guard = Guard(Config(**settings), refused=self._refused)
        self.port = 0

    def _refused(self, reason: str, address: str) -> None:
        self.refused.append((reason, address))
        self.happened.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.served.append(request[PEER])
        self.happened.set()
        return web.json_response({"uid": request[PEER].uid})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.served.append(request[PEER])
        await ws.close()
        return ws

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPInternalServerError

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/page", self._serve)
        app.router.add_post("/page", self._serve)
        app.router.add_get("/fail", self._fail)
        app.router.add_get("/ws", self._websocket, name="ws")
        app.router.add_get("/metrics", self._serve, name="metrics")
        app.router.add_get("/healthz", self._serve, name="healthz")
        app.router.add_static("/static", Path(__file__).parent / "web" / "access")
        self.guard.protect(app)
        return app

    async def start(self, listener: socket.socket, *, mounted: bool = False) -> web.AppRunner:
        app = self.application()
        if mounted:
            app, inner = web.Application(), app
            app.add_subapp("/hub/", inner)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        assert runner.server is not None
        if not mounted:
            self.guard.watch(runner.server)
        self.port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        return runner

    async def ask(self, request: str, host: str = "127.0.0.1") -> tuple[int, dict[str, str], str]:
        """Send these lines as they are; PORT in them is the site's. (status, headers, body)"""
        reader, writer = await asyncio.open_connection(host, self.port)
        try:
            writer.write(self.raw(request))
            answer = (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()
        return read(answer)

    def raw(self, request: str) -> bytes:
        lines = request.replace("PORT", str(self.port)).split("\n")
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape")


def read(answer: str) -> tuple[int, dict[str, str], str]:
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def listening(host: str = "127.0.0.1") -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


@asynccontextmanager
async def starting() -> AsyncIterator[Any]:
    """Starts sites, and ends them."""
    runners: list[web.AppRunner] = []

    async def start(host: str = "127.0.0.1", *, mounted: bool = False, **settings: Any) -> Site:
        site = Site(**settings)
        runners.append(await site.start(listening(host), mounted=mounted))
        return site

    yield start
    for runner in runners:
        await runner.cleanup()


def page(*headers: str, host: str = "localhost:PORT", target: str = "/page") -> str:
    return "\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *headers])


class Transport:
    """A transport that takes no weak references, as uvloop's for TLS."""

    __slots__ = ("facts",)

    def __init__(self, peername: Any, port: int, tls: bool) -> None:
        self.facts = {
            "peername": peername,
            "sockname": ("127.0.0.1", port),
            "sslcontext": tls or None,
            "socket": None,
        }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.facts.get(name, default)


def mocked_guard(port: int) -> Guard:
    return Guard(Config(port=port), refused=mock.Mock())


def mocked_request(
    headers: list[tuple[str, str]],
    *,
    port: int = 80,
    peername: Any = ("127.0.0.1", 9),
    tls: bool = False,
) -> web.Request:
    transport = Transport(peername, port, tls)
    return make_mocked_request("GET", "/page", CIMultiDict(headers), transport=transport)


def outcome(guard: Guard, request: web.Request) -> str:
    """The peer's trust, or the reason of the refusal."""
    with mock.patch.object(connections, "owner", return_value=os.geteuid()):
        try:
            return guard.check(request).trust
        except Refused as refusal:
            return refusal.reason
