"""What crosses the wire: time stamps, the fields of what comes in, and the envelope in both directions."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from marshmallow import Schema, ValidationError, fields, validate

from ..errors import HubError
from .ids import is_id
from .names import MAX_NAME, MAX_PATTERNS, Cursor, is_name, pattern_problem
from .strictjson import LARGEST_RESULT, dumpb, dumps, loads
from .validation import ListField, MappingField, bounded, invalid, load

MAX_TTL = 365 * 86_400  # seconds
MAX_SENTENCE = 1000  # characters of an error's sentence whose details are too large to be sent

# ---- time stamps -----------------------------------------------------------------------------------------------

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def now() -> str:
    """The time in RFC 3339, UTC, milliseconds, `Z`."""
    return stamp(time.time())


def stamp(at: float) -> str:
    """These seconds since 1970 as `now` gives them; later ones sort behind earlier ones as texts, too."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)  # many events and answers share a second
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


# ---- fields ----------------------------------------------------------------------------------------------------


class NameField(fields.String):
    """`domain:action`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=_name, **kwargs)


class IdField(fields.String):
    """1 to 128 printable characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=_id, **kwargs)


class CursorField(fields.String):
    """`<epoch>:<seq>`, loaded as a Cursor; a text that is none raises `unknown_cursor`, not a validation error."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return Cursor.parse(super()._deserialize(value, attr, data, **kwargs))


class NumberField(fields.Float):
    """A JSON number; marshmallow's own would also take "40"."""

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class FlagField(fields.Boolean):
    """true or false; marshmallow's own would also take "yes" and 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class PatternsField(ListField):
    """A list of patterns."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fields.String(validate=_pattern), validate=validate.Length(max=MAX_PATTERNS), **kwargs)


def is_time(text: str) -> bool:
    """Whether this is a time as RFC 3339 has it: with an offset."""
    try:
        if _TIMESTAMP.fullmatch(text):
            datetime.fromisoformat(text.upper().replace(":60", ":59"))  # a leap second is a time, too
            return True
    except ValueError:
        pass
    return False


def _timestamp(text: str) -> None:
    if not is_time(text):
        raise ValidationError("Not an RFC 3339 time with an offset.")


def _name(text: str) -> None:
    if not is_name(text):
        raise ValidationError(f"Not a name: domain:action, letters, digits, _ . -, at most {MAX_NAME}.")


def _id(text: str) -> None:
    if not is_id(text):
        raise ValidationError("Not an id: 1 to 128 printable characters.")


def _pattern(text: str) -> None:
    problem = pattern_problem(text)
    if problem:
        raise ValidationError(problem)


def quick(schema: Schema) -> Callable[[Any], bool] | None:
    """A check that says True only for data that `schema.load` would take as it is, for a quarter of its cost.

    It looks at each field that is there. False means that `schema.load` must decide, and report. None for a schema
    with hooks of its own, which only `schema.load` runs.
    """
    if any(schema._hooks.values()):
        return None
    loaded = {field.data_key or name: _take(field) for name, field in schema.load_fields.items()}
    required = frozenset(field.data_key or name for name, field in schema.load_fields.items() if field.required)
    keep_unknown = schema.unknown == "include"

    def fits(data: Any) -> bool:
        if type(data) is not dict or not required <= data.keys():
            return False
        try:
            for key, value in data.items():
                if key in loaded:
                    loaded[key](value)
                elif not keep_unknown:
                    return False
        except ValidationError:
            return False
        return True

    return fits


_AS_IT_IS: Mapping[type, type] = {fields.String: str, fields.Integer: int}


def _take(field: fields.Field[Any]) -> Callable[[Any], object]:
    """As `field.deserialize`, for its ValidationError only: a text or a whole number, which most values are, and a
    mapping to them, without the way there (of 100,000 counts by name in one event: 50 ms, not 460)."""
    deserialize, validators = field.deserialize, field.validators
    hooks = [getattr(field, name, None) for name in ("pre_load", "post_load")]  # not in the oldest marshmallow
    kind = None if any(hooks) else _AS_IT_IS.get(type(field))
    if kind is None:
        if isinstance(field, fields.Dict) and type(field) in (fields.Dict, MappingField) and not any(hooks):
            return _take_each(field)
        return deserialize

    def take(value: Any) -> None:
        if type(value) is not kind:
            deserialize(value)
        else:
            for validate in validators:
                validate(value)

    return take


def _take_each(field: fields.Dict) -> Callable[[Any], object]:
    """Each value of a mapping by the field that it has for them."""
    if field.key_field is not None or field.value_field is None or field.validators:
        return field.deserialize
    take = _take(field.value_field)

    def take_each(value: Any) -> None:
        if type(value) is not dict:
            field.deserialize(value)
        else:
            for each in value.values():
                take(each)

    return take_each


# ---- what comes in ---------------------------------------------------------------------------------------------


class _Payload(Schema):
    command = NameField(required=True)
    args = fields.Dict(load_default=dict)  # a key of JSON is a text
    confirm = fields.String()
    idempotency_key = IdField()


class _Frame(Schema):
    type = fields.String(required=True, validate=validate.Equal("command"))
    id = IdField(required=True)
    timestamp = fields.String(validate=_timestamp)
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
    does not fit. Without an `id` it answers the one call that there is to answer, if there is one alone."""

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
        raise BadFrame(alone, answer=_nameless(alone.message))
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
    return Answer("error", id, None, problem) if id is not None else _nameless(problem)


def _unread(text: str | bytes, problem: str) -> Answer | None:
    """An answer that is no JSON: whoever waits for it hears of it, if its id can be told, or it has none at all."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if (id := _OF_A_CALL.search(text)) and _ANSWERS.search(text):
        return Answer("error", id[1], None, problem)
    return None if _NAMED.search(text) else _nameless(problem)


def _nameless(problem: str) -> Answer:
    """What somebody sends who has been asked something, and knows nothing of envelopes."""
    return Answer("error", None, None, problem)


_OF_A_CALL = re.compile(r'"id"\s*+:\s*+"(call-[0-9]{1,19})"')  # as the hub names those that it sends on
_NAMED = re.compile(r'"id"\s*+:\s*+"|"type"\s*+:\s*+"(?:command|event)"')  # it is about something else
_ANSWERS = re.compile(r'"type"\s*+:\s*+"(?:response|error)"|"jsonrpc"\s*+:')


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


class Answered(NamedTuple):
    """What came of a question: its id, the option that was chosen, by whom (None: by nobody, it is the default), and
    whether that is because nobody had answered in time."""

    question: str
    answer: str
    by: str | None
    timed_out: bool


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
