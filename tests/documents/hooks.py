"""What schemathesis cannot read in the document: run by it, not by pytest (`SCHEMATHESIS_HOOKS`)."""

import itertools
from typing import Any

import schemathesis

EXACT = 2**53
LARGEST = 10**20  # integers have 20 digits at most
numbers = itertools.count()


def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Write what the hub can read; and another key for each call: with the same one, other args would be refused."""
    case.body = written(case.body)
    if isinstance(key := (case.headers or {}).get("Idempotency-Key"), str) and key.isprintable():
        case.headers["Idempotency-Key"] = f"{next(numbers)} {key}"[: max(len(key), 8)]


def written(value: Any, name: str = "") -> Any:
    """A body without what only its schema takes: integers with too many digits, or with a point and so large that they
    are not exact; and ids with what nobody can see, where that is not in Latin-1."""
    if isinstance(value, dict):
        return {key: written(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [written(member) for member in value]
    if isinstance(value, float) and value.is_integer() and abs(value) >= EXACT:
        value = int(value)
    if isinstance(value, int) and abs(value) >= LARGEST:
        return 0
    if isinstance(value, str) and name == "id":
        return "".join(character for character in value if ord(character) < 256 or character.isprintable())
    return value


schemathesis.hook(before_call)
