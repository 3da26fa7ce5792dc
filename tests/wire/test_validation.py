"""What does not fit: no more of it is looked at, and told, than so much; and what fits is what marshmallow takes."""

import json
from typing import Any
from unittest import mock

import pytest
from burdens import ENVELOPES, EVENTS, TYPES, event_of, of_fields
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, validate

from hub.errors import HubError, in_words
from hub.stream.brokers.memory import MemoryBroker
from hub.stream.bus import EventBus
from hub.stream.eventtypes import EventTypes
from hub.wire import validation
from hub.wire.messages import BadFrame, load_command
from hub.wire.validation import bounded, check_unknown, invalid, load, problems_in, told

SIZE = 16 * 1024
MOST = 100  # PROTOCOL 1


class Counted:
    """A validator that refuses everything, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, value: Any) -> None:
        self.asked += 1
        raise ValidationError("No.")


def schemas(check: Any) -> dict[str, tuple[type[Schema], Any]]:
    """Every kind of field that holds others, with 5,000 of them."""
    word = fields.String(validate=check)
    inner = Schema.from_dict({"word": word})
    many = {str(n): "x" for n in range(5000)}
    return {
        "a list": (Schema.from_dict({"a": fields.List(word)}), {"a": ["x"] * 5000}),
        "a mapping": (Schema.from_dict({"a": fields.Dict(values=word)}), {"a": many}),
        "the keys of one": (Schema.from_dict({"a": fields.Dict(keys=word)}), {"a": many}),
        "lists in a list": (Schema.from_dict({"a": fields.List(fields.List(word))}), {"a": [["x"] * 50] * 100}),
        "mappings in a list": (Schema.from_dict({"a": fields.List(fields.Dict(values=word))}), {"a": [many]}),
        "objects in a list": (
            Schema.from_dict({"a": fields.List(fields.Nested(inner))}),
            {"a": [{"word": "x"}] * 5000},
        ),
        "a list in an object": (
            Schema.from_dict({"a": fields.Nested(Schema.from_dict({"b": fields.List(word)}))}),
            {"a": {"b": ["x"] * 5000}},
        ),
    }


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("kind", schemas(None))
async def test_behind_so_many_problems_nothing_is_looked_at(
    kind: str, weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr(validation, "MAX_PROBLEMS", 10**9)
        monkeypatch.setattr(validation, "_step", lambda inner: 10**9)
    check = Counted()
    schema, data = schemas(check)[kind]
    with pytest.raises(ValidationError) as refused:
        load(bounded(schema()), data)
    assert (check.asked <= MOST) is not weakened
    details = invalid("invalid_args", "No", refused.value).details
    assert (0 < problems_in(details) <= MOST) is not weakened


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"event": ["Missing."], "data": ["Missing."]}, "event, data: Missing."),
        ({"data": {"id": ["A.", "B."], "_schema": ["C."]}}, "data.id: A; data.id: B; data: C."),
        ({"_schema": ["No object."]}, "No object."),
        ({"_schema": ["A."], "x": ["A."]}, "x: A."),
        ({"a": "Did you mean b?"}, "a: Did you mean b?"),
        (
            {"a": {str(n): [f"No {n}."] for n in range(100)}},
            f"{'; '.join(f'a.{n}: No {n}' for n in range(10))}; and 90 more.",
        ),
        ({str(n): ["x" * 600] for n in range(100)}, f"0, 1: {'x' * 600}; and 98 more."),
        ({}, ""),
        (None, ""),
    ],
)
def test_details_are_one_sentence_for_a_person(details: Any, said: str) -> None:
    """Of all problems, as far as it does not get too long, each once."""
    assert in_words(details) == said


@pytest.mark.parametrize("weakened", [False, True])
def test_a_list_that_is_too_long_is_not_looked_at(weakened: bool) -> None:
    check = Counted()
    schema = Schema.from_dict(
        {"a": fields.List(fields.String(validate=check), validate=[validate.NoneOf([]), validate.Length(max=9)])}
    )()
    with pytest.raises(ValidationError):
        load(schema if weakened else bounded(schema), {"a": ["x"] * 10})
    assert check.asked == (10 if weakened else 0)


@pytest.mark.parametrize("nested", [False, True])
def test_unknown_fields(nested: bool) -> None:
    inner = Schema.from_dict({"a": fields.Integer(strict=True)})
    schema = bounded(Schema.from_dict({"in": fields.Nested(inner)})() if nested else inner())
    for count, told_of in ((1, 1), (101, 101), (102, MOST), (5000, MOST)):
        data: dict[str, Any] = {f"x{n}": n for n in range(count)}
        with pytest.raises(ValidationError) as refused:
            load(schema, {"in": data} if nested else data)
        assert problems_in(refused.value.messages) == told_of
        assert problems_in(invalid("invalid_args", "No", refused.value).details) == min(told_of, MOST)


def test_who_keeps_unknown_fields_keeps_all_of_them() -> None:
    schema = bounded(Schema.from_dict({"a": fields.Integer(strict=True)})(unknown="include"))
    data = {f"x{n}": n for n in range(1000)}
    assert load(schema, data) == data
    check_unknown(schema, data)
    check_unknown(schema, [data])


@pytest.mark.parametrize("weakened", [False, True])
@pytest.mark.parametrize("number", [3.0, -0.0, 9007199254740991.0])
def test_a_whole_number_is_one_however_it_is_written(number: float, weakened: bool) -> None:
    """JSON Schema, and so both documents, cannot say that it is none."""
    schema = Schema.from_dict({"n": fields.Integer(strict=True), "all": fields.List(fields.Integer(strict=True))})()
    data = {"n": number, "all": [number]}
    if weakened:
        assert schema.validate(data).keys() == {"n", "all"}
    else:
        found = load(bounded(schema), data)
        assert found == data
        assert [type(each) for each in (found["n"], *found["all"])] == [int, int]


@pytest.mark.parametrize("number", [3.5, 9007199254740992.0, 1e300, True, "3"])
def test_what_is_no_whole_number_or_not_exact_is_none(number: Any) -> None:
    assert bounded(Schema.from_dict({"n": fields.Integer(strict=True)})()).validate({"n": number}).keys() == {"n"}


class Tree(Schema):
    name = fields.String(required=True, validate=validate.Length(max=3))
    tags = fields.List(fields.String(validate=validate.Length(max=2)))
    marks = fields.Dict(keys=fields.String(), values=fields.Integer(strict=True))
    whatever = fields.Dict()
    pairs = fields.Tuple((fields.Integer(), fields.Integer()))
    below = fields.List(fields.Nested(lambda: Tree()))


leaves = st.text(max_size=3) | st.integers() | st.none()
parts = st.fixed_dictionaries(
    {"name": leaves},
    optional={
        "tags": st.lists(leaves, max_size=5) | st.lists(leaves, min_size=101, max_size=103) | leaves,
        "marks": st.dictionaries(st.text(max_size=2), leaves) | leaves,
        "whatever": st.dictionaries(st.text(max_size=2), leaves) | leaves,
        "pairs": st.tuples(leaves, leaves) | leaves,
        "more": leaves,
    },
)


@settings(max_examples=50)
@given(parts, st.lists(parts, max_size=2) | leaves)
def test_the_verdict_and_the_first_problems_are_those_of_marshmallow(data: dict[str, Any], below: Any) -> None:
    """Also of a schema that holds itself."""
    data = {**data, "below": below}
    whole = Tree().validate(data)
    if not whole:
        assert load(bounded(Tree()), data) == Tree().load(data)
        return
    with pytest.raises(ValidationError) as refused:
        load(bounded(Tree()), data)
    assert is_part(refused.value.messages, whole)


def is_part(some: Any, whole: Any) -> bool:
    if not isinstance(some, dict):
        return bool(some == whole)
    return bool(some) and some.keys() <= whole.keys() and all(is_part(some[key], whole[key]) for key in some)


def test_what_is_told_is_short_whatever_came() -> None:
    long = "x" * 10_000
    found = told({long: {"a": [long, ("b", 7)], 3: []}, "last": {str(n): ["No."] for n in range(200)}})
    assert found["x" * 128] == {"a": ["x" * 256, ["b", "7"]], "3": []}
    assert problems_in(found["last"]) == MOST - 3


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
async def test_an_answer_to_bad_data_is_small(weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wrong thing in every field of every event type, and every array."""
    if weakened:
        monkeypatch.setattr(validation, "MAX_PROBLEMS", 10**9)
        monkeypatch.setattr("hub.stream.bus.MAX_PROBLEMS", 10**9)
    bus = EventBus(MemoryBroker(1, 1), EventTypes())
    known = {type.name: list(type.schema.fields) for type in bus.types}
    assert set(known) == set(TYPES)
    largest = refusals = 0
    for name, body in (*EVENTS.items(), *of_fields(known, event_of)):
        if name == "a thousand with wrong votes" and weakened:
            continue  # seconds
        if error := await refusal(bus, json.loads(body(SIZE))):
            refusals += 1
            largest = max(largest, len(json.dumps(error.payload())))
            assert weakened or problems_in(error.details) <= MOST, name
    assert refusals > len(EVENTS) // 2 + len(known)
    assert (largest < SIZE) is not weakened


