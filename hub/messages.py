"""What crosses the wire: strict JSON, names, patterns, cursors, and the envelope in both directions."""

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from marshmallow import Schema, ValidationError, fields, validate

from .errors import HubError

try:
    import orjson
except ImportError:  # extra "speed"
    orjson = None  # type: ignore[assignment]

MAX_DEPTH = 32
MAX_DIGITS = 20
MAX_NAME = 128
MAX_PATTERNS = 256
MAX_TTL = 30 * 86400  # seconds

# ---- strict JSON -----------------------------------------------------------------------------------------------

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive and open-ended: linear on any input
_NOT_BRACKETS = {i: None for i in range(128) if chr(i) not in "[]{}"}
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def loads(text: str | bytes) -> Any:
    """Read one JSON value strictly; raises HubError `invalid_json` with one sentence.

    Refused beyond RFC 8259: duplicate keys, NaN and Infinity (also 1e999), lone surrogates, integers of more than
    20 digits, nesting deeper than 32. What passes can be written again and is valid for a browser's JSON.parse.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        elif not text.isascii():
            text.encode()
        if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
            raise HubError("invalid_json", f"The JSON is nested deeper than {MAX_DEPTH}.")
        value = _DECODER.decode(text)
        if "\\u" in text:  # only an escape can smuggle a lone surrogate in
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise HubError("invalid_json", "The text is not valid UTF-8, or has a lone surrogate.") from None
    except json.JSONDecodeError as error:
        raise HubError(
            "invalid_json", f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    return value


def _depth(text: str) -> int:
    """How deep the brackets outside of strings go, without recursion, before the parser sees the text."""
    brackets = _STRING.sub("", text).encode("ascii", "ignore").decode().translate(_NOT_BRACKETS)
    return max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise HubError("invalid_json", "An object has the same key twice.")
    return result


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS and len(text.lstrip("-")) > MAX_DIGITS:
        raise HubError("invalid_json", f"An integer has more than {MAX_DIGITS} digits.")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:  # infinite
        raise HubError("invalid_json", "A number is too large.")
    return value


def _constant(text: str) -> Any:
    raise HubError("invalid_json", f"{text} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumpb(value: Any) -> bytes:
    """Compact UTF-8 JSON of a value that `loads` or `plain` has passed."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # an integer beyond 64 bits
            pass
    return _ENCODER.encode(value).encode()


def dumps(value: Any) -> str:
    """As `dumpb`, as text."""
    return dumpb(value).decode()


