"""A marshmallow schema as JSON Schema (draft 2020-12)."""

from typing import Any

from marshmallow import Schema, fields, validate

from .messages import _id, _name, _pattern
from .names import MAX_NAME, NAME

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
