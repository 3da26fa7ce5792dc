"""Fields that take JSON's own types only."""

from typing import Any

import pytest
from marshmallow import Schema, ValidationError

from hub.wire.fieldtypes import FlagField


@pytest.mark.parametrize("value", ["yes", "true", 1, 0, None, [], {}])
def test_a_flag_is_true_or_false_and_nothing_that_looks_like_it(value: Any) -> None:
    schema = Schema.from_dict({"on": FlagField()})()
    assert [schema.load({"on": flag}) for flag in (True, False)] == [{"on": True}, {"on": False}]
    with pytest.raises(ValidationError):
        schema.load({"on": value})
