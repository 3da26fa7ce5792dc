"""From an HTTP request to a WebSocket: the handshake (RFC 6455, section 4.2)."""

import base64
import binascii
import hashlib

from aiohttp import HttpVersion11, hdrs, web

from ...errors import HubError
from ..answers import listed


def handshake(request: web.Request) -> dict[str, str]:
    """The headers that accept the upgrade (RFC 6455, section 4.2). Raises HubError with status 400 or 426."""
    headers = request.headers
    if request.version < HttpVersion11:
        raise HubError("invalid_message", "A WebSocket needs HTTP/1.1, also of a proxy in between.", status=400)
    if "websocket" not in listed(request, hdrs.UPGRADE) or "upgrade" not in listed(request, hdrs.CONNECTION):
        raise HubError("invalid_message", "This address speaks WebSocket; open it with a WebSocket client.", status=400)
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise HubError("invalid_message", "This hub speaks version 13 of the WebSocket protocol.", status=400)
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        valid = False
    if not valid:
        raise HubError("invalid_message", "The Sec-WebSocket-Key is not 16 bytes in base64.", status=400)
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    accept = base64.b64encode(digest).decode()
    return {hdrs.UPGRADE: "websocket", hdrs.CONNECTION: "Upgrade", hdrs.SEC_WEBSOCKET_ACCEPT: accept}
