"""What happened, as text: records that are ready to be written, and the lines that they become in the chain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from ..wire.strictjson import encoder
from ..wire.timestamps import now
from .chain import MAGIC, Link

TRUST = "SYSTEM"  # of the records that the log itself writes
MAX_ARGS = 4096  # bytes of JSON; larger args are recorded by size and SHA-256
SMALL = MAX_ARGS // 12  # characters of a call whose args are never more: none becomes longer than two escapes
MAX_DETAILS = 65536  # bytes; the same for any other details

_encode = encoder(json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False))
_quoted = json.encoder.encode_basestring_ascii


class Entry(NamedTuple):
    """A record but for its place in the chain: the text before `previous_hash` and the text behind `seq`."""

    front: str
    back: str


def entry(action: str, actor: Mapping[str, Any] | None, trust: str, details: Mapping[str, Any]) -> Entry:
    """The record as text, stamped now. Raises TypeError or ValueError if the details are not JSON."""
    front = _encode({"action": action, "actor": actor, "details": details})
    if len(front) > MAX_DETAILS:
        front = _encode({"action": action, "actor": actor, "details": _measured(_encode(details))})
    return Entry(front[:-1], f'"timestamp":"{now()}","trust":{_quoted(trust)}}}')


def reduced(args: Any, weight: int = 0) -> Any:
    """The args for a record, already redacted: themselves up to 4 KiB, else `{"bytes": n, "sha256": hex}` of their
    JSON. `weight`: the characters that they came in, if that is known."""
    if 0 < weight <= SMALL:
        return args
    text = _encode(args)
    return args if len(text) <= MAX_ARGS else _measured(text)


def _measured(text: str) -> dict[str, Any]:
    return {"bytes": len(text), "sha256": sha256(text.encode()).hexdigest()}


def chained(entries: Sequence[Entry], link: Link) -> tuple[bytes, Link]:
    """The stored lines of these records behind that link, and the link to the last of them."""
    lines = []
    seq, newest = link
    for front, back in entries:
        seq += 1
        body = f'{front},"previous_hash":"{newest}","seq":{seq},{back}'
        newest = sha256(MAGIC + body.encode()).hexdigest()
        lines.append(f'{body[:-1]},"hash":"{newest}"}}\n')
    return "".join(lines).encode(), Link(seq, newest)
