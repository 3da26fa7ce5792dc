"""How many messages a channel gets at once: a few one by one, what gathers meanwhile as one."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .rules import Message, cut

MOST, WITHIN = 5, 10.0  # messages, in so many seconds
TITLES = 10  # of the messages that are told as one
LONGEST, LONGEST_ASKED = 2000, 180  # characters of those, and of one question among them


@dataclass(slots=True)
class Pace:
    """When the newest messages of a channel were tried, and whether some had to wait for that."""

    tries: deque[float] = field(default_factory=lambda: deque(maxlen=MOST))
    is_crowded: bool = False

    @property
    def free_at(self) -> float:
        """When there is room for one more."""
        return self.tries[0] + WITHIN if len(self.tries) == MOST else -math.inf


def is_told(message: Message) -> bool:
    """Whether nobody waits for an answer to it."""
    return message.rule != "question"


def as_one(batch: Sequence[Message], lost: int, words: Callable[[Message], dict[str, Any]]) -> dict[str, Any]:
    """The words of these messages, behind so many that were lost. A question keeps its own: without them nobody knows
    whether it can wait."""
    count = len(batch) + lost
    if count == 1:
        return words(batch[0])
    what, first = "messages" if lost or any(map(is_told, batch)) else "questions", words(batch[0])
    titles = [message.title if is_told(message) else _asked(message) for message in batch[:TITLES]]
    more = [f"and {count - len(titles)} more"] * (count > len(titles))
    return first | {
        "title": f"{count} more {what}",
        "message": cut("; ".join([*titles, *more]), LONGEST),
        "priority": max(message.priority for message in batch),
        "click": first["click"].partition("#")[0].partition("?")[0],
    }


def _asked(message: Message) -> str:
    return cut(f"{message.title}: {message.message}", LONGEST_ASKED)
