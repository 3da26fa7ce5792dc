"""The envelope around what crosses the wire, in both directions."""

import re
from typing import Any, Literal, NamedTuple

from marshmallow import Schema, ValidationError, fields, validate

from ..errors import HubError
from .fieldtypes import IdField, NameField, check_time
from .ids import is_id
from .names import is_name
from .strictjson import LARGEST_RESULT, dumpb, dumps, loads
from .timestamps import now
from .validation import bounded, invalid, load

MAX_SENTENCE = 1000  # characters of an error's sentence whose details are too large to be sent

# ---- what comes in ---------------------------------------------------------------------------------------------


class _Payload(Schema):
    command = NameField(required=True)
    args = fields.Dict(load_default=dict)  # a key of JSON is a text
    confirm = fields.String()
    idempotency_key = IdField()


class _Frame(Schema):
    type = fields.String(required=True, validate=validate.Equal("command"))
    id = IdField(required=True)
    timestamp = fields.String(validate=check_time)
    payload = fields.Nested(_Payload, required=True)


FRAME = bounded(_Frame())


class Command(NamedTuple):
    """A command frame as a client sent it. `confirm` is what a refusal has handed out; who repeats the call with the
    same `idempotency_key` means the same one."""

    id: str
    name: str
    args: dict[str, Any]
    confirm: str | None = None
    idempotency_key: str | None = None


class Answer(NamedTuple):
    """A frame that may answer a call which the hub has sent on to this client, or say how far it is; `problem`: why it
    does not fit. Without an `id` it answers the only call that an answer can be due to, if there is one alone."""

    type: Literal["response", "error", "progress"]
    id: str | None
    payload: Any
    problem: str | None = None


class BadFrame(HubError):
    """A frame that is no command; `id` is the caller's, if it could be read. `answer`: what it says to somebody who
    has asked."""

    def __init__(self, error: HubError, id: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(error.code, error.message, error.details)
        self.id, self.answer = id, answer


def load_command(text: str | bytes) -> Command:
    """Read one frame of a client. Raises BadFrame `invalid_json`, `unexpected_type` or `invalid_message`."""
    try:
        frame = loads(text)
    except HubError as error:
        raise BadFrame(error, answer=_unread(text, error.message)) from None
    if not isinstance(frame, dict):
        alone = HubError("invalid_json", "A message is one JSON object.")
        raise BadFrame(alone, answer=None if _BEAT.fullmatch(str(frame)) else _nameless(alone.message))
    id = frame.get("id")
    if not is_id(id):
        id = None
    command = _plainly(frame)
    if command is not None:
        return command
    if frame.get("type") in ("event", "response", "error"):
        sentence = f"The hub asked nothing that this {frame['type']} could answer; send a command."
        raise BadFrame(HubError("unexpected_type", sentence), id, _answer(frame, id))
    try:
        loaded = load(FRAME, frame)
    except ValidationError as error:
        problem = invalid("invalid_message", "The message does not fit", error)
        raise BadFrame(problem, id, _odd(frame, id, problem.message)) from None
    payload = loaded["payload"]
    return Command(
        loaded["id"], payload["command"], payload["args"], payload.get("confirm"), payload.get("idempotency_key")
    )


def _answer(frame: dict[str, Any], id: str | None) -> Answer | None:
    if frame["type"] == "event":
        return _progress(frame)
    if id is None:
        return _nameless("An answer has the id of its call, a text.")
    problem = None
    if not {"type", "id", "payload"} <= frame.keys() <= {"type", "id", "payload", "timestamp"}:
        problem = "An answer has type, id and payload, and may have a timestamp."
    return Answer(frame["type"], id, frame.get("payload"), problem)


def _odd(frame: dict[str, Any], id: str | None, problem: str) -> Answer | None:
    """What is no command: as somebody answers who speaks another protocol."""
    if frame.get("type") == "command":
        return None
    if id is not None:
        return Answer("error", id, None, problem)
    is_other = not frame or frame.get("type", "result") not in _RESULTS or frame.keys() & _OTHERS
    return None if is_other else _nameless(problem)


def _unread(text: str | bytes, problem: str) -> Answer | None:
    """An answer that is no JSON: whoever waits for it hears of it, if its id can be told, or it has none at all."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if (id := _OF_A_CALL.search(text)) and _ANSWERS.search(text):
        return Answer("error", id[1], None, problem)
    type = _TYPE.search(text)
    is_other = _NAMED.search(text) or _BEAT.fullmatch(text) or (type and type[1] not in _RESULTS)
    return None if is_other else _nameless(problem)


def _nameless(problem: str) -> Answer:
    """What somebody sends who has been asked something, and knows nothing of envelopes."""
    return Answer("error", None, None, problem)


_OF_A_CALL = re.compile(r'"id"\s*+:\s*+"(call-[0-9]{1,19})"')  # as the hub names those that it sends on
_NAMED = re.compile(r'"id"\s*+:\s*+"')  # it is about something else
_ANSWERS = re.compile(r'"type"\s*+:\s*+"(?:response|error)"|"jsonrpc"\s*+:')
_TYPE = re.compile(r"""["']type["']\s*+:\s*+["'](\w*+)""")
_RESULTS = ("response", "error", "result")  # the types of what may be an answer without an id
_OTHERS = frozenset({"event", "command", "method", "ping", "pong"})  # of what has no type, and is none
_BEAT = re.compile(r"\s*+(?:(?:ping|pong|heartbeat|keep-?alive)\s*+)?", re.ASCII | re.IGNORECASE)  # or nothing at all


def _progress(frame: dict[str, Any]) -> Answer | None:
    """How far a call is, as its provider says it."""
    match frame:
        case {"payload": {"event": "hub:progress", "data": {"call": str(id), **rest}}} if is_id(id):
            return Answer("progress", id, rest)
    return None


def _plainly(frame: dict[str, Any]) -> Command | None:
    """A frame as nearly all are, read without the schema; None if there is anything else in it, good or bad."""
    match frame:
        case {"type": "command", "id": str(id), "payload": {"command": str(name), **rest}} if len(frame) == 3:
            args = rest.get("args", {})
            if len(rest) == ("args" in rest) and isinstance(args, dict) and is_id(id) and is_name(name):
                return Command(id, name, args)
    return None


# ---- what goes out ---------------------------------------------------------------------------------------------


def response(id: str, result: bytes) -> bytes:
    """The JSON of the answer to a call; `result` is JSON already."""
    head = f'{{"type":"response","id":{dumps(id)},"timestamp":"{now()}","payload":'
    return b"%b%b}" % (head.encode(), result)


def command_frame(id: str, name: str, args: bytes) -> bytes:
    """The JSON of a call that is sent on to its provider; `args` is JSON already."""
    head = f'{{"type":"command","id":{dumps(id)},"payload":{{"command":{dumps(name)},"args":'
    return b"%b%b}}" % (head.encode(), args)


def failure(id: str | None, error: HubError) -> bytes:
    """The JSON of the refusal of a call, or of a frame that was none (`id` null)."""
    head = f'{{"type":"error","id":{dumps(id)},"timestamp":"{now()}","payload":'
    return b"%b%b}" % (head.encode(), refusal(error))


def refusal(error: HubError) -> bytes:
    """The JSON of an error object. What the details say of a large input may be larger than an answer can be: then the
    sentence alone must do."""
    text = dumpb(error.payload())
    if len(text) <= LARGEST_RESULT:
        return text
    sentence = error.message if len(error.message) <= MAX_SENTENCE else f"{error.message[:MAX_SENTENCE]}…"
    return dumpb(HubError(error.code, sentence, retry_after=error.retry_after).payload())
