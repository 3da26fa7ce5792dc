"""What does not fit, within bounds: whatever comes in, so many problems are found and told, and then no more is looked
at. marshmallow alone looks at all of 75,000 wrong values, and tells of each: seconds, and an answer of many MiB.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from ..errors import Code, HubError, in_words

MAX_PROBLEMS = 100  # that `details` names
EXACT = 2**53  # up to which a number with a point is the one that was written
MAX_SHOWN = 128  # characters of a key that came in, and of what is said of it


class ListField(fields.List[Any]):
    """A list that is not looked at when it is too long, nor behind so many wrong elements."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        for validator in self.validators:
            if isinstance(validator, validate.Length):
                validator(value)
        result: list[Any] = []
        step = _step(self.inner)
        for start in range(0, len(value), step):
            try:
                result += super()._deserialize(value[start : start + step], attr, data, **kwargs)
            except ValidationError as error:
                raise ValidationError({start + index: said for index, said in _by_key(error)}) from None
        return result


class MappingField(fields.Dict):
    """A mapping that is not looked at behind so many wrong members."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict) or not (self.key_field or self.value_field):
            return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        result: dict[Any, Any] = {}
        members = iter(value.items())
        while part := dict(islice(members, _step(self.value_field))):
            result.update(super()._deserialize(part, attr, data, **kwargs))  # type: ignore[no-untyped-call]
        return result


class NestedField(fields.Nested):
    """An object in an object: its own schema is bounded, too."""

    @property
    def schema(self) -> Schema:
        fresh = self._schema is None  # made when it is first asked for: a schema may hold itself
        found = super().schema
        return bounded(found) if fresh else found

    def _load(self, value: Any, partial: Any = None) -> Any:
        check_unknown(self.schema, value, self.unknown)
        return super()._load(value, partial)


class WholeField(fields.Integer):
    """A whole number as JSON Schema has it: 3.0 is 3, for some languages write no other. As far as such a number is
    exact."""

    def _validated(self, value: Any) -> Any:
        if self.strict and type(value) is float and value.is_integer() and abs(value) < EXACT:
            value = int(value)
        return super()._validated(value)


_BOUNDED: Mapping[type, type] = {
    fields.List: ListField,
    fields.Dict: MappingField,
    fields.Nested: NestedField,
    fields.Integer: WholeField,
}


def bounded(schema: Schema) -> Schema:
    """The schema, whose lists, mappings and nested schemas stop at MAX_PROBLEMS, and whose whole numbers are those of
    JSON, at any depth."""
    for field in schema.load_fields.values():
        _bound(field)
    return schema


def _bound(field: Any) -> None:
    """Give it the class that does the same as it is done here; a class of the application's own is left as it is."""
    if isinstance(field, fields.List):
        _bound(field.inner)
    if isinstance(field, fields.Dict) and field.value_field is not None:
        _bound(field.value_field)
    field.__class__ = _BOUNDED.get(type(field), type(field))


def _step(inner: Any) -> int:
    """How many members are looked at before problems count: one that holds others has as many by itself."""
    return 1 if isinstance(inner, ListField | MappingField | NestedField) else MAX_PROBLEMS


def _by_key(error: ValidationError) -> Any:
    assert isinstance(error.messages, dict)
    return error.messages.items()


def load(schema: Schema, data: Any) -> Any:
    """As `schema.load`, for a bounded one. Raises ValidationError."""
    check_unknown(schema, data)
    return schema.load(data)


def check_unknown(schema: Schema, data: Any, unknown: str | None = None) -> None:
    """Raises ValidationError if so many fields are unknown that there is no need to look at the others."""
    few = isinstance(data, dict) and len(data) <= len(schema.load_fields) + MAX_PROBLEMS
    if few or not isinstance(data, dict) or (unknown or schema.unknown) != "raise":
        return
    known = {field.data_key or name for name, field in schema.load_fields.items()}
    found = islice((key for key in data if key not in known), MAX_PROBLEMS)
    raise ValidationError({key: [schema.error_messages["unknown"]] for key in found})


# ---- what is told of it ----------------------------------------------------------------------------------------


def invalid(code: Code, what: str, error: ValidationError) -> HubError:
    """A HubError with marshmallow's field paths in `details`, and in the sentence as `misfit`."""
    return misfit(code, what, error.normalized_messages())  # type: ignore[no-untyped-call]


def misfit(code: Code, what: str, details: Mapping[str, Any], status: int | None = None) -> HubError:
    """A HubError with field paths in `details`, MAX_PROBLEMS at most, and the first ones in the sentence as well."""
    details = told(details)
    return HubError(code, f"{what}: {in_words(details)}", details, status=status)


def told(details: Mapping[str, Any]) -> dict[str, Any]:
    """As much of these details as is told: MAX_PROBLEMS, and a bounded length of each key and sentence."""
    left = MAX_PROBLEMS

    def few(part: Any) -> Any:
        nonlocal left
        if isinstance(part, Mapping):
            return {str(key)[:MAX_SHOWN]: few(value) for key, value in part.items() if left > 0}
        if isinstance(part, list | tuple):
            return [few(each) for each in part if left > 0]
        left -= 1
        return str(part)[: 2 * MAX_SHOWN]

    found: dict[str, Any] = few(details)
    return found


def problems_in(details: Any) -> int:
    """How many problems these details name."""
    if isinstance(details, Mapping):
        return sum(map(problems_in, details.values()))
    return len(details) if isinstance(details, list) else 1