async def refusal(bus: EventBus, value: Any) -> HubError | None:
    try:
        await bus._drafts(value if isinstance(value, list) else [value], isinstance(value, list))
    except HubError as error:
        return error
    return None


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_answer_to_a_bad_frame_is_small(name: str) -> None:
    with pytest.raises(BadFrame) as refused:
        load_command(ENVELOPES[name](SIZE))
    assert problems_in(refused.value.details or {}) <= MOST
    assert len(json.dumps(refused.value.payload())) < SIZE


@pytest.mark.once
@pytest.mark.parametrize("weakened", [False, True])
async def test_behind_so_many_problems_no_event_of_a_batch_is_checked(
    weakened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if weakened:
        monkeypatch.setattr("hub.stream.bus.MAX_PROBLEMS", 10**9)
    bus = EventBus(MemoryBroker(1, 1), EventTypes())
    check = mock.Mock(wraps=bus._draft)
    monkeypatch.setattr(bus, "_draft", check)
    wrong = {"event": "governance:vote_cast", "data": {"vote_id": "x", "votes": {str(n): 0 for n in range(60)}}}
    with pytest.raises(HubError) as refused:
        await bus._drafts([{"event": "a:b", "data": 0}, *[wrong] * 999], True)
    assert check.call_count == (1000 if weakened else 3)
    assert weakened or refused.value.message.startswith("2 of the first 3 events do not fit")
