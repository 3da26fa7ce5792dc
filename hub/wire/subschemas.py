"""The schemas in a JSON Schema that somebody else wrote, and whether they are to be had: they refer only to each other,
and there are not too many of them."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from .regex import Regex
from .strictjson import dumpb

MAX_SCHEMA = 16 * 1024  # bytes
MAX_SUBSCHEMAS = 256  # of one schema
DRAFT = "https://json-schema.org/draft/2020-12/schema"


ONE = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPPINGS = ("$defs", "definitions", "dependentSchemas", "properties")
REFERENCES = ("$ref", "$dynamicRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
Path = tuple[str | int, ...]


def problems_of(schema: dict[str, Any]) -> list[tuple[Path, str]]:
    """Why a schema is not to be had, whatever the library thinks of it."""
    if len(dumpb(schema)) > MAX_SCHEMA:
        return [((), f"A schema can have {MAX_SCHEMA} bytes at most.")]
    found, names = dict[Path, Any](), set[str]()
    for path, part in _subschemas((), schema):
        found[path] = part
        if len(found) > MAX_SUBSCHEMAS:
            return [((), f"A schema can have {MAX_SUBSCHEMAS} schemas in it at most.")]
        if isinstance(part, dict):
            names |= {str(part[key]) for key in _ANCHORS if key in part}
    places = {_pointer(path) for path in found} | {f"#{name}" for name in names}
    return [
        ((*path, key), problem)
        for path, part in found.items()
        if isinstance(part, dict)
        for key, value in part.items()
        if (problem := _problem(key, value, path, places))
    ]


def _subschemas(path: Path, schema: Any) -> Iterator[tuple[Path, Any]]:
    """It, and all schemas in it, where draft 2020-12 has schemas."""
    yield path, schema
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in ONE and isinstance(value, dict | bool):
            yield from _subschemas((*path, key), value)
        elif key in _LISTS and isinstance(value, list):
            for place, each in enumerate(value):
                yield from _subschemas((*path, key, place), each)
        elif key in _MAPPINGS and isinstance(value, dict):
            for name, each in value.items():
                yield from _subschemas((*path, key, name), each)


def moved(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """A copy of a schema that is to be had, for a document in which it stands at `place`, "#/…": what it refers to is
    found there."""
    found = dict(_subschemas((), copied := deepcopy(schema)))
    named = {f"#{part[key]}": path for path, part in found.items() for key in _ANCHORS if key in _object(part)}
    for part in map(_object, found.values()):
        for key in REFERENCES:
            if key in part:
                target = part.pop(key)
                part["$ref"] = place + (_pointer(named[target]) if target in named else target).removeprefix("#")
    for part in map(_object, found.values()):
        for key in (*_ANCHORS, "$id", "$schema"):
            part.pop(key, None)
    return copied


def _object(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {}


def _pointer(path: Path) -> str:
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _problem(key: str, value: Any, path: Path, places: set[str]) -> str | None:
    if key in REFERENCES:
        known = isinstance(value, str) and value in places
        return None if known else "A reference can only be to a schema in this one, as #/$defs/name."
    if key == "$schema" and (not isinstance(value, str) or value.removesuffix("#") != DRAFT):
        return f"Only draft 2020-12 is known, {DRAFT}."
    if key == "$id" and path:
        return "Only the whole schema can have an $id."
    if key == "patternProperties":
        return "It is not checked here: use propertyNames, or leave it to the provider."
    if key == "pattern" and isinstance(value, str):
        try:
            regex(value)
        except ValueError as error:
            return f"{error} Leave it to the provider."
    return None


_regexes: dict[str, Regex] = {}


def regex(text: str) -> Regex:
    """An expression, compiled once; so many are kept."""
    if (found := _regexes.get(text)) is None:
        if len(_regexes) >= MAX_SUBSCHEMAS:
            _regexes.clear()
        found = _regexes[text] = Regex(text)
    return found
