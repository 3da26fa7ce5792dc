"""A question as it is published: what is asked, by whom, and what has come of it."""

import contextlib
import hashlib
import pwd
import time
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import HubError
from ..redaction import redact, redact_text
from ..wire.ids import new_id
from ..wire.timestamps import stamp
from ..wire.validation import misfit
from ..wire.vocabulary import Trust
from .clients import Client

WITH_ITS_ASKER = "while-"  # how the id of a question begins that ends with the connection: so a restart knows it, too


class Person(NamedTuple):
    """Who asks or answers: as questions name them, and as the audit log does."""

    name: str
    actor: Mapping[str, Any] | None = None
    trust: Trust = "SYSTEM"


class Asked(NamedTuple):
    """What is asked. `asker` is whose connection the question ends with, None for one that outlives it; the same `key`
    of the same account is the same question."""

    question: str
    options: list[str]
    default: str | None = None
    timeout: float = 600.0
    details: Any = None
    asker: Client | None = None
    key: str | None = None


NOBODY = Person("")


def person(client: Client) -> Person:
    """Who is at the other end: an account's name as the system knows it, or the address of who comes from elsewhere."""
    name = client.account if client.uid is None else account(client.uid)
    return Person(name, client.actor(), client.trust)


@lru_cache(maxsize=64)
def account(uid: int) -> str:
    """The name of an account of this machine."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


def record_of(asked: Asked, by: Person) -> dict[str, Any]:
    """The question as it is published, without secrets. Raises HubError `invalid_args` if it cannot be answered."""
    options = [redact_text(option) for option in asked.options]
    default = None if asked.default is None else redact_text(asked.default)
    problems = {}
    if len(set(options)) < len(options):
        secret = " once secrets are taken out" if len(set(asked.options)) == len(options) else ""
        problems["options"] = [f"Each option must be another one{secret}."]
    if default is not None and default not in options:
        problems["default"] = ["Must be one of the options."]
    if problems:
        raise misfit("invalid_args", "The question does not fit", problems)
    now = time.time()
    return {
        "id": _id(asked, by),
        "question": redact_text(asked.question),
        "options": options,
        "default": default,
        "details": redact(asked.details)[0],
        "asked_by": by.name,
        "asked_at": stamp(now),
        "deadline": stamp(now + asked.timeout),
        "status": "open",
        "answer": None,
        "by": None,
    }


def _id(asked: Asked, by: Person) -> str:
    """With a key the same one again, for this account: so a question is found by its key, across a restart, too."""
    begin = WITH_ITS_ASKER if asked.asker is not None else ""
    if asked.key is None:
        return begin + new_id()
    return begin + hashlib.sha256(f"{by.name}\n{asked.key}".encode()).hexdigest()[:32]


def twin(id: str) -> str:
    """The id that a question has with the same key, if one of the two ends with its asker's connection."""
    return id.removeprefix(WITH_ITS_ASKER) if id.startswith(WITH_ITS_ASKER) else WITH_ITS_ASKER + id


def is_same(known: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    return all(known[name] == again[name] for name in ("question", "options", "default", "details"))


def outcome(end: Mapping[str, Any]) -> dict[str, Any]:
    if end["status"] == "withdrawn":
        raise HubError("cancelled", "The question was withdrawn.")
    if end["answer"] is None:
        raise HubError("timeout", "Nobody has answered in time, and the question has no default.")
    timed_out = end["status"] == "timed_out"
    return {"question": end["id"], "answer": end["answer"], "by": end["by"], "timed_out": timed_out}


def seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
