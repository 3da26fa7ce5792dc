"""hub: the live wire of a person's own machine. The public names, imported when they are first used."""

from importlib import import_module

TYPE_CHECKING = False  # as mypy knows it: what starts with this package need not wait for typing

if __name__ != "hub":  # each module would be there twice, and no refusal would be known as one
    raise ImportError("Python took the folder of the checkout for the hub in it: start it from another folder.")

if TYPE_CHECKING:
    from typing import Any

    from .client.client import HubClient
    from .client.discovery import Disconnected, NoHub
    from .client.items import Gap, Received
    from .client.logs import HubHandler
    from .client.serving import ServedCall
    from .client.sync import SyncHubClient
    from .commands.call import Call
    from .config import Config
    from .errors import CommandError, HubError
    from .hub import Hub
    from .stream.events import Event
    from .web.app import create_app
    from .web.page.panel import Panel

__all__ = [
    "Call",
    "CommandError",
    "Config",
    "Disconnected",
    "Event",
    "Gap",
    "Hub",
    "HubClient",
    "HubError",
    "HubHandler",
    "NoHub",
    "Panel",
    "Received",
    "ServedCall",
    "SyncHubClient",
    "create_app",
]

_ROOMS = {
    "Call": "commands.call",
    "CommandError": "errors",
    "Config": "config",
    "Disconnected": "client.discovery",
    "Event": "stream.events",
    "Gap": "client.items",
    "Hub": "hub",
    "HubClient": "client.client",
    "HubError": "errors",
    "HubHandler": "client.logs",
    "NoHub": "client.discovery",
    "Panel": "web.page.panel",
    "Received": "client.items",
    "ServedCall": "client.serving",
    "SyncHubClient": "client.sync",
    "create_app": "web.app",
}


def __getattr__(name: str) -> "Any":
    if name not in _ROOMS:
        raise AttributeError(f"module 'hub' has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
