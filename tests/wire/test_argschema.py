"""JSON Schemas that clients gave: what is taken, what is found in args, and that none of it takes for ever."""

import contextlib
import subprocess
import sys
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.errors import HubError
from hub.wire import argschema as module
from hub.wire import subschemas
from hub.wire.argschema import ArgSchema
from hub.wire.regex import Regex
from hub.wire.strictjson import dumps
from hub.wire.subschemas import DRAFT

ORDER = {
    "$schema": DRAFT,
    "$id": "https://example.org/order",
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 1},
        "name": {"type": "string", "pattern": "^[A-Z]", "maxLength": 5},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "uniqueItems": True},
        "state": {"enum": ["open", "closed"]},
    },
    "required": ["order"],
    "additionalProperties": False,
    "$defs": {"line": {"$anchor": "line", "type": "object", "required": ["sku"], "properties": {"sku": True}}},
}
MISSING, UNKNOWN = ["Missing data for required field."], ["Unknown field."]
TOO_LONG = {"_schema": ["This takes too long to be checked."]}


def doubling(depth: int) -> dict[str, Any]:
    """Two to the power of `depth` ways through a few lines."""
    both = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(depth)}
    return {"properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": both | {f"a{depth}": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("args", "problems"),
    [
        ({"order": 1, "name": "Ada", "lines": [{"sku": 1}, {"sku": True}], "state": "open"}, {}),
        ({"order": 1.0}, {}),
        ({f"unknown {n}": n for n in range(500)}, {
            "order": MISSING} | {f"unknown {n}": UNKNOWN for n in range(99)}),
        ({}, {"order": MISSING}),
        ({"order": "1", "more": 1, "most": 2}, {
            "order": ["Not a valid integer."], "more": UNKNOWN, "most": UNKNOWN}),
        ({"order": 0}, {"order": ["Must be greater than or equal to 1."]}),
        ({"order": 1, "lines": [{"sku": 1}, {}]}, {"lines": {"1": {"sku": MISSING}}}),
        ({"order": 1, "lines": [{"sku": 1}, {"sku": 1.0}]}, {"lines": ["Some of these are equal."]}),
        ({"order": 1, "name": "ada"}, {"name": ["It does not match '^[A-Z]'."]}),
        ({"order": 1, "name": "A" * 500}, {"name": ["Longer than maximum length 5."]}),
        ({"order": 1, "state": "x"}, {"state": ["Must be one of: open, closed."]}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_by_its_path(args: dict[str, Any], problems: Any) -> None:
    assert ArgSchema(ORDER).problems(args) == problems


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "strin"}, "type"),
        ({"properties": {"a": {"minimum": "x"}}}, "properties.a.minimum"),
        ({"properties": {"a": 5}}, "properties.a"),
        ({"items": [{}]}, "items"),
        ({"$ref": "https://example.org/other"}, "$ref"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "properties.a.$ref"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "properties.a.$ref"),
        ({"enum": [{"$ref": "x"}], "$ref": "#/enum/0"}, "$ref"),  # what it names is no schema
        ({"$dynamicRef": "https://example.org/other"}, "$dynamicRef"),
        ({"allOf": [{"$id": "https://example.org/other"}]}, "allOf.0.$id"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"),
        ({"properties": {"a": {"pattern": "(?=a)"}}}, "properties.a.pattern"),
        ({"properties": {"a": {"pattern": "("}}}, "properties.a.pattern"),
        ({"patternProperties": {"^a": {}}}, "patternProperties"),
        ({"$ref": "#"}, ""),
        ({"properties": {"a": {"anyOf": [True, {"$ref": "#/properties/a"}]}}}, "properties.a"),
        (
            {
                "properties": {
                    "a": {"$dynamicRef": "#b"},
                    "b": {"$dynamicAnchor": "b", "not": {"$ref": "#/properties/a"}},
                }
            },
            "properties.a",
        ),
        (doubling(9), "properties.x"),
        (doubling(60), "properties.x"),
        ({"$defs": {"a": {"$anchor": "x"}, "b": {"$dynamicAnchor": "x"}}}, "$defs.b.$dynamicAnchor"),
        ({"allOf": [{}] * 300}, ""),
        ({"description": "x" * 20_000}, ""),
    ],
)
def test_a_schema_that_is_not_to_be_had_says_where(schema: dict[str, Any], path: str) -> None:
    with pytest.raises(HubError) as refused:
        ArgSchema(schema)
    assert refused.value.code == "invalid_args"
    found: Any = refused.value.details
    for part in (path or "_schema").split("."):
        found = found[part]
    assert found


@pytest.mark.parametrize("weakened", [False, True])
def test_ways_that_double_at_each_step_are_not_walked(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if weakened:
        monkeypatch.setattr(subschemas, "MAX_WAYS", 10**99)
    with contextlib.nullcontext() if weakened else pytest.raises(HubError):
        assert ArgSchema(doubling(60)).problems({"x": 1}) == TOO_LONG


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"$ref": {"type": "string"}, "pattern": {}, "$id": {}}},  # names of args, not keywords
        {"default": {"$ref": "https://example.org/other"}, "examples": [{"$id": 1}]},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}},
        {"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {}}},
        {"properties": {"more": {"$ref": "#"}}},  # a tree
        {"format": "no such", "x-own": {"anything": 1}},
        {"$comment": "An odd one.", "properties": {"a": False}},
    ],
)
def test_a_schema_that_is_taken(schema: dict[str, Any]) -> None:
    assert ArgSchema(schema).problems({}) == {}
    assert ArgSchema(schema).given == schema