def plain(value: Any) -> Any:
    """A private copy of `value` as strict JSON data (tuples become lists); raises HubError `invalid_message`.

    What Python code hands over has not been through `loads`; this also parts it from the caller's object.
    """
    try:
        return loads(_ENCODER.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise HubError("invalid_message", f"The data is not JSON: {error}.") from None
    except HubError as error:
        raise HubError("invalid_message", error.message) from None


# ---- names, ids, times -----------------------------------------------------------------------------------------

NAME = re.compile(r"[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)+")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def is_name(text: str) -> bool:
    """Whether `text` can name an event or a command: `domain:action`, at most 128 characters."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


def is_id(text: Any) -> bool:
    """Whether `text` can be an id: 1 to 128 printable characters."""
    return isinstance(text, str) and 1 <= len(text) <= 128 and text.isprintable()


def new_id() -> str:
    """A random UUID4 (RFC 9562, section 5.4), put together by hand: a third of uuid.uuid4()'s cost."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


def now() -> str:
    """The time in RFC 3339, UTC, milliseconds, `Z`."""
    return _stamp(int(time.time() * 1000))


@lru_cache(maxsize=2)  # many events and answers share a millisecond
def _stamp(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _timestamp(text: str) -> None:
    try:
        if _TIMESTAMP.fullmatch(text):
            datetime.fromisoformat(text.upper().replace(":60", ":59"))  # a leap second is a time, too
            return
    except ValueError:
        pass
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


def _cursor(text: str) -> None:
    Cursor.parse(text)


class Cursor(NamedTuple):
    """A position in the hub's stream: `<epoch>:<seq>` on the wire."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises HubError `unknown_cursor` if this cannot have come from a hub."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise HubError("unknown_cursor", "This is not a cursor: a cursor looks like 3f9a01c2:42.")
        return cls(match[1], int(match[2]))


_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,17})", re.ASCII)

# ---- patterns --------------------------------------------------------------------------------------------------

_PATTERN = re.compile(r"\*|(?:\*|[A-Za-z0-9_.-]+)(?::(?:\*|[A-Za-z0-9_.-]+))+")


def pattern_problem(text: str) -> str | None:
    """One sentence on why `text` is no pattern, or None if it is one."""
    if len(text) <= MAX_NAME and _PATTERN.fullmatch(text):
        return None
    if is_name(text + ":x") or NAME.fullmatch(f"x:{text}"):
        return f"No event name has only one part; {text[:MAX_NAME]}:* matches all of that domain."
    return "Not a pattern: parts separated by ':', each a name or a single *, at most 128 characters."


class Patterns:
    """A set of patterns and what it matches. Equal sets are equal, so that clients can share the work.

    `*` alone matches everything; `*` as a part matches exactly one part, as the last part one or more.
    """

    __slots__ = ("_match", "_verdicts", "everything", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(sorted(set(texts)))
        self.everything = "*" in self.texts
        self._match = re.compile("|".join(map(_expression, self.texts)) or r"(?!)").fullmatch
        self._verdicts: dict[str, bool] = {}

    def match(self, name: str) -> bool:
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= 4096:  # names come from outside
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._match(name) is not None
        return verdict

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Patterns({', '.join(self.texts)})"


def _expression(pattern: str) -> str:
    *front, last = pattern.split(":")
    parts = ["[^:]+" if part == "*" else re.escape(part) for part in front]
    return ":".join([*parts, ".+" if last == "*" else re.escape(last)])


EVERYTHING = Patterns(("*",))

# ---- what comes in ---------------------------------------------------------------------------------------------


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


class PatternsField(fields.List[str]):
    """A list of patterns."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fields.String(validate=_pattern), validate=validate.Length(max=MAX_PATTERNS), **kwargs)


def quick(schema: Schema) -> Callable[[Any], bool] | None:
    """A check that says True only for data that `schema.load` would take as it is, for a quarter of its cost.

    It looks at each field that is there. False means that `schema.load` must decide, and report. None for a schema
    with hooks of its own, which only `schema.load` runs.
    """
    if any(schema._hooks.values()):
        return None
    loaded = {field.data_key or name: field.deserialize for name, field in schema.load_fields.items()}
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


class _Payload(Schema):
    command = NameField(required=True)
    args = fields.Dict(keys=fields.String(), load_default=dict)


class _Frame(Schema):
    type = fields.String(required=True, validate=validate.Equal("command"))
    id = IdField(required=True)
    timestamp = fields.String(validate=_timestamp)
    payload = fields.Nested(_Payload, required=True)


_FRAME = _Frame()


class Command(NamedTuple):
    """A command frame as a client sent it."""

    id: str
    name: str
    args: dict[str, Any]


class BadFrame(HubError):
    """A frame that is no command; `id` is the caller's, if it could be read."""

    def __init__(self, error: HubError, id: str | None = None) -> None:
        super().__init__(error.code, error.message, error.details)
        self.id = id


def load_command(text: str | bytes) -> Command:
    """Read one frame of a client. Raises BadFrame `invalid_json`, `unexpected_type` or `invalid_message`."""
    try:
        frame = loads(text)
    except HubError as error:
        raise BadFrame(error) from None
    if not isinstance(frame, dict):
        raise BadFrame(HubError("invalid_json", "A message is one JSON object."))
    id = frame.get("id")
    if not is_id(id):
        id = None
    command = _plainly(frame)
    if command is not None:
        return command
    if frame.get("type") in ("event", "response", "error"):
        sentence = f"The hub asked nothing that this {frame['type']} could answer; send a command."
        raise BadFrame(HubError("unexpected_type", sentence), id)
    try:
        loaded = _FRAME.load(frame)
    except ValidationError as error:
        raise BadFrame(invalid("invalid_message", "The message does not fit", error), id) from None
    return Command(loaded["id"], loaded["payload"]["command"], loaded["payload"]["args"])


def _plainly(frame: dict[str, Any]) -> Command | None:
    """A frame as nearly all are, read without the schema; None if there is anything else in it, good or bad."""
    match frame:
        case {"type": "command", "id": str(id), "payload": {"command": str(name), **rest}} if len(frame) == 3:
            args = rest.get("args", {})
            if len(rest) == ("args" in rest) and isinstance(args, dict) and is_id(id) and is_name(name):
                return Command(id, name, args)
    return None


def invalid(code: str, what: str, error: ValidationError) -> HubError:
    """A HubError with marshmallow's field paths in `details` and the first of them in the sentence."""
    details = error.normalized_messages()  # type: ignore[no-untyped-call]
    path, problem = _first(details)
    sentence = f"{what}: {path}: {problem}" if path else f"{what}: {problem}"
    return HubError(code, sentence, details)


def _first(details: Any, path: str = "") -> tuple[str, str]:
    while isinstance(details, Mapping):
        key, details = next(iter(details.items()))
        if key != "_schema":
            path = f"{path}.{key}" if path else str(key)
    return path, str(details[0] if isinstance(details, list) and details else details)


# ---- what goes out ---------------------------------------------------------------------------------------------


def envelope(id: str, timestamp: str, cursor: Cursor | str, name: str, body: bytes) -> bytes:
    """The JSON of one event; `id` and `body` (its data) are JSON already. On the path of every event, so by hand."""
    head = (
        f'{{"type":"event","id":{id},"timestamp":"{timestamp}","cursor":"{cursor}","payload":{{"event":"{name}","data":'
    )
    return b"%b%b}}" % (head.encode(), body)


def notice(name: str, data: Any) -> bytes:
    """The JSON of an event of the hub's own that has no number: `hub:gap` and `hub:mark`."""
    payload = {"event": name, "data": data}
    return dumpb({"type": "event", "id": new_id(), "timestamp": now(), "payload": payload})


def response(id: str, result: bytes) -> bytes:
    """The JSON of the answer to a call; `result` is JSON already."""
    head = f'{{"type":"response","id":{dumps(id)},"timestamp":"{now()}","payload":'
    return b"%b%b}" % (head.encode(), result)


def failure(id: str | None, error: HubError) -> bytes:
    """The JSON of the refusal of a call, or of a frame that was none (`id` null)."""
    return dumpb({"type": "error", "id": id, "timestamp": now(), "payload": error.payload()})


def websocket_frame(text: bytes) -> bytes:
    """One unmasked, final text frame (RFC 6455, section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def sse_frame(text: bytes, name: str, cursor: Cursor | None) -> bytes:
    """One Server-Sent Event (HTML standard, section 9.2). Compact JSON has no line breaks, so `data:` is one line."""
    line = f"id: {cursor}\n" if cursor else ""
    return b"%bevent: %b\ndata: %b\n\n" % (line.encode(), name.encode(), text)


Framing = Callable[[bytes], bytes]

# ---- JSON Schema -----------------------------------------------------------------------------------------------

_TYPES: tuple[tuple[type, str], ...] = (
    (fields.Boolean, "boolean"),
    (fields.Integer, "integer"),
    (fields.Float, "number"),
    (fields.String, "string"),
    (fields.List, "array"),
    (fields.Mapping, "object"),
)


def json_schema(schema: Schema | None) -> dict[str, Any]:
    """A marshmallow schema as JSON Schema (draft 2020-12); None is an object with anything in it."""
    if schema is None:
        return {"type": "object"}
    loaded = {f.data_key or name: f for name, f in schema.load_fields.items()}
    result: dict[str, Any] = {"type": "object", "properties": {n: _field(f) for n, f in loaded.items()}}
    required = [name for name, f in loaded.items() if f.required]
    if required:
        result["required"] = required
    if schema.unknown != "include":
        result["additionalProperties"] = False
    return result


def _field(field: fields.Field[Any]) -> dict[str, Any]:
    if isinstance(field, fields.Nested):
        result = json_schema(field.schema)
    else:
        kind = next((name for cls, name in _TYPES if isinstance(field, cls)), None)
        result = {"type": kind} if kind else {}
    if isinstance(field, fields.List):
        result["items"] = _field(field.inner)
    for validator in field.validators:
        result.update(_constraint(validator, result.get("type")))
    if field.allow_none and "type" in result:
        result["type"] = [result["type"], "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    if "description" in field.metadata:
        result["description"] = field.metadata["description"]
    return result


def _constraint(validator: Any, kind: Any) -> dict[str, Any]:
    pairs: dict[str, Any]
    unit = {"array": "Items", "object": "Properties"}.get(kind, "Length")
    match validator:
        case validate.OneOf():
            return {"enum": list(validator.choices)}
        case validate.Length():
            pairs = {f"min{unit}": validator.equal or validator.min, f"max{unit}": validator.equal or validator.max}
        case validate.Range():
            least = "minimum" if validator.min_inclusive else "exclusiveMinimum"
            most = "maximum" if validator.max_inclusive else "exclusiveMaximum"
            pairs = {least: validator.min, most: validator.max}
        case _:
            named = {_name: (f"^{NAME.pattern}$", MAX_NAME), _id: (None, 128), _pattern: (None, MAX_NAME)}
            pattern, length = named.get(validator, (None, None))
            pairs = {"pattern": pattern, "maxLength": length}
    return {key: value for key, value in pairs.items() if value is not None}
