"""The fields of a form, made from the JSON Schema of a command's args; and from what was typed into them, the args.

A schema of a client's may say anything: what no simpler field can hold is a field for JSON. The command has the last
word on what fits; here it is only found out what was meant.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from ...errors import HubError
from ...secretnames import names_a_secret
from ...wire.strictjson import loads
from ...wire.texts import converted, kinds
from .exact import ALTERED
from .formats import cut

Schema = Mapping[str, Any]
Kind = Literal["text", "number", "choice", "list", "json"]

LIMITS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " entries"))
FIELDS = 100  # of one form; what a schema has beyond them is typed as JSON
CHOICES = 200  # of one field
SCALARS = {"string", "integer", "number", "boolean", "null"}
REST = "hub:args"  # the field for what a schema allows beside its properties: an object
WRITTEN = {  # by the `format` of a schema
    "date-time": "written as 2026-12-31T23:59:00Z, or with +01:00 in place of Z",
    "date": "written as 2026-12-31",
    "time": "written as 23:59:00Z, or with +01:00 in place of Z",
    "duration": "written as PT1H30M",
}
PATTERN = "does not match"  # in what is said of a text that does not fit its pattern
LONGEST = 200  # characters of what a field is for that are said with its problem
VEIL = "••••••"
UNFIT = "The form does not fit."
ASIDE = 5  # problems of what has no field that are said above the form
MISSING = "Missing data for required field."  # as the command itself says it


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values that a field can have, and as what it is sent."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how it is shown, and what was typed into it, with what is wrong with that."""

    name: str
    kind: Kind = "text"
    required: bool = False
    help: str = ""
    schema: Schema | None = None
    choices: tuple[Choice, ...] = ()
    least: int | float | None = None
    most: int | float | None = None
    whole: bool = False
    typed: str = ""
    error: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether it is not to be read over somebody's shoulder, as far as its name says."""
        return names_a_secret(self.name, 0 if self.kind == "number" else "")

    def read(self, text: str) -> Any:
        """Return what the text means. Raises HubError `invalid_json` with one sentence."""
        if self.kind == "json" or (self.kind == "list" and text.lstrip().startswith("[")):
            return loads(text)
        if self.kind == "list":
            items = (self.schema or {}).get("items")
            return [converted(line.strip(), items) for line in text.split("\n") if line.strip()]
        if self.kind == "choice":
            return next((choice.value for choice in self.choices if choice.text == text), text)
        return converted(text, self.schema)


def fields_of(schema: Schema) -> list[Field]:
    """The fields of a form for args of this schema, the required ones first, each group in the schema's order."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = [*required] if isinstance(required, list) else []
    names = [*dict.fromkeys([*required, *properties])]
    found = [_field(name, properties.get(name), name in required) for name in names[:FIELDS]]
    if schema.get("additionalProperties", True) is not False or len(names) > FIELDS:
        what = "further args, as one JSON object" if found else "the args, as one JSON object"
        found.append(Field(REST, "json", False, what, {"type": "object"}))
    return sorted(found, key=lambda field: not field.required)


def _field(name: str, schema: Any, required: bool) -> Field:
    schema = schema if isinstance(schema, dict) else {}
    wanted = kinds(schema) - {"null"}
    common = {"name": name, "required": required, "help": _help(schema), "schema": schema}
    if values := _values(schema, wanted):
        choices = _choices(values)
        return Field(kind="choice" if choices else "json", choices=choices, **common)
    if wanted and wanted <= {"integer", "number"}:
        least, most = (_limit(schema, which) for which in ("minimum", "maximum"))
        return Field(kind="number", least=least, most=most, whole=wanted == {"integer"}, **common)
    if "string" in wanted:
        return Field(kind="text", **common)
    if wanted == {"array"} and (items := kinds(schema.get("items"))) and items <= SCALARS:
        return Field(kind="list", **common | {"help": "; ".join(filter(None, (common["help"], "one a line")))})
    return Field(kind="json", **common)


def _values(schema: Schema, wanted: set[str]) -> list[Any]:
    """The values to choose from, if the schema names them."""
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    return [schema["const"]] if "const" in schema else [True, False] if wanted == {"boolean"} else []


def _choices(values: Sequence[Any]) -> tuple[Choice, ...]:
    """The values, each as a text of its own; none if two would be sent as the same, or one as nothing or as another."""
    choices = [Choice(value if isinstance(value, str) else json.dumps(value), value) for value in values]
    texts = {choice.text for choice in choices}
    is_sent = "" not in texts and not any(map(ALTERED.search, texts))
    return tuple(choices) if is_sent and len(texts) == len(choices) <= CHOICES else ()


def _limit(schema: Schema, which: str) -> int | float | None:
    value = schema.get(which)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _help(schema: Schema) -> str:
    """What the field is for, how it is written, its limits, and what holds if it is left empty."""
    parts = [text] if (text := _description(schema)) else []
    parts += [written] if (written := WRITTEN.get(str(schema.get("format")))) else []
    parts += [f"more than {_number(limit)}"] if (limit := _limit(schema, "exclusiveMinimum")) is not None else []
    parts += [f"less than {_number(limit)}"] if (limit := _limit(schema, "exclusiveMaximum")) is not None else []
    for least, most, unit in LIMITS:
        parts += _range(_limit(schema, least), _limit(schema, most), unit)
    if (default := schema.get("default")) is not None:
        parts.append(f"if left empty: {_said(default)}")
    return "; ".join(parts)


def _description(schema: Schema) -> str:
    text = schema.get("description")
    return text if isinstance(text, str) else ""


def _range(least: int | float | None, most: int | float | None, unit: str) -> list[str]:
    if least is not None and most is not None:
        return [f"{_number(least)} to {_number(most)}{unit}"]
    return [
        f"at {word} {_number(limit)}{unit}" for word, limit in (("least", least), ("most", most)) if limit is not None
    ]


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def _number(value: int | float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,}"


# ---- what was typed


def args_of(fields: Sequence[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """The args that were meant. A field that is empty is left out.

    Raises HubError `invalid_args` with the problem of each field in `details`: one that is missing, or is no JSON.
    """
    found, problems = meant(fields, typed)
    if problems:
        raise HubError("invalid_args", UNFIT, problems)
    return found


def meant(fields: Sequence[Field], typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The args as far as they can be read, and the problem of each field that cannot."""
    found, problems, rest = dict[str, Any](), dict[str, Any](), typed.get(REST, "")
    for field in fields:
        text = typed.get(field.name, "")
        if field.kind in ("list", "json") and not text.strip():
            text = ""
        if field.name != REST and (text or field.required):
            _read(field, text, found, problems)
    known = {field.name for field in fields}
    found.update({name: text for name, text in typed.items() if name not in known and name != REST})
    if rest.strip():
        _read_rest(rest, found, problems)
    return found, problems


