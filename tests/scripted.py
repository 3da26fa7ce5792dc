"""A hub that does what the test says, over real sockets: for the tests of clients."""

import asyncio
import json
from typing import Any

from aiohttp import web

TIME = "2026-01-02T03:04:05.678Z"


def event(seq: int, data: Any = None, name: str = "a:b") -> dict[str, Any]:
    payload = {"event": name, "data": data}
    return {"type": "event", "id": f"id{seq}", "timestamp": TIME, "cursor": f"e:{seq}", "payload": payload}


def notice(name: str, **data: Any) -> dict[str, Any]:
    return {"type": "event", "id": "n", "timestamp": TIME, "payload": {"event": name, "data": data}}


def error_object(code: str, **more: Any) -> dict[str, Any]:
    return {"error": "The hub says no.", "code": code, "retryable": False, **more}


class Peer:
    """The hub's end of one WebSocket."""

    def __init__(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        self.query, self.headers = dict(request.query), request.headers
        self._request, self._websocket, self.over = request, websocket, asyncio.Event()

    async def send(self, *frames: Any) -> None:
        for frame in frames:
            await self._websocket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def frame(self) -> dict[str, Any]:
        """The next command of the client, as it came."""
        frame: dict[str, Any] = await self._websocket.receive_json()
        assert frame["type"] == "command"
        return frame

    async def command(self) -> tuple[str, str, Any]:
        """The next command of the client: id, name, args."""
        frame = await self.frame()
        return frame["id"], frame["payload"]["command"], frame["payload"]["args"]

    async def respond(self, id: str, result: Any) -> None:
        await self.send({"type": "response", "id": id, "timestamp": TIME, "payload": result})

    async def refuse(self, id: str, error: dict[str, Any]) -> None:
        await self.send({"type": "error", "id": id, "timestamp": TIME, "payload": error})

    async def ping(self) -> Any:
        """What the client answers a ping with."""
        await self._websocket.ping(b"there?")
        return await self._websocket.receive()

    async def close(self, code: int, reason: bytes = b"") -> None:
        await self._websocket.close(code=code, message=reason)
        self.over.set()

    def tear(self) -> None:
        """What comes now is no legal frame."""
        assert self._request.transport is not None
        self._request.transport.write(b"\xff\xff")
        self.over.set()

    def cut(self) -> None:
        """The connection is gone without a word."""
        assert self._request.transport is not None
        self._request.transport.abort()
        self.over.set()


class ScriptedHub:
    """Accepts what the client opens and leaves the rest to the test."""

    def __init__(self) -> None:
        self.page: tuple[int, Any] = 200, {"events": [], "cursor": "e:0", "complete": True, "more": False}
        self.asked: list[dict[str, str]] = []
        self.handshakes: list[int] = []  # HTTP statuses that the next handshakes get
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._all: list[Peer] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/readyz", self._answer)
        app.router.add_get("/api/events", self._answer)
        app.router.add_get("/ws", self._websocket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        for peer in self._all:
            peer.over.set()
        await self._runner.cleanup()

    async def peer(self) -> Peer:
        """The next connection that the client opens."""
        return await self.peers.get()

    async def _answer(self, request: web.Request) -> web.Response:
        """To where the stream is, and to why a handshake was refused: the page says both."""
        self.asked.append(dict(request.query))
        status, body = self.page
        position = body.get("cursor") if isinstance(body, dict) else None
        headers = {"Hub-Cursor": position} if position and request.path == "/readyz" else {}
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body), headers=headers)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self.handshakes and (status := self.handshakes.pop(0)) != 101:
            return web.Response(status=status)
        websocket = web.WebSocketResponse(autoping=False)
        await websocket.prepare(request)
        peer = Peer(request, websocket)
        self._all.append(peer)
        self.peers.put_nowait(peer)
        await peer.over.wait()
        return websocket


class Silent:
    """A port that accepts everybody and says nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
