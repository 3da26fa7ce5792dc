"""Strict JSON: read nothing that another reader could take otherwise, write nothing that is not JSON."""

import itertools
import json
import json.encoder
import re
from array import array
from collections.abc import Callable
from typing import Any

from ..errors import HubError

try:
    import orjson
except ImportError:  # extra "speed"
    orjson = None  # type: ignore[assignment]

MAX_DEPTH = 32
MAX_DIGITS = 20

LARGEST = 1024 * 1024  # bytes of a frame, or of a JSON answer: what every client takes by default
LARGEST_EVENT = LARGEST - 1024  # bytes of an event's envelope: one fits into every answer
LARGEST_RESULT = LARGEST - 640  # bytes of a call's result: the longest id has room around it
LARGEST_FRAME = LARGEST_EVENT + 10  # bytes of an event with its frame's head

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive and open-ended: linear on any input
_NOT_BRACKETS = bytes(i for i in range(128) if chr(i) not in "[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # 1 and -1, as signed bytes


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
    bare = _STRING.sub("", text) if "\\" in text else "".join(text.split('"')[::2])  # the latter takes a third
    steps = bare.encode("ascii", "ignore").translate(_STEPS, _NOT_BRACKETS)
    return max(itertools.accumulate(array("b", steps)), default=0)


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


class Json(bytes):
    """A value as JSON already, to be sent as it is."""


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encoder(of: json.JSONEncoder) -> Callable[[Any], str]:
    """Return `of.encode`, made once: it makes the C encoder anew at each call, which is half the cost of a small value.
    Without the look for cycles, which what `loads` or `plain` has passed cannot have: one is a RecursionError. On an
    interpreter that has no such encoder, `of.encode` itself."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return of.encode
    quoted = json.encoder.encode_basestring_ascii if of.ensure_ascii else json.encoder.encode_basestring
    rest = of.key_separator, of.item_separator, of.sort_keys, of.skipkeys, of.allow_nan
    encode = make(None, of.default, quoted, None, *rest)
    return lambda value: "".join(encode(value, 0))


_encode = encoder(_ENCODER)


def dumpb(value: Any) -> bytes:
    """Compact UTF-8 JSON of a value that `loads` or `plain` has passed."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # an integer beyond 64 bits
            pass
    return _encode(value).encode()


def dump_any(value: Any) -> bytes:
    """As `dumpb`, of what an application's code hands over. The same with and without orjson, which would take dates
    and dataclasses, too, and write NaN as null. Raises TypeError or ValueError for what is no JSON, or has a cycle."""
    return _ENCODER.encode(value).encode()


def dumps(value: Any) -> str:
    """As `dumpb`, as text."""
    return dumpb(value).decode()


def plain(value: Any) -> Any:
    """A private copy of `value` as strict JSON data (tuples become lists); raises HubError `invalid_message`.

    What Python code hands over has not been through `loads`; this also parts it from the caller's object.
    """
    return _checked(value)[1]


def text_of(value: Any) -> str:
    """Compact JSON of what Python code hands over, as `loads` takes it; raises HubError `invalid_message`."""
    return _checked(value)[0]


def _checked(value: Any) -> tuple[str, Any]:
    try:
        text = _ENCODER.encode(value)
        return text, loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise HubError("invalid_message", f"The data is not JSON: {error}.") from None
    except HubError as error:
        raise HubError("invalid_message", error.message) from None
