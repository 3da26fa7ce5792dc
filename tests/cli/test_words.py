"""What the words of `hub publish` and `hub call` mean: text, unless the schema of the field says what else."""

from typing import Any

import pytest

from hub.cli.words import fields, is_json
from hub.errors import UsageError
from hub.stream.eventtypes import KNOWN
from hub.wire.jsonschema import json_schema
from hub.wire.texts import converted, kinds
from hub.wire.vocabulary import EVENTS


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["a=1", "b=text", "c=true", "d=null", "e=[1]"], {"a": "1", "b": "text", "c": "true", "d": "null", "e": "[1]"}),
        (["a:=1", "b:=[1, {}]", 'c:="x"', "d:=null"], {"a": 1, "b": [1, {}], "c": "x", "d": None}),
        (
            ["a=", "b==", "c=x=y", "d:x=1", "e:y:=2", "f=a\nb"],
            {"a": "", "b": "=", "c": "x=y", "d:x": "1", "e:y": 2, "f": "a\nb"},
        ),
    ],
)
def test_a_value_is_text_unless_it_is_given_as_json(words: list[str], found: dict[str, Any]) -> None:
    assert fields(words, {}) == found


@pytest.mark.parametrize(
    "words",
    [
        ["word"],
        ["=1"],
        [":=1"],
        ["a:="],
        ["a:=x"],
        ["a=1", "a=2"],
        ["a:=1", "word"],
        ["a:=" + "[" * 100_000],
        ["a:=01"],
        ["a:=1e999"],
        ["a:=-1e999"],
        ["a:=NaN"],
        ['a:={"b":[Infinity]}'],
        ['a:={"b":1,"b":1}'],
    ],
)
def test_what_is_neither_is_said(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"\.$"):
        fields(words, {})


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        *[(text, True) for text in ("{}", '{"a":"b=c"}', '"a=b"', "5", "-1", "null", "[", '["a=b"]', "", " =", "word")],
        *[(text, False) for text in ("a=b", "a:=1", "5=x", "-a=1")],
    ],
)
def test_one_word_is_json_unless_it_is_a_field(word: str, is_one: bool) -> None:
    assert is_json([word]) is is_one
    assert not is_json([word, word])


NULLABLE = {"type": ["integer", "null"]}
TEXTS = {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"type": "string"}, "5"),
        ("5", {"type": ["string", "integer"]}, "5"),
        ("5", None, "5"),
        ("5", {}, "5"),
        ("5", True, "5"),
        ("5", {"type": "integer"}, 5),
        ("-5", {"type": "integer"}, -5),
        ("5.5", {"type": "integer"}, "5.5"),  # the hub says what is wrong with it
        ("x", {"type": "integer"}, "x"),
        ("٣", {"type": "integer"}, "٣"),
        ("5", {"type": "number"}, 5),
        ("5.5e1", {"type": "number"}, 55.0),
        ("nan", {"type": "number"}, "nan"),
        ("TRUE", {"type": "boolean"}, True),
        ("off", {"type": "boolean"}, False),
        ("1", {"type": "boolean"}, "1"),
        ("null", NULLABLE, None),
        ("7", NULLABLE, 7),
        ("null", {"type": ["string", "null"]}, "null"),
        ("task:*", TEXTS, ["task:*"]),
        ('["a", "b"]', TEXTS, ["a", "b"]),
        ("[a", TEXTS, ["[a"]),
        ('{"a": 1}', TEXTS, ['{"a": 1}']),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ('{"a": 1}', {"type": ["string", "object"]}, '{"a": 1}'),
        ("[" * 100_000, {"type": "object"}, "[" * 100_000),
        ("5", {"type": "array", "items": {"type": "integer"}}, [5]),
        ("5", {"type": "array"}, ["5"]),
        ("2", {"enum": [1, 2]}, 2),
        ("2", {"enum": ["1", "2"]}, "2"),
        ("2", {"const": 2}, 2),
        ("2", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 2),
        ("2", {"anyOf": [{"type": "integer"}, {}]}, "2"),
        ("x", {"type": "object"}, "x"),
    ],
)
def test_what_the_schema_wants_is_made_of_a_text(text: str, schema: Any, value: Any) -> None:
    found = converted(text, schema)
    assert (found, type(found)) == (value, type(value))


def test_a_list_takes_several_words() -> None:
    types = {"topics": TEXTS}
    assert fields(["topics=a:*", "topics=b:*", 'topics:=["c:*"]'], types) == {"topics": ["a:*", "b:*", "c:*"]}
    with pytest.raises(UsageError, match="twice"):
        fields(["topics=a:*", "topics:=5"], types)


def test_the_types_of_the_known_events_are_those_of_their_schemas() -> None:
    found = {}
    for name, (schema, _) in KNOWN.items():
        types = {key: kinds(each) - {"null"} for key, each in json_schema(schema())["properties"].items()}
        found[name] = {key: next(iter(wanted), "string") for key, wanted in types.items()}
    assert found == EVENTS