def test_a_schema_of_a_tree_goes_as_deep_as_json_does() -> None:
    schema = ArgSchema({"properties": {"more": {"$ref": "#"}}, "additionalProperties": False})
    args: dict[str, Any] = {}
    for _ in range(30):
        args = {"more": args}
    assert schema.problems(args) == {}
    assert schema.problems({"more": {"x": 1}}) == {"more": {"x": UNKNOWN}}


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize(
    ("schema", "args"),
    [
        (
            {"properties": {"x": {"items": doubling(7)["properties"]["x"]}}} | {"$defs": doubling(7)["$defs"]},
            {"x": [1] * 50},
        ),
        ({"properties": {"x": {"pattern": "a[ab]{200}c"}}}, {"x": "".join(Random(1).choices("ab", k=3000))}),
        ({"properties": {"x": {"items": {}}}}, {"x": [0] * 30_000}),
        ({}, {"x": [0] * 200_000}),
        ({"properties": {"x": {"items": {"enum": [f"a{n}" for n in range(900)] + ["b"]}}}}, {"x": ["b"] * 1000}),
        ({"properties": {"x": {"anyOf": [{"type": "string"}] * 100 + [{}]}}}, {"x": ["x" * 60] * 1000}),
    ],
)
def test_nothing_takes_for_ever(
    schema: dict[str, Any], args: dict[str, Any], weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = ArgSchema(schema)
    if weakened:
        monkeypatch.setattr(module, "MAX_STEPS", 10**9)
    found = checked.problems(args)
    assert (found == TOO_LONG) is not weakened


def test_what_the_library_cannot_do_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(value: Any) -> Any:
        raise OverflowError("inside")

    schema = ArgSchema({})
    monkeypatch.setattr(schema, "_validator", SimpleNamespace(iter_errors=fail, schema={}))
    assert schema.problems({}) == {"_schema": ["This cannot be checked (OverflowError)."]}


def test_an_expression_that_goes_back_and_tries_again_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = ArgSchema({"properties": {"x": {"pattern": "^(a+)+$"}}})
    assert schema.problems({"x": "a" * 60_000}) == {}
    assert schema.problems({"x": "a" * 60_000 + "!"}) == {"x": ["It does not match '^(a+)+$'."]}


def test_the_library_is_imported_when_somebody_needs_it() -> None:
    """It takes a tenth of a second, and a few MiB."""
    script = "import sys; import hub.web.program, hub.client.client; assert 'jsonschema' not in sys.modules;"
    more = "from hub.wire.argschema import ArgSchema; ArgSchema({}); assert 'jsonschema' in sys.modules"
    done = subprocess.run([sys.executable, "-c", script + more], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("step", "number", "fits"),
    [
        (0.01, 19.99, True), (0.1, 0.3, True), (0.01, 19.999, False), (1e-308, 1e308, True), (1.7e308, 5e-324, False),
        (3, 10**19 + 1, False), (2, -4, True), (0.5, 1, True), (0.01, "19.999", True), (2, True, True),
    ],
)  # fmt: skip
def test_multiples_are_those_of_the_numbers_as_written(step: float, number: Any, fits: bool) -> None:
    problems = ArgSchema({"properties": {"x": {"multipleOf": step}}}).problems({"x": number})
    assert problems == ({} if fits else {"x": [f"Must be a multiple of {dumps(step)}."]})


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": ["integer", "null"]}, [1, None], "Not a valid integer or null."),
        ({"enum": ["a", 1, None, ""]}, {"b": True}, 'Must be one of: a, 1, null, "".'),
        ({"const": [1, "a"]}, True, 'Must be equal to [1,"a"].'),
        ({"maximum": 2.5}, 3, "Must be less than or equal to 2.5."),
        ({"exclusiveMinimum": 2}, 2, "Must be greater than 2."),
        ({"exclusiveMaximum": 2}, 2, "Must be less than 2."),
        ({"minLength": 1}, "", "Shorter than minimum length 1."),
        ({"maxItems": 1}, ["a", "b"], "Longer than maximum length 1."),
        ({"minItems": 1}, [], "Shorter than minimum length 1."),
        ({"minProperties": 1}, {}, "Has fewer than 1 fields."),
        ({"maxProperties": 0}, {"a": 1}, "Has more than 0 fields."),
        ({"pattern": r"^\d+$"}, "x", r"It does not match '^\d+$'."),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "'b' is a dependency of 'a'."),
        ({"contains": {"type": "null"}}, [1], "It does not fit (contains)."),
        ({"not": {}}, ["a"], "It does not fit (not)."),
        ({"enum": [str(number) for number in range(100)]}, "a", "It does not fit (enum)."),
    ],
)
def test_each_is_said_in_words(schema: Any, value: Any, said: str) -> None:
    """And never as Python writes what came."""
    assert ArgSchema({"properties": {"x": schema}}).problems({"x": value}) == {"x": [said]}


