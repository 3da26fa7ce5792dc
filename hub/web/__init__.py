"""How a hub is reached: the only room with sockets in it."""

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from ..hub import Hub

HUB: "web.AppKey[Hub]" = web.AppKey("hub")
