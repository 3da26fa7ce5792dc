"""Schemas as JSON Schema."""

from enum import Enum

from marshmallow import Schema, fields, validate

from hub.wire.fieldtypes import CursorField, NameField, PatternsField
from hub.wire.jsonschema import json_schema


class Sample(Schema):
    name = NameField(required=True)
    topics = PatternsField()
    after = CursorField()
    limit = fields.Integer(strict=True, validate=validate.Range(min=1, max=9))
    kind = fields.String(allow_none=True, validate=validate.OneOf(["a", "b"]))
    tags = fields.List(fields.String(validate=validate.Length(min=1)), validate=validate.Length(max=3))
    more = fields.Nested(Schema.from_dict({"on": fields.Boolean(metadata={"description": "whether"})}))
    any = fields.Raw()


def test_json_schema() -> None:
    found = json_schema(Sample())
    assert found["required"] == ["name"]
    assert found["additionalProperties"] is False
    properties = found["properties"]
    assert properties["name"]["pattern"].startswith("^")
    assert properties["limit"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert properties["kind"] == {"type": ["string", "null"], "enum": ["a", "b", None]}
    assert properties["tags"] == {"type": "array", "maxItems": 3, "items": {"type": "string", "minLength": 1}}
    assert properties["more"]["properties"]["on"] == {"type": "boolean", "description": "whether"}
    assert properties["any"] == {}
    assert json_schema(None) == {"type": "object"}


class Colour(Enum):
    RED = 1
    BLUE = 2


def test_further_fields_in_json_schema() -> None:
    class Further(Schema):
        day = fields.Date()
        at = fields.DateTime(allow_none=True)
        colour = fields.Enum(Colour, allow_none=True)
        number = fields.Enum(Colour, by_value=True)
        order = fields.UUID()
        peer = fields.IPv4()
        net = fields.IPInterface()
        pair = fields.Tuple((fields.String(), fields.Integer()))
        sort = fields.String(load_default="tea", metadata={"description": "what", "examples": ["mint"]})

    assert json_schema(Further())["properties"] == {
        "day": {"type": "string"},
        "at": {"type": ["string", "null"]},
        "colour": {"enum": ["RED", "BLUE", None]},
        "number": {},
        "order": {"type": "string"},
        "peer": {"type": "string"},
        "net": {"type": "string"},
        "pair": {"type": "array"},
        "sort": {"type": "string", "default": "tea", "description": "what", "examples": ["mint"]},
    }


def test_what_may_be_null_and_what_may_be_left_out_stand_in_the_json_schema() -> None:
    class Optional(Schema):
        class Meta:
            unknown = "include"

        note = fields.String(allow_none=True)
        share = fields.Float(validate=validate.Range(0, 1, min_inclusive=False, max_inclusive=False))
        counts = fields.Dict(validate=validate.Length(equal=2))

    assert json_schema(Optional()) == {
        "type": "object",
        "properties": {
            "note": {"type": ["string", "null"]},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "counts": {"type": "object", "minProperties": 2, "maxProperties": 2},
        },
    }