def test_what_no_value_fits_is_not_allowed() -> None:
    """The library does not say where."""
    assert ArgSchema({"properties": {"x": False}}).problems({"x": ["a"]}) == {"_schema": ["This is not allowed."]}


def test_so_many_problems_are_told() -> None:
    schema = ArgSchema({"properties": {"x": {"items": {"type": "string"}}}})
    assert len(schema.problems({"x": [0] * 1000})["x"]) == 100


def test_expressions_are_compiled_once_and_not_kept_for_ever() -> None:
    for n in range(1000):
        assert isinstance(subschemas.regex(f"a{n}"), Regex)
    assert len(subschemas._regexes) <= subschemas.MAX_SUBSCHEMAS


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5, "", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@example([True, [1]])
@given(st.lists(values, max_size=4))
def test_equal_is_what_the_library_calls_equal(items: list[Any]) -> None:
    from jsonschema import Draft202012Validator

    schema = {"properties": {"x": {"uniqueItems": True}}}
    expected = Draft202012Validator(schema).is_valid({"x": items})
    assert (ArgSchema(schema).problems({"x": items}) == {}) is expected


@given(st.dictionaries(st.sampled_from(["order", "name", "lines", "state", "x"]), values, max_size=4))
def test_whether_it_fits_is_what_the_library_says(args: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    assert (ArgSchema(ORDER).problems(args) == {}) is Draft202012Validator(ORDER).is_valid(args)
