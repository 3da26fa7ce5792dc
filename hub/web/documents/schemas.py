"""The schemas of what crosses the wire, each under a name of its own, as both documents refer to them.

What comes in is described by the very marshmallow schemas that check it. What goes out is checked by nothing: it is
written down here, without room for anything more, and the tests hold every answer against it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from ...commands.builtin import PROTOCOL
from ...commands.call import Command
from ...commands.provided import Served
from ...commands.registry import EFFECTS
from ...errors import Code
from ...stream.eventtypes import EventType
from ...wire.fieldtypes import CursorField, IdField, NameField, PatternsField
from ...wire.jsonschema import field_schema, json_schema
from ...wire.messages import FRAME
from ...wire.subschemas import moved
from ...wire.timestamps import MAX_TTL
from ...wire.vocabulary import GapReason, Settled, Transport, Trust

Part = dict[str, Any]  # of a document: JSON

TEXT: Part = {"type": "string"}
NUMBER: Part = {"type": "number"}
COUNT: Part = {"type": "integer", "minimum": 0}
FLAG: Part = {"type": "boolean"}
OBJECT: Part = {"type": "object"}
ANYTHING: Part = {}


def ref(name: str, kind: str = "schemas") -> Part:
    """Point to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def record(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Part:
    """An object with these members and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


def listed(items: Part) -> Part:
    return {"type": "array", "items": items}


def one_of(words: Any) -> Part:
    """One of the words of a Literal."""
    return {"type": "string", "enum": [*get_args(words)]}


def or_null(schema: Part) -> Part:
    return {"anyOf": [schema, {"type": "null"}]}


def said(schema: Part, sentence: str) -> Part:
    return {**schema, "description": sentence}


# ---- what comes in, and what both ways have in common

NAME, ID, CURSOR, TIMESTAMP = ref("Name"), ref("Id"), ref("Cursor"), ref("Timestamp")
PATTERNS = field_schema(PatternsField())

COMMON: Mapping[str, Part] = {
    "Name": said(field_schema(NameField()), "The name of an event or a command: `domain:action`."),
    "Id": said(field_schema(IdField()), "1 to 128 printable characters."),
    "Cursor": said(field_schema(CursorField()), "A position in the hub's stream of events: `<epoch>:<seq>`."),
    "Timestamp": said({"type": "string", "format": "date-time"}, "RFC 3339, UTC, with milliseconds."),
    "Error": said(
        record(
            {"error": said(TEXT, "A sentence for a person."), "code": one_of(Code), "retryable": FLAG},
            {
                "details": said(OBJECT, "What is wrong, by the path of the field."),
                "retry_after": said(NUMBER, "Seconds after which to try again."),
            },
        ),
        "Why something was refused.",
    ),
}

# ---- what goes out


def envelope(payload: Part, cursor: bool = True) -> Part:
    """An event as it is sent: with the position behind it, if it has a number."""
    head = {"type": {"const": "event"}, "id": ID, "timestamp": TIMESTAMP}
    return record({**head, **({"cursor": CURSOR} if cursor else {}), "payload": payload})


def happened(name: Part, data: Part) -> Part:
    """The payload of an event."""
    return record({"event": name, "data": data})


_QUESTION = record(
    {
        "id": ID,
        "question": TEXT,
        "options": listed(TEXT),
        "default": or_null(TEXT),
        "details": ANYTHING,
        "asked_by": TEXT,
        "asked_at": TIMESTAMP,
        "deadline": TIMESTAMP,
        "status": {"type": "string", "enum": ["open", *get_args(Settled)]},
        "answer": or_null(TEXT),
        "by": said(or_null(TEXT), "Who answered; null if nobody has."),
    }
)
_RECORD = record(
    {
        "action": TEXT,
        "actor": or_null(OBJECT),
        "details": ANYTHING,
        "previous_hash": TEXT,
        "seq": COUNT,
        "timestamp": TIMESTAMP,
        "trust": TEXT,
        "hash": TEXT,
    }
)
_CLIENT = record(
    {
        "client": ID,
        "transport": one_of(Transport),
        "peer": TEXT,
        "since": TIMESTAMP,
        "topics": listed(TEXT),
        "lag": COUNT,
        "provides": listed(NAME),
    }
)
_DESCRIBED = record(
    {
        "name": NAME,
        "summary": TEXT,
        "args": said(OBJECT, "JSON Schema, draft 2020-12."),
        "effect": {"type": "string", "enum": [*EFFECTS]},
        "provider": said(or_null(ID), "The client that serves it; null if the hub does."),
    }
)
_LAST_VALUE = record({"event": NAME, "key": TEXT, "timestamp": TIMESTAMP, "data": ANYTHING, "stale": FLAG})

OUT: Mapping[str, Part] = {
    "Event": said(envelope(happened(NAME, ANYTHING)), "Something that happened."),
    "Question": said(_QUESTION, "Something that a person is asked."),
    "AuditRecord": _RECORD,
    "Client": _CLIENT,
    "Command": _DESCRIBED,
    "LastValue": _LAST_VALUE,
}

# By command: what the hub's own answer.
RESULTS: Mapping[str, Part] = {
    "hub:info": record(
        {
            "version": TEXT,
            "protocol": {"const": PROTOCOL},
            "client": ID,
            "trust": one_of(Trust),
            "cursor": CURSOR,
            "heartbeat": said(NUMBER, "Seconds between two signs of life that the hub asks for."),
            "limits": {"type": "object", "additionalProperties": NUMBER},
        }
    ),
    "hub:ping": record({"pong": {"const": True}, "args": OBJECT}),
    "hub:subscribe": record({"topics": listed(TEXT), "cursor": CURSOR}),
    "hub:unsubscribe": record({"topics": listed(TEXT)}),
    "hub:publish": record({"id": ID, "cursor": CURSOR}),
    "hub:history": record({"events": listed(ref("Event")), "cursor": CURSOR, "complete": FLAG, "more": FLAG}),
    "hub:state": record({"cursor": CURSOR, "items": listed(ref("LastValue")), "more": FLAG}),
    "hub:commands": listed(ref("Command")),
    "hub:clients": listed(ref("Client")),
    "hub:stats": OBJECT,
    "hub:provide": record({"provides": listed(NAME)}),
    "hub:ask": record({"question": ID, "answer": TEXT, "by": or_null(TEXT), "timed_out": FLAG}),
    "hub:answer": record({"accepted": FLAG}),
    "hub:questions": listed(ref("Question")),
    "hub:seen": record({}),
    "hub:cancel": record({"cancelled": FLAG}),
    "audit:tail": listed(ref("AuditRecord")),
    "audit:verify": record({"valid": FLAG, "records": COUNT, "head": TEXT}, {"broken_at": COUNT, "reason": TEXT}),
}


class Notice(NamedTuple):
    """An event of the hub's own: what it says, its data, and whether it has a number as all others."""

    summary: str
    data: Part
    is_numbered: bool = True


_GAP = record({"after": or_null(CURSOR), "before": CURSOR, "count": or_null(COUNT), "reason": one_of(GapReason)})
_PROGRESS = {"type": "object", "properties": {"call": ID}, "required": ["call"]}

NOTICES: Mapping[str, Notice] = {
    "hub:gap": Notice("Events between `after` and `before` that you will not get.", _GAP, False),
    "hub:mark": Notice("Nothing matched up to here: come back with this cursor.", record({"cursor": CURSOR}), False),
    "hub:progress": Notice("How far a call of yours is.", _PROGRESS, False),
    "hub:stale": Notice(
        "A last value was not published again in time.", record({"event": NAME, "key": TEXT, "seq": COUNT})
    ),
    "hub:question": Notice("A person is asked something, or a question is over.", ref("Question")),
    "hub:seen": Notice(
        "A person has seen the last value of this key, event number `seq`.",
        record({"event": NAME, "key": TEXT, "seq": COUNT, "by": TEXT}),
    ),
}

# How a hub lets clients in. In local mode it asks the kernel whose a connection is, and nobody for a token.
SECURITY: Mapping[str, Part] = {
    "token": {"type": "http", "scheme": "bearer", "description": "In token mode: `hub token` prints it."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "hub_session",
        "description": "In token mode: of a browser; the name goes on with `_` and the hub's port.",
    },
}

# ---- what is registered


class Titles:
    """Names for components, one for each text: `hub:ask` is HubAsk; what would be the same as another gets a number."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._given: dict[str, str] = {}  # by the text
        self._taken = {*taken, ""}
        self._alike: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        if text not in self._given:
            wanted = title = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", text))
            while title in self._taken:
                self._alike[wanted] += 1
                title = f"{wanted}{self._alike[wanted] + 1}"
            self._given[text] = title
            self._taken.add(title)
        return self._given[text]


def args_of(command: Command, title: str) -> Part:
    """The args of a command, for a document in which they are the schema of this title."""
    if isinstance(command, Served) and command.given:
        return moved(command.given.given, ref(title)["$ref"])
    return json_schema(command.schema)


def data_of(type: EventType) -> Part:
    """The data of an event type, as it is checked."""
    kept = f"The last value for each `{type.key}` is kept." if isinstance(type.key, str) else ""
    sentence = " ".join(filter(None, (type.summary, kept)))
    return said(json_schema(type.schema) if type.schema else ANYTHING, sentence)


def published(name: Part, data: Part, has_key: bool = False) -> Part:
    """An event as it is published; only the last value of a key can become stale."""
    ttl = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TTL}
    lease = {"ttl": said(ttl, "Seconds until its last value is stale.")} if has_key else {}
    return record({"event": name, "data": data}, {"id": ID, **lease})


def frame(command: Part, args: Part, is_bare: bool) -> Part:
    """A call as a client sends it: the envelope that is checked, with the args of this command; `is_bare`: it can be
    called without any."""
    found = json_schema(FRAME)
    payload = found["properties"]["payload"]
    payload["properties"] |= {"command": command, "args": args}
    payload["required"] += [] if is_bare else ["args"]
    return found
