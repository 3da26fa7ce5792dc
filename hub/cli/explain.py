"""A command in words for a person: what `hub call NAME --help` says, made from what the hub says of it."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..wire.texts import kinds
from .http import pasted
from .terminal import compact

Described = Mapping[str, Any]  # as an element of the answer of hub:commands
DOCUMENT, COMMANDS = "/openapi.json", "/api/commands/"  # the first is read without a call, and leaves no record
NAMED = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "JSON object",
    "null": "null",
}
SEVERAL = {"text": "texts", "whole number": "whole numbers", "number": "numbers", "JSON object": "JSON objects"}
PLACES = {"string": "TEXT", "integer": "1", "number": "1", "boolean": "true"}  # what stands for a value


def commands_in(document: Any) -> dict[str, Described]:
    """The commands that the hub's DOCUMENT describes, by name; of very many not all have room in it."""
    schemas = document["components"]["schemas"]
    found: dict[str, Described] = {}
    for path, operations in document["paths"].items():
        name, post = path.removeprefix(COMMANDS), operations.get("post", {})
        if name != path and "x-hub" in post:
            args = dict(_object(_followed(post["requestBody"]["content"]["application/json"]["schema"], schemas)))
            if properties := _object(args.get("properties")):
                args["properties"] = {key: _followed(each, schemas) for key, each in properties.items()}
            found[name] = {"name": name, "summary": post["summary"], "args": args, **post["x-hub"]}
    return found


def _followed(schema: Any, schemas: Mapping[str, Any]) -> Any:
    """The schema that this one refers to, or itself."""
    return schemas.get(str(_object(schema).get("$ref", "")).rpartition("/")[2], schema)


def explained(command: Described, flags: argparse.Namespace) -> Iterator[str]:
    """The lines of a command's help; the example leads to the hub that the flags name."""
    name, args = command["name"], _object(command.get("args"))
    properties, required = _object(args.get("properties")), args.get("required", [])
    yield " ".join([f"usage: hub call {name}", *_usage(properties, required), *_anything(args)])
    yield from ("", str(command.get("summary") or "It has no description."))
    if properties:
        width = max(map(len, properties))
        yield from ("", "args:")
        yield from (f"  {key:<{width}}  {_said(each, key in required)}" for key, each in properties.items())
    yield from ("", f"effect: {_effect(command)}", f"served by: {_provider(command)}")
    yield from ("", "example:", f"  {example(command, flags)}")


def example(command: Described, flags: argparse.Namespace) -> str:
    """A call as one would type it: with the args that must be there."""
    args = _object(command.get("args"))
    properties = _object(args.get("properties"))
    words = [_word(key, properties.get(key)) for key in args.get("required", ())]
    return pasted(flags, "call", command["name"], *words)


def choices(schema: Any) -> list[str]:
    """The values of a field, as one would type them, where there are only a few."""
    schema = _object(schema)
    if isinstance(schema.get("enum"), list):
        return [value if isinstance(value, str) else compact(value) for value in schema["enum"]]
    return ["true", "false"] if "boolean" in kinds(schema) else []


def _usage(properties: Mapping[str, Any], required: Any) -> Iterator[str]:
    for key, schema in properties.items():
        word = f"{key}=…" if _is_word(schema) else f"{key}:=JSON"
        yield word if key in required else f"[{word}]"


def _anything(args: Mapping[str, Any]) -> list[str]:
    return [] if args.get("additionalProperties") is False else ["[key=value …]"]


def _effect(command: Described) -> str:
    asks = " (you are asked before it runs, or say --yes)" if command.get("effect") == "dangerous" else ""
    return f"{command.get('effect')}{asks}"


def _provider(command: Described) -> str:
    return f"client {command['provider']}" if command.get("provider") else "the hub"


def _said(schema: Any, is_required: bool) -> str:
    schema = _object(schema)
    parts = [_kind(schema), _limits(schema), "required" if is_required else _default(schema)]
    said = ", ".join(filter(None, parts))
    return f"{said}: {schema['description']}" if schema.get("description") else said


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"{'one of ' if len(schema['enum']) > 1 else ''}{', '.join(choices(schema))}"
    named = [_list(schema) if kind == "array" else NAMED.get(kind, kind) for kind in sorted(kinds(schema), key=_order)]
    return " or ".join(named) or "any JSON"


def _order(kind: str) -> int:
    return list(NAMED).index(kind) if kind in NAMED else len(NAMED)


def _list(schema: Mapping[str, Any]) -> str:
    inner = _kind(_object(schema.get("items")))
    return f"list of {SEVERAL.get(inner, inner)}"


def _limits(schema: Mapping[str, Any]) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"{_shown(least)} to {_shown(most)}"
    words = (("at least", least), ("above", above), ("at most", most), ("below", below))
    return ", ".join(f"{word} {_shown(number)}" for word, number in words if number is not None)


def _default(schema: Mapping[str, Any]) -> str:
    return f"{_shown(schema['default'])} if left out" if schema.get("default") not in (None, "") else ""


def _shown(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else compact(value)


def _is_word(schema: Any) -> bool:
    """Whether a value can be given as `key=value`."""
    wanted = kinds(schema)
    if "array" in wanted and "string" not in wanted:
        return _is_word(_object(schema).get("items"))
    return not wanted or bool(wanted & PLACES.keys())


def _word(key: str, schema: Any) -> str:
    schema = _object(schema)
    if not _is_word(schema):
        return f"{key}:={'[]' if 'array' in kinds(schema) else '{}'}"
    if "array" in (wanted := kinds(schema)) and "string" not in wanted:
        return _word(key, schema.get("items"))
    return f"{key}={_value(schema, wanted)}"


def _value(schema: Mapping[str, Any], wanted: set[str]) -> str:
    for name in ("examples", "enum"):
        if isinstance(schema.get(name), list) and schema[name]:
            value = schema[name][0]
            return value if isinstance(value, str) else json.dumps(value)
    number = next((schema[name] for name in ("default", "minimum") if isinstance(schema.get(name), int | float)), None)
    if number is not None and wanted & {"integer", "number"}:
        return json.dumps(number)
    return next((place for kind, place in PLACES.items() if kind in wanted), "TEXT")


def _object(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, dict) else {}
