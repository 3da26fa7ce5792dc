"""What tells one session, turn or subagent from another, as a part of an id."""

from hashlib import sha256
from typing import Any

from ..redaction import holds_secret
from .reading import CLEANED, clean, identity

LONGEST = 100  # characters of a part


def part_of_id(value: Any, most: int = LONGEST) -> str:
    """As `identity`, for what tells one session, turn or the like from another. What is long or odd keeps its
    beginning, and a hash tells it. Stops two of them from becoming one, or a session from being another one's part."""
    found = identity(value, most)
    if not found:  # nothing of it can be printed, or there is none
        return f"odd-{_hash(clean(value))}" if isinstance(value, str) and value else ""
    whole, plain = clean(str(value)), found.replace("/", "_")
    if len(whole) <= CLEANED and holds_secret(whole):  # of what is longer the beginning is cleaned
        return hidden(whole)
    return plain if plain == whole else f"{plain[: most - 20].strip()}-{_hash(whole)}"


def hidden(text: str) -> str:
    """The text; one that looks like a secret, which would be taken out, is told by its hash."""
    return f"hidden-{_hash(text)}" if holds_secret(text) else text


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
