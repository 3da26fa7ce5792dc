"""A WebSocket to the hub, with aiohttp beneath, and what the ways in which it ends mean."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import aiohttp

from ..errors import HubError
from .discovery import Barred, Disconnected, NoHub, untrusted
from .ownership import check_server

LARGEST_FRAME = 64 * 1024 * 1024  # bytes of one frame of the hub
CONNECT_TIMEOUT = 10.0  # seconds for a connection and its handshake
CLOSE_TIMEOUT = 1.0  # seconds for a goodbye
HEARTBEAT = 30.0  # seconds of silence after which the client asks whether the hub is still there
NOT_ALLOWED = 1008  # close code
UNREACHABLE = (aiohttp.ClientError, OSError, UnicodeError)  # UnicodeError: a name that no host can have


class Refused(Exception):
    """The handshake was answered with an HTTP status, and nothing else."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connector(aiohttp.TCPConnector):
    """Connections that were seen to end at a hub of this account, wherever the kernel can tell."""

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Any:
        connection = await super().connect(req, *args, **options)
        transport = connection.transport
        try:
            if transport is not None and not req.is_ssl():
                check_server(*(transport.get_extra_info(name) for name in ("peername", "sockname", "socket")))
        except BaseException:
            connection.close()
            raise
        return connection


class WebSocket:
    """A Socket of `connections`."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self._websocket, self._url = websocket, url

    @classmethod
    async def open(
        cls, session: aiohttp.ClientSession, url: str, query: Mapping[str, str], way_in: Mapping[str, Any]
    ) -> Self:
        """Connect. Raises NoHub, or Refused with the HTTP status."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                websocket = await session.ws_connect(
                    f"{url}/ws",
                    params=query,
                    **way_in,
                    heartbeat=HEARTBEAT,
                    max_msg_size=LARGEST_FRAME,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status) from None
        except UNREACHABLE as error:
            raise no_hub(url, error) from None
        return cls(websocket, url)

    async def send(self, text: str) -> None:
        await self._websocket.send_str(text)

    async def receive(self) -> tuple[Any, int]:
        """The next frame and its length in characters. Raises ValueError if it is not JSON."""
        message = await self._websocket.receive()
        kind = message.type.name
        if kind == "CLOSE":
            raise _closed(self._url, message.data or 1005, message.extra or "")
        if kind != "TEXT":  # cut off, or (ERROR) not a legal frame
            code = getattr(message.data, "code", None)
            raise Disconnected(f"The connection to the hub at {self._url} broke{f' ({code})' if code else ''}.")
        return json.loads(message.data), len(message.data)

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._websocket.close()


def no_hub(url: str, error: BaseException) -> NoHub:
    """What it means that `url` cannot be reached."""
    if found := untrusted(url, getattr(error, "certificate_error", error)):
        return found
    why = "no answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError) and url.startswith("http:"):
        why = "it hangs up; a hub with a certificate is named by https://…"
    elif not isinstance(error, TimeoutError):
        why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return NoHub(f"No hub answers at {url} ({why}).")


def _closed(url: str, code: int, reason: str) -> HubError:
    sentence = f"The hub at {url} closed the connection ({code}{': ' * bool(reason)}{reason})."
    return Barred("forbidden", sentence) if code == NOT_ALLOWED else Disconnected(sentence)
