"""What a text means where a JSON Schema wants something else: the words of a command line, the fields of a form; and
what people see of one."""

import json
import re
import unicodedata
from typing import Any

WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
UNPLAIN = re.compile(r"[^\n\t\x20-\x7e]")
# What counts as printable, and is drawn as nothing or as a blank: joiners, fillers, and selectors of a variant.
HIDDEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
JOINER, AS_TEXT, AS_PICTURE, KEYCAP = "\u200d", "\ufe0e", "\ufe0f", "\u20e3"
VIRAMA = 9  # a class of marks: what stands behind one joins two letters
IN_ONE_LINE = {ord("\n"): "\\n", ord("\t"): "\\t", ord(JOINER): "\\u200d"}
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
    """The text with what cannot be seen written out as JSON does it, but for line breaks, tabs, and what makes one
    picture of several. Stops a text that is drawn as another one, by turning the direction of writing or by what is
    drawn as nothing (Unicode Technical Report 36). A JSON text stays the same JSON."""
    if value.isprintable() and (value.isascii() or not HIDDEN.search(value)):
        return value
    return UNPLAIN.sub(_written, value)


def printable(text: str) -> str:
    """The same in one line, in which nothing is joined: nothing of it drives a terminal, or is missed by who looks
    closely."""
    return seen(text).translate(IN_ONE_LINE)


def _written(found: re.Match[str]) -> str:
    char = found[0]
    if (char.isprintable() and not HIDDEN.match(char)) or (char in JOINER + AS_TEXT + AS_PICTURE and _joins(found)):
        return char
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"


def _joins(found: re.Match[str]) -> bool:
    """Whether it stands where it changes what is drawn: behind a picture, in a keycap, between two joined letters."""
    at, text = found.start(), found.string
    before, behind = text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    if before.isascii():
        return found[0] != JOINER and behind == KEYCAP
    is_picture = unicodedata.category(before)[0] in "SP"
    return is_picture or (found[0] == JOINER and (before == AS_PICTURE or unicodedata.combining(before) == VIRAMA))
