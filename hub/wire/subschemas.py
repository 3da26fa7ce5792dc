"""The schemas in a JSON Schema that somebody else wrote, and whether they are to be had: each is one, they refer to
each other alone, and there are not too many of them, nor too many ways through them."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from ..redaction import holds_secret, redact
from ..secretnames import names_a_secret
from .keywords import IS_SCHEMA, is_schema, misuse
from .regex import Regex
from .strictjson import dumpb

MAX_SCHEMA = 16 * 1024  # bytes
MAX_SUBSCHEMAS = 256  # of one schema
MAX_WAYS = 1024  # schemas that one value can be checked against, one that is referred to counted as often as it is
DRAFT = "https://json-schema.org/draft/2020-12/schema"


ONE = (
    "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPPINGS = ("$defs", "definitions", "dependentSchemas", "properties")
REFERENCES = ("$ref", "$dynamicRef")
_SAME = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", *REFERENCES}
_ANCHORS = ("$anchor", "$dynamicAnchor")
_CHECKED = (
    "const", "dependentRequired", "enum", "format", "required", "type", "$id", "$schema", *_ANCHORS, *REFERENCES,
)  # fmt: skip
_SECRET = "It holds what looks like a secret."
Path = tuple[str | int, ...]
_ENDLESS = (
    f"It takes too long, or never ends: a value can be checked against {MAX_WAYS} schemas at most, repeats counted."
)


def problems_of(schema: dict[str, Any]) -> list[tuple[Path, str]]:
    """Why a schema is not to be had, in time linear in its size."""
    if len(dumpb(schema)) > MAX_SCHEMA:
        return [((), f"A schema can have {MAX_SCHEMA} bytes at most.")]
    found = dict[Path, Any]()
    for path, part in _subschemas((), schema):
        found[path] = part
        if len(found) > MAX_SUBSCHEMAS:
            return [((), f"A schema can have {MAX_SUBSCHEMAS} schemas in it at most.")]
    places, problems = {_pointer(path): part for path, part in found.items()}, list[tuple[Path, str]]()
    for path, part in found.items():
        for key in _ANCHORS:
            if key in _object(part) and places.setdefault(f"#{part[key]}", part) is not part:
                problems.append(((*path, key), "Another schema in this one has this name."))
    problems += [problem for path, part in found.items() for problem in _problems(path, part, places)]
    return problems or _endless(found, places)


def _problems(path: Path, schema: Any, places: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Of this schema alone, without those in it."""
    if not is_schema(schema):
        yield path, IS_SCHEMA
    for key, value in _object(schema).items():
        if problem := misuse(key, value) or _problem(key, value, path, places):
            yield (*path, key), problem


def _endless(found: Mapping[Path, Any], places: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The first of them against which no value is checked in good time: the ways through it come back to where they
    began, or there are too many, as where each refers twice to the next. Each schema is looked at once, however many
    ways lead to it."""
    counted = dict[int, int]()

    def ways(schema: Any) -> int:
        """How many schemas a value is checked against if it is against this one."""
        if id(schema) not in counted:
            counted[id(schema)] = MAX_WAYS  # until it is known: who comes here again goes in a circle
            counted[id(schema)] = 1 + sum([ways(each) for each in _same_value(_object(schema), places)])
        return counted[id(schema)]

    return [(path, _ENDLESS) for path, part in found.items() if ways(part) > MAX_WAYS][:1]


def _same_value(schema: dict[str, Any], places: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas that the very value is checked against, too, and not what is in it."""
    for key in schema.keys() & _SAME:
        value = schema[key]
        if key in REFERENCES:
            yield places[value]
        else:
            yield from value if key in _LISTS else value.values() if key in _MAPPINGS else (value,)


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


def cleaned(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy of a schema that is to be had, without the secrets in what only describes, since everybody is shown it.
    The names of properties stay, and what is checked, which holds none, though an expression may look like one."""
    copied = deepcopy(schema)
    for path, part in _subschemas((), copied):
        is_secret = path[-2:-1] == ("properties",) and names_a_secret(str(path[-1]))
        for key in [key for key in _object(part) if key not in (*_CHECKED, *ONE, *_LISTS, *_MAPPINGS, "pattern")]:
            if is_secret and key in ("default", "examples"):
                del part[key]
            elif (found := redact({key: part[key]}))[1]:
                del part[key]
                part.update(found[0])
    return copied


def _object(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {}


def _pointer(path: Path) -> str:
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _problem(key: str, value: Any, path: Path, places: Mapping[str, Any]) -> str | None:
    if (key in _CHECKED and redact(value)[1]) or (key in _MAPPINGS and any(map(holds_secret, _object(value)))):
        return _SECRET
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
