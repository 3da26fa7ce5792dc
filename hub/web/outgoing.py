"""The requests that the hub makes itself: to webhooks and to ntfy, with aiohttp."""

import errno
import os
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp import web

from ..outward.outgoing import Reply, Unreached
from ..redaction import redact_text
from .keys import HUB

CONNECTIONS = 100  # at once, to all receivers together
CUT = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


async def client(app: web.Application) -> AsyncIterator[None]:
    """Give the hub a way to make requests, for as long as the application lives."""
    hub = app[HUB]
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
            """One POST. No redirect is followed, because where it leads the operator has not said; nothing of the
            answer is read but its head."""
            timeout = aiohttp.ClientTimeout(total=seconds)
            agent = {"user-agent": f"hub/{hub.version}"}
            try:
                async with session.post(
                    url, data=body, headers={**agent, **headers}, timeout=timeout, allow_redirects=False
                ) as response:
                    return Reply(response.status, response.headers.get("retry-after"))
            except TimeoutError:
                raise Unreached(f"no answer within {seconds:g} s") from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unreached(_said(error)) from None

        hub.outward.post = post
        yield


def _said(error: Exception) -> str:
    """Why nothing was sent, in words for who reads the log: aiohttp's own name its classes and the system's lists."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"nobody knows the name {error.host}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno:
        return f"nothing takes it at {error.host}:{error.port} ({os.strerror(error.errno)})"
    if isinstance(error, aiohttp.ServerDisconnectedError) or getattr(error, "errno", None) in CUT:
        return "it closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError):
        return "what it answered is no HTTP"
    line = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())  # whatever stands in it
    return redact_text(line)[:200]  # it is told by an event: of a part of a secret nobody knows that it is one
