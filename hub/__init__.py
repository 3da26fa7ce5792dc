"""hub: the live wire of a person's own machine. The public names, imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import HubClient
    from .commands import Call
    from .config import Config
    from .errors import CommandError, HubError
    from .events import Event
    from .hub import Hub
    from .web.app import create_app

__all__ = ["Call", "CommandError", "Config", "Event", "Hub", "HubClient", "HubError", "create_app"]

_ROOMS = {
    "Call": "commands",
    "CommandError": "errors",
    "Config": "config",
    "Event": "events",
    "Hub": "hub",
    "HubClient": "client",
    "HubError": "errors",
    "create_app": "web.app",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'hub' has no attribute {name!r}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
