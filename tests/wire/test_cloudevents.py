"""CloudEvents: what each becomes, and what is none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import HubError
from hub.wire.cloudevents import attributes, from_batch, from_binary, from_structured
from hub.wire.ids import is_id
from hub.wire.names import is_name

ONE = {"specversion": "1.0", "id": "1", "source": "/robot/7", "type": "robot:pose", "data": {"x": 1}}


def test_a_type_that_is_an_events_name() -> None:
    assert from_structured(ONE) == {"event": "robot:pose", "data": {"x": 1}, "id": "/robot/7#1"}
    assert from_structured({k: v for k, v in ONE.items() if k != "data"})["data"] is None
    assert from_structured(ONE | {"data": None, "more": [1]})["data"] is None


def test_any_other_type() -> None:
    told = ONE | {"type": "com.example/order created", "subject": "7", "time": "2026-11-25T10:42:00Z"}
    assert from_structured(told) == {
        "event": "cloudevent:com.example_order_created",
        "data": {
            "type": "com.example/order created",
            "source": "/robot/7",
            "subject": "7",
            "time": "2026-11-25T10:42:00Z",
            "data": {"x": 1},
        },
        "id": "/robot/7#1",
    }


@given(st.text(min_size=1, max_size=1024), st.text(min_size=1, max_size=1024), st.text(min_size=1, max_size=1024))
def test_names_and_ids_are_such(type: str, source: str, id: str) -> None:
    if type.startswith("hub:"):
        return
    record = from_structured(ONE | {"type": type, "source": source, "id": id})
    assert is_name(record["event"])
    assert is_id(record["id"])
    assert record == from_structured(ONE | {"type": type, "source": source, "id": id})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("specversion", None),
        ("specversion", "0.3"),
        ("specversion", 1.0),
        *((name, value) for name in ("id", "source", "type") for value in (None, "", 7, "x" * 1025)),
        ("subject", 7),
        ("time", ""),
        ("time", "yesterday"),
        ("time", "2026-12-01T10:00:00"),
        ("time", "2026-13-01T10:00:00Z"),
    ],
)
def test_what_is_none(field: str, value: object) -> None:
    with pytest.raises(HubError) as refused:
        from_structured(ONE | {field: value})
    assert (refused.value.code, refused.value.status) == ("invalid_message", 422)
    assert refused.value.details is not None
    assert [*refused.value.details] == [field]


@pytest.mark.parametrize("name", ["hub:stale", "hub:", "hub:a b"])
def test_the_hubs_own_domain_is_reserved(name: str) -> None:
    with pytest.raises(HubError) as refused:
        from_structured(ONE | {"type": name})
    assert (refused.value.code, refused.value.status) == ("reserved_event", 422)


def test_a_batch_is_taken_whole_or_not() -> None:
    assert [record["id"] for record in from_batch([ONE, ONE | {"id": "2"}])] == ["/robot/7#1", "/robot/7#2"]
    with pytest.raises(HubError) as refused:
        from_batch([ONE, ONE | {"id": ""}, 7, ONE | {"type": "hub:x"}])
    assert refused.value.details is not None
    assert [*refused.value.details] == ["1", "2", "3"]
    odd: Any
    for odd in ({}, "x", None):
        with pytest.raises(HubError):
            from_batch(odd)


def test_attributes_in_headers() -> None:
    headers = [("Ce-Specversion", "1.0"), ("ce-id", '"4%202"'), ("CE-Source", "/r"), ("ce-type", "a:b"), ("Host", "x")]
    told = attributes(headers)
    assert told == {"specversion": "1.0", "id": "4 2", "source": "/r", "type": "a:b"}
    assert from_binary(told, [1]) == {"event": "a:b", "data": [1], "id": "/r#4 2"}
    assert attributes([("Host", "x")]) == {}
    with pytest.raises(HubError):
        attributes([("ce-id", "1"), ("CE-ID", "2")])


def test_what_is_binary_says_so() -> None:
    one = {"specversion": "1.0", "id": "1", "source": "/s", "type": "x", "data_base64": "AAH/"}
    assert from_structured(one)["data"] == {"type": "x", "source": "/s", "data_base64": "AAH/"}
    assert from_structured(one | {"type": "a:b"})["data"] == {"data_base64": "AAH/"}
    for odd in ({"data_base64": "no!"}, {"data_base64": 3}, {"data": None}):
        with pytest.raises(HubError, match="does not fit") as caught:
            from_structured(one | odd)
        assert caught.value.details is not None
        assert "data_base64" in caught.value.details
