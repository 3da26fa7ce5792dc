"""The fields of what comes in, beyond marshmallow's own."""

from typing import Any

from marshmallow import ValidationError, fields, validate

from .ids import is_id
from .names import MAX_NAME, MAX_PATTERNS, Cursor, is_name, pattern_problem
from .timestamps import is_time
from .validation import ListField


class NameField(fields.String):
    """`domain:action`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=check_name, **kwargs)


class IdField(fields.String):
    """1 to 128 printable characters."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=check_id, **kwargs)


class CursorField(fields.String):
    """`<epoch>:<seq>`, loaded as a Cursor; a text that is none raises `unknown_cursor`, not a validation error."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return Cursor.parse(super()._deserialize(value, attr, data, **kwargs))


class NumberField(fields.Float):
    """A JSON number; marshmallow's own would also take "40"."""

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class FlagField(fields.Boolean):
    """true or false; marshmallow's own would also take "yes" and 1."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class PatternsField(ListField):
    """A list of patterns."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fields.String(validate=check_pattern), validate=validate.Length(max=MAX_PATTERNS), **kwargs)


def check_time(text: str) -> None:
    if not is_time(text):
        raise ValidationError("Not an RFC 3339 time with an offset.")


def check_name(text: str) -> None:
    if not is_name(text):
        raise ValidationError(f"Not a name: domain:action, letters, digits, _ . -, at most {MAX_NAME}.")


def check_id(text: str) -> None:
    if not is_id(text):
        raise ValidationError("Not an id: 1 to 128 printable characters.")


def check_pattern(text: str) -> None:
    problem = pattern_problem(text)
    if problem:
        raise ValidationError(problem)