def _read(field: Field, text: str, found: dict[str, Any], problems: dict[str, Any]) -> None:
    if not (text if field.kind == "text" else text.strip()) and field.required:
        problems[field.name] = [MISSING]
        return
    try:
        found[field.name] = field.read(text)
    except HubError as error:
        quotes = ' A text stands in quotes: "text".' if not kinds(field.schema) else ""
        problems[field.name] = [error.message + quotes]


def _read_rest(text: str, found: dict[str, Any], problems: dict[str, Any]) -> None:
    """Take in what stands in the field of all others. What is given twice is said, and not overwritten."""
    try:
        rest = loads(text)
    except HubError as error:
        problems[REST] = [error.message]
        return
    if not isinstance(rest, dict):
        problems[REST] = ["This is one JSON object: {…}."]
    elif twice := [name for name in rest if name in found]:
        problems[REST] = [f"{twice[0]} is given above, too."]
    else:
        found.update(rest)


def told(fields: Sequence[Field], typed: Mapping[str, str], error: HubError | None = None) -> tuple[list[Field], str]:
    """The fields with what was typed and what is wrong with each; and the sentence for what is no field's."""
    details: Any = error.details if error else None
    problems = dict(_problems(details)) if isinstance(details, dict) else {}
    filled = [
        replace(field, typed=typed.get(field.name, ""), error=_explained(field, problems.pop(field.name, "")))
        for field in fields
    ]
    if error is None or not any(field.error for field in filled):
        return filled, error.message if error else ""
    return filled, " ".join(_said_above(*one) for one in islice(problems.items(), ASIDE))


def _explained(field: Field, problem: str) -> str:
    """A pattern is nothing to be read by people: what the field is for stands in front of it."""
    wanted = cut(_description(field.schema or {}).rstrip("."), LONGEST) if PATTERN in problem else ""
    return f"It should be: {wanted}. {problem}" if wanted else problem


def veiled(value: Any) -> Any:
    """The same without what is a secret by its name. Stops it from standing on a screen where others look, too."""
    if isinstance(value, dict):
        return {name: VEIL if names_a_secret(name, part) else veiled(part) for name, part in value.items()}
    return [veiled(part) for part in value] if isinstance(value, list) else value


def _said_above(name: str, problem: str) -> str:
    return problem if name == "_schema" else f"{name}: {problem}"


def _problems(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The first problem of each field that the details of a refusal name, with the path to it inside the field."""
    for name, found in details.items():
        path: list[str] = []
        while isinstance(found, dict) and found:
            key, found = next(iter(found.items()))
            path += [] if key == "_schema" else [str(key)]
        problem = str(found[0] if isinstance(found, list) and found else found)
        yield name, f"{'.'.join(path)}: {problem}" if path else problem
