"""Who is connected."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..wire.messages import now
from ..wire.names import new_id

if TYPE_CHECKING:
    from ..stream.subscriber import Subscriber
    from .registry import Call


@dataclass(eq=False, slots=True)
class Client:
    """The hub's own record of a connection. Trust comes from here, never from what the client says."""

    transport: str  # "websocket", "sse" or "http"
    peer: str  # "127.0.0.1:4711"
    uid: int | None = None
    trust: str = "OPERATOR"
    id: str = field(default_factory=new_id)
    since: str = field(default_factory=now)
    subscriber: "Subscriber | None" = None
    calls: dict[str, "Call"] = field(default_factory=dict)  # running, by the caller's id

    def actor(self) -> dict[str, Any]:
        """Who this is, for the audit log."""
        return {"client": self.id, "peer": self.peer, "uid": self.uid}
