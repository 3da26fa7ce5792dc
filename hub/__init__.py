"""hub: the live wire of a person's own machine. The public names, imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.client import HubClient
    from .commands.registry import Call
    from .config import Config
    from .errors import CommandError, HubError
    from .hub import Hub
    from .stream.events import Event
    from .web.app import create_app

__all__ = ["Call", "CommandError", "Config", "Event", "Hub", "HubClient", "HubError", "create_app"]

_ROOMS = {
    "Call": "commands.registry",
    "CommandError": "errors",
    "Config": "config",
    "Event": "stream.events",
    "Hub": "hub",
    "HubClient": "client.client",
    "HubError": "errors",
    "create_app": "web.app",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'hub' has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
