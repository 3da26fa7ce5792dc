"""What tells one session, turn or subagent from another, as a part of an id."""

from hashlib import sha256
from typing import Any

from ..redaction import holds_secret
from .reading import identity


def part_of_id(value: Any) -> str:
    """As `identity`, for what tells one session, turn or the like from another: one that looks like a secret, which
    would be taken out, is told by its hash. Stops two of them from becoming one."""
    found = identity(value)
    return f"hidden-{sha256(found.encode()).hexdigest()[:16]}" if holds_secret(found) else found
