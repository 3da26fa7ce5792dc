"""A connection that outlasts a restart of its hub: for what goes on for days, as a stream on stdin."""

import argparse
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, Self

from ..client.discovery import Disconnected, NoHub
from ..errors import HubError
from ..stdio import complain
from .http import Connection, connection
from .terminal import printable

PATIENCE = 30.0  # seconds that a hub gets to come back
PAUSE = 1.0  # seconds between two looks for it, at most


class Asks(Protocol):
    """What asks a hub: a Connection, or one that lasts."""

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = ...) -> Any: ...


class Lasting:
    """The hub that the flags name. Once it has answered it is waited for, wherever it is when it comes back."""

    def __init__(self, args: argparse.Namespace, answer_timeout: float) -> None:
        self._find: Callable[[], Connection] = partial(connection, args, answer_timeout=answer_timeout)
        self._hub = self._find()
        self._has_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hub.close()

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """As `Connection.ask`; NoHub only where none has answered before, or for `PATIENCE` seconds."""
        gone: float | None = None
        while True:
            try:
                answer = self._hub.ask(method, path, body, kind)
            except NoHub as error:
                if not self._has_answered or (gone is not None and time.monotonic() > gone + PATIENCE):
                    raise
                if gone is None:
                    gone = time.monotonic()
                    complain(printable(f"hub: {error} It is waited for, {PATIENCE:g} s at most."))
                time.sleep(random.uniform(0, PAUSE))
                self._look_again()
            except HubError as error:
                self._has_answered = self._has_answered or not isinstance(error, Disconnected)
                raise
            else:
                self._has_answered = True
                return answer

    def _look_again(self) -> None:
        """Take the address and the token that the hub has now."""
        self._hub.close()
        with suppress(NoHub):  # it has not said yet where it is
            self._hub = self._find()
