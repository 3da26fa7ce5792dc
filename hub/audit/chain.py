"""One line of the audit log: whether it is the record behind the one before. Read by everyone, used by no writer."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any, NamedTuple

MAGIC = b"hub-audit-v1\n"
ZEROS = "0" * 64
KEYS = ["action", "actor", "details", "previous_hash", "seq", "timestamp", "trust"]
MAX_LINE = 1 << 20  # bytes; a file of one endless line must not fill the memory

RETIRED = b'{"action":"audit.retired",'
TOLD = (RETIRED, b'{"action":"audit.recovered",')  # what a segment may begin with

_HASH_AT = len(',"hash":""}\n') + 64
_BEGINNING = b'{"action":"'
_HASH = re.compile(r"[0-9a-f]{64}")
# Keys are sorted at every depth but for a record's own hash: only at its end "trust" stands before "hash".
_END = re.compile(rb'"trust":"(?:[^"\\]|\\.)*","hash":"[0-9a-f]{64}"\}')
_FRONTS = 1024  # remembered, each of at most so many bytes: an actor makes many records
_DETAILS = b',"details":'
_STAMP = b"0123456789TZ:.-"
_TRUSTS = {b'","trust":"%b"' % trust for trust in (b"SYSTEM", b"OPERATOR", b"OBSERVER", b"NONE")}


def _members(value: str) -> str:
    """Objects and arrays of such values, as an expression. Strings without any escape, which is nearly all of them.
    `value` stands in it twice, no more: nested three times, that is what a start spends on compiling it."""
    return rf"(?:\{{(?:{_TEXT}:{value}(?:,(?=\")|(?=\}})))*\}}|\[(?:{value}(?:,(?!\])|(?=\])))*\])"


_TEXT = r'"[ !#-\[\]-~]*"'
_SCALAR = rf"(?:{_TEXT}|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|null|true|false)"
_NESTED = rf"(?:{_SCALAR}|{_members(_SCALAR)})"
_PLAIN_DETAILS = re.compile(_members(rf"(?:{_SCALAR}|{_members(_NESTED)})").encode())


class Link(NamedTuple):
    """A place in the chain: a record's number and its hash. Before the first record: 0 and 64 zeros."""

    seq: int
    hash: str


class Flaw(Exception):
    """The line is not the record that should be there; the message says why."""


def follow(line: bytes, link: Link) -> Link:
    """The link to the record in this line, which continues that link. Raises Flaw if it does not."""
    digest = sha256(b"%b%b}" % (MAGIC, line[:-_HASH_AT])).hexdigest()
    ending = line[-_HASH_AT:]
    if ending != f',"hash":"{digest}"}}\n'.encode():
        if ending[:9] != b',"hash":"' or ending[-3:] != b'"}\n':
            raise Flaw("this is not a whole audit record")
        raise Flaw("the record is not the one that its hash was made of")
    if not _is_plain(line, link):
        _look_closely(line[:-_HASH_AT] + b"}", link)
    return Link(link.seq + 1, digest)


def _look_closely(body: bytes, link: Link) -> None:
    try:
        record: Any = _decoder.decode(body.decode("ascii"))
    except (ValueError, RecursionError):
        raise Flaw("the record is not JSON as the hub writes it") from None
    if type(record) is not dict or list(record) != KEYS or type(record["seq"]) is not int:
        raise Flaw("the record does not have the members of an audit record")
    if record["seq"] != link.seq + 1:
        raise Flaw(f"record {link.seq + 1} should be here, this is {record['seq']}")
    if record["previous_hash"] != link.hash:
        raise Flaw("the record does not continue the one before it")


def _is_plain(line: bytes, link: Link) -> bool:
    """Whether the line is certainly what `_look_closely` accepts, in a third of the time. False says nothing.

    Only for a line that ends with its hash. A `"` inside a string is escaped, so what is looked for here are members.
    The last of them must be byte by byte what is due. The text up to the actor has been parsed once, as a whole object,
    and is remembered: the first `,"details":` behind it is the record's own.
    """
    due = f',"previous_hash":"{link.hash}","seq":{link.seq + 1},"timestamp":"'.encode()
    details, end = line.find(_DETAILS), line.rfind(due)
    rest = line[end + len(due) : -_HASH_AT]
    if details < 0 or end < details or rest[24:] not in _TRUSTS or rest[:24].translate(None, _STAMP):
        return False
    front = line[:details]
    return bool((front in _fronts or _is_front(front)) and _PLAIN_DETAILS.fullmatch(line, details + len(_DETAILS), end))


def _is_front(front: bytes) -> bool:
    """Whether this is the beginning of a record up to its actor, which is remembered then."""
    try:
        found = _decoder.decode(front.decode("ascii") + "}")
    except (ValueError, RecursionError):
        return False
    if type(found) is not dict or list(found) != KEYS[:2]:
        return False
    if len(_fronts) >= _FRONTS:
        _fronts.clear()
    if len(front) <= _FRONTS:
        _fronts.add(front)
    return True


def looks_torn(line: bytes, link: Link) -> bool:
    """Whether this can be what a crash leaves of the record behind that link: its beginning, zeros, or both."""
    text = line.rstrip(b"\0")
    if line.endswith(b"\n") or not (text.startswith(_BEGINNING) or _BEGINNING.startswith(text)):
        return False
    if not text.isascii() or not text.decode().isprintable():
        return False
    end = _END.search(text)
    return end is None or (end.end() == len(text) and _follows(text + b"\n", link))


def _follows(line: bytes, link: Link) -> bool:
    try:
        follow(line, link)
    except Flaw:
        return False
    return True


def before(line: bytes) -> Link:
    """What the first record of a segment says it continues; a line that says nothing is judged as record 1."""
    try:
        record = json.loads(line)
        return checked(record["seq"] - 1, record["previous_hash"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Link(0, ZEROS)


def checked(seq: Any, hash: Any) -> Link:
    """The link; raises ValueError or TypeError if it cannot be one."""
    if type(seq) is not int or seq < 0 or not _HASH.fullmatch(hash):
        raise ValueError("no place in the chain")
    return Link(seq, hash)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_decoder = json.JSONDecoder(parse_constant=_refuse)
_fronts: set[bytes] = set()
