"""What the quick look says of data, and what marshmallow says of them."""

from typing import Any

import pytest
from marshmallow import Schema, fields, post_load, validate

from hub.wire.fieldtypes import IdField, NameField
from hub.wire.quick import quick
from hub.wire.validation import bounded


class Doubled(Schema):
    n = fields.Integer(strict=True)

    @post_load
    def double(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"n": data["n"] * 2}


@pytest.mark.parametrize("value", ["", "a", "ab", "b", 1, None, True, ["a"], b"a"])
def test_a_text_is_taken_as_marshmallow_takes_it(value: Any) -> None:
    kinds: list[fields.String] = [
        fields.String(),
        fields.String(allow_none=True),
        fields.String(validate=[validate.Length(max=1), validate.OneOf(["a", "ab"])]),
    ]
    hooked = fields.String()
    hooked.post_load = [str.upper]
    for field in (*kinds, hooked):
        fits = quick(Schema.from_dict({"t": field})())
        assert fits
        assert fits({"t": value}) is not bool(Schema.from_dict({"t": field})().validate({"t": value}))


@pytest.mark.parametrize("value", ["a:b", "a", "", "x" * 129, "a:b\n", 1, None, True, [], {"a": 1}, ["a:b"]])
@pytest.mark.parametrize("kind", [NameField, IdField, fields.Raw])
@pytest.mark.parametrize("allow_none", [False, True])
def test_a_name_an_id_and_whatever_it_is_are_taken_as_marshmallow_takes_them(
    value: Any, kind: type[fields.Field[Any]], allow_none: bool
) -> None:
    schema = Schema.from_dict({"t": kind(required=True, allow_none=allow_none)})()
    fits = quick(schema)
    assert fits
    assert fits({"t": value}) is not bool(schema.validate({"t": value}))
    checked = Schema.from_dict({"t": fields.Raw(allow_none=True, validate=validate.OneOf([1]))})()
    fits = quick(checked)
    assert fits
    assert fits({"t": value}) is not bool(checked.validate({"t": value}))


def test_there_is_no_quick_check_for_a_schema_with_hooks() -> None:
    """It would take the data as they are, and the hook would not run."""
    assert quick(Doubled()) is None
    fits = quick(Schema.from_dict({"n": fields.Integer(strict=True, required=True)})())
    assert fits
    given: list[Any] = [{"n": 1}, {"n": "x"}, {}, [], {"n": 1, "m": 1}]
    assert [fits(data) for data in given] == [True, *[False] * 4]
    fits = quick(bounded(Schema.from_dict({"n": fields.Integer(strict=True, allow_none=True)})()))
    assert fits
    assert [fits({"n": n}) for n in (1, None, 1.0)] == [True, True, False]  # 1.0 is converted
