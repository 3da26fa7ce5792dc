"""The other hubs of a stream, as a hub needs to know of them: who lives, who provides what, and words from one to the
other."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol

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


Verdict = tuple[Literal["mine", "take", "wait", "late", "awaited"], bytes | float]


class Judge(Protocol):
    """Who decides about a question that all hubs have: the first end is the end, by one clock.

    A question is named by its id and when it was asked. Every method raises HubError `broker_unavailable`.
    """

    async def ask(self, id: str, asked_at: str, seconds: float, record: bytes, over: str) -> bytes:
        """Ask this question, on behalf of who is connected here; return it, or the one that is asked under this id
        already, but for the one that was asked at `over`."""

    async def is_asked(self, id: str) -> bool:
        """Whether a hub has asked it, and it is not over."""

    async def settle(self, id: str, asked_at: str, how: str, deadline: float, end: bytes) -> Verdict:
        """End it, `answered`, `timed_out`, `withdrawn`, as it is on `record` already, or as an `orphan`: if the hub of
        who asks is this one, or is not there any more.

        `mine`: this is the end, and nobody else can end it. `take`: it has another one already, which nobody alive sees
        to; now this hub does. `wait`: not yet, or another hub sees to it; ask again in so many seconds. `late`: it is
        over, or its deadline has passed. `awaited`: it cannot be `withdrawn`, because somebody waits for its end on
        another hub.
        """

    def awaits(self, id: str) -> None:
        """Somebody who is connected here waits for its end. Never waits."""

    def leaves(self, id: str) -> None:
        """Nobody here does any more. Never waits."""

    async def unsettle(self, id: str, asked_at: str) -> None:
        """Take back the end that this hub sees to: it cannot be recorded."""

    async def over(self, id: str, asked_at: str) -> None:
        """Say that the end which this hub sees to has been published."""


class Turns(Protocol):
    """Which hub runs a call that may be repeated: one of all, at each `place`. A hub that dies, or was cut off, has
    lost its turns."""

    async def take(self, place: bytes, what: bytes, unbegun: bool) -> bytes | None:
        """Take the turn; or return what is called there by another hub that has it. `unbegun`: what is kept of this
        hub's last turn there has not run, and is forgotten if nobody else has had the turn since. Raises HubError
        `broker_unavailable`."""

    async def begin(self, place: bytes, what: bytes) -> None:
        """Keep that the call is about to run, as `Answers.remember` does. Raises HubError `broker_unavailable`, also if
        the turn was lost: then it must not run."""

    def leave(self, place: bytes, unbegun: bool) -> None:
        """The turn is over; `unbegun`: whatever is kept of it, it has not run. Never waits."""


class Peers(Protocol):
    """The hubs of one stream. Each has a lease and a link, which is where it is reached: another one whenever it may
    have missed something."""

    id: str  # of this hub, for as long as it runs
    link: str  # empty while it has none
    judge: Judge
    turns: Turns

    async def start(self, ears: Ears) -> None:
        """Become one of them. Returns when that is so, or cannot be yet."""

    async def claim(self, names: Names) -> tuple[str, bytes] | None:
        """Have these commands, all or none. Return None, or the first that another hub has and what that says of it.
        Raises HubError `broker_unavailable`: they may be had all the same, until `release`."""

    def release(self, names: list[str]) -> None:
        """Let go of them. Never waits: if they cannot be let go now, they are at the next link."""

    async def confirm(self, digest: bytes, given: str, seconds: float) -> str | None:
        """Use up a value that any of the hubs has handed out for the call of this digest; return None, or a new one if
        it is none, was used or is too old. Raises HubError `broker_unavailable`."""

    async def look(self) -> None:
        """Hear what others offer by now: all that they were told that they have, before this. Raises HubError
        `broker_unavailable` while that cannot be known."""

    async def send(self, link: str, message: bytes) -> bool:
        """Send to another hub; return whether it was there. What it does not hear is lost, and so is its link."""

    async def stop(self) -> None:
        """Leave them."""
