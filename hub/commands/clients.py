"""Who is connected, and what happens when one goes."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..wire.ids import new_id
from ..wire.timestamps import now
from ..wire.vocabulary import Disconnection, Transport, Trust
from .load import UNREAD, Load

if TYPE_CHECKING:
    from ..stream.subscriber import Subscriber
    from .call import Call

log = logging.getLogger("hub")

_PORT = re.compile(r":[0-9]+\Z")  # of a peer that has one: behind a proxy it is not known


@dataclass(eq=False, slots=True)
class Client:
    """The hub's own record of a connection. Trust comes from here, never from what the client says."""

    transport: Transport
    peer: str  # "127.0.0.1:4711"
    uid: int | None = None
    trust: Trust = "OPERATOR"
    id: str = field(default_factory=new_id)
    since: str = field(default_factory=now)
    gone: bool = False  # for good; calls of its own may still be on their way
    subscriber: "Subscriber | None" = None
    send: Callable[[bytes], None] | None = None  # takes one JSON text at once, on the wire of its session
    _calls: "dict[str, Call] | None" = None
    _load: Load | None = None

    @property
    def calls(self) -> "dict[str, Call]":
        """Its calls that run, by the ids that it chose. Made when they are asked for: most clients never call."""
        if self._calls is None:
            self._calls = {}
        return self._calls

    @property
    def load(self) -> Load:
        """What it has been answered. Made when it is asked for: most clients never call."""
        if self._load is None:
            self._load = Load()
        return self._load

    @load.setter
    def load(self, load: Load) -> None:
        self._load = load

    async def room(self) -> None:
        """Wait until the client has taken what it was answered: else its calls would fill the hub's memory."""
        await self.load.room()
        if self.subscriber is not None:
            await self.subscriber.drain()

    def has_room(self) -> bool:
        """Whether it has taken what it was answered, so that `room` would not wait."""
        return self.load.unread < UNREAD and not (self.subscriber is not None and self.subscriber.paused)

    @property
    def account(self) -> str:
        """Return whose this is: an account of this machine, or the address of who comes from elsewhere."""
        return f"uid {self.uid}" if self.uid is not None else _PORT.sub("", self.peer)

    def actor(self) -> dict[str, Any]:
        """Return who this is, for the audit log."""
        return {"client": self.id, "peer": self.peer, "uid": self.uid}


Page = tuple[list[tuple[str, str]], bool]  # ids with what is said of each, as JSON; whether there are more


class Clients:
    """Everybody who is connected. Each joins once and leaves once, for good.

    Whatever must end with a client hangs on `on_leave(client, reason)`: it is called in the very step in which the
    client leaves, and none of it waits. `on_join(client)` likewise. `elsewhere(after)` asks who is connected to the
    other workers of this port.
    """

    def __init__(self) -> None:
        self.elsewhere: Callable[[str], Awaitable[list[Page]]] = _nobody
        self.on_join: list[Callable[[Client], None]] = []
        self.on_leave: list[Callable[[Client, Disconnection], None]] = []
        self._clients: dict[Client, None] = {}

    def join(self, client: Client) -> None:
        """Take a client in."""
        self._clients[client] = None
        for listener in self.on_join:
            _call(listener, client)

    def leave(self, client: Client, reason: Disconnection) -> None:
        """Let a client go. One that has gone is no error."""
        if client not in self._clients:
            return
        del self._clients[client]
        client.gone = True
        for listener in self.on_leave:
            _call(listener, client, reason)

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)


async def _nobody(after: str) -> list[Page]:
    return []


def _call(listener: Callable[..., None], *args: Any) -> None:
    """One that fails is a bug, and no reason that the others do not hear of it."""
    try:
        listener(*args)
    except Exception:
        log.exception(
            "the hub failed when a client came or went, which is a bug of the hub; "
            "what hangs on that client may be left over until a restart"
        )
