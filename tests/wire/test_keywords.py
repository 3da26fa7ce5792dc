"""What the values of keywords may be is what the draft's own metaschema says, and is found out in linear time."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from hub.wire.keywords import _RULES, is_schema, misuse

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([-1.5, 0.0, 1.0, 1.5, 1e300, "", "a", "string", "null", "_a-1.b", "1a", "urn:a", "urn:a#", "#a"])
)
VALUES: st.SearchStrategy[Any] = (
    SCALARS
    | st.lists(SCALARS | st.just({}), max_size=3)
    | st.dictionaries(st.sampled_from("ab"), SCALARS | st.just({}) | st.lists(SCALARS, max_size=2), max_size=2)
)
OF_SCHEMAS = {"allOf", "anyOf", "oneOf", "prefixItems", "$defs", "definitions", "dependentSchemas", "properties"}


@example("type", ["string", "null"])
@example("type", ["string", "string"])
@example("type", [["string"]])
@example("required", ["a", "a"])
@example("dependentRequired", {"a": ["b"]})
@example("minLength", 2.0)
@example("anyOf", [True, {}])
@example("properties", {"a": 5})
@given(st.sampled_from(sorted(_RULES)), VALUES)
def test_it_is_what_the_metaschema_says(keyword: str, value: Any) -> None:
    from jsonschema import Draft202012Validator

    found = misuse(keyword, value) is None
    if found and keyword in OF_SCHEMAS:
        found = all(map(is_schema, value.values() if isinstance(value, dict) else value))
    assert found is Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid({keyword: value})


def test_every_keyword_that_the_library_knows_has_its_rule() -> None:
    from jsonschema import Draft202012Validator

    elsewhere = {"$ref", "$dynamicRef", "const", "patternProperties"}  # in subschemas; and any value will do
    assert set(Draft202012Validator.VALIDATORS) - elsewhere <= set(_RULES)


def test_what_is_no_keyword_may_be_anything() -> None:
    assert misuse("x-own", 5) is None
