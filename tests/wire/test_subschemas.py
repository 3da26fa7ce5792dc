"""A schema that is moved into a document means there what it has meant alone."""

from typing import Any

import jsonschema
import pytest

from hub.wire.subschemas import moved

TREE: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "urn:tree",
    "type": "object",
    "properties": {"root": {"$ref": "#node"}, "roots": {"prefixItems": [{"$ref": "#/$defs/a~1b"}, True]}},
    "additionalProperties": False,
    "$defs": {
        "a/b": {
            "$anchor": "node",
            "properties": {"name": {"type": "string"}, "children": {"items": {"$ref": "#/$defs/a~1b"}}},
            "required": ["name"],
        },
    },
}


def test_what_it_refers_to_is_found_where_it_stands_now() -> None:
    found = moved(TREE, "#/components/schemas/Tree")
    assert found["properties"]["root"] == {"$ref": "#/components/schemas/Tree/$defs/a~1b"}
    assert not {"$id", "$schema"} & set(found)
    assert "$anchor" not in found["$defs"]["a/b"]
    assert TREE["properties"]["root"] == {"$ref": "#node"}


@pytest.mark.parametrize(
    "value",
    [
        {"root": {"name": "a", "children": [{"name": "b", "children": []}]}},
        {"root": {"name": "a", "children": [{"children": []}]}},
        {"roots": [{"name": 1}, 2]},
        {"roots": [{"name": "a"}, 2], "root": {"name": "b"}},
        {"other": 1},
    ],
)
def test_it_takes_what_it_took(value: Any) -> None:
    document = {"components": {"schemas": {"Tree": moved(TREE, "#/components/schemas/Tree")}}}
    there = jsonschema.Draft202012Validator({**document, "$ref": "#/components/schemas/Tree"})
    assert there.is_valid(value) is jsonschema.Draft202012Validator(TREE).is_valid(value)
