"""What a text means where a JSON Schema wants something else: the words of a command line, the fields of a form; and
what people see of one."""

import json
import re
from typing import Any

WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def converted(text: str, schema: Any) -> Any:
    """Return what a text means where this is wanted: itself, wherever it may; and where it can mean nothing there, so
    that the hub says what is wrong with it."""
    wanted = kinds(schema)
    if not wanted or "string" in wanted:
        return text
    if text[:1] in ("[", "{") and (value := _container(text, wanted)) is not None:
        return value
    if "array" in wanted:
        return [converted(text, schema.get("items"))]
    if "integer" in wanted and WHOLE.fullmatch(text):
        return int(text)
    if "number" in wanted and NUMBER.fullmatch(text):
        return int(text) if WHOLE.fullmatch(text) else float(text)
    if "boolean" in wanted and text.lower() in FLAGS:
        return FLAGS[text.lower()]
    return None if "null" in wanted and text == "null" else text


def _container(text: str, wanted: set[str]) -> Any:
    """A list or an object that is given as JSON; None where it is not wanted, or none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if _kind(value) in wanted else None


def kinds(schema: Any) -> set[str]:
    """The types that a JSON Schema allows, as far as it says so in plain words; none if it does not."""
    if not isinstance(schema, dict):
        return set()
    if "type" in schema:
        named = schema["type"]
        return set(named) if isinstance(named, list) else {str(named)}
    values = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else []
    if values:
        return {_kind(value) for value in values}
    branches = [kinds(each) for name in ("anyOf", "oneOf") for each in schema.get(name, ())]
    return set().union(*branches) if all(branches) else set()


def _kind(value: Any) -> str:
    named = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return named.get(type(value), "null")


def seen(value: str) -> str:
    """The text with what cannot be seen written out, but for what makes one picture of several. Stops a text that is
    drawn as another one, by turning the direction of writing (Unicode Technical Report 36)."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t\u200d" else ascii(c)[1:-1] for c in value)
