"""The other hubs of a stream, as a hub needs to know of them: who lives, who provides what, and words from one to the
other."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

Names = Mapping[str, bytes]  # of provided commands, each with what is said of it


class Offer(NamedTuple):
    """A command that a client of another hub provides: where calls of it are sent, and what is said of it."""

    link: str
    described: bytes


class Ears(NamedTuple):
    """What a hub does with what it hears of the others. None of it waits."""

    names: Callable[[], Names]  # all that its own clients provide
    refused: Callable[[list[str]], None]  # of these, what is another's by now
    offers: Callable[[Mapping[str, Offer]], None]  # all that clients of other hubs provide
    alive: Callable[[frozenset[str]], None]  # the links of the other hubs; what was sent to any else is lost
    message: Callable[[bytes], None]
    cut: Callable[[], None]  # nothing that was sent to this hub before will be heard, and nobody is alive to it


class Peers(Protocol):
    """The hubs of one stream. Each has a lease and a link, which is where it is reached: another one whenever it may
    have missed something."""

    id: str  # of this hub, for as long as it runs
    link: str  # empty while it has none

    async def start(self, ears: Ears) -> None:
        """Become one of them. Returns when that is so, or cannot be yet."""

    async def claim(self, names: Names) -> tuple[str, bytes] | None:
        """Have these commands, all or none. Return None, or the first that another hub has and what that says of it.
        Raises HubError `broker_unavailable`: they may be had all the same, until `release`."""

    def release(self, names: list[str]) -> None:
        """Let go of them. Never waits: if they cannot be let go now, they are at the next link."""

    async def send(self, link: str, message: bytes) -> bool:
        """Send to another hub; return whether it was there. What it does not hear is lost, and so is its link."""

    async def stop(self) -> None:
        """Leave them."""
