"""A marshmallow schema as JSON Schema (draft 2020-12)."""

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from .fieldtypes import CursorField, check_id, check_name, check_pattern, check_time
from .names import CURSOR, MAX_NAME, NAME, PATTERN

_TYPES: tuple[tuple[type, str], ...] = (
    (fields.Boolean, "boolean"),
    (fields.Integer, "integer"),
    (fields.Float, "number"),
    (fields.String, "string"),
    (fields.DateTime, "string"),
    (fields.Date, "string"),
    (fields.Time, "string"),
    (fields.UUID, "string"),
    (fields.IP, "string"),
    (fields.IPInterface, "string"),
    (fields.Enum, "string"),
    (fields.List, "array"),
    (fields.Tuple, "array"),
    (fields.Mapping, "object"),
)
# Of an id this says less than is checked, up to U+00FF: what else cannot be printed depends on the version of Unicode,
# and is written in no way that all dialects of expressions have.
_TEXTS: tuple[tuple[Any, dict[str, Any]], ...] = (
    (check_name, {"pattern": f"^{NAME.pattern}$", "maxLength": MAX_NAME}),
    (check_id, {"pattern": r"^[^\x00-\x1f\x7f-\xa0\xad]+$", "minLength": 1, "maxLength": 128}),
    (check_pattern, {"pattern": f"^(?:{PATTERN.pattern})$", "maxLength": MAX_NAME}),
    (check_time, {"format": "date-time"}),
)
_SAID = ("description", "examples", "uniqueItems")  # by the metadata of a field


def json_schema(schema: Schema | None) -> dict[str, Any]:
    """A marshmallow schema as JSON Schema (draft 2020-12); None is an object with anything in it."""
    if schema is None:
        return {"type": "object"}
    loaded = {f.data_key or name: f for name, f in schema.load_fields.items()}
    result: dict[str, Any] = {"type": "object", "properties": {n: field_schema(f) for n, f in loaded.items()}}
    required = [name for name, f in loaded.items() if f.required]
    if required:
        result["required"] = required
    if schema.unknown != "include":
        result["additionalProperties"] = False
    return result


def field_schema(field: fields.Field[Any]) -> dict[str, Any]:
    """One field of a schema as JSON Schema."""
    if isinstance(field, fields.Nested):
        result = json_schema(field.schema)
    else:
        kind = next((name for cls, name in _TYPES if isinstance(field, cls)), None)
        result = {"type": kind} if kind else {}
    if isinstance(field, fields.List):
        result["items"] = field_schema(field.inner)
    if isinstance(field, fields.Mapping) and field.value_field is not None:
        result["additionalProperties"] = field_schema(field.value_field)
    if isinstance(field, fields.Enum):
        result = {"enum": [*field.enum.__members__]} if not field.by_value else {}
    if isinstance(field, CursorField):
        result["pattern"] = f"^{CURSOR.pattern}$"
    for validator in field.validators:
        result.update(_constraint(validator, result.get("type")))
    return result | _beside(field, result)


def _beside(field: fields.Field[Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a field beside its type and its limits."""
    found: dict[str, Any] = {}
    if field.allow_none and "type" in result:
        found["type"] = [result["type"], "null"]
    if field.allow_none and "enum" in result:
        found["enum"] = [*result["enum"], None]
    if isinstance(field.load_default, str | int | float | None):
        found["default"] = field.load_default
    return found | {key: field.metadata[key] for key in _SAID if key in field.metadata}


def _constraint(validator: Any, kind: Any) -> dict[str, Any]:
    pairs: Mapping[str, Any]
    unit = {"array": "Items", "object": "Properties"}.get(kind, "Length")
    match validator:
        case validate.OneOf():
            return {"enum": list(validator.choices)}
        case validate.Equal():
            return {"const": validator.comparable}
        case validate.Length():
            pairs = {f"min{unit}": validator.equal or validator.min, f"max{unit}": validator.equal or validator.max}
        case validate.Range():
            least = "minimum" if validator.min_inclusive else "exclusiveMinimum"
            most = "maximum" if validator.max_inclusive else "exclusiveMaximum"
            pairs = {least: validator.min, most: validator.max}
        case _:
            pairs = next((said for known, said in _TEXTS if known is validator), {})
    return {key: value for key, value in pairs.items() if value is not None}
