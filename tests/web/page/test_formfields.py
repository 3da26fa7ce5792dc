"""A form's fields from a JSON Schema, and from what was typed the args that were meant."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields, validate

from hub import Hub, HubError
from hub.web.page import formfields
from hub.web.page.formfields import MISSING, REST, Field, args_of, fields_of, told
from hub.wire.argschema import ArgSchema
from hub.wire.jsonschema import json_schema

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "note": {"type": "string", "description": "what for", "maxLength": 80},
        "count": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 3},
        "share": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "size": {"enum": ["small", "large", 3, None]},
        "gift": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "data": {},
    },
    "required": ["size", "data"],
    "additionalProperties": False,
}


def by_name(schema: Any) -> dict[str, Field]:
    return {field.name: field for field in fields_of(schema)}


def problems(typed: dict[str, str], schema: Any = ORDER) -> dict[str, Any]:
    with pytest.raises(HubError) as refused:
        args_of(fields_of(schema), typed)
    assert refused.value.code == "invalid_args"
    found: dict[str, Any] = dict(refused.value.details or {})
    return found


def test_each_type_has_its_field_and_the_required_ones_come_first() -> None:
    found = by_name(ORDER)
    kinds = {name: field.kind for name, field in found.items()}
    assert [*kinds] == ["size", "data", "note", "count", "share", "gift", "tags", "more"]
    assert kinds == {
        "note": "text",
        "count": "number",
        "share": "number",
        "size": "choice",
        "gift": "choice",
        "tags": "list",
    } | dict.fromkeys(("more", "data"), "json")
    assert [name for name, field in found.items() if field.required] == ["size", "data"]
    assert (found["count"].least, found["count"].most, found["count"].whole) == (1, 1000, True)
    assert (found["share"].least, found["share"].whole) == (None, False)
    assert [choice.text for choice in found["size"].choices] == ["small", "large", "3", "null"]
    assert [choice.text for choice in found["gift"].choices] == ["true", "false"]


def test_help_says_what_it_is_for_its_limits_and_what_holds_if_it_is_empty() -> None:
    found = by_name(ORDER)
    assert found["note"].help == "what for; at most 80 characters"
    assert found["count"].help == "1 to 1,000; if left empty: 3"
    assert found["share"].help == "more than 0"


def test_help_says_how_a_time_is_written() -> None:
    properties = {
        "at": {"type": "string", "format": "date-time", "description": "when"},
        "day": {"type": "string", "format": "date"},
        "site": {"type": "string", "format": "uri"},
        "odd": {"type": "string", "format": ["date"]},
    }
    found = {name: field.help for name, field in by_name({"properties": properties}).items()}
    assert found["at"] == "when; written as 2026-12-31T23:59:00Z, or with +01:00 in place of Z"
    assert (found["day"], found["site"], found["odd"]) == ("written as 2026-12-31", "", "")


@pytest.mark.parametrize(
    ("schema", "is_secret"),
    [
        ({"password": {"type": "string"}}, True),
        ({"apiToken": {"type": "string"}}, True),
        ({"passcode": {"type": "integer"}}, True),
        ({"max_tokens": {"type": "integer"}}, False),
        ({"tokens": {"type": "integer"}}, False),
        ({"table": {"type": "string"}}, False),
    ],
)
def test_a_field_whose_name_names_a_secret_is_known(schema: Any, is_secret: bool) -> None:
    assert by_name({"properties": schema})[next(iter(schema))].is_secret is is_secret


def test_what_a_secret_is_by_its_name_is_veiled_wherever_it_stands() -> None:
    args = {"table": "a", "n": 3, "password": "x", "more": {"list": [{"api_key": 7, "a": [1]}], "tokens": 3}}
    veiled = formfields.veiled(args)
    assert veiled == {
        "table": "a",
        "n": 3,
        "password": "••••••",
        "more": {"list": [{"api_key": "••••••", "a": [1]}], "tokens": 3},
    }


def test_what_was_typed_is_what_was_meant() -> None:
    typed = {"size": "3", "data": '{"a":[1]}', "note": "7", "count": "12", "share": "1.5", "gift": "false"}
    args = {"size": 3, "data": {"a": [1]}, "note": "7", "count": 12, "share": 1.5, "gift": False}
    assert args_of(fields_of(ORDER), {**typed, "tags": '["x"]', "more": "{}"}) == {**args, "tags": ["x"], "more": {}}
    assert args_of(fields_of(ORDER), {"size": "null", "data": "null", "note": "", "tags": " "}) == {
        "size": None,
        "data": None,
    }


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("task:*", ["task:*"]),
        (" task:*\n\n agent:a b \n", ["task:*", "agent:a b"]),
        ('["one", "[two"]', ["one", "[two"]),
        ("  []", []),
        ("\n ", None),
    ],
)
def test_a_list_is_typed_line_by_line_or_as_json(typed: str, meant: Any) -> None:
    schema = {"properties": {"tags": ORDER["properties"]["tags"]}, "additionalProperties": False}
    assert args_of(fields_of(schema), {"tags": typed}).get("tags") == meant
    assert problems({"tags": "[one"}, schema) == {"tags": ["This is not JSON: Expecting value at line 1, column 2."]}


def test_what_is_missing_or_no_json_is_said_at_its_field() -> None:
    found = problems({"data": "word", "tags": "[1", "size": " "})
    assert found["size"] == [MISSING]
    assert found["data"][0].startswith("This is not JSON")
    assert found["data"][0].endswith('A text stands in quotes: "text".')
    assert found["tags"][0].startswith("This is not JSON")
    assert list(found) == ["size", "data", "tags"]


def test_what_does_not_fit_goes_to_the_command_which_says_so() -> None:
    assert args_of(fields_of(ORDER), {"size": "huge", "data": "1", "count": "many", "odd": "x"}) == {
        "size": "huge",
        "data": 1,
        "count": "many",
        "odd": "x",
    }


def test_what_a_schema_allows_beside_its_properties_has_a_field_of_its_own() -> None:
    open_schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert [field.name for field in fields_of(open_schema)] == ["a", REST]
    assert [field.name for field in fields_of({"type": "object"})] == [REST]
    assert args_of(fields_of(open_schema), {"a": "x", REST: '{"b":1}', "c": "y"}) == {"a": "x", "b": 1, "c": "y"}
    assert args_of(fields_of(open_schema), {REST: " "}) == {}
    assert problems({"a": "x", REST: '{"a":1}'}, open_schema) == {REST: ["a is given above, too."]}
    assert problems({REST: "[]"}, open_schema) == {REST: ["This is one JSON object: {…}."]}
    assert problems({REST: "{"}, open_schema)[REST][0].startswith("This is not JSON")


def test_choices_that_would_be_sent_as_the_same_text_are_typed_as_json() -> None:
    for values in ([1, "1"], ["", "a"], [None, ""]):
        (field, _) = fields_of({"properties": {"a": {"enum": values}}})
        assert (field.kind, field.choices) == ("json", ())


def test_of_a_large_schema_the_rest_is_typed_as_json() -> None:
    names = [f"f{number}" for number in range(5000)]
    schema = {"properties": {name: {"enum": names} for name in names}, "additionalProperties": False}
    form = fields_of(schema)
    assert len(form) == formfields.FIELDS + 1
    assert {field.kind for field in form} == {"json"}
    assert args_of(form, {"f0": '"f1"', REST: '{"f4999":"f2"}'}) == {"f0": "f1", "f4999": "f2"}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": [], "required": "a"},
        {"properties": {"a": True, "b": None}},
        {"properties": {"a": {"type": 3, "minimum": "x", "description": 4, "enum": 5, "default": [1]}}},
        {"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "object"}]}}},
    ],
)
def test_a_strange_schema_has_a_form_all_the_same(schema: Any) -> None:
    assert fields_of(schema)
    args_of(fields_of(schema), {"a": "1"})


def test_every_command_of_the_hub_has_a_form(tmp_path: Any) -> None:
    for command in Hub(state_dir=tmp_path).commands:
        args = command.describe()["args"]
        assert {field.name for field in fields_of(args)} >= set(args.get("properties", ()))


class Order(Schema):
    """Somebody orders."""

    count = fields.Integer(strict=True, required=True, validate=validate.Range(min=1))
    tags = fields.List(fields.String(validate=validate.Length(max=3)))


def test_a_refusal_is_told_at_the_field_that_it_is_about() -> None:
    form = fields_of(json_schema(Order()))
    typed = {"count": "0", "tags": '["a","long"]'}
    details = {"count": ["Too small."], "tags": {"1": ["Too long."]}}
    filled, sentence = told(form, typed, HubError("invalid_args", "It does not fit.", details))
    assert {field.name: (field.typed, field.error) for field in filled} == {
        "count": ("0", "Too small."),
        "tags": ('["a","long"]', "1: Too long."),
    }
    assert sentence == ""
    filled, sentence = told(form, typed, HubError("invalid_args", "Odd.", {"odd": ["Unknown."], "count": ["Small."]}))
    assert sentence == "odd: Unknown.", "what stands at its field is not said above"
    assert told(form, typed, HubError("invalid_args", "Odd.", {"odd": ["Unknown."]}))[1] == "Odd."
    assert told(form, typed, HubError("busy", "Wait."))[1] == "Wait."
    assert told(form, typed)[1] == ""


@pytest.mark.parametrize("description", ["a version, as v12.", ""])
def test_a_pattern_that_does_not_match_says_what_the_field_is_for(description: str) -> None:
    field = {"type": "string", "pattern": "^v[0-9]+$", "description": description}
    schema = ArgSchema({"type": "object", "properties": {"tag": field, "n": {**field, "type": "integer"}}})
    error = HubError("invalid_args", "It does not fit.", schema.problems({"tag": "x", "n": "v1"}))
    filled, _ = told(fields_of(schema.given), {"tag": "x"}, error)
    wanted = "It should be: a version, as v12. " if description else ""
    assert {field.name: field.error for field in filled} == {
        "tag": f"{wanted}It does not match '^v[0-9]+$'.",
        "n": "Not a valid integer.",
        REST: "",
    }


# ---- whatever a schema says: what is written into the fields is read out of them again

SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=5)
LINE = st.text(min_size=1).filter(lambda text: text == text.strip() and "\n" not in text)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
FITTING: st.SearchStrategy[tuple[dict[str, Any], Any]] = st.one_of(
    st.tuples(st.just({"type": "string"}), st.text(min_size=1).filter(str.strip)),
    st.tuples(st.just({"type": "integer"}), st.integers(-(10**19), 10**19)),
    st.tuples(st.just({"type": ["number", "null"]}), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just({"type": "boolean"}), st.booleans()),
    st.tuples(st.sampled_from([{}, {"type": ["array", "object"]}]), st.lists(JSON) | st.dictionaries(st.text(), JSON)),
    st.tuples(st.just({"type": "array", "items": {"type": "string"}}), st.lists(LINE, min_size=1)),
    st.tuples(
        st.just({"type": "array", "items": {"type": ["integer", "null"]}}),
        st.lists(st.integers(-9, 9) | st.none(), min_size=1),
    ),
    st.lists(SCALARS, min_size=1, unique_by=json.dumps).flatmap(
        lambda values: st.tuples(st.just({"enum": values}), st.sampled_from(values))
    ),
)


def written(field: Field, value: Any) -> str:
    """What somebody types who means this value."""
    for choice in field.choices:
        if choice.value == value and type(choice.value) is type(value):
            return choice.text
    if field.kind == "list" and not str(value[0]).startswith("["):
        return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in value)
    return value if field.kind == "text" and isinstance(value, str) else json.dumps(value)


@given(st.lists(FITTING, max_size=4), st.booleans())
def test_what_fits_comes_back_as_it_was_meant(pairs: list[tuple[dict[str, Any], Any]], required: bool) -> None:
    names = [f"f{number}" for number in range(len(pairs))]
    schema = {"type": "object", "properties": dict(zip(names, (one for one, _ in pairs), strict=True))}
    schema |= {"required": names} if required else {}
    form = {field.name: field for field in fields_of(schema)}
    meant = {name: value for name, (_, value) in zip(names, pairs, strict=True)}
    typed = {name: written(form[name], value) for name, value in meant.items()}
    readable = {name: text for name, text in typed.items() if text.strip()}
    if readable == typed:
        found = args_of([*form.values()], typed)
        assert json.dumps(found, sort_keys=True) == json.dumps(meant, sort_keys=True)
        assert ArgSchema(schema).problems(found) == {}


def test_weakened_a_number_would_arrive_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formfields, "converted", lambda text, schema: text)
    with pytest.raises(AssertionError):
        test_what_was_typed_is_what_was_meant()
