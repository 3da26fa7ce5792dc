"""Commands that are declared where their handlers stand, as `@hub.command` does it, before there is any hub."""

from collections.abc import Callable
from typing import Any

from .call import Handler
from .registry import Args, Registry, as_schema


class Declared:
    """The commands of a module; every hub gets its own."""

    def __init__(self) -> None:
        self._commands: list[tuple[str, Handler, Args, dict[str, Any]]] = []

    def command(self, name: str, args: Args = None, **options: Any) -> Callable[[Handler], Handler]:
        """Declare the decorated `async def f(call)`; `options` as for `Registry.add`."""

        def declare(handler: Handler) -> Handler:
            self._commands.append((name, handler, as_schema(args), options))  # a class once, not for each hub
            return handler

        return declare

    def register(self, commands: Registry) -> None:
        """Give the registry of one hub the commands. Raises as `Registry.add`."""
        for name, handler, args, options in self._commands:
            commands.add(name, handler, args, **options)
